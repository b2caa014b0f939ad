"""The loss and the accuracy of a network; the oracle is numpy in float64."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.oracles import with_classes
from twolayer.config.loading import load_config
from twolayer.training import metrics
from twolayer.training.setup import prepare


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
@pytest.mark.parametrize("part", [1, 100 * 1000, metrics.PART])
def test_scores_are_those_of_all_rows_however_many_are_computed_at_once(
    part: int, loss: str, reduction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "PART", part)
    config, data, model = prepare(load_config("default", N=1500, D_in=3, reduction=reduction, dtype="float64"))
    if loss == "cross_entropy":
        config, data = config.model_copy(update={"loss": loss}), with_classes(data)
    w1, b1, w2, b2 = (parameter.detach().numpy() for parameter in model.parameters())
    x, y = data.x.numpy(), data.y.numpy()
    output = np.maximum(x @ w1.T + b1, 0) @ w2.T + b2
    if loss == "cross_entropy":
        each = np.log(np.exp(output).sum(1)) - output[y == 1]
        expected = [float(each.sum() if reduction == "sum" else each.mean())]
        expected.append(float((output.argmax(1) == y.argmax(1)).mean()))
    else:
        squares = (output - y) ** 2
        expected = [float(squares.sum() if reduction == "sum" else squares.mean())]
    assert metrics.scores(model, data, config) == pytest.approx(expected, rel=1e-12)
