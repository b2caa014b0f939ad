from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.processes import Run, examples
from twolayer.errors import DataError, TableError, TableProblem
from twolayer.tables.dataset import Table, read, scan
from twolayer.tables.describe import Summary, summary
from twolayer.tables.encoding import encode, unknown
from twolayer.tables.features import Encoding
from twolayer.tables.options import FileData
from twolayer.tables.target_encoding import encode_targets

FLOWERS = "width,kind,wet,y\n1.5,b,true,1\n2.5,a,false,2\n4.0,b,false,4\n8.0,c,true,3\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "t.csv").write_text(FLOWERS)
    return tmp_path


def load(
    folder: Path, text: str | None = None, *, validation: float | str | None = None, loss: str | None = None,
    dtype: str = "float64", seed: int = 0, **options: Any,
) -> Table:  # fmt: skip
    if text is not None:
        (folder / "t.csv").write_text(text)
    data = FileData(**{"source": "file", "path": "t.csv", "target": "y"} | options)
    with chdir(folder):
        return read(data, validation=validation, seed=seed, loss=loss, dtype=dtype)


def summary_of(folder: Path, path: str = "t.csv", *, target: str | None = None, **options: Any) -> Summary:
    data = FileData(**{"source": "file", "path": str(folder / path), "target": target or "any"} | options)
    return summary(data, path, targets=[target] if target else [])


def refusal(folder: Path, text: str | None = None, **options: Any) -> str:
    with pytest.raises(DataError) as error:
        load(folder, text, **options)
    assert str(error.value).startswith("t.csv: ")
    if isinstance(error.value, TableError):
        return "; ".join(map(str, error.value.problems))
    assert "\n" not in str(error.value)
    return str(error.value).removeprefix("t.csv: ")


def standard(values: list[float]) -> list[float]:
    """The oracle: plain Python."""
    mean, deviation = statistics.fmean(values), statistics.pstdev(values)
    return [(value - mean) / deviation for value in values]


def test_with_scale_true_numbers_booleans_and_text_are_features_of_mean_0_and_deviation_1(folder: Path) -> None:
    table = load(folder, scale=True)
    assert [f.name for f in table.columns.features] == ["width", "kind=a", "kind=b", "kind=c", "wet"]
    assert table.columns.kinds == {"width": "number", "kind": "category", "wet": "boolean"}
    raw: list[list[float]] = [[1.5, 2.5, 4, 8], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1], [1, 0, 0, 1]]
    np.testing.assert_allclose(
        table.x.T, np.array([standard([float(cell) for cell in row]) for row in raw]), rtol=1e-12
    )
    np.testing.assert_allclose(table.y[:, 0], np.array(standard([1.0, 2.0, 4.0, 3.0])), rtol=1e-12)
    assert table.x.flags.c_contiguous
    assert (table.rows, table.x_validation, table.y_validation) == (4, None, None)


def test_columns_of_0_and_1_are_of_mean_0_and_keep_their_distance(folder: Path) -> None:
    table, scaled = load(folder, missing="mean"), load(folder, missing="mean", scale=True)
    names = [feature.name for feature in table.columns.features]
    assert names[:4] == ["width", "kind=a", "kind=b", "kind=c"]
    np.testing.assert_array_equal(table.x[:, 0], scaled.x[:, 0])
    np.testing.assert_array_equal(
        table.x[:, 1:4], np.array([[0, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]) - [0.25, 0.5, 0.25]
    )
    gaps = load(folder, "a,y\n1,1\n,2\n3,4\n4,8\n", missing="mean")
    assert [feature.name for feature in gaps.columns.features] == ["a", "a missing"]
    assert gaps.x[:, 1].tolist() == [-0.25, 0.75, -0.25, -0.25]


def test_without_scale_the_numbers_are_the_files(folder: Path) -> None:
    table = load(folder, scale=False, dtype="float32", exclude="kind")
    assert table.x.tolist() == [[1.5, 1], [2.5, 0], [4, 0], [8, 1]]
    assert table.y.tolist() == [[1], [2], [4], [3]]
    assert table.y.dtype == np.float32


def test_a_large_mean_costs_no_digits(folder: Path) -> None:
    rows = [(10**6 + (-1) ** i, i % 7) for i in range(1000)]
    table = load(folder, "a,y\n" + "".join(f"{a},{y}\n" for a, y in rows))
    assert table.columns.features[0].mean == 1e6
    assert table.columns.features[0].deviation == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize(
    ("cells", "loss", "classes"),
    [
        (["v", "u", "v"], None, ("u", "v")),
        (["True", "False", "True"], None, ("false", "true")),
        (["10", "2", "10"], "cross_entropy", ("2", "10")),
        (["10.0", "-2.0", "10.0"], "cross_entropy", ("-2", "10")),
        (["10", "2", "10"], None, None),
        (["true", "false", "true"], "mse", None),
    ],
)
def test_classes_are_one_hot_in_their_order(
    folder: Path, cells: list[str], loss: str | None, classes: tuple[str, ...] | None
) -> None:
    table = load(folder, "a,y\n" + "".join(f"{i},{cell}\n" for i, cell in enumerate(cells)), loss=loss)
    assert table.columns.classes == classes
    if classes:
        assert table.y.tolist() == [[0, 1], [1, 0], [0, 1]] if cells[0] != "u" else [[1, 0], [0, 1], [1, 0]]
    assert table.y.shape == (3, len(classes or "y"))
    again = encode_targets(scan(folder / "t.csv", table.columns).frame.collect(), table.columns, "t.csv")
    assert again.shape == table.y.shape
    assert not classes or again.tolist() == table.y.tolist()


def test_the_types_come_of_all_rows(folder: Path) -> None:
    table = load(folder, "a,y\n" + "1,2\n" * 5000 + "0.5,NaN\n2, 3\n", target="a", missing="mean", scale=False)
    assert table.columns.kinds == {"y": "number"}
    assert (table.y[-2:].tolist(), table.x[-1].tolist()) == ([[0.5], [2]], [3, 0])


# --- what is encoded again


def test_the_columns_are_json(folder: Path) -> None:
    columns = load(folder, "a,k,y\n0.1,u,1\n,v,2\n0.3,,3\n", missing="mean").columns
    assert Encoding.of(json.loads(json.dumps(columns.document()))) == columns
    document = columns.document()
    for key, value in [("features", []), ("targets", [{}]), ("classes", ["a"]), ("kinds", {"a": "x"}), ("decimal", 1)]:
        with pytest.raises(DataError, match="damaged"):
            Encoding.of(document | {key: value})
    with pytest.raises(DataError, match="damaged"):
        Encoding.of(None)


NUMBERS = st.floats(-1e6, 1e6, allow_subnormal=False).map(lambda number: round(number, 3))
CELLS = st.tuples(NUMBERS, st.sampled_from("uvw"), st.booleans(), st.integers(-9, 9))


@examples(20)
@given(rows=st.lists(CELLS, min_size=4, max_size=30), part=st.sampled_from([None, 0.3]))
def test_a_file_is_encoded_as_it_was_read(folder: Path, rows: list[Any], part: float | None) -> None:
    rows = [(-5e6, "v", True, 1.5), *rows, (5e6, "u", False, 2.5)]  # so that no column is constant
    names = ["a", "k", "b", "y"]
    text = "\n".join([",".join(names), *(f"{a!r},{k},{str(b).lower()},{y}" for a, k, b, y in rows)])
    table = load(folder, text + "\n", validation=part)
    pl.DataFrame(rows, schema=names, orient="row").write_parquet(folder / "t.parquet")
    encoded = [encode(scan(folder / name).frame.collect(), table.columns, name) for name in ("t.csv", "t.parquet")]
    np.testing.assert_allclose(encoded[0], encoded[1], rtol=1e-12)
    held = np.zeros(len(rows), dtype=bool)
    if table.x_validation is not None:
        count = max(1, round(0.3 * len(rows)))
        held[np.random.default_rng([0, 1]).choice(len(rows), count, replace=False, shuffle=False)] = True
        np.testing.assert_array_equal(encoded[0][held], table.x_validation)
    np.testing.assert_array_equal(encoded[0][~held], table.x)
    kept = [row for row, out in zip(rows, held, strict=True) if not out]
    a = [row[0] for row in kept]
    np.testing.assert_allclose(table.x[:, 0], standard(a), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(table.x.mean(axis=0), 0, atol=1e-9)


def test_an_unknown_category_is_zeros_and_counted(folder: Path) -> None:
    table = load(folder, scale=False)
    frame = pl.DataFrame({"width": ["1"] * 3, "kind": ["b", " z ", "q"], "wet": ["True", "false", "1"]})
    assert encode(frame, table.columns, "n").tolist() == [[1, 0, 1, 0, 1], [1, 0, 0, 0, 0], [1, 0, 0, 0, 1]]
    assert unknown(frame, table.columns) == {"kind": 2}


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        ("width", "two", "n: row 12, column width: 'two' is not a number"),
        ("width", "NA", "n: row 12, column width: has no value, and none was missing in training"),
        ("width", "inf", "n: row 12, column width: is infinite"),
        ("kind", "", "n: row 12, column kind: has no value, and none was missing in training"),
        ("wet", "maybe", "n: row 12, column wet: 'maybe' is not a number"),
    ],
)
def test_a_cell_that_does_not_fit_is_told_with_its_place(folder: Path, column: str, cell: str, message: str) -> None:
    columns = load(folder, missing="refuse").columns
    frame = pl.DataFrame({"width": ["1", "2"], "kind": ["a", "b"], "wet": ["true", "false"]})
    cells = pl.Series(column, [frame[column][0], cell])
    with pytest.raises(DataError) as error:
        encode(frame.with_columns(cells), columns, "n", first_row=11)
    assert str(error.value) == message
    with pytest.raises(DataError, match=r"^n: columns width, wet are missing, and the model needs them$"):
        encode(frame.select("kind"), columns, "n")


def test_a_target_that_does_not_fit_is_told_with_its_place(folder: Path) -> None:
    columns = load(folder, target="kind").columns
    with pytest.raises(DataError, match=r"^n: row 2, column kind: 'z' is not a class that the model knows$"):
        encode_targets(pl.DataFrame({"kind": ["a", "z"]}), columns, "n")
    with pytest.raises(DataError, match=r"^n: row 1, column kind: the target has no value$"):
        encode_targets(pl.DataFrame({"kind": [None, "a"]}), columns, "n")
    with pytest.raises(DataError, match=r"^n: column kind is missing: the target, which predictions are"):
        encode_targets(pl.DataFrame({"a": [1]}), columns, "n")


# --- missing values


def test_missing_values_are_refused_with_the_count_and_the_first_row(folder: Path) -> None:
    told = refusal(folder, "a,b,y\n1,2,1\nNA,3,2\n,n/a,3\n2,NaN,4\n", missing="refuse")
    assert "column a has no value in 2 of 4 rows, first in row 2; drop these rows, or set data.missing: mean" in told
    assert "column b has no value in 2 of 4 rows, first in row 3" in told


def test_rows_without_a_target_are_left_out_and_told(folder: Path) -> None:
    text = "a,y\n7,NA\n1,2\n3,\n2,4\n1e100,5\n"
    table = load(folder, text)
    assert (table.rows, table.x.shape) == (3, (3, 1))
    assert table.notes == ("2 rows of 5 without a target (y), first row 1: left out",)
    told = refusal(folder, strict=True)
    assert told == "2 rows of 5 without a target (y), first row 1; drop them, or set data.strict: false"
    # Places in messages are those of the file.
    assert refusal(folder, scale=False, dtype="float32").startswith("row 5, column a: the number is too large")


def test_a_mark_that_is_a_number_is_missing_in_typed_and_in_plain_columns_and_in_new_rows(folder: Path) -> None:
    text = "a,y\n" + "".join(f"{-999 if i % 5 == 0 else i * 7 % 11},{i}\n" for i in range(40))
    table = load(folder, text, na=-999, scale=False)
    assert [f.name for f in table.columns.features] == ["a", "a missing"]
    assert table.x[:, 1].sum() == 8
    for cells in (["-999", "3"], ["-999.0", "?"], [-999, 3], [-999.0, 3.0]):
        x = encode(pl.DataFrame({"a": cells}), table.columns, "n")
        assert x[0].tolist() == [table.columns.features[0].mean or table.columns.features[0].fill, 1]


def test_categories_that_are_numbers_are_known_in_every_way_of_writing_them(folder: Path) -> None:
    table = load(folder, "a,y\n" + "".join(f"{i % 3 + 1}.0,{i}\n" for i in range(12)), categories="a", scale=False)
    for cells in (["1.0", "2"], [1, 2], [1.0, 2.0]):
        frame = pl.DataFrame({"a": cells})
        assert encode(frame, table.columns, "n").tolist() == [[1, 0, 0], [0, 1, 0]]
        assert unknown(frame, table.columns) == {}


def test_zeros_in_front_that_another_program_took_away_are_known_again(folder: Path) -> None:
    table = load(folder, "m,y\n" + "".join(f"{i % 12 + 1:02},{i % 7}\n" for i in range(48)), scale=False)
    note = 'read as categories: m ("01": digits with zeros in front); to read digits as numbers: data.numbers'
    assert note in table.notes
    for cells in (["01", "12"], ["1", "12"], [1, 12], [1.0, 12.0]):
        frame = pl.DataFrame({"m": cells})
        assert encode(frame, table.columns, "n")[:, [0, 11]].tolist() == [[1, 0], [0, 1]]
        assert unknown(frame, table.columns) == {}
    assert unknown(pl.DataFrame({"m": ["13", "001", "x"]}), table.columns) == {"m": 2}
    columns = load(folder, numbers="m").columns
    assert [feature.kind for feature in columns.features] == ["number"]
    assert encode(pl.DataFrame({"m": ["1"]}), columns, "n") == encode(pl.DataFrame({"m": ["01"]}), columns, "n")
    both = refusal(folder, numbers="m", categories="m")
    assert both == "data.numbers: column m is also in data.categories"
    assert refusal(folder, "m,y\na,1\nb,2\na,3\n", numbers="m").startswith(
        "column m is in data.numbers, but holds other values; take it out of that list, or put it in data.exclude"
    )


def test_two_codes_that_are_the_same_number_are_told_apart(folder: Path) -> None:
    table = load(folder, "c,y\n" + "".join(f"{code},{i}\n" for i, code in enumerate(["007", "07", "02"] * 4)))
    frame = pl.DataFrame({"c": ["7", "2", "07"]})
    assert unknown(frame, table.columns) == {"c": 1}
    assert load(folder, target="c", loss="cross_entropy").columns.classes == ("02", "007", "07")
    y = encode_targets(pl.DataFrame({"c": ["2", "007"]}), load(folder, target="c").columns, "n")
    assert y.tolist() == [[1, 0, 0], [0, 1, 0]]


def test_phone_numbers_that_polars_reads_as_numbers_stay_text(folder: Path) -> None:
    rows = "".join(f"+4420794609{i % 9}8,{i % 5}.5,{i}\n" for i in range(40))
    table = load(folder, "phone,x,y\n" + rows)
    assert table.columns.kinds == {"phone": "category", "x": "number"}


def test_a_column_of_true_and_false_takes_nothing_else(folder: Path) -> None:
    columns = load(folder).columns
    frame = pl.DataFrame({"width": ["1"], "kind": ["a"], "wet": ["2"]})
    with pytest.raises(DataError, match=r"^n: row 1, column wet: 2 is neither true \(1\) nor false \(0\)$"):
        encode(frame, columns, "n")


def test_a_gap_where_none_was_in_training_becomes_the_mean_and_is_counted(folder: Path) -> None:
    table = load(folder, scale=False)
    frame = pl.DataFrame({"width": ["4.0", "?", None], "kind": ["b", "", "a"], "wet": ["true", "true", "NA"]})
    gaps = Counter[str]()
    assert encode(frame, table.columns, "n", gaps=gaps).tolist() == [
        [4, 0, 1, 0, 1], [4, 0, 0, 0, 1], [4, 1, 0, 0, 0.5]
    ]  # fmt: skip
    assert gaps == {"width": 2, "kind": 1, "wet": 1}


def test_missing_values_become_the_training_rows_mean_and_a_feature_of_their_own(folder: Path) -> None:
    table = load(folder, "a,k,y\n1,u,1\n,v,2\n3,,3\n5,u,4\n", missing="mean", scale=False)
    assert [f.name for f in table.columns.features] == ["a", "a missing", "k=u", "k=v", "k missing"]
    assert table.x.tolist() == [[1, 0, 1, 0, 0], [3, 1, 0, 1, 0], [3, 0, 0, 0, 1], [5, 0, 1, 0, 0]]
    scaled = load(folder, missing="mean", scale=True)
    np.testing.assert_allclose(scaled.x[:, 0], np.array(standard([1.0, 3.0, 3.0, 5.0])), rtol=1e-12)
    np.testing.assert_allclose(scaled.x[:, 1], standard([0.0, 1.0, 0.0, 0.0]), rtol=1e-12)
    frame = scan(folder / "t.csv").frame.collect()
    np.testing.assert_allclose(encode(frame, scaled.columns, "t.csv"), scaled.x, rtol=1e-12)


# --- what is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "z"}, "data.target: there is no column z; its columns are width, kind, wet, y"),
        ({"inputs": ["widht"]}, "data.inputs: there is no column widht; did you mean width?"),
        ({"inputs": ["y", "wet"]}, "data.inputs: column y is also the target"),
        ({"exclude": ["y"]}, "data.exclude: column y is the target"),
        ({"exclude": ["width", "kind", "wet"]}, "no column is left to predict from"),
        ({"loss": "mse", "target": "kind"}, "the target column kind is text; to predict its classes, set loss"),
        ({"loss": "cross_entropy", "target": ["y", "kind"]}, "needs one target column, not 2"),
        ({"validation": 0.7}, "has 4 rows, of which 3 are held out; training needs 2 or more"),
    ],
)
def test_roles_that_do_not_fit_are_refused(folder: Path, options: dict[str, Any], message: str) -> None:
    assert message in refusal(folder, **options)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["1", "inf", "2"], "column a is infinite in row 2"),
        (["01/02/2020", "03/04/2020"], "column a holds dates that can be read in two ways, such as 01/02/2020"),
        (
            ['"1,500"', "999"],
            'column a holds numbers that can be read in two ways, such as 1,500; add data={"th',
        ),
        (
            ["1", "2", "3+"],
            "column a looks like numbers, but 1 of 3 values are not numbers; the first is '3+' in row 3",
        ),
        (["1e200", "2e200", "-1e200"], "column a: its numbers are too large or too small; scale them"),
        (
            ["1e16", "10000000000000002", "10000000000000004"],
            "column a is nearly constant (varying by less than 1e-12 of its size); subtract a constant, or put it in d",
        ),
        (["5"], "has 1 row; training needs 2 or more"),
        ([], "has 0 rows; training needs 2 or more"),
    ],
)
def test_columns_that_cannot_be_trained_on_are_refused(folder: Path, cells: list[str], message: str) -> None:
    rows = "".join(f"{cell},{i},{i * i}\n" for i, cell in enumerate(cells))
    assert message in refusal(folder, "a,b,y\n" + rows)


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        (["5", "5", "5"], "is constant"),
        (["u", "u", "u"], "is constant"),
        (["2020-01-01", "2020-01-01"], "is constant"),
        (["", "NA", ""], "is empty"),
        ([f"u{i}" for i in range(21)], "differs in most rows"),
        ([f"u{i % 1001}" for i in range(2100)], "has 1001 different values, more than 1000"),
    ],
)
def test_columns_that_cannot_help_are_left_out_and_told(folder: Path, cells: list[str], reason: str) -> None:
    rows = "".join(f"{cell},{i},{i * i}\n" for i, cell in enumerate(cells))
    table = load(folder, "a,b,y\n" + rows)
    assert table.columns.inputs == ("b",)
    assert table.notes[0] == f"left out: a ({reason}); to use one, name it in data.inputs"
    assert load(folder, inputs=["a", "b"]).columns.inputs == ("a", "b")
    assert refusal(folder, strict=True) == f"column a {reason}; put it in data.exclude"
    only = refusal(folder, "a,y\n" + "".join(f"{cell},{i}\n" for i, cell in enumerate(cells)))
    assert only == f"no column is left to predict from: column a {reason}"
    target = refusal(folder, "b,y\n" + "".join(f"{i},{cell}\n" for i, cell in enumerate(cells)))
    assert target == f"target y {reason}: it cannot be predicted"


def test_a_target_that_hardly_varies_is_refused_and_may_still_be_classes(folder: Path) -> None:
    text = "a,y\n" + "".join(f"{i},{2**53 + i % 3}\n" for i in range(9))
    assert refusal(folder, text).endswith(
        "is nearly constant (varying by less than 1e-12 of its size); subtract a constant"
    )
    assert summary_of(folder, target="y").problems == (TableProblem(refusal(folder)),)
    assert load(folder, loss="cross_entropy").columns.classes == tuple(str(2**53 + i) for i in range(3))


def test_a_column_that_hardly_varies_in_the_training_rows_is_refused(folder: Path) -> None:
    rows = [10**16 + 2 * i for i in range(40)]
    for held in range(40):  # whichever is the row that is held out
        cells = [*rows[:held], 0, *rows[held + 1 :]]
        text = "a,y\n" + "".join(f"{cell},{i}\n" for i, cell in enumerate(cells))
        try:
            table = load(folder, text, validation=0.02)
        except DataError as error:
            assert "column a is nearly constant" in str(error)
            return
        assert table.x.any()
    raise AssertionError("the odd row was never held out")


def test_whole_numbers_beyond_64_bits_are_numbers(folder: Path) -> None:
    table = load(folder, "a,b,y\n" + "".join(f"{2**70 + i * 2**60},{2**53 + 1 + i * 2**45},{i}\n" for i in range(9)))
    expected = np.array(standard([float(i) for i in range(9)]))
    np.testing.assert_allclose(table.x, np.array([expected, expected]).T, rtol=1e-9)
    frame = pl.DataFrame({"a": [1, 2, 4], "y": [1, 2, 3]}).cast({"a": pl.Decimal(10, 2), "y": pl.Int128})
    frame.write_parquet(folder / "t.parquet")
    np.testing.assert_allclose(load(folder, path="t.parquet").x[:, 0], np.array(standard([1.0, 2.0, 4.0])), rtol=1e-12)


def test_classes_may_be_numbers_that_floats_do_not_tell_apart(folder: Path) -> None:
    big = 2**63
    table = load(folder, f"a,y\n1,{big}\n2,{big + 1}\n3,{big}\n", loss="cross_entropy")
    assert table.columns.classes == (str(big), str(big + 1))
    assert table.y.tolist() == [[1, 0], [0, 1], [1, 0]]
    assert load(folder, "a,y\n1,2.5\n2,10\n3,2.5\n", loss="cross_entropy").columns.classes == ("2.5", "10")


def test_a_column_without_a_name_is_shown(folder: Path) -> None:
    assert refusal(folder, "a,y,\n1,2,\n3,4,\n", strict=True) == 'column "" is empty; put it in data.exclude'
    assert load(folder, exclude="").columns.inputs == ("a",)


def test_blank_lines_are_no_rows(folder: Path) -> None:
    whole = load(folder)
    table = load(folder, "\n" + FLOWERS.replace("\n", "\n\n  \n"))
    assert table.rows == 4
    assert (table.x == whole.x).all()
    assert summary_of(folder, target="y").rows == 4
    told = refusal(folder, FLOWERS.replace("\n", "\n\n") + ",b,true,3\n", missing="refuse")
    assert told.startswith("column width has no value in 1 of 5 rows, first in row 5")


def test_nested_columns_are_left_out(folder: Path) -> None:
    frame = pl.DataFrame({"a": [1, 2], "l": [[1], [2]], "y": [1.0, 2.0]})
    frame.write_parquet(folder / "t.parquet")
    table = load(folder, path="t.parquet")
    assert table.columns.inputs == ("a",)
    assert table.notes == ("left out: l (holds values of type List); to use one, name it in data.inputs",)
    with pytest.raises(DataError, match="column l holds values of type List, which cannot be used"):
        load(folder, path="t.parquet", inputs=["l"])


def test_all_bad_columns_are_named_at_once(folder: Path) -> None:
    told = refusal(folder, "a,b,c,y\n1,u,1,1\n1,u,,2\n1,u,3,3\n", strict=True, missing="refuse")
    assert told.startswith("columns a, b are constant; put them in data.exclude; column c has no value in 1 of 3 rows")


def test_numbers_beyond_the_dtype_are_refused(folder: Path) -> None:
    text = "a,y\n1e100,1\n2e100,2\n"
    assert "too large for float32; set data.scale: true" in refusal(folder, text, scale=False, dtype="float32")
    assert load(folder, text, dtype="float32").x.tolist() == [[-1], [1]]


@pytest.mark.parametrize(
    ("cells", "column"), [("1e300,a,true,1", "width"), ("1,a,true,1e30", "y"), ("-1e308,a,true,1", "width")]
)
def test_a_validation_row_beyond_the_dtype_is_refused_with_its_place(folder: Path, cells: str, column: str) -> None:
    (folder / "v.csv").write_text(f"width,kind,wet,y\n2.5,a,true,1\n\n{cells}\n")
    place = rf"^v\.csv: row 2, column {column}: the number is too far from the training rows for float32; "
    with pytest.raises(DataError, match=place):
        load(folder, validation="v.csv", dtype="float32")
    place = rf"^v\.csv: row 2, column {column}: the number is too large for float32; set data\.scale: true$"
    with pytest.raises(DataError, match=place):
        load(folder, validation="v.csv", dtype="float32", scale=False)


def test_a_held_out_row_beyond_the_dtype_is_refused_with_its_place(folder: Path) -> None:
    refused = []
    for odd in range(8):
        rows = [f"{'1e300' if i == odd else i},{i}\n" for i in range(8)]
        try:
            load(folder, "a,y\n" + "".join(rows), validation=0.2, dtype="float32")
        except DataError as error:
            if "too far" in str(error):
                assert str(error).startswith(f"t.csv: row {odd + 1}, column a: the number is too far from")
                refused.append(odd)
    assert len(refused) == 2


def test_the_commands_refuse_such_tables_in_one_line(folder: Path, twolayer: Run) -> None:
    rows = [(i, i * 7 % 13, 3 * i - i * 7 % 13) for i in range(40)]
    good = "a,b,y\n" + "".join(f"{a},{b},{y}\n" for a, b, y in rows)
    (folder / "v.csv").write_text("a,b,y\n1,2,1e30\n")
    (folder / "few.csv").write_text("c\n1\n")
    for text, options, message in (
        ("\n" + good + "\n\n", [], ""),
        ("a,b,y\n" + "".join(f"{2**70 + a * 2**60},{b},{y}\n" for a, b, y in rows), [], ""),
        ("a,b,y\n" + "".join(f"{10**16 + 2 * a},{b},{y}\n" for a, b, y in rows), [], "column a is nearly constant"),
        (good.replace("\n", "\r"), [], ""),
        (good + "1,2\n", [], "t.txt: row 41 has 2 cells, and the first line has 3"),
        (good, ["--set", "validation=v.csv"], "v.csv: row 1, column y: the number is too far from"),
        (
            good,
            ["--set", "validation=few.csv"],
            "few.csv: column b is missing, and the model needs it; column y",
        ),
    ):
        (folder / "t.txt").write_bytes(text.encode())
        done = twolayer("train", "t.txt", "--set", "data.target=y", "--epochs", "2", "--quiet", *options)
        assert (done.returncode == 0) == (not message), done.stderr
        assert message in done.stderr
        lines = [line for line in done.stderr.splitlines() if not line.startswith("this works: ")]
        assert not message or (len(lines), done.returncode in (1, 2)) == (1, True)
    (folder / "t.txt").write_text("\n" + good)
    assert twolayer("data", "t.txt", "--target", "y").returncode == 0


# --- options and the split


def test_decimal_commas_are_read_and_kept_for_other_files(folder: Path) -> None:
    table = load(folder, "a;y\n1,5;1\n-2,5;2\n3;4\n", decimal=",", scale=False)
    assert table.x.tolist() == [[1.5], [-2.5], [3]]
    assert (
        encode(scan(folder / "t.csv", table.columns).frame.collect(), table.columns, "t").tolist() == table.x.tolist()
    )
    with pytest.raises(DataError, match=r"'1\.500' is not a number"):
        encode(pl.DataFrame({"a": ["1.500"]}), table.columns, "t")


def test_an_arrays_name_stands_for_all_its_columns(folder: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(folder / "t.npz", x=rng.normal(size=(5, 3)), y=rng.normal(size=(5, 2)), z=rng.normal(size=5))
    table = load(folder, path="t.npz", exclude="z")
    assert table.columns.inputs == ("x.0", "x.1", "x.2")
    assert [target.column for target in table.columns.targets] == ["y.0", "y.1"]
    assert load(folder, path="t.npz", inputs="x", target="z").x.shape == (5, 3)


def test_the_rows_held_out_are_drawn_with_the_seed_and_standardised_by_the_others(folder: Path) -> None:
    rng = np.random.default_rng(1)
    raw = rng.normal(5, 3, size=(50_000, 2))
    pl.DataFrame(raw, schema=["a", "y"], orient="row").write_parquet(folder / "t.parquet")
    table = load(folder, path="t.parquet", validation=0.1)
    assert table.x_validation is not None
    assert table.y_validation is not None
    assert (table.x.shape, table.x_validation.shape, table.rows) == ((45_000, 1), (5_000, 1), 50_000)
    feature, target = table.columns.features[0], table.columns.targets[0]
    back = [part * feature.deviation + feature.mean for part in (table.x, table.x_validation)]
    np.testing.assert_allclose(np.sort(np.concatenate(back)[:, 0]), np.sort(raw[:, 0]), rtol=1e-9)
    order = {round(a, 9): i for i, a in enumerate(raw[:, 0].tolist())}
    places = [order[round(a, 9)] for a in back[0][:, 0].tolist()]
    assert places == sorted(places)
    kept = raw[places]
    np.testing.assert_allclose(np.array([feature.mean, target.mean]), kept.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(np.array([feature.deviation, target.deviation]), kept.std(axis=0), rtol=1e-12)
    again, other = (load(folder, path="t.parquet", validation=0.1, seed=seed) for seed in (0, 1))
    assert np.array_equal(again.x, table.x)
    assert not np.array_equal(other.x, table.x)


def test_another_file_is_the_validation_set(folder: Path) -> None:
    (folder / "v.csv").write_text("wet,y,kind,width\ntrue,9,z,2.5\n")
    table = load(folder, validation="v.csv", scale=False)
    assert table.x_validation is not None
    assert table.y_validation is not None
    assert (table.x_validation.tolist(), table.y_validation.tolist()) == ([[2.5, 0, 0, 0, 1]], [[9]])
    assert table.x.shape == (4, 5)
    (folder / "v.csv").write_text("y,kind,width\n9,z,2.5\n")
    with pytest.raises(DataError, match=r"^v\.csv: column wet is missing, and the model needs it$"):
        load(folder, validation="v.csv")
    (folder / "v.csv").write_text("wet,y,kind,width\n")
    with pytest.raises(DataError, match=r"^v\.csv: has no rows$"):
        load(folder, validation="v.csv")


# --- the summary


def test_a_summary_tells_every_column_and_what_read_would_refuse(folder: Path) -> None:
    (folder / "t.csv").write_text("a,k,d,y\n1,u,2020-01-01,2\nNA,v,2020-01-02,3\n4,u,2020-01-03,4\n")
    found = summary_of(folder, target="y")
    assert found.rows == 3
    told = [(c.column, c.type, c.used_as, c.missing, c.distinct, c.min, c.mean, c.std, c.max) for c in found.columns]
    assert told == [
        ("a", "number", "number", 1, 2, 1, 2.5, 1.5, 4),
        ("k", "text", "2 categories", 0, 2, None, None, None, None),
        ("d", "date", "date", 0, 3, None, None, None, None),
        ("y", "number", "target", 0, 3, 2, 3, pytest.approx((2 / 3) ** 0.5), 4),
    ]
    assert not found.problems
    refused = summary_of(folder, target="y", missing="refuse")
    assert "; ".join(map(str, refused.problems)) == refusal(folder, missing="refuse")
    assert not summary_of(folder, target="y", exclude=["d"], missing="mean").problems
    assert summary_of(folder, target="k").columns[1].used_as == "target, 2 classes"
    assert summary_of(folder).columns[3].used_as == "number"
    (problem,) = summary_of(folder, target="q").problems
    assert problem.text.startswith("data.target: there is no column q")


def test_a_missing_number_is_no_number(folder: Path) -> None:
    pl.DataFrame({"a": [1.0, math.nan, 3.0], "y": [1, 2, 3]}).write_parquet(folder / "t.parquet")
    with pytest.raises(DataError, match="column a has no value in 1 of 3 rows, first in row 2"):
        load(folder, path="t.parquet", missing="refuse")
    assert load(folder, path="t.parquet", missing="mean", scale=False).x.tolist() == [[1, 0], [2, 1], [3, 0]]
    assert summary_of(folder, "t.parquet").columns[0].mean == 2
