from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers.handmade import change_info
from tests.helpers.tablerun import Numbers, make_run, numbers_of
from twolayer.errors import RunError
from twolayer.evaluation.baselines import Baseline, linear_baseline
from twolayer.evaluation.predictor import forward, load_model, predict
from twolayer.evaluation.scores import MODELS, Scores
from twolayer.tables.features import Encoding


def as_rows(scores: Scores) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    several = scores.model.columns.classes is None
    return {
        (row.target, row.model) if several else (row.model,): tuple(figure.value for figure in row.figures.values())
        for row in scores.table()
        if row.model in MODELS
    }


def figures(y: Numbers, predicted: Numbers, deviation: float) -> tuple[float, ...]:
    """Loss, R2, RMSE and MAE as scikit-learn's documentation defines the latter three."""
    errors = y - predicted
    r2 = 1 - (errors**2).sum() / ((y - y.mean()) ** 2).sum()
    return float((errors**2).mean() / deviation**2), float(r2), float((errors**2).mean() ** 0.5), abs(errors).mean()


def test_targets_are_scored_as_the_formulas_say(tmp_path: Path) -> None:
    make_run(tmp_path / "run", target=["price", "weight"], dtype="float64")
    model = load_model(tmp_path / "run")
    x, y = numbers_of(tmp_path / "run.csv", model)
    whole, cut = Scores(model), Scores(model)
    whole.add(x, y)
    for part in np.array_split(np.arange(len(x)), [1, 1, 8, 30]):
        cut.add(x[part], y[part])
    found = as_rows(whole)
    assert found.keys() == as_rows(cut).keys()
    for key, row in as_rows(cut).items():
        assert row == pytest.approx(found[key], rel=1e-12, abs=1e-12)
        assert len(row) == (1 if key[0] is None else 4)
    scale = np.array([target.deviation for target in model.columns.targets])
    mean = np.array([target.mean for target in model.columns.targets])
    linear = (x @ model.baseline.weight.numpy().T + model.baseline.bias.numpy()) * scale + mean
    outputs = {"network": predict(model, x).numpy(), "linear": linear, "constant": np.tile(mean, (len(y), 1))}
    for name, output in outputs.items():
        for k, target in enumerate(("price", "weight")):
            assert found[target, name] == pytest.approx(figures(y[:, k], output[:, k], scale[k]), rel=1e-6, abs=1e-9)
        assert found[None, name][0] == pytest.approx(np.mean([found[t, name][0] for t in ("price", "weight")]))
    best = np.linalg.lstsq(np.c_[x, np.ones(len(x))], (y - mean) / scale, rcond=None)[0]
    np.testing.assert_allclose(linear, (np.c_[x, np.ones(len(x))] @ best) * scale + mean, rtol=1e-6)
    assert found["price", "constant"][1] == pytest.approx(0, abs=1e-6)


def test_classes_are_scored_as_the_formulas_say(tmp_path: Path) -> None:
    make_run(tmp_path / "run", target="colour")
    model = load_model(tmp_path / "run")
    x, y = numbers_of(tmp_path / "run.csv", model)
    whole, cut = Scores(model), Scores(model)
    whole.add(x, y)
    for part in np.array_split(np.arange(len(x)), 7):
        cut.add(x[part], y[part])
    assert (whole.confusion == cut.confusion).all()
    true = y.argmax(1)
    linear = x @ model.baseline.weight.numpy().T + model.baseline.bias.numpy()
    shares = {
        "network": predict(model, x).numpy(),
        "linear": np.exp(linear) / np.exp(linear).sum(1, keepdims=True),
        "constant": np.tile(y.mean(0), (len(y), 1)),
    }
    for name, share in shares.items():
        log_loss = -np.log(share[np.arange(len(y)), true]).mean()
        expected = ((share.argmax(1) == true).mean(), log_loss)
        assert as_rows(whole)[(name,)] == pytest.approx(expected)
        assert as_rows(cut)[(name,)] == pytest.approx(expected)
    expected_table = np.zeros((3, 3), dtype=int)
    for a, b in zip(true, shares["network"].argmax(1), strict=True):
        expected_table[a, b] += 1
    assert (whole.confusion == expected_table).all()


def test_a_constant_target_and_a_single_row_have_no_r2(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    model = load_model(tmp_path / "run")
    x, y = numbers_of(tmp_path / "run.csv", model)
    constant, single = Scores(model), Scores(model)
    for part in (slice(0, 7), slice(7, 30)):  # 0.1 is no sum of powers of two: means of it are not 0.1
        constant.add(x[part], np.full_like(y[part], 0.1))
    single.add(x[:1], y[:1])
    for scores in (constant, single):
        for loss, r2, rmse, mae in as_rows(scores).values():
            assert r2 is None
            assert np.isfinite([loss, rmse, mae]).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_chunk_predicts_what_the_whole_predicts(dtype: str, tmp_path: Path) -> None:
    make_run(tmp_path / "run", dtype=dtype)
    model = load_model(tmp_path / "run")
    assert {model.w1.dtype, model.b2.dtype} == {getattr(torch, dtype)}
    x, _ = numbers_of(tmp_path / "run.csv", model)
    w1, b1, w2, b2 = (tensor.double().numpy() for tensor in (model.w1, model.b1, model.w2, model.b2))
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(
        forward(model, x).numpy(), np.maximum(0, x @ w1.T + b1) @ w2.T + b2, rtol=tolerance, atol=tolerance
    )
    parts = [predict(model, part).numpy() for part in np.array_split(x, 9)]
    np.testing.assert_allclose(np.concatenate(parts), predict(model, x).numpy(), rtol=1e-6)


def test_a_model_that_does_not_fit_its_columns_is_refused(tmp_path: Path) -> None:
    from twolayer.runs import checkpoint

    make_run(tmp_path / "run")
    path = tmp_path / "run" / "model.safetensors"
    tensors, metadata = checkpoint.unpack(path.read_bytes())
    for change, message in (
        ({"linear.bias": torch.zeros(2)}, "is damaged: the shapes of its tensors do not fit its columns"),
        ({"constant": None}, "has no tensor constant"),
    ):
        changed = {name: tensor for name, tensor in (tensors | change).items() if tensor is not None}
        path.write_bytes(b"".join(checkpoint.pack(changed, {"columns": metadata["columns"]})))
        change_info(tmp_path / "run", model_sha256=None, format=1)
        with pytest.raises(RunError, match=message):
            load_model(tmp_path / "run")
    path.write_bytes(b"".join(checkpoint.pack(tensors, {"columns": {"features": 3}})))
    with pytest.raises(RunError, match=r"model\.safetensors: the columns .* are damaged"):
        load_model(tmp_path / "run")


def test_the_columns_come_back_as_they_were(tmp_path: Path) -> None:
    table = make_run(tmp_path / "run")
    assert load_model(tmp_path / "run").columns == table.columns
    assert isinstance(table.columns, Encoding)


# --- the baselines


def test_the_linear_model_is_least_squares_also_where_columns_are_collinear() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 4)) * [1, 1e6, 1e-3, 1] + [0, 5e6, 0, 100]
    x = np.c_[x, x[:, 0] - x[:, 3], np.full(300, 3.0)]
    y = x[:, :2] @ [[1.0, 2], [1e-6, 0]] + rng.normal(size=(300, 2))
    found = linear_baseline(torch.from_numpy(x), torch.from_numpy(y), False)
    centred = x[:, :4] - x[:, :4].mean(0)
    best = np.linalg.lstsq(centred, y - y.mean(0), rcond=None)[0]
    np.testing.assert_allclose(x @ found.weight.numpy().T + found.bias.numpy(), centred @ best + y.mean(0), atol=1e-7)
    np.testing.assert_allclose(found.constant.numpy(), y.mean(0))


def test_with_more_columns_than_rows_the_linear_model_goes_through_all_points() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 50)), rng.normal(size=(20, 3))
    found = linear_baseline(torch.from_numpy(x), torch.from_numpy(y), False)
    np.testing.assert_allclose(x @ found.weight.numpy().T + found.bias.numpy(), y, atol=1e-9)


@pytest.mark.parametrize("classes", [2, 4])
def test_the_logistic_model_is_at_the_minimum_that_scikit_learn_seeks(classes: int) -> None:
    rng = np.random.default_rng(classes)
    x = rng.normal(size=(400, 3)) * [1, 30, 0.1] + 2
    y = np.eye(classes)[(x @ rng.normal(size=(3, classes)) + rng.gumbel(size=(400, classes))).argmax(1)]
    found = linear_baseline(torch.from_numpy(x), torch.from_numpy(y), True)
    weight, bias = found.weight.numpy(), found.bias.numpy()
    powers = np.exp(x @ weight.T + bias)
    residual = powers / powers.sum(1, keepdims=True) - y  # (N, classes): the losses' gradient at the logits
    gradient = residual.T @ x + weight
    if classes == 2:  # the first logit is 0 and has no weights
        assert not weight[0].any()
        gradient, residual = gradient[1:], residual[:, 1:]
    assert np.abs(gradient / x.std(0)).max() < 1e-3
    assert np.abs(residual.sum(0)).max() < 1e-3
    np.testing.assert_allclose(found.constant.numpy(), y.mean(0))


# By scikit-learn 1.9.1: LogisticRegression(C=1, solver="newton-cholesky", tol=1e-12), its loss with the penalty, the
# mean of the losses, the accuracy, and the probabilities of the first row.
FITTED = {
    "two": (74.86589140773799, 0.6232852860717881, 76 / 120, [0.57222124, 0.42777876]),
    "collinear": (124.15029107058889, 1.0333377700071043, 68 / 120, [0.45443975, 0.12457409, 0.42098616]),
    "scales": (125.05088365962638, 1.0414741233481921, 55 / 120, [0.41324095, 0.13085387, 0.45590518]),
    "separable": (14.173725707492403, 0.06348092634808011, 1, [9.9932663e-01, 6.7337000e-04]),
    "rare": (8.835757204640652, 0.07039172370852832, 118 / 120, [0.95983184, 0.04016816]),
}


@pytest.mark.parametrize("name", FITTED)
def test_the_logistic_model_is_the_one_that_scikit_learn_finds(name: str) -> None:
    i, j = np.arange(120)[:, None], np.arange(1, 5)
    x = (i**2 * j + 7 * i * j**2 + 3 * j) % 41 / 10.0
    classes = ((x @ [3, -2, 1, 1] + i[:, 0] * 7 % 11) // 4).astype(int) % 3
    if name == "two":
        classes = classes // 2
    elif name == "collinear":
        x = np.c_[x, x[:, 0] - x[:, 1], np.full(120, 3.0)]
    elif name == "scales":
        x = x * [1, 1e4, 1e-3, 1] + [0, 1e5, 0, 50]
    elif name == "separable":
        classes = (x[:, 0] > 2).astype(int)
    elif name == "rare":
        classes = (np.arange(120) < 2).astype(int)
    y = torch.eye(int(classes.max()) + 1)[classes]
    found = linear_baseline(torch.from_numpy(x), y, True)
    weight = found.weight.numpy()
    p = torch.softmax(torch.from_numpy(x) @ found.weight.t() + found.bias, 1).numpy()
    losses = -np.log(p[np.arange(120), classes])
    whole, mean, accuracy, first = FITTED[name]
    assert losses.sum() + (weight**2).sum() / 2 == pytest.approx(whole, rel=1e-10)
    assert losses.mean() == pytest.approx(mean, rel=1e-7)
    assert (p.argmax(1) == classes).mean() == accuracy
    assert p[0] == pytest.approx(first, abs=1e-7)


def test_the_logistic_model_imports_no_compiler_of_pytorch() -> None:
    lines = (
        "import sys, torch; from twolayer.evaluation.baselines import linear_baseline; before = set(sys.modules);"
        "linear_baseline(torch.randn(20, 3), torch.eye(4)[torch.arange(20) % 4], True);"
        "print(len(set(sys.modules) - before), 'torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("0 False\n", "")


def test_the_baseline_is_the_same_every_time() -> None:
    x = torch.randn(500, 6, generator=torch.Generator().manual_seed(0))
    y = torch.eye(3)[torch.arange(500) % 3]
    first, second = (linear_baseline(x, y, True) for _ in range(2))
    assert isinstance(first, Baseline)
    assert torch.equal(first.weight, second.weight)
