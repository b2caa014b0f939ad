"""`twolayer plot`, as a reader has its files: pixels, XML, a PDF reader, a real browser."""

from __future__ import annotations

import io
import itertools
import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page

from tests.helpers.browsing import opened
from tests.helpers.handmade import change_info, look, make
from tests.helpers.processes import Run, without_torch
from tests.helpers.trained import train
from twolayer.reporting.chart_theme import COLOURS
from twolayer.runs import folder as run_folder

Pixels = npt.NDArray[np.int16]

EVIL = "</script><img src=x onerror=globalThis.hacked=1>\"'`{{7*7}}{% raw %}${7*7}\x1b[31m\u202e"
LINE = "document.querySelector('#chart .mark-line path').getAttribute('d')"  # the first one
FOLDER = EVIL.replace("/", "\\")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs as `train` leaves them, and others as it may."""
    folder = tmp_path_factory.mktemp("place")
    rows = [f"{x},{y},{x * 3 % 7 + y}" for x in range(10) for y in range(6)]
    (folder / "grass.csv").write_text("\n".join(["length,width,blooms", *rows, ""]))
    train(
        folder,
        "default",
        "default --seed 1 --lr 2e-5",
        "default --lr 0.01 --out runs/diverged",
        "grass.csv --target blooms --epochs 40 --set validation=0.2",
    )
    for status in ("interrupted", "running", "broken"):
        shutil.copytree(folder / "runs/default-1", folder / "runs" / status)
    for status in ("interrupted", "running"):
        change(folder / "runs" / status, status)
    (folder / "runs/broken/run.json").write_text("{")
    with (folder / "runs/broken/history.csv").open("a") as file:
        file.write("501,x\n")
    make(folder / "runs/empty", [])
    return folder


def change(run: Path, status: str) -> None:
    """A run that has come as far as iteration 300."""
    ended = ("history_bytes", "history_sha256", "first_loss", "best_loss", "last_loss")
    change_info(run, **dict.fromkeys(ended), status=status, iterations=300)
    shutil.rmtree(run / "checkpoints")
    (run / "model.safetensors").unlink()
    rows = (run / "history.csv").read_text().splitlines(keepends=True)
    (run / "history.csv").write_text("".join(rows[:301]) + "301,0.0")  # which is being written


def plot(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return without_torch("plot", *arguments, cwd=place)


def picture(data: bytes) -> Pixels:
    """The pixels, rows of red, green and blue."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=np.int16)


def curve(pixels: Pixels, colour: str = COLOURS[0]) -> dict[int, float]:
    """The columns that have the colour, and how far down it stands there, from 0 to 1."""
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    is_there = (np.abs(pixels - wanted) < 24).all(axis=2)
    rows = np.arange(len(pixels)) / len(pixels)
    return {int(x): float(rows[is_there[:, x]].mean()) for x in np.flatnonzero(is_there.any(axis=0))}


def falls(points: dict[int, float]) -> bool:
    """Whether a curve goes from the upper left to the lower right, and never up by more than a blur."""
    heights = list(points.values())
    return (
        heights[0] < 0.25
        and heights[-1] > 0.75
        and all(after > before - 0.01 for before, after in itertools.pairwise(heights))
    )


def test_a_png_shows_the_curve_falling_at_the_resolution_of_a_screen_of_today(place: Path) -> None:
    done = plot(place, "default-1", "-o", "one.png")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "wrote one.png\n")
    pixels = picture((place / "one.png").read_bytes())
    points = curve(pixels)
    assert 1440 <= len(points) <= 1442
    assert falls(points)
    assert pixels[2, 2].tolist() == [255, 255, 255]


def test_log_and_linear_are_different_pictures_of_the_same_run(place: Path) -> None:
    """The book's losses fall by half in some 14 iterations: all but straight on one scale, all below on the other."""
    for scale in ("log", "linear"):
        assert plot(place, "default-1", "-o", f"{scale}.png", "--scale", scale).returncode == 0
    log, linear = (curve(picture((place / f"{scale}.png").read_bytes())) for scale in ("log", "linear"))
    assert 0.4 < log[max(log) // 2] < 0.75
    assert linear[max(linear) // 2] > 0.8
    assert falls(log)


def test_two_runs_have_two_colours(place: Path) -> None:
    plot(place, "default-1", "default-2", "-o", "two.png")
    pixels = picture((place / "two.png").read_bytes())
    first, second = (curve(pixels, colour) for colour in COLOURS[:2])
    assert min(len(first), len(second)) >= 1440
    assert first[max(first)] > second[max(second)] + 0.2  # the smaller step is still high up
    assert not curve(pixels, COLOURS[2])


def test_an_svg_parses_and_has_a_line_a_run(place: Path) -> None:
    plot(place, "default-1", "default-2", "diverged", "-o", "three.svg")
    found = look((place / "three.svg").read_text())
    assert len(found.lines) == 3
    assert "Loss by lr and seed" in found.texts
    assert {"default-1: lr 0.0001, seed 0", "default-2: lr 2e-05, seed 1", "diverged: lr 0.01, seed 0"} <= set(
        found.texts
    )


def test_a_run_with_validation_has_a_dashed_line_beside_the_solid_one(place: Path) -> None:
    plot(place, "grass-1", "-o", "validation.svg")
    found = look((place / "validation.svg").read_text())
    assert [line.is_dashed for line in found.lines] == [False, True]
    assert {"training", "validation", "epoch"} <= set(found.texts)


@pytest.mark.skipif(not shutil.which("pdftoppm"), reason="there is no pdftoppm here")
def test_a_pdf_opens_and_shows_the_curve(place: Path, tmp_path: Path) -> None:
    assert plot(place, "default-1", "-o", "one.pdf").returncode == 0
    subprocess.run(["pdftoppm", "-r", "144", "-png", place / "one.pdf", tmp_path / "page"], check=True)
    (page,) = tmp_path.glob("page*.png")
    assert falls(curve(picture(page.read_bytes())))


def paths(page: Page) -> list[str]:
    found: list[str] = page.eval_on_selector_all(
        "#chart .mark-line path", "paths => paths.map(path => path.getAttribute('d'))"
    )
    return found


def test_a_page_draws_tells_moves_and_zooms_offline(place: Path, chromium: Browser) -> None:
    assert plot(place, "default-1", "default-2", "-o", "two.html").returncode == 0
    with opened(chromium, place / "two.html") as page:
        assert page.inner_text("h1") == page.title() == "Loss by lr and seed"
        before = paths(page)
        assert [path.count("L") for path in before] == [499, 499]
        box = page.locator("#chart svg").bounding_box()
        assert box is not None
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(x, y)
        page.wait_for_selector("#vg-tooltip-element.visible")
        told = dict(line.split("\t") for line in page.inner_text("#vg-tooltip-element").splitlines())
        assert told["run"].startswith("default-1: ")
        losses = (place / "runs/default-1/history.csv").read_text().splitlines()
        number, loss = losses[int(told["iteration"])].split(",")
        assert number == told["iteration"]
        assert math.isclose(float(told["loss"]), float(loss), rel_tol=1e-8)
        page.mouse.wheel(0, -300)
        page.wait_for_function(f"before => {LINE} != before", arg=before[0])
        zoomed = paths(page)
        page.mouse.down()
        page.mouse.move(x - 80, y, steps=4)
        page.mouse.up()
        page.wait_for_function(f"zoomed => {LINE} != zoomed", arg=zoomed[0])
        page.mouse.dblclick(x, y)
        page.wait_for_function(f"before => {LINE} == before", arg=before[0])


@pytest.mark.sample(1)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_is_light_or_dark_and_fits_a_phone(place: Path, chromium: Browser, scheme: Any) -> None:
    if not (place / "three.html").exists():
        plot(place, "default-1", "default-2", "grass-1", "-o", "three.html")
    size: Any = {"width": 390, "height": 760}
    with opened(chromium, place / "three.html", viewport=size, color_scheme=scheme) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        pixels = picture(page.screenshot())
        paper = pixels[0, 0]
        assert (paper > 250).all() if scheme == "light" else (paper < 40).all()
        assert pixels.min() < 60
        assert pixels.max() > 200


def test_a_name_is_text_in_every_format(place: Path, chromium: Browser) -> None:
    shutil.copytree(place / "runs/default-1", place / FOLDER)
    shutil.copytree(place / "runs/default-2", place / "datum['a'].b")
    for ending in ("png", "svg", "pdf", "html"):
        done = plot(place, FOLDER, "datum['a'].b", "-o", f"evil.{ending}")
        assert (done.returncode, done.stderr) == (0, f"wrote evil.{ending}\n")
    texts = look((place / "evil.svg").read_text()).texts
    assert "datum['a'].b: lr 2e-05, seed 1" in texts
    (label,) = [text for text in texts if "script" in text]
    assert label.startswith("<\\script><img src=x")
    assert label.endswith("7}\\x1b[31m\\u202e: lr 0.0001, seed 0")
    with opened(chromium, place / "evil.html") as page:
        assert page.locator("img").count() == 0
        assert label in page.locator("#chart").inner_text()
        box = page.locator("#chart svg").bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] * 0.6)
        page.wait_for_selector("#vg-tooltip-element.visible")
        assert label in page.inner_text("#vg-tooltip-element")
        assert page.locator("img").count() == 0
        assert page.evaluate("globalThis.hacked") is None


def test_a_title_is_text_too(place: Path, chromium: Browser) -> None:
    make(place / "evil" / FOLDER, [3.0, 2.0, 1.0], config=EVIL, shape=EVIL)
    plot(place, str(Path("evil") / FOLDER), "-o", "title.html")
    with opened(chromium, place / "title.html") as page:
        assert page.inner_text("h1").startswith("<\\script><img src=x")
        assert page.inner_text("h1").count("</script>") == 2
        assert page.title() == page.inner_text("h1")
        assert page.locator("img").count() == 0
        assert page.evaluate("globalThis.hacked") is None


def test_runs_in_every_state_are_drawn_and_what_is_wrong_is_told(place: Path) -> None:
    names = ("running", "interrupted", "diverged", "broken", "empty", "default-1")
    with run_folder.Run(place / "runs/running"):
        done = plot(place, *names, "-o", "all.svg")
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        "runs/broken/run.json: is damaged: it is not JSON",
        "runs/broken/history.csv: is damaged after row 500",
        "runs/empty: has no losses",
        "wrote all.svg",
    ]
    found = look((place / "all.svg").read_text())
    diverged = len((place / "runs/diverged/history.csv").read_text().splitlines()) - 2  # the head, and the last loss
    assert [len(line.points) for line in found.lines] == [300, 300, diverged, 500, 500]
    done = plot(place, "running", "-o", "killed.svg")  # nobody holds it now
    assert (done.returncode, done.stderr) == (0, "wrote killed.svg\n")


def test_runs_without_any_loss_are_an_error_that_names_each(place: Path) -> None:
    with run_folder.Run(place / "runs/empty"):
        info = place / "runs/empty/run.json"
        before = info.read_text()
        info.write_text(before.replace("completed", "running"))
        done = plot(place, "empty", "-o", "none.png")
        info.write_text(before)
    assert (done.returncode, done.stderr) == (1, "error: runs/empty: has no losses yet\n")
    assert not (place / "none.png").exists()


def test_a_run_that_is_named_twice_is_drawn_once(place: Path) -> None:
    plot(place, "default-1", "runs/default-1/", "default-1", "-o", "once.svg")
    assert len(look((place / "once.svg").read_text()).lines) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("default-1", 2, "Missing option '-o' / '--out'; see twolayer plot --help"),
        ("-o x.png", 2, "Missing argument 'RUN'; see twolayer plot --help"),
        ("default-1 -o x.jpg", 2, "x.jpg: its name must end in .png, .svg, .pdf or .html"),
        ("default-1 -o x", 2, "x: its name must end in .png, .svg, .pdf or .html"),
        ("default-1 -o runs/default-1/run.json", 2, "must end in .png, .svg, .pdf or .html"),
        ("default-1 -o folder.png", 1, "folder.png: cannot be written: Is a directory"),
        ("default-1 -o no/x.png", 1, "no/x.png: cannot be written: No such file or directory"),
        ("default-1 -o x.png --scale sqrt", 2, "'sqrt' is not one of 'auto', 'log', 'linear'"),
        ("default-1 nope -o x.png", 2, "nope: no such run folder"),
        (". -o x.png", 2, ".: is not a run folder: it has no run.json"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(
    place: Path, tmp_path: Path, twolayer: Run, arguments: str, code: int, message: str
) -> None:
    (tmp_path / "runs").symlink_to(place / "runs")
    (tmp_path / "folder.png").mkdir()
    done = twolayer("plot", *arguments.split())
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["folder.png", "runs"]


def test_a_file_that_is_there_is_replaced_whole_or_stays(place: Path, tmp_path: Path, twolayer: Run) -> None:
    target = tmp_path / "loss.PNG"
    target.write_text("before")
    (tmp_path / "empty").mkdir()
    make(tmp_path / "empty" / "run", [])
    assert twolayer("plot", tmp_path / "empty" / "run", "-o", target).returncode == 1
    assert target.read_text() == "before"
    assert twolayer("plot", place / "runs/default-1", "-o", target).returncode == 0
    assert falls(curve(picture(target.read_bytes())))
