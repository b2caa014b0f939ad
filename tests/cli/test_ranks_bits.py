"""Whatever is trained, and however it is cut: the same bits on 1 to 4 ranks, and what numpy computes in float64."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.helpers.processes import examples
from tests.helpers.ranks import differences, sets, train
from twolayer.config.loading import load_config
from twolayer.training.epoch import Epoch
from twolayer.training.setup import prepare

Array = NDArray[np.float64]

SPLITS = [("units", "primal"), ("units", "dual"), ("rows", "primal"), ("inputs", "dual")]


@dataclass(frozen=True)
class Case:
    """A training: its data, drawn or a table; the keys of its config; and by how many ranks, beside one."""

    data: str
    keys: dict[str, Any]
    ranks: int

    @property
    def words(self) -> list[str]:
        """The words of its command line."""
        table = [] if self.data == "drawn" else ["table.csv", "--target", "y"]
        table += ["--classes"] if self.data == "classes" else []
        return [*table, *sets(*(f"{key}={value}" for key, value in self.keys.items())), "-q", "--checkpoint-every", "5"]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any training that can be cut: all splits and forms, with more parts than there is to cut, too."""
    data = draw(st.sampled_from(["drawn", "drawn", "numbers", "classes"]))
    size, ranks = st.integers(1, 24), draw(st.integers(2, 4))
    split, form = draw(st.sampled_from(SPLITS))
    keys: dict[str, Any] = {"split": split, "form": form, "parts": draw(st.integers(ranks, 14)), "H": draw(size)}
    keys |= {"dtype": draw(st.sampled_from(["float32", "float64"])), "epochs": draw(st.integers(1, 12))}
    keys |= {"reduction": draw(st.sampled_from(["sum", "mean"])), "seed": draw(st.integers(0, 2**32))}
    keys |= {"lr": draw(st.sampled_from(["1e-4", "1e-3", "auto"]))}
    if data == "drawn":
        keys |= {name: draw(size) for name in ("N", "D_in", "D_out")}
        keys["init"] = draw(st.sampled_from(["default", "normal"]))
    else:
        keys |= {"validation": "null", "average": "null", "patience": "null", "batch_size": "null"}
        if split == "rows" and draw(st.booleans()):
            keys |= {"validation": 0.25, "average": draw(st.sampled_from(["null", 0.7]))}
            keys["patience"] = draw(st.sampled_from(["null", 2]))
    if split == "rows":
        keys["batch_size"] = draw(st.sampled_from(["null", 1, 3, 7]))
    return Case(data, keys, ranks)


def write_table(folder: Path) -> None:
    """A table of 29 rows, whose target is a number and, where it is taken so, one of four classes."""
    rows = "".join(f"{i * 7 % 11},{(i * i) % 13},{'abc'[i % 3]},{i % 4}\n" for i in range(29))
    (folder / "table.csv").write_text("u,v,w,y\n" + rows)


def descend(
    x: Array, y: Array, weights: list[Array], lr: float, batches: list[Any], *, mean: bool, classes: bool
) -> tuple[list[float], list[Array]]:
    """Gradient descent in numpy: the loss of each batch before its update, and the weights in the end."""
    w1, b1, w2, b2 = weights
    losses = []
    for rows in batches:
        some, goal = x[rows], y[rows]
        z = some @ w1.T + b1
        h = np.maximum(z, 0)
        out = h @ w2.T + b2
        if classes:
            shifted = out - out.max(1, keepdims=True)
            logs = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
            scale = 1 / len(some) if mean else 1.0
            losses.append(-scale * float((logs * goal).sum()))
            g = scale * (np.exp(logs) - goal)
        else:
            scale = 1 / goal.size if mean else 1.0
            losses.append(scale * float(((out - goal) ** 2).sum()))
            g = 2 * scale * (out - goal)
        gz = (g @ w2) * (z > 0)
        w2, b2 = w2 - lr * g.T @ h, b2 - lr * g.sum(0)
        w1, b1 = w1 - lr * gz.T @ some, b1 - lr * gz.sum(0)
    return losses, [w1, b1, w2, b2]


def check_against_numpy(run: Path) -> None:
    """Compare the losses and weights of a run with those of numpy, in float64, from the same start."""
    config, data, model = prepare(load_config(run / "config.yaml"))
    start = [parameter.detach().double().numpy() for parameter in model.parameters()]
    x, y = data.x.double().numpy(), data.y.double().numpy()
    everything = [torch.arange(config.N)]
    epochs = [Epoch(number, config, data).batches or everything for number in range(config.epochs)]
    batches = [rows.numpy() for some in epochs for rows in some]
    options = {"mean": config.reduction == "mean", "classes": config.loss == "cross_entropy"}
    losses, weights = descend(x, y, start, float(config.lr), batches, **options)
    rel = 1e-9 if config.dtype == "float64" else 2e-3
    if len(batches) == config.epochs:
        rows = (run / "history.csv").read_text().splitlines()[1:]
        assert [float(row.split(",")[1]) for row in rows] == pytest.approx(losses, rel=rel, abs=rel)
    found = safetensors.numpy.load_file(run / "model.safetensors")
    names = [name for name, _ in model.named_parameters()]
    for name, expected in zip(names, weights, strict=True):
        np.testing.assert_allclose(found[name], expected, rtol=0, atol=rel * max(1.0, float(np.abs(expected).max())))


def differing(case: Case, folder: Path, ranks: range) -> list[str]:
    """Train the case in one process and by each of these numbers of ranks; what differs, also after a resume."""
    found = []
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    write_table(folder)
    half = max(1, case.keys["epochs"] // 2)
    for out, more in (("run-1", []), ("half", ["--epochs", str(half)])):
        done = train(folder, *case.words, *more, "--out", out)
        assert done.code == 0, done.stderr
    for count in ranks:
        done = train(folder, *case.words, "--ranks", str(count), "--out", f"run-{count}")
        assert (done.code, done.left) == (0, []), done.stderr
        found += differences(folder / "run-1", folder / f"run-{count}")
        if half < case.keys["epochs"]:
            shutil.copytree(folder / "half", rest := folder / f"rest-{count}")
            words = ["--resume", str(rest), "--epochs", str(case.keys["epochs"]), "-q", "--ranks", str(count)]
            done = train(folder, *words)
            assert (done.code, done.left) == (0, []), done.stderr
            for name in ("history.csv", "model.safetensors"):
                if (rest / name).read_bytes() != (folder / "run-1" / name).read_bytes():
                    found.append(f"{name}, resumed on {count} ranks")
    if case.keys["lr"] != "auto" and {case.keys.get("average"), case.keys.get("patience")} <= {None, "null"}:
        check_against_numpy(folder / "run-1")
    return found


@given(case=cases())
@examples(3)
def test_losses_weights_checkpoints_and_figures_are_the_same_and_numpys(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert differing(case, tmp_path / "case", range(case.ranks, case.ranks + 1)) == []


@pytest.mark.deep
@given(case=cases())
@examples(4)
def test_on_two_three_and_four_ranks(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    parts = case.keys | {"parts": max(4, case.keys["parts"])}
    assert differing(Case(case.data, parts, 4), tmp_path / "case", range(2, 5)) == []
