"""Tables on narrow and wide terminals: every number is whole, and columns that do not fit are named."""

from __future__ import annotations

import csv
import math
import random
import re
from functools import cache
from pathlib import Path

import pytest

from tests.helpers.forking import run
from tests.helpers.processes import in_terminal, screen

WIDTHS = [40, 80, 100, 200]
COMMANDS = {
    "train": ["train", "flowers.csv", "--target", "kind", "--epochs", "6", "--no-save", "--log-every", "1"],
    "train float64": ["train", "--set", "dtype=float64", "--lr", "auto", "--epochs", "30", "--no-save"],
    "data": ["data", "flowers.csv", "--target", "kind"],
    "evaluate classes": ["evaluate", "classes", "flowers.csv"],
    "evaluate numbers": ["evaluate", "numbers", "flowers.csv"],
    "check": ["check", "scratch"],
}
NUMBER = re.compile(r"-?\d[\d.]*(?:e[+-]\d+)?|inf|nan")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table with numbers of all sizes, and two runs on it."""
    folder, draw = tmp_path_factory.mktemp("flowers"), random.Random(1)
    rows = ["sepal,petal,width of it,weight,kind"]
    for n in range(120):
        numbers = (draw.gauss(5, 1), draw.gauss(n % 3, 0.3), draw.gauss(0, 1e-7), draw.gauss(1e9, 1e5))
        rows.append(",".join(map(repr, numbers)) + f",{('setosa', 'versicolor', 'virginica')[n % 3]}")
    (folder / "flowers.csv").write_text("\n".join(rows) + "\n")
    for name, target in (("classes", "kind"), ("numbers", "weight")):
        done = run(["train", "flowers.csv", "--target", target, "--epochs", "3", "-q", "--out", name], folder)
        assert done.returncode == 0
    return folder


@cache
def as_csv(command: tuple[str, ...], folder: Path) -> list[list[str]]:
    return list(csv.reader(run([*command, "--format", "csv"], folder).stdout.splitlines()))


def as_shown(cell: str, *, mean: bool = False) -> set[str]:
    """How a table may show the numbers in a cell of csv; a mean or standard deviation with four digits."""
    numbers, forms = NUMBER.findall(cell), ("{:.4g}",) if mean else ("{:.6g}", "{:#.6g}")
    whole = {str(round(float(number))) for number in numbers if math.isfinite(float(number))}
    long = {text for text in whole if len(text.lstrip("-")) >= (4 if mean else 6)}  # a whole part keeps its digits
    return {form.format(float(number)) for number in numbers for form in forms} | set(numbers) | long


def is_rounded(token: str, cells: list[list[str]]) -> bool:
    """Whether a number on the screen is one of csv, rounded to the digits that it has or to their place."""
    mantissa, exponent, _ = token.partition("e")
    decimals = len(mantissa.partition(".")[2])
    form = f"{{:.{decimals}{'e' if exponent else 'f'}}}"
    zeros = len(mantissa) - len(mantissa.rstrip("0")) if not exponent and not decimals else 0
    numbers = [float(number) for row in cells for cell in row for number in NUMBER.findall(cell)]
    return any(form.format(round(number, -zeros) if zeros else number) == token for number in numbers)


@pytest.mark.sample(8)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_every_number_on_the_screen_is_whole_and_every_column_is_named(
    command: list[str], width: int, folder: Path
) -> None:
    names, *cells = as_csv(tuple(command), folder)
    is_evaluate = command[0] == "evaluate"  # there a standard error stands beside its score
    names = [name for name in names if not is_evaluate or not (name.endswith(" se") or name == "rows")]
    allowed = {
        form
        for row in cells
        for name, cell in zip(names, row, strict=not is_evaluate)
        for form in as_shown(cell, mean=name in ("mean", "std"))
    }
    code, written = in_terminal(command, folder, {"COLUMNS": str(width), "LINES": "24"})
    assert code == 0
    lines = screen(written)
    assert max(map(len, lines)) <= width
    start = next(i for i, line in enumerate(lines) if line.split()[:1] == [names[0]])
    text = "\n".join(lines[start:])
    table, _, left_out = text.partition("columns not shown: ")
    missing = " ".join(left_out.split()).partition(" (the terminal is too narrow)")[0].split(", ")
    header = lines[start]
    assert [name for name in names if re.search(rf"(^| ){re.escape(name)}( |$)", header) or name in missing] == names
    body = re.split(r"\n(?:loss after|best weights|\n)", table)[0]
    shown = [token for line in body.split("\n")[1:] for token in NUMBER.findall(re.sub(r"\b[A-Za-z_]\w*", "", line))]
    assert len(shown) >= sum(any(map(NUMBER.search, row)) for row in cells)
    assert not is_evaluate or not re.search(r"^\s*±|±\s*$", table, flags=re.M)
    if is_evaluate:
        assert all(token in allowed or is_rounded(token, cells) for token in shown)
    else:
        assert set(shown) <= allowed
