"""Predictions for frames of polars and pandas: those for the same rows in a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.helpers.tablerun import NEW, make_run
from twolayer.errors import DataError
from twolayer.evaluation.frames import predict_frame
from twolayer.evaluation.predictor import Predictor, load_model, predict
from twolayer.tables.encoding import encode


@pytest.fixture
def model(tmp_path: Path) -> Predictor:
    make_run(tmp_path / "run")
    return load_model(tmp_path / "run")


@pytest.fixture
def frame() -> pl.DataFrame:
    return pl.read_csv(NEW.encode())


def test_a_frame_is_predicted_as_its_rows_are(model: Predictor, frame: pl.DataFrame) -> None:
    found = predict_frame(model, frame)
    wanted = predict(model, encode(frame, model.columns, "x")).numpy()[:, 0]
    assert found.columns == ["price_predicted"]
    assert found.to_series().to_list() == wanted.tolist()
    assert predict_frame(model, frame.select("weight", "size", "colour")).equals(found)
    assert predict_frame(model, frame.cast(pl.String)).equals(found)


def test_many_rows_and_none_are_predicted(model: Predictor, frame: pl.DataFrame) -> None:
    many = pl.concat([frame] * 7000)
    found = predict_frame(model, many).to_series().to_numpy()
    np.testing.assert_allclose(found, np.tile(predict_frame(model, frame).to_series().to_numpy(), 7000), rtol=1e-5)
    none = predict_frame(model, frame.clear())
    assert (none.columns, none.height) == (["price_predicted"], 0)


def test_a_frame_of_pandas_gives_one_with_its_index(model: Predictor, frame: pl.DataFrame) -> None:
    pandas = pytest.importorskip("pandas")
    columns = {name: frame[name].to_list() for name in frame.columns}
    given = pandas.DataFrame(columns | {"other": [None, 1, "x"]}, index=["p", "q", "r"])
    wanted = predict_frame(model, frame).to_series().to_list()
    for each in (given, given.astype({"colour": "category"}), given.convert_dtypes(), given.astype(object)):
        found = predict_frame(model, each)
        assert isinstance(found, pandas.DataFrame)
        assert found.index.tolist() == ["p", "q", "r"]
        assert found["price_predicted"].tolist() == wanted


def test_dates_and_missing_values_of_pandas_are_those_of_polars(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    rows = "".join(
        f"2024-{i % 12 + 1:02}-{i % 28 + 1:02} 0{i % 9}:30,{'' if i % 7 == 3 else i * 37 % 61},{i * 37 % 61}\n"
        for i in range(60)
    )
    make_run(tmp_path / "run", "day,size,price\n" + rows, exclude=[])
    model = load_model(tmp_path / "run")
    times = ["2024-05-06 07:08:00", "2023-01-02 23:00:00", None]
    polars = pl.DataFrame({"day": times, "size": [1.5, None, 3.0]}).with_columns(pl.col("day").str.to_datetime())
    wanted = predict_frame(model, polars.with_columns(pl.col("day").fill_null(strategy="forward")))
    times[2] = times[1]
    naive = pandas.DataFrame({"day": pandas.to_datetime(times), "size": [1.5, float("nan"), 3.0]})
    assert predict_frame(model, naive)["price_predicted"].tolist() == wanted.to_series().to_list()
    zoned = naive.assign(day=naive["day"].dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo"))
    assert predict_frame(model, zoned)["price_predicted"].tolist() == wanted.to_series().to_list()


def test_what_the_model_does_not_know_is_warned_of(model: Predictor, frame: pl.DataFrame) -> None:
    strange = frame.with_columns(colour=pl.Series(["pink", "red", "blue"]), weight=pl.Series([1.0, None, 2.0]))
    with pytest.warns(UserWarning, match="^frame: column ") as caught:
        predict_frame(model, strange)
    told = sorted(str(one.message) for one in caught)
    assert told == [
        "frame: column colour: 1 row has a category that the model does not know; it is treated as no category",
        "frame: column weight: 1 row without a value, and none was missing in training; the mean is used",
    ]


def test_what_cannot_be_predicted_is_told_in_a_line(model: Predictor, frame: pl.DataFrame) -> None:
    for given, message in (
        (frame.drop("size", "weight"), "frame: columns size, weight are missing, and the model needs them"),
        (frame.with_columns(size=pl.Series(["1", "two", "3"])), "frame: row 2, column size: 'two' is not a number"),
        (frame.lazy(), r"needs a frame of polars or pandas, not LazyFrame; collect\(\) it"),
        ({"size": [1]}, "needs a frame of polars or pandas, not dict"),
    ):
        with pytest.raises(DataError, match=message):
            predict_frame(model, given)
