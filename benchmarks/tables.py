"""Real tables with the defaults for files, beside scikit-learn's networks with theirs and a linear model.

    python benchmarks/tables.py [--json PATH]

Five splits of each table, 80 % to train on. Ours is what `twolayer train TABLE --target Y` does; scikit-learn's
MLPRegressor and MLPClassifier stand behind a StandardScaler. R2 or accuracy on the other 20 %, and the time of the
training itself: both with one thread, in turn.
"""

from __future__ import annotations

import math
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import harness
import numpy as np
import polars as pl
import torch
from sklearn import datasets
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from twolayer.config.loading import load_config
from twolayer.tables import encoding
from twolayer.tables.options import FileData
from twolayer.training.loop import Fit
from twolayer.training.setup import prepare

SPLITS = range(5)
BELOW_LINEAR = 0.06


def loaded() -> dict[str, tuple[pl.DataFrame, bool]]:
    """The tables, with the column `y` to predict, and whether that is of classes."""
    found: dict[str, tuple[pl.DataFrame, bool]] = {}
    for name in ("diabetes", "wine", "breast_cancer", "iris", "digits"):
        bunch = getattr(datasets, f"load_{name}")()
        target = (
            bunch.target if name == "diabetes" else np.array([f"class {bunch.target_names[i]}" for i in bunch.target])
        )
        found[name] = _frame(bunch.data, target), name != "diabetes"
    x, y = datasets.make_friedman1(1000, noise=1.0, random_state=0)
    found["friedman1"] = _frame(x, y), False
    return found


def _frame(x: Any, y: Any) -> pl.DataFrame:
    columns = {f"x{i}": column for i, column in enumerate(x.T) if column.std() > 0}
    return pl.DataFrame(columns | {"y": y})


def ours(train: Path, test: pl.DataFrame) -> tuple[float, float]:
    """The score on the test rows, and the seconds of the training."""
    config = load_config(train, data={"source": "file", "path": str(train), "target": ["y"]}, threads=1)
    config, data, model = prepare(config)
    start = time.perf_counter()
    fit = Fit(model, data, config)
    for _ in fit:
        pass
    fit.finish()
    taken = time.perf_counter() - start
    assert data.columns is not None
    assert isinstance(config.data, FileData)
    with torch.no_grad():
        y_pred = model(torch.from_numpy(encoding.encode(test, data.columns, "test")).float()).double().numpy()
    if data.columns.classes is None:
        y_pred = y_pred * data.columns.targets[0].deviation + data.columns.targets[0].mean
    return score(y_pred, target_encoding.encode_targets(test, data.columns, "test"), data.columns.classes is not None), taken


def score(y_pred: Any, y: Any, is_classes: bool) -> float:
    """The accuracy of one-hot classes, or R2."""
    if is_classes:
        return float((y_pred.argmax(1) == y.argmax(1)).mean())
    return float(1 - ((y_pred - y) ** 2).sum() / ((y - y.mean(0)) ** 2).sum())


def theirs(make: Callable[[], Any], train: pl.DataFrame, test: pl.DataFrame) -> tuple[float, float]:
    """The score on the test rows, and the seconds of the training, the scaling in it."""
    model = make_pipeline(StandardScaler(), make())
    x, y = (train.drop("y").to_numpy(), train["y"].to_numpy())
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has not converged after its 200 epochs
        model.fit(x, y)
    taken = time.perf_counter() - start
    return float(model.score(test.drop("y").to_numpy(), test["y"].to_numpy())), taken


def error_of(values: list[float]) -> float:
    """The standard error of the mean."""
    return statistics.stdev(values) / math.sqrt(len(values))


def main() -> None:
    """Train on every split of every table, and print the scores and times beside each other."""
    options = harness.options(__doc__ or "")
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    print("| table | rows | ours | scikit-learn | linear | difference | held | time, ours | scikit-learn | held |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    with TemporaryDirectory() as folder:
        for name, (frame, is_classes) in loaded().items():
            found: dict[str, list[tuple[float, float]]] = {"ours": [], "sklearn": [], "linear": []}
            for split in SPLITS:
                kept, held = train_test_split(np.arange(len(frame)), test_size=0.2, random_state=split)
                train, test = frame[np.sort(kept)], frame[np.sort(held)]
                constant = [column.name for column in train if column.n_unique() == 1]  # ours refuses them
                train, test = train.drop(constant), test.drop(constant)
                path = Path(folder, f"{name}-{split}.csv")
                train.write_csv(path)
                found["ours"].append(ours(path, test))
                network = MLPClassifier if is_classes else MLPRegressor
                found["sklearn"].append(theirs(lambda n=network, s=split: n(random_state=s), train, test))  # type: ignore[misc]
                linear = LogisticRegression(max_iter=1000) if is_classes else LinearRegression()
                found["linear"].append(theirs(lambda m=linear: m, train, test))  # type: ignore[misc]
            scores = {who: [score for score, _ in all_] for who, all_ in found.items()}
            times = {who: statistics.median(taken for _, taken in all_) for who, all_ in found.items()}
            means = {who: statistics.mean(each) for who, each in scores.items()}
            paired = [a - b for a, b in zip(scores["ours"], scores["sklearn"], strict=True)]
            is_held = means["ours"] + error_of(scores["ours"]) >= means["sklearn"]
            is_held &= means["ours"] >= means["linear"] - BELOW_LINEAR
            shown = [f"{means[who]:.4f} ± {error_of(scores[who]):.4f}" for who in ("ours", "sklearn")]
            is_fast = "yes" if times["ours"] <= times["sklearn"] else "NO"
            print(
                f"| {name} | {len(frame)} | {' | '.join(shown)} | {means['linear']:.4f} "
                f"| {statistics.mean(paired):+.4f} ± {error_of(paired):.4f} | {'yes' if is_held else 'NO'} "
                f"| {times['ours']:.3f} s | {times['sklearn']:.3f} s | {is_fast} |",
                flush=True,
            )
            results[name] = {"scores": scores, "seconds": times}
    harness.save(options.json, {"splits": len(SPLITS), "tables": results})


if __name__ == "__main__":
    main()
