"""A sweep as `runs`, `show`, `compare`, `plot` and `report` show it; all without torch."""

from __future__ import annotations

import csv
import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from tests.helpers.browsing import opened
from tests.helpers.forking import Forked
from tests.helpers.processes import in_terminal, screen, without_torch
from tests.helpers.trained import train
from twolayer.runs.checksum import seal_json
from twolayer.sweeps import points
from twolayer.sweeps.folder import SEALS, create, seal_of
from twolayer.sweeps.results import Result


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sweep of a grid and seeds, one of seeds alone, a run, and an interrupted sweep."""
    folder = tmp_path_factory.mktemp("place")
    train(
        folder,
        "modules --sweep lr=1e-4,1e-3,10 --sweep H=4,8 --seeds 2 --epochs 30 -q",
        "scratch --seeds 20 --epochs 40 -q",
        "modules --epochs 5",
    )
    shutil.copytree(folder / "runs/modules-sweep-1", folder / "runs/part")
    lines = (folder / "runs/part/sweep.csv").read_text().splitlines(keepends=True)
    (folder / "runs/part/sweep.csv").write_text("".join(lines[:4]) + "0.001,8")  # as a kill leaves it
    info = json.loads((folder / "runs/part/sweep.json").read_text()) | {SEALS: [seal_of(lines[0].encode())]}
    (folder / "runs/part/sweep.json").write_bytes(seal_json({key: info[key] for key in info if key != "sha256"}))
    return folder


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_sweep_is_one_row_among_the_runs(place: Path) -> None:
    found = [json.loads(line) for line in without_torch("runs", "--format", "jsonl", cwd=place).stdout.splitlines()]
    by_name = {row["run"]: row for row in found}
    assert set(by_name) == {"modules-sweep-1", "scratch-sweep-1", "modules-1", "part"}
    grid, part = by_name["modules-sweep-1"], by_name["part"]
    assert (grid["status"], grid["lr"], grid["seed"]) == ("completed", None, None)
    best = min(float(row["best_loss"]) for row in rows(place / "runs/modules-sweep-1") if row["status"] == "completed")
    assert grid["best loss"] == best
    assert (part["status"], part["note"]) == ("interrupted", "3 of 12 points")
    done = without_torch("runs", "runs/modules-sweep-1", "--format", "csv", cwd=place)
    assert done.stdout == (place / "runs/modules-sweep-1/sweep.csv").read_text()


def test_show_has_the_tables_and_the_spread_over_seeds(place: Path) -> None:
    done = without_torch("show", "modules-sweep-1", cwd=place)
    assert done.returncode == 0
    found = rows(place / "runs/modules-sweep-1")
    for lr, H in (("0.0001", "4"), ("0.001", "8")):
        losses = [float(row["final_loss"]) for row in found if (row["lr"], row["H"]) == (lr, H)]
        spread = [f"{value:.6g}" for value in np.quantile(losses, [0, 0.25, 0.5, 0.75, 1])]
        assert [lr, H, "2", *spread] in [line.split() for line in done.stdout.splitlines()]
    assert ["10.0", "4", "0", "of", "2"] in [line.split() for line in done.stdout.splitlines()]
    assert "12 points: 8 completed, 4 diverged" in done.stdout
    part = without_torch("show", "part", cwd=place).stdout
    assert "12 points: 3 completed, 9 not trained yet" in part
    band = without_torch("show", "scratch-sweep-1", cwd=place).stdout
    assert 'published losses (torch for R, "Neural network from scratch"): inside the 95 % band of 20 seeds' in band
    assert without_torch("show", "modules-sweep-1/lr=0.001,H=4,seed=1", cwd=place).stdout.startswith("run ")
    assert without_torch("show", "modules-sweep-1", "--follow", cwd=place).stdout == done.stdout  # it has ended


def test_compare_shows_each_value_over_all_others(place: Path) -> None:
    done = without_torch("compare", "modules-sweep-1", "--format", "csv", cwd=place)
    found = list(csv.DictReader(done.stdout.splitlines()))
    assert [(row["key"], row["value"]) for row in found] == [
        ("lr", "0.0001"), ("lr", "0.001"), ("lr", "10.0"), ("H", "4"), ("H", "8"), ("seed", "0"), ("seed", "1"),
    ]  # fmt: skip
    losses = [float(row["final_loss"]) for row in rows(place / "runs/modules-sweep-1") if row["lr"] == "0.001"]
    assert found[1]["median loss"] == f"{np.median(losses):.6g}"
    assert found[2]["diverged"] == "4"
    mixed = without_torch("compare", "modules-sweep-1", "modules-1", cwd=place)
    assert (mixed.returncode, "is a sweep, and is shown alone" in mixed.stderr) == (2, True)


def test_plots_show_bands_the_grid_and_the_published_losses(place: Path) -> None:
    done = without_torch("plot", "modules-sweep-1", "-o", "grid.svg", cwd=place)
    assert done.stderr == ("not drawn, because no point was completed: lr 10.0, H 4; lr 10.0, H 8\nwrote grid.svg\n")
    svg = (place / "grid.svg").read_text()
    for text in ("modules-sweep-1: loss by lr and H", "median of 2 seeds", ">best<", "median loss by lr and H"):
        assert text in svg
    assert "the best has a frame; \u00d7: no point was completed" in svg
    assert svg.count("mark-area") >= 2
    done = without_torch("plot", "scratch-sweep-1", "--published", "-o", "band.svg", cwd=place)
    assert done.stderr == "wrote band.svg\n"
    svg = (place / "band.svg").read_text()
    assert "dots: the losses of torch for R" in svg
    refused = without_torch("plot", "modules-1", "--published", "-o", "x.svg", cwd=place)
    assert (refused.returncode, "--published is for a sweep" in refused.stderr) == (2, True)
    refused = without_torch("plot", "modules-sweep-1", "--published", "-o", "x.svg", cwd=place)
    assert refused.returncode in (0, 2)
    assert without_torch("plot", "part", "-o", "part.png", cwd=place).returncode == 0


@pytest.fixture(scope="module")
def page(place: Path, chromium: Browser) -> Iterator[Page]:
    done = without_torch("report", "modules-sweep-1", cwd=place)
    assert (done.returncode, done.stderr) == (0, "wrote report.html\n")
    with opened(chromium, place / "report.html") as shown:
        yield shown


def test_the_report_has_charts_tables_and_all_points(page: Page) -> None:
    assert page.title() == "modules-sweep-1"
    assert page.locator("#chart svg.marks").count() == 2
    assert page.locator("#box tbody tr").count() == 12
    assert page.locator("section h2").all_inner_texts() == [
        "Summary", "Loss", "Over seeds", "Each value, over all others", "The best points", "All points",
    ]  # fmt: skip
    page.set_viewport_size({"width": 390, "height": 844})
    heights = page.locator("#box tbody td").evaluate_all("cells => cells.map(cell => cell.offsetHeight)")
    assert max(heights) < 1.5 * min(heights)  # no word is broken
    page.set_viewport_size({"width": 1280, "height": 900})
    page.locator("#scales button[value=log]").click()
    page.wait_for_function("document.querySelector('#scales button[value=log]').ariaPressed === 'true'")
    page.locator("#box input").fill("diverged")
    assert page.locator("#box tbody tr").count() == 4


def test_a_damaged_sweep_is_said_to_be_one(place: Path) -> None:
    shutil.copytree(place / "runs/scratch-sweep-1", place / "damaged")
    (place / "damaged/sweep.csv").write_text("x\n")
    done = without_torch("show", "damaged", cwd=place)
    assert (
        "sweep.csv: is damaged: it does not have the columns of this sweep; `train --resume` writes it again"
        in done.stderr
    )
    text = (place / "runs/scratch-sweep-1/sweep.csv").read_text()
    at = text.rindex(",seed=") - 2  # the last digit of its seconds
    (place / "damaged/sweep.csv").write_text(text[:at] + ("8" if text[at] != "8" else "7") + text[at + 1 :])
    history = place / "damaged/seed=3/history.csv"
    history.write_text(history.read_text().replace("5", "6", 1))
    done = without_torch("show", "damaged", cwd=place)
    message = "sweep.csv: is damaged: its checksum is not the one in sweep.json; `train --resume` writes it again"
    assert (done.returncode, message in done.stderr) == (0, True)
    assert "not compared, because the history of 1 point is missing or damaged" in done.stdout
    assert without_torch("show", "damaged", "--format", "csv", cwd=place).returncode == 1
    (place / "damaged/sweep.csv").write_text(text)
    done = without_torch("plot", "damaged", "-o", "damaged.html", cwd=place)
    assert "not drawn, because the history is missing or damaged: seed=3" in done.stderr
    text = (place / "damaged/sweep.json").read_text()
    (place / "damaged/sweep.json").write_text(text.replace('"scratch"', '"modules"'))
    for command in ("show", "plot", "report", "compare"):
        more = ["-o", "x.html"] if command in ("plot", "report") else []
        done = without_torch(command, "damaged", *more, cwd=place)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "error: damaged/sweep.json: is damaged or was edited: its checksum does not match\n"


def test_a_sweep_is_followed_to_its_end(tmp_path: Path) -> None:
    plan = points.plan(points.Base("modules", environment={}), [], "3")
    losses = {0: 2.5, 1: 1.5, 2: 3.5}
    with (
        create(tmp_path / "s", plan) as sweep,  # as a sweep that runs
        Forked(["show", "s", "--follow"], tmp_path, bare=True) as table,
        Forked(["show", "s", "--follow", "--format", "csv"], tmp_path, bare=True) as whole,
        Forked(["show", "s", "--follow", "--format", "csv"], tmp_path, bare=True) as left,
    ):
        assert table.stderr.readline() == "sweep s: 3 points, 0 done\n"
        printed = whole.stdout.readline()
        assert left.stdout.readline() == printed
        left.send_signal(signal.SIGINT)
        assert (left.communicate()[1], left.returncode) == ("", 130)
        ended = [Result(point, "completed", {"final_loss": losses[point.number - 1]}, point.name)
                 for point in plan.points]  # fmt: skip
        for number in (1, 0, 2):  # as from several processes
            sweep.add(ended[number])
            printed += whole.stdout.readline()
            said = table.stderr.readline()
            assert said.startswith(f"{printed.count(chr(10)) - 1}/3 seed={number}: completed, loss {losses[number]}")
        sweep.write_table(ended)
        sweep.__exit__(None, None, None)
        shown, said = table.communicate()
        assert whole.communicate() == ("", "")
    assert (table.returncode, whole.returncode, said) == (0, 0, "")
    lines = (tmp_path / "s/sweep.csv").read_text().splitlines()
    assert printed.splitlines() == [lines[0], lines[2], lines[1], lines[3]]
    assert "best of 3 by loss: seed=1 (loss 1.5)" in shown


def test_a_terminal_that_follows_a_sweep_has_a_bar_with_the_best_point(tmp_path: Path) -> None:
    plan = points.plan(points.Base("modules", environment={}), [], "3")
    with create(tmp_path / "s", plan) as sweep:  # as a sweep that runs
        for point, loss in zip(plan.points, (2.5, 1.5), strict=False):
            sweep.add(Result(point, "completed", {"final_loss": loss, "seconds": 1.0}, point.name))
        code, written = in_terminal(["show", "s", "--follow"], tmp_path, kill_at="loss 1.5")
    assert code == 130
    assert "━\x1b[0m 2/3  best so far: seed=1, loss 1.5" in written
    assert [line for line in screen(written) if line] == ["sweep s: 3 points, 2 done"]  # and nothing of the bar
