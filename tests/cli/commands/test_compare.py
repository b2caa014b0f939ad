"""`twolayer compare`: what differs between real runs, and nothing else; and whether histories agree."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from tests.helpers.forking import HANGS, Forked
from tests.helpers.handmade import change_info, write_info
from tests.helpers.processes import BASE, TERMINAL_CODES, in_terminal, screen, without_torch
from tests.helpers.trained import train
from twolayer.reporting import comparison
from twolayer.runs.folder import Run
from twolayer.runs.history import Reader

FIGURES = ("loss", "iterations", "seconds")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs with another seed, engine, step, more iterations, mean loss; two of a table; one that diverged."""
    path = tmp_path_factory.mktemp("compare")
    (path / "my.yaml").write_text(BASE)
    (path / "my.csv").write_text("a,b\n" + "".join(f"{i},{i * 7 % 5}\n" for i in range(40)))
    fused = "my.yaml --epochs 40 --engine fused --set form=primal --threads 1"
    train(
        path,
        f"{fused} --out runs/a",
        f"{fused} --out runs/again",
        f"{fused} --seed 1 --out runs/seed",
        "my.yaml --epochs 40 --engine autograd --threads 1 --out runs/engine",
        f"{fused} --lr 2e-3 --out runs/step",
        f"{fused} --epochs 15 --out runs/twin",
        "--resume twin --epochs 40",
        f"{fused} --epochs 15 --out runs/short",
        f"{fused} --lr 1e9 --out runs/diverged",
        "my.csv --target b --epochs 5 --out runs/table",
        "my.csv --target b --epochs 8 --out runs/longer",
        f"{fused} --set reduction=mean --out runs/mean",
    )
    return path


def printed(folder: Path, *names: str) -> list[dict[str, Any]]:
    """The rows of `compare --format jsonl`."""
    done = without_torch("compare", *names, "--format", "jsonl", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line, parse_constant=pytest.fail) for line in done.stdout.splitlines()]


def differing(rows: list[dict[str, Any]]) -> dict[str, tuple[Any, Any]]:
    """What was set, or computed, otherwise: the figures aside."""
    return {
        row["what"]: (row["reference"], row["value"])
        for row in rows
        if not any(figure in row["what"] for figure in FIGURES)
    }


def losses(run: Path) -> list[float]:
    with (run / "history.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


# --- What differs


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("again", {}),
        ("twin", {}),
        ("seed", {"seed": (0, 1)}),
        ("step", {"lr": (1e-3, 2e-3)}),
        ("engine", {"engine": ("fused", "autograd"), "form": ("primal", "auto")}),
        ("short", {"epochs": (40, 15)}),
        ("diverged", {"lr": (1e-3, 1e9), "status": ("completed", "diverged")}),
    ],
)
def test_what_was_set_otherwise_is_said_exactly_and_only_that(
    name: str, expected: dict[str, tuple[Any, Any]], folder: Path
) -> None:
    assert differing(printed(folder, "a", name)) == expected


def test_the_figures_are_those_of_the_histories(folder: Path) -> None:
    rows = {row["what"]: row for row in printed(folder, "a", "engine")}
    a, b = losses(folder / "runs/a"), losses(folder / "runs/engine")
    first = next(t for t, (x, y) in enumerate(zip(a, b, strict=True), 1) if x != y)
    shares = [abs(y - x) / x for x, y in zip(a, b, strict=True)]
    most = shares.index(max(shares)) + 1
    for what, x, y in (
        ("iterations done", 40, 40),
        ("first loss", a[0], b[0]),
        ("best loss", min(a), min(b)),
        ("last loss", a[-1], b[-1]),
    ):
        row = rows[what]
        assert (row["reference"], row["value"], row["difference"], row["relative"]) == (x, y, y - x, (y - x) / x)
    for what, at in (("loss differs from", first), ("loss differs most at", most)):
        row, x, y = rows[what], a[at - 1], b[at - 1]
        assert (row["reference"], row["value"], row["difference"], row["relative"]) == (None, at, y - x, (y - x) / x)
    info = [json.loads((folder / f"runs/{name}/run.json").read_text()) for name in ("a", "engine")]
    assert [rows["final loss"][key] for key in ("reference", "value")] == [one["final_loss"] for one in info]
    each = [one["seconds"] / 40 for one in info]
    assert [rows["seconds per iteration"][key] for key in ("reference", "value")] == each


def test_a_loss_that_is_not_finite_is_where_a_diverged_run_differs_most(folder: Path) -> None:
    rows = {row["what"]: row for row in printed(folder, "a", "diverged")}
    found = losses(folder / "runs/diverged")
    assert not math.isfinite(found[-1])
    assert rows["loss differs most at"]["value"] == len(found)
    assert rows["loss differs most at"]["difference"] is None
    assert rows["last loss"]["value"] == found[-2]


def test_epochs_are_not_held_against_iterations(folder: Path) -> None:
    rows = {row["what"]: row for row in printed(folder, "a", "table")}
    assert (rows["unit"]["reference"], rows["unit"]["value"]) == ("iteration", "epoch")
    assert (rows["rows"]["reference"], rows["rows"]["value"], rows["rows"]["difference"]) == (40, 5, None)
    assert rows["loss differs from"]["value"] is None
    assert rows["loss differs from"]["difference"] is None
    assert rows["first val_loss"]["reference"] is None


def test_csv_has_every_digit_and_reads_back(folder: Path) -> None:
    done = without_torch("compare", "a", "seed", "step", "--format", "csv", cwd=folder)
    found = list(csv.DictReader(io.StringIO(done.stdout)))
    assert list(found[0]) == list(comparison.COLUMNS)
    expected = printed(folder, "a", "seed", "step")
    assert len(found) == len(expected)
    for row, other in zip(found, expected, strict=True):
        for key, value in other.items():
            assert (float(row[key]) if isinstance(value, float) else row[key]) == (
                "" if value is None else value if isinstance(value, float) else str(value)
            )


def test_what_computed_is_said_where_it_differs(folder: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        shutil.copytree(folder / "runs/a", tmp_path / "runs" / name)
    info = json.loads((tmp_path / "runs/b/run.json").read_text())
    change_info(tmp_path / "runs/b", torch="9.9", initial_sha256="0" * 64, resumed=[{"torch": "9.10"}, {}, 1])
    assert differing(printed(tmp_path, "a", "b")) == {
        "torch": (info["torch"], "9.9, then 9.10"),
        "initial_sha256": (info["initial_sha256"], "0" * 64),
    }
    page = without_torch("report", "a", "b", cwd=tmp_path)
    assert (page.returncode, page.stderr) == (0, "wrote report.html\n")
    for value in (*differing(printed(tmp_path, "a", "b"))["torch"], "0" * 64):
        assert f"<td>{value}</td>" in (tmp_path / "report.html").read_text()
    shown = without_torch("compare", "a", "b", cwd=tmp_path).stdout
    assert re.search(rf"^initial_sha256 +{info['initial_sha256'][:12]} +0{{12}}$", shown, re.MULTILINE)


# --- The table


def test_the_table_has_a_column_a_run_and_what_is_alike_is_called_the_same(folder: Path) -> None:
    done = without_torch("compare", "a", "again", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [re.split(" {2,}", line.strip()) for line in done.stdout.splitlines()]
    assert lines[0] == ["a", "again", "difference"]
    rows = {name: cells for name, *cells in lines[1:]}
    a = losses(folder / "runs/a")
    assert rows["iterations done"] == ["40", "40", "same"]
    assert rows["first loss"] == [f"{a[0]:.6g}", f"{a[0]:.6g}", "same"]
    assert rows["loss differs from"] == ["nowhere"]
    assert "loss differs most at" not in rows
    assert rows["time per iteration"][2].startswith("x ")
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_numbers_that_look_alike_and_are_not_have_their_difference_beside_them(folder: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        shutil.copytree(folder / "runs/a", tmp_path / "runs" / name)
    lines = (tmp_path / "runs/b/history.csv").read_text().splitlines(keepends=True)
    loss = float(lines[40].split(",")[1])
    lines[40] = f"40,{math.nextafter(loss, math.inf)!r}\n"
    (tmp_path / "runs/b/history.csv").write_text("".join(lines))
    shown = without_torch("compare", "a", "b", cwd=tmp_path).stdout
    pattern = rf"^last loss +{loss:.6g} +{loss:.6g} +\+\S+e-1[456] \(\+\d(\.\d)?e-1[34]%\)$"
    assert re.search(pattern, shown, re.MULTILINE)
    assert re.search(r"^loss differs from +40 +\+", shown, re.MULTILINE)


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_six_runs_stand_as_far_as_there_is_room_and_then_below(columns: int, folder: Path) -> None:
    names = ["a", "again", "seed", "engine", "step", "short"]
    code, written = in_terminal(["compare", *names], folder, {"COLUMNS": str(columns)})
    lines = screen(written)
    assert code == 0
    assert max(map(cell_len, lines)) <= columns
    heads = [line.split() for line in lines if line.endswith("difference") and "columns not shown" not in line]
    assert [name for head in heads for name in head if name not in ("a", "difference")] == names[1:]
    assert (len(heads) == 1) == (columns == 200)
    assert columns > 40 or "columns not shown: a" in " ".join(lines)
    assert sum(line.split()[:1] == ["seed"] for line in lines) == 1  # it differs in one run


def test_what_is_too_long_for_a_terminal_is_folded_and_nothing_is_lost(folder: Path, tmp_path: Path) -> None:
    path = "/".join(["x" * 30] * 4)
    for name in ("a", "b"):
        shutil.copytree(folder / "runs/table", tmp_path / "runs" / name)
        file = tmp_path / "runs" / name / "config.yaml"
        file.write_text(file.read_text().replace(str(folder / "my.csv"), f"/{path}/{name}.csv"))
        change_info(tmp_path / "runs" / name, config_sha256=None)
    _, written = in_terminal(["compare", "a", "b"], tmp_path, {"COLUMNS": "80"})
    lines = screen(written)
    assert max(map(cell_len, lines)) <= 80
    assert "".join(lines).count("x" * 10) >= 4
    assert f"/{path}/a.csv  /{path}/b.csv" in without_torch("compare", "a", "b", cwd=tmp_path).stdout


def test_hostile_text_reaches_the_terminal_as_text(folder: Path, tmp_path: Path) -> None:
    bad = "\x1b]0;x\x07[red]\u202e\n\x9b31m"
    for name in ("a", f"b{bad}"):
        shutil.copytree(folder / "runs/a", tmp_path / "runs" / name)
    info = json.loads((tmp_path / "runs/a/run.json").read_text())
    info |= {"device": bad, "torch": bad, "data_sha256": bad, "resumed": [{"python": bad}, bad], "final_loss": bad}
    write_info(tmp_path / "runs/a", info)
    for form in ("table", "csv"):
        done = without_torch("compare", "a", f"runs/b{bad}", "--format", form, "--expect-equal", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert not TERMINAL_CODES.search(done.stdout)
        assert "\u202e" not in done.stdout
        assert r"\x1b]0;x\x07[red]\u202e\n\x9b31m" in done.stdout


def test_histories_of_other_lengths_agree_as_far_as_both_go(folder: Path) -> None:
    lines = without_torch("compare", "table", "longer", cwd=folder).stdout.splitlines()
    cells = {re.split(" {2,}", line)[0]: re.split(" {2,}", line)[1:] for line in lines}
    assert [line.split()[0] for line in lines[1:]].count("epochs") == 2
    assert cells["epochs"] == ["5", "8"]
    assert cells["epochs done"] == ["5", "8", "+3 (+60.00%)"]
    assert cells["loss differs from"] == ["nowhere in 5"]


def test_losses_of_another_kind_are_shown_and_not_compared(folder: Path) -> None:
    lines = without_torch("compare", "a", "mean", cwd=folder).stdout.splitlines()
    cells = {re.split(" {2,}", line)[0]: re.split(" {2,}", line)[1:] for line in lines}
    assert cells["reduction"] == ["sum", "mean"]
    for name in ("first loss", "best loss", "last loss", "final loss"):
        assert cells[name][2] == "other loss"
    assert "loss differs from" not in cells
    rows = {row["what"]: row for row in printed(folder, "a", "mean")}
    assert rows["last loss"]["value"] == losses(folder / "runs/mean")[-1]
    assert rows["last loss"]["difference"] is None
    assert rows["loss differs from"]["value"] is None
    code, errors = agree(folder, "--expect-equal=1", "a", "mean")
    assert (code, errors) == (1, ["error: mean: its loss is mse, mean, not mse, sum"])


# --- Runs in any state


def test_runs_in_any_state_are_compared_and_what_is_wrong_is_said(folder: Path, tmp_path: Path) -> None:
    def change(name: str, **fields: Any) -> None:
        shutil.copytree(folder / "runs/a", tmp_path / "runs" / name)
        change_info(tmp_path / "runs" / name, **fields)

    for name, fields in {
        "a": {},
        "killed": {"status": "running"},
        "held": {"status": "running"},
        "interrupted": {"status": "interrupted"},
        "broken": {"format": "x"},
        "damaged": {},
        "unset": {},
    }.items():
        change(name, **fields)
    (tmp_path / "runs/damaged/history.csv").write_text("iteration,loss\n1,2.0\n1,2.0\n")
    (tmp_path / "runs/unset/config.yaml").unlink()
    with Run(tmp_path / "runs/held"):
        done = without_torch(
            *("compare", "a", "killed", "held", "interrupted", "broken", "damaged", "unset"),
            *("--format", "jsonl", "--expect-equal"),
            cwd=tmp_path,
        )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert {row["run"]: row["value"] for row in rows if row["what"] == "status"} == {
        "killed": "killed",
        "held": "running",
        "interrupted": "interrupted",
        "broken": "broken",
        "damaged": "completed",
        "unset": "completed",
    }
    assert {row["what"] for row in rows if row["run"] == "unset"} >= {"status", "iterations done", "loss differs from"}
    assert not any(row["what"] in ("lr", "seed") for row in rows)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "runs/broken/run.json: is damaged: it has no format number",
        "runs/damaged/history.csv: is damaged after row 1",
        "runs/unset/config.yaml: is missing",
        "error: damaged: runs/damaged/history.csv: is damaged after row 1",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a"], "error: compare needs two or more runs, or a sweep"),
        (["--expect-equal", "a"], "error: compare needs two or more runs, or a sweep"),
        ([], "error: Missing argument 'RUN'; see twolayer compare --help"),
        (["a", "nothing"], "error: nothing: no such run folder; `twolayer runs` lists all runs"),
        (["a", "again", "--expect-equal=-1"], "error: --expect-equal: must be a number, 0 or more, not '-1'"),
        (["a", "again", "--expect-equal=nan"], "error: --expect-equal: must be a number, 0 or more, not 'nan'"),
        (["a", "again", "--expect-equal=inf"], "error: --expect-equal: must be a number, 0 or more, not 'inf'"),
        (["a", "again", "--expect-equal=x"], "error: --expect-equal: must be a number, 0 or more, not 'x'"),
        (["a", "again", "--expect-equal="], "error: --expect-equal: must be a number, 0 or more, not ''"),
    ],
)
def test_what_cannot_be_compared_is_a_usage_error(arguments: list[str], message: str, folder: Path) -> None:
    done = without_torch("compare", *arguments, cwd=folder)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (2, "", message)


# --- Whether histories agree


def agree(folder: Path, *arguments: str) -> tuple[int, list[str]]:
    done = without_torch("compare", *arguments, cwd=folder)
    assert "loss" in done.stdout
    return done.returncode, done.stderr.splitlines()


@pytest.mark.parametrize(
    "arguments", [["--expect-equal", "a", "twin"], ["a", "--expect-equal", "twin"], ["a", "twin", "--expect-equal"]]
)
def test_a_bare_expect_equal_takes_no_run_for_its_value(arguments: list[str], folder: Path) -> None:
    assert agree(folder, *arguments) == (0, [])
    unlike = ["seed" if argument == "twin" else argument for argument in arguments]
    assert agree(folder, *unlike)[0] == 1


def test_behind_two_dashes_it_is_a_run(folder: Path) -> None:
    done = without_torch("compare", "a", "--", "--expect-equal", cwd=folder)
    assert (done.returncode, done.stderr.partition(": no")[0]) == (2, "error: --expect-equal")


def test_a_run_and_its_resumed_twin_agree_and_others_do_not(folder: Path) -> None:
    assert agree(folder, "--expect-equal", "a", "twin", "again") == (0, [])
    a, seed, step = (losses(folder / "runs" / name) for name in ("a", "seed", "step"))
    code, lines = agree(folder, "--expect-equal", "a", "twin", "seed", "step", "short", "table")
    assert code == 1
    assert len(lines) == 4
    assert lines[0].startswith(f"error: seed: loss at iteration 1 is {seed[0]!r}, not {a[0]!r}: ")
    assert lines[1].startswith(f"error: step: loss at iteration 2 is {step[1]!r}, not {a[1]!r}: ")
    assert lines[2] == "error: short: has 15 iterations, not 40"
    assert lines[3] == "error: table: its loss is mse, mean, not mse, sum"


def test_histories_without_a_row_agree_with_none(folder: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        shutil.copytree(folder / "runs/a", tmp_path / "runs" / name)
        (tmp_path / "runs" / name / "history.csv").write_text("iteration,loss\n")
        shutil.rmtree(tmp_path / "runs" / name / "checkpoints")
        change_info(
            tmp_path / "runs" / name,
            **dict.fromkeys(("first_loss", "best_loss", "last_loss", "history_bytes", "history_sha256")),
            status="interrupted",
            iterations=0,
        )
    assert agree(tmp_path, "--expect-equal", "a", "b") == (1, ["error: b: neither has any iterations to compare"])


def test_engines_agree_to_a_tolerance_and_not_exactly(folder: Path) -> None:
    assert agree(folder, "--expect-equal=1e-3", "a", "engine") == (0, [])
    assert agree(folder, "--expect-equal", "a", "engine")[0] == 1
    a, b = losses(folder / "runs/a"), losses(folder / "runs/engine")
    most = max(abs(x - y) / x for x, y in zip(a, b, strict=True))
    assert agree(folder, f"--expect-equal={most * 1.01!r}", "a", "engine")[0] == 0
    assert agree(folder, f"--expect-equal={most * 0.99!r}", "a", "engine")[0] == 1


def test_a_run_that_a_signal_stopped_and_its_whole_twin_agree(tmp_path: Path) -> None:
    arguments = ["--set", "N=200", "--epochs", "3000", "--quiet", "--checkpoint-every", "500"]
    train(tmp_path, " ".join([*arguments, "--out", "runs/whole"]))
    with Forked(["train", *arguments, "--out", "runs/cut"], tmp_path) as process:
        history = tmp_path / "runs/cut/history.csv"
        end = time.monotonic() + HANGS
        while not history.exists() or history.stat().st_size < 1000:
            assert time.monotonic() < end
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    done = without_torch("compare", "--expect-equal", "whole", "cut", cwd=tmp_path)
    assert done.returncode == 1
    assert re.fullmatch(r"error: cut: has \d+ iterations, not 3000\n", done.stderr)
    assert re.search(r"^status +completed +interrupted$", done.stdout, re.MULTILINE)
    train(tmp_path, "--resume cut --quiet")
    assert agree(tmp_path, "--expect-equal", "whole", "cut") == (0, [])


HISTORY = st.lists(st.floats() | st.sampled_from([0.0, -0.0, 1.0, math.inf, -math.inf, math.nan]), max_size=20)


class Numbers:
    """A run with such a history, and nothing else."""

    def __init__(self, values: list[float]) -> None:
        self.problems: tuple[str, ...] = ()
        self.loss_kind = ""
        self.history = Reader(Path("history.csv"))
        self.history.columns["loss"].extend(values)


def held(a: list[float], b: list[float], tolerance: float) -> str:
    reference: Any = Numbers(a)
    other: Any = Numbers(b)
    return comparison.disagreement(reference, other, tolerance)


@given(HISTORY, st.floats(0, 1e10))
def test_a_history_agrees_with_itself_whatever_it_holds(values: list[float], tolerance: float) -> None:
    assert held(values, list(values), tolerance) == ("" if values else "neither has any iterations to compare")


@given(HISTORY, HISTORY, st.sampled_from([0.0, 1e-6, 0.5, 1e10]))
def test_the_first_place_that_does_not_agree_is_named(a: list[float], b: list[float], tolerance: float) -> None:
    def agrees(x: float, y: float) -> bool:
        if math.isnan(x) or math.isnan(y):
            return math.isnan(x) and math.isnan(y)
        if math.isinf(x) or math.isinf(y):
            return x == y
        return abs(x - y) <= tolerance * abs(x)

    place = next((t for t, (x, y) in enumerate(zip(a, b, strict=False), 1) if not agrees(x, y)), None)
    found = held(a, b, tolerance)
    if place is not None:
        expected = f"loss at iteration {place} is {b[place - 1]!r}, not {a[place - 1]!r}"
        assert found.partition(": ")[0] == expected
    elif len(a) != len(b):
        assert found == f"has {len(b)} iterations, not {len(a)}"
    else:
        assert found == ("" if a else "neither has any iterations to compare")


DAMAGES: list[Callable[[Path], Any]] = [
    lambda run: (run / "history.csv").unlink(),
    lambda run: (run / "history.csv").write_text("iteration,loss\n1,x\n"),
    lambda run: (run / "history.csv").write_text((run / "history.csv").read_text().rpartition("40,")[0]),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_history_agrees_with_none_not_even_its_copy(
    damage: Callable[[Path], Any], folder: Path, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        shutil.copytree(folder / "runs/a", tmp_path / "runs" / name)
        damage(tmp_path / "runs" / name)
    done = without_torch("compare", "--expect-equal=1", "a", "b", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: b: runs/a/history.csv: ")


def test_the_help_says_what_it_may_be(folder: Path) -> None:
    text = without_torch("compare", "--help", cwd=folder).stdout
    assert "--expect-equal [=RTOL]" in text
    assert "Example:  twolayer compare" in text
