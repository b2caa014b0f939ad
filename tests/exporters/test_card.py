"""A model card says what a run is of, and how good it is on the rows that were held out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.exporters.tables import made, run_of
from tests.helpers.tablerun import CSV
from tests.helpers.trained import train
from twolayer.evaluation.table_scores import scored
from twolayer.exporters.writing import export
from twolayer.formatting import with_error

OLD = Path(__file__).parents[1] / "runs-0.1.0"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of 30 rows, and a table of the 30 that it was validated with."""
    folder = tmp_path_factory.mktemp("card")
    header, *lines = CSV.splitlines(keepends=True)
    (folder / "first.csv").write_text(header + "".join(lines[:30]))
    (folder / "held.csv").write_text(header + "".join(lines[30:]))
    train(folder, "first.csv --target price --exclude id --set validation=held.csv --epochs 5 --quiet --out run")
    return folder


def test_a_card_has_the_scores_that_evaluate_gives_for_the_rows_held_out(trained: Path) -> None:
    done = export(trained / "run", trained / "card.md")
    text = (trained / "card.md").read_text()
    assert (done.notes, done.rows) == ((), 0)
    assert "On 30 rows; 30 more were held out." in text
    table = scored(trained / "run", str(trained / "held.csv")).table
    assert len(table) == 5
    for row in table:
        cells = [with_error(f.value, f.error) for f in row.figures.values() if f.value is not None]
        assert f"| {row.model} | {' | '.join(cells)} |" in text
    assert "| colour | 3 categories | blue, green, red | no category |" in text
    assert re.search(
        r"\| size \| number \| mean [0-9.-]+, standard deviation [0-9.]+ \| the mean takes its place \|", text
    )
    for word in (str(trained), "first.csv", "202"):  # no paths, and no year of a time
        assert word not in text.replace("torch 2", "")


def test_without_the_table_of_the_training_a_card_says_that_scores_are_not_measured(trained: Path) -> None:
    held = trained / "held.csv"
    before = held.read_bytes()
    held.write_bytes(before.replace(b",97\n", b",98\n") + before.splitlines(keepends=True)[-1])
    try:
        done = export(trained / "run", trained / "other.md")
        assert done.notes == ("no scores in the card: the table is not the one that the run was trained on",)
        held.unlink()
        done = export(trained / "run", trained / "none.md")
        assert done.notes == ("no scores in the card: the table of the training cannot be read",)
        export(trained / "run" / "model.safetensors", trained / "alone.md")
        assert "The model file alone does not say." in (trained / "alone.md").read_text()
    finally:
        held.write_bytes(before)


def test_names_of_columns_are_text_in_a_card(tmp_path: Path) -> None:
    table = made(["category", "dollars", "time", "boolean"], 1, missing=True)
    name = "<b>|*x*"
    table = type(table)({name: table.cells["size"], **table.cells}, {name: table.values["size"], **table.values})
    run_of(tmp_path / "run", table, "classes")
    export(tmp_path / "run" / "model.safetensors", tmp_path / "card.md")
    text = (tmp_path / "card.md").read_text()
    assert "| \\<b\\>\\|\\*x\\* | 3 categories |" in text
    assert "| größe, € | number, written like $1,234.5 | mean " in text
    assert "The class of kind, and the probability of each: cat, dog, too, ä." in text


@pytest.mark.parametrize("name", ["drawn", "table"])
def test_runs_of_version_0_1_0_have_a_card(name: str, tmp_path: Path) -> None:
    export(OLD / name, tmp_path / "card.md")
    text = (tmp_path / "card.md").read_text()
    assert ("## How good it is" in text) == (name == "table")
    assert "twolayer 0.1.0" in text
