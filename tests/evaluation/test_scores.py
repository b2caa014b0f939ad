"""Standard errors of scores against plain numpy and against resampling, and the sentences about them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers.tablerun import make_run
from twolayer.evaluation.baselines import Baseline
from twolayer.evaluation.moments import Moments
from twolayer.evaluation.predictor import Predictor, load_model, predict
from twolayer.evaluation.remarks import few_rows, noise
from twolayer.evaluation.scores import Figure, Row, Scores

Numbers = np.ndarray[Any, np.dtype[np.float64]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Predictor]:
    folder = tmp_path_factory.mktemp("scores")
    make_run(folder / "numbers", target=["price", "weight"], dtype="float64")
    make_run(folder / "classes", target="colour", dtype="float64")
    return {name: load_model(folder / name) for name in ("numbers", "classes")}


def drawn(model: Predictor, rows: int, seed: int = 0) -> tuple[Numbers, Numbers]:
    """Rows with targets that follow the inputs in part."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(rows, model.w1.shape[1]))
    if model.columns.classes is not None:
        number = (x[:, 0] + draw.normal(size=rows) > 0).astype(int) + (x[:, 1] > 1)
        return x, np.eye(len(model.columns.classes))[number]
    y = x[:, :2] * [3, 8] + draw.standard_t(5, size=(rows, 2)) * 4
    return x, y * [target.deviation for target in model.columns.targets] + 100


def predictions(model: Predictor, x: Numbers) -> list[Numbers]:
    """The three models' outputs in the targets' units, or log probabilities."""
    linear = x @ model.baseline.weight.numpy().T + model.baseline.bias.numpy()
    constant = np.tile(model.baseline.constant.numpy(), (len(x), 1))
    if model.columns.classes is not None:
        log = linear - np.log(np.exp(linear).sum(1, keepdims=True))
        return [np.log(predict(model, x).numpy()), log, np.log(constant)]
    scale, mean = model.target_deviation.numpy(), model.target_mean.numpy()
    return [predict(model, x).numpy(), linear * scale + mean, constant * scale + mean]


def figures(model: Predictor, x: Numbers, y: Numbers, parts: int = 1) -> dict[tuple[str | None, str, str], Figure]:
    scores = Scores(model)
    for part in np.array_split(np.arange(len(x)), parts):
        scores.add(x[part], y[part])
    return {(row.target, row.model, name): figure for row in scores.table() for name, figure in row.figures.items()}


@pytest.mark.parametrize("parts", [1, 7])
def test_errors_of_means_are_those_of_numpy(parts: int, models: dict[str, Predictor]) -> None:
    model = models["numbers"]
    x, y = drawn(model, 300)
    found = figures(model, x, y, parts)
    outputs, root = predictions(model, x), 300**0.5
    for k, target in enumerate(("price", "weight")):
        errors = [output[:, k] - y[:, k] for output in outputs]
        scale = model.target_deviation.numpy()[k]
        for m, name in enumerate(("network", "linear", "constant")):
            mse = found[target, name, "loss"]
            assert mse.value == pytest.approx((errors[m] ** 2).mean() / scale**2, rel=1e-9)
            assert mse.error == pytest.approx((errors[m] ** 2).std(ddof=1) / root / scale**2, rel=1e-9)
            mae = found[target, name, "MAE"]
            assert mae.error == pytest.approx(abs(errors[m]).std(ddof=1) / root, rel=1e-9)
            rmse = found[target, name, "RMSE"]
            assert rmse.value is not None
            assert rmse.error == pytest.approx((errors[m] ** 2).std(ddof=1) / root / (2 * rmse.value), rel=1e-9)
        for m, name in ((1, "network - linear"), (2, "network - constant")):
            paired = abs(errors[0]) - abs(errors[m])
            assert found[target, name, "MAE"].value == pytest.approx(paired.mean(), rel=1e-9)
            assert found[target, name, "MAE"].error == pytest.approx(paired.std(ddof=1) / root, rel=1e-9)
            paired = (errors[0] ** 2 - errors[m] ** 2) / scale**2
            assert found[target, name, "loss"].error == pytest.approx(paired.std(ddof=1) / root, rel=1e-9)
    over_all = np.mean([((o - y) / model.target_deviation.numpy()) ** 2 for o in outputs[:1]], axis=(0, 2))
    assert found[None, "network", "loss"].value == pytest.approx(over_all.mean(), rel=1e-9)
    assert found[None, "network", "loss"].error == pytest.approx(over_all.std(ddof=1) / root, rel=1e-9)


@pytest.mark.parametrize("parts", [1, 9])
def test_errors_of_classes_are_those_of_numpy(parts: int, models: dict[str, Predictor]) -> None:
    model = models["classes"]
    x, y = drawn(model, 200)
    found, true = figures(model, x, y, parts), y.argmax(1)
    logs = predictions(model, x)
    losses = [-log[np.arange(200), true] for log in logs]
    correct = [(log.argmax(1) == true).astype(float) for log in logs]
    for m, name in enumerate(("network", "linear", "constant")):
        p = correct[m].mean()
        assert found[None, name, "accuracy"].value == pytest.approx(p)
        assert found[None, name, "accuracy"].error == pytest.approx((p * (1 - p) / 200) ** 0.5)
        assert found[None, name, "log loss"].value == pytest.approx(losses[m].mean())
        assert found[None, name, "log loss"].error == pytest.approx(losses[m].std(ddof=1) / 200**0.5)
    for m, name in ((1, "network - linear"), (2, "network - constant")):
        paired = correct[0] - correct[m]
        assert found[None, name, "accuracy"].value == pytest.approx(paired.mean())
        assert found[None, name, "accuracy"].error == pytest.approx(paired.std() / 200**0.5)
        paired = losses[0] - losses[m]
        assert found[None, name, "log loss"].error == pytest.approx(paired.std(ddof=1) / 200**0.5)


def r2(y: Numbers, output: Numbers) -> float:
    return float(1 - ((y - output) ** 2).sum() / ((y - y.mean()) ** 2).sum())


def test_the_error_of_r2_and_of_a_difference_of_two_is_that_of_resampled_rows(models: dict[str, Predictor]) -> None:
    model = models["numbers"]
    x, y = drawn(model, 2000, seed=3)
    found = figures(model, x, y, 3)
    outputs = [output[:, 0] for output in predictions(model, x)]
    draw = np.random.default_rng(1)
    samples = []
    for _ in range(3000):
        rows = draw.integers(0, 2000, 2000)
        samples.append([r2(y[rows, 0], output[rows]) for output in outputs])
    resampled = np.array(samples)
    for m, name in enumerate(("network", "linear")):
        figure = found["price", name, "R2"]
        assert figure.value == pytest.approx(r2(y[:, 0], outputs[m]), rel=1e-9)
        assert figure.error == pytest.approx(resampled[:, m].std(), rel=0.06)
    for m, name in ((1, "network - linear"), (2, "network - constant")):
        figure = found["price", name, "R2"]
        assert figure.error == pytest.approx((resampled[:, 0] - resampled[:, m]).std(), rel=0.06)


def test_the_error_of_r2_is_that_of_the_jackknife(models: dict[str, Predictor]) -> None:
    model = models["numbers"]
    x, y = drawn(model, 400, seed=5)
    output = predictions(model, x)[1][:, 1]
    left_out = [r2(np.delete(y[:, 1], i), np.delete(output, i)) for i in range(400)]
    jackknife = (399 / 400 * np.square(np.array(left_out) - np.mean(left_out)).sum()) ** 0.5
    assert figures(model, x, y)["weight", "linear", "R2"].error == pytest.approx(jackknife, rel=0.02)


def test_targets_far_from_zero_and_sorted_lose_no_digits(models: dict[str, Predictor]) -> None:
    model = models["numbers"]
    x, y = drawn(model, 5000)
    order = np.argsort(y[:, 0])
    x, y = x[order], y[order]
    scale, mean = model.target_deviation.numpy(), model.target_mean.numpy()
    far = replace(model, target_mean=torch.from_numpy(mean + 1e8 * scale))
    expected, found = figures(model, x, y), figures(far, x, y + 1e8 * scale, 1000)
    for key, figure in expected.items():
        assert found[key].value == pytest.approx(figure.value, rel=1e-6, abs=1e-9)
        assert found[key].error == pytest.approx(figure.error, rel=1e-6, abs=1e-9)


def test_moments_of_chunks_are_numpys() -> None:
    draw = np.random.default_rng(0)
    values = draw.normal(size=(500, 2, 3)) * [1, 1e-3, 1e3] + [1e6, 5, -1e5]
    moments = Moments(2, 3)
    for part in np.split(values, [1, 2, 100, 377]):
        moments.add(part)
    for t in range(2):
        np.testing.assert_allclose(moments.products[t] / 499, np.cov(values[:, t].T), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(moments.mean, values.mean(0), rtol=1e-14)
    weights = np.array([[1.0, 2, -0.5], [0, 1, 0]])
    expected = [(values[:, t] @ weights[t]).std(ddof=1) / 500**0.5 for t in range(2)]
    np.testing.assert_allclose(moments.error(weights), expected, rtol=1e-9)


def test_one_row_has_no_standard_error_and_equal_models_have_a_difference_of_zero(
    models: dict[str, Predictor],
) -> None:
    model = models["classes"]
    x, y = drawn(model, 50)
    assert {figure.error for figure in figures(model, x[:1], y[:1]).values()} == {None}
    share = model.baseline.constant.log()
    same = Baseline(torch.zeros_like(model.baseline.weight), share, model.baseline.constant)
    flat = replace(model, baseline=same, w2=torch.zeros_like(model.w2), b2=share.to(model.b2.dtype))
    difference = figures(flat, x, y)[None, "network - linear", "accuracy"]
    assert (difference.value, difference.error) == (0, 0)


def test_models_that_overflow_have_scores_that_are_not_finite_and_no_warning(models: dict[str, Predictor]) -> None:
    model = replace(models["numbers"], b2=torch.full((2,), 1e200, dtype=torch.float64))
    x, y = drawn(model, 30)
    found = figures(model, x, y, 4)
    assert found["price", "network", "loss"].value == np.inf
    assert found["price", "linear", "loss"].error is not None
    assert np.isfinite(found["price", "linear", "loss"].error)


# --- sentences


def row(model: str, **figures: tuple[float, float]) -> Row:
    return Row(None, model, {name: Figure(*figure) for name, figure in figures.items()})


def test_a_difference_within_two_standard_errors_is_called_noise() -> None:
    table = [
        row("network", accuracy=(0.774, 0.075)),
        row("network - linear", accuracy=(0.032, 0.04)),
        row("network - constant", accuracy=(0.3, 0.09)),
    ]
    assert list(noise(table)) == [
        "accuracy, network - linear: +0.032 is noise, less than two standard errors (of 0.04); "
        "the rows do not show which of the two is better"
    ]
    equal = [row("network - linear", accuracy=(0.0, 0.0))]
    assert list(noise(equal)) == [
        "accuracy, network - linear: no difference; the rows do not show which of the two is better"
    ]


@pytest.mark.parametrize(
    ("rows", "accuracy", "sentence"),
    [
        (31, 0.774, "31 rows are few: one row is 0.032 of the accuracy"),
        # 0.607 ** 6 = 0.05
        (6, 1.0, "6 rows are few: the class is right in all, but the accuracy on others may be 0.61 (95 %)"),
    ],
)
def test_few_rows_are_said_to_be_few(rows: int, accuracy: float, sentence: str) -> None:
    assert list(few_rows(rows, [row("network", accuracy=(accuracy, 0.1))])) == [sentence]
    assert list(few_rows(50, [row("network", accuracy=(accuracy, 0.1))])) == []
    assert list(few_rows(rows, [row("network", R2=(0.5, 0.1))])) == [
        f"{rows} rows are few: on others the scores may differ much"
    ]
