"""The report, as a reader has it: in a real browser."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import random
import shutil
import struct
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.helpers.browsing import opened
from tests.helpers.forking import run
from tests.helpers.handmade import change_info, write_info
from tests.helpers.processes import without_torch
from tests.helpers.tablerun import make_run
from tests.helpers.trained import train
from twolayer.reporting.html.report import write
from twolayer.runs import saved_run

EVIL = "</script><img src=x onerror=globalThis.hacked=1>\"'`{{7*7}}{% raw %}${7*7}\x1b[31m\u202e"
SAFE = EVIL.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e")
FOUR = ("default-1", "default-2", "flowers-1", "diverged-1")
FOLDER = EVIL.replace("/", "\\")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs as `train` leaves them."""
    folder = tmp_path_factory.mktemp("place")
    rows = [f"{x},{y},{'yes' if x * 3 % 7 + y > 6 else 'no'}" for x in range(10) for y in range(6)]
    (folder / "flowers.csv").write_text("\n".join(["length,width,blooms", *rows, ""]))
    run(["train", "default", "--note", "the book's"], folder)
    train(
        folder,
        "default --seed 1 --lr 5e-4",
        "default --lr 0.01 --out runs/diverged-1",
        "flowers.csv --target blooms --epochs 40 --set validation=0.2",
    )
    return folder


@cache
def report(place: Path, *names: str) -> tuple[Path, list[str]]:
    """Write a report, once; its path, and what is wrong with the runs."""
    path = place / f"report-{len(list(place.glob('report-*')))}.html"
    return path, write([saved_run.read(place / "runs" / name) for name in names], path)


def history(run: Path) -> tuple[list[str], list[list[str]]]:
    """The head and the rows of a run's history.csv, as they stand there."""
    with (run / "history.csv").open() as file:
        head, *rows = csv.reader(file)
    return head, rows


def cells(page: Page) -> list[list[str]]:
    """The rows of the table that are on the page."""
    found: list[list[str]] = page.eval_on_selector_all(
        "#box tbody tr", "rows => rows.map(row => [...row.cells].map(cell => cell.innerText))"
    )
    return found


def lines(page: Page) -> list[list[tuple[float, float]]]:
    """The points of the lines that are drawn, in pixels."""
    paths: list[str] = page.eval_on_selector_all(
        "#chart .mark-line path", "paths => paths.map(path => path.getAttribute('d'))"
    )
    return [
        [(float(x), float(y)) for x, y in (point.split(",") for point in path[1:].split("L"))] for path in paths if path
    ]


def told_at_the_middle(page: Page) -> str:
    """What the chart says of the point that is nearest to its middle."""
    page.evaluate("document.querySelector('#losses').scrollIntoView()")
    box = page.locator("#chart svg").first.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector("#vg-tooltip-element.visible")
    return page.inner_text("#vg-tooltip-element")


def sort(page: Page, column: str, direction: str) -> None:
    """Click on a column's head, and wait until the rows are in order."""
    head = page.locator("#box thead th").filter(has_text=column).first
    head.click()
    expect(head).to_have_attribute("aria-sort", direction)


def off_line(points: list[tuple[float, float]]) -> float:
    """How far points are from a straight line through the first and the last, in the unit of y."""
    (x0, y0), (x1, y1) = points[0], points[-1]
    return max(abs(y - (y0 + (y1 - y0) * (x - x0) / (x1 - x0))) for x, y in points)


def test_the_table_has_every_row_of_the_history_to_the_last_digit(place: Path, chromium: Browser) -> None:
    path, problems = report(place, "default-1")
    assert not problems
    with opened(chromium, path) as page:
        assert "of 500 rows" in page.inner_text(".dt-info")
        page.select_option(".dt-length select", "500")
        assert cells(page) == history(place / "runs/default-1")[1]


def test_the_table_is_sorted_searched_and_paged(place: Path, chromium: Browser) -> None:
    _, rows = history(place / "runs/default-1")
    with opened(chromium, report(place, "default-1")[0]) as page:
        by_loss = sorted(rows, key=lambda row: float(row[1]))
        sort(page, "loss", "ascending")
        assert cells(page) == by_loss[:25]
        sort(page, "loss", "descending")
        assert cells(page) == by_loss[:-26:-1]
        page.click(".dt-paging-button.next")
        assert cells(page) == by_loss[-26:-51:-1]
        page.fill(".dt-search input", "500")
        assert next(row for row in rows if row[0] == "500") in cells(page)
        assert cells(page) == [row for row in rows if any("500" in cell for cell in row)][:25]
        page.fill(".dt-search input", "no such")
        assert page.inner_text("#box tbody") == "No row matches."


def test_the_chart_draws_every_point_on_both_scales(place: Path, chromium: Browser) -> None:
    losses = [float(row[1]) for row in history(place / "runs/default-1")[1]]
    with opened(chromium, report(place, "default-1")[0]) as page:
        assert page.get_attribute("#scales [value=log]", "aria-pressed") == "true"
        (points,) = lines(page)
        assert len(points) == 500
        assert off_line([(math.log10(loss), y) for loss, (_, y) in zip(losses, points, strict=True)]) < 0.01
        page.click("#scales [value=linear]")
        page.wait_for_selector("#scales [value=linear][aria-pressed=true]")
        (points,) = lines(page)
        assert off_line([(loss, y) for loss, (_, y) in zip(losses, points, strict=True)]) < 0.01
        page.click("#scales [value=log]")
        page.wait_for_selector("#scales [value=log][aria-pressed=true]")
        assert off_line([(math.log10(loss), y) for loss, (_, y) in zip(losses, lines(page)[0], strict=True)]) < 0.01


def test_the_chart_tells_of_the_point_under_the_pointer_and_zooms(place: Path, chromium: Browser) -> None:
    with opened(chromium, report(place, "default-1")[0], viewport={"width": 1000, "height": 700}) as page:
        told = dict(line.split("\t") for line in told_at_the_middle(page).split("\n"))
        assert (told["run"][:9], told["kind"]) == ("default-1", "training")
        row = history(place / "runs/default-1")[1][int(told["iteration"]) - 1]
        assert float(told["loss"]) == pytest.approx(float(row[1]), rel=1e-6)
        before, top = lines(page), page.evaluate("scrollY")
        page.mouse.wheel(0, 120)  # moves the page
        page.wait_for_function("top => scrollY > top", arg=top)
        assert lines(page) == before
        page.evaluate("document.querySelector('#losses').scrollIntoView()")
        page.keyboard.down("Control")
        page.mouse.wheel(0, -300)  # zooms
        page.keyboard.up("Control")
        page.wait_for_function(
            "path => document.querySelector('#chart .mark-line path').getAttribute('d') != path",
            arg=page.get_attribute("#chart .mark-line path", "d") if lines(page) == before else "",
        )
        assert lines(page) != before


def test_two_runs_are_two_lines_with_what_differs_and_a_table_each(place: Path, chromium: Browser) -> None:
    with opened(chromium, report(place, "default-1", "default-2")[0]) as page:
        drawn = page.eval_on_selector_all(
            "#chart .mark-line path", "paths => paths.map(path => path.style.stroke || path.getAttribute('stroke'))"
        )
        assert len(drawn) == len(set(drawn)) == len(lines(page)) == 2
        assert [row.split("\t") for row in page.inner_text("table.side tbody").split("\n")] == [
            ["lr", "0.0001", "0.0005"],
            ["seed", "0", "1"],
        ]
        for number, name in enumerate(("default-1", "default-2")):
            page.select_option("#which select", label=name)
            rows = history(place / "runs" / name)[1]
            page.wait_for_function("loss => document.querySelector('#box').innerText.includes(loss)", arg=rows[0][1])
            assert cells(page) == rows[:25]
            assert page.locator("details").nth(number).locator("figure.weights").count() == 2


def test_the_config_the_figures_and_the_origin_are_there_without_javascript(place: Path, chromium: Browser) -> None:
    info = json.loads((place / "runs/default-1/run.json").read_text())
    with opened(chromium, report(place, "default-1")[0], java_script_enabled=False) as page:
        text = page.inner_text("body")
        assert "The chart needs JavaScript" in text
        assert "The table needs JavaScript" in text
        assert "the book's" in text
        assert f"{info['final_loss']:.6g}" in text
        assert info["data_sha256"] in text
        config = dict(line.split("\t")[:2] for line in page.inner_text("table.config tbody").split("\n"))
        assert (config["D_in"], config["lr"], config["cuda_graph"]) == ("1000", "0.0001", "true")
        assert not page.is_visible("#scales")
        assert page.locator("img.weight").count() == 2


def test_pictures_show_the_weights(place: Path, chromium: Browser) -> None:
    """Each pixel is compared with the safetensors file, read here byte by byte."""
    data = (place / "runs/flowers-1/model.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    entry = json.loads(data[8 : 8 + length])["2.weight"]
    start, end = entry["data_offsets"]
    weights = struct.unpack(f"<{(end - start) // 4}f", data[8 + length + start : 8 + length + end])
    bias_at = json.loads(data[8 : 8 + length])["2.bias"]["data_offsets"]
    bias = struct.unpack("<2f", data[8 + length + bias_at[0] : 8 + length + bias_at[1]])
    most = max(map(abs, weights + bias))
    with opened(chromium, report(place, "flowers-1")[0]) as page:
        width, height, *pixels = (
            page.locator("img.weight")
            .nth(1)
            .evaluate(
                """image => {
                const canvas = Object.assign(document.createElement("canvas"),
                    { width: image.naturalWidth, height: image.naturalHeight });
                const context = canvas.getContext("2d");
                context.drawImage(image, 0, 0);
                return [canvas.width, canvas.height, ...context.getImageData(0, 0, canvas.width, canvas.height).data];
            }"""
            )
        )
        assert [height, width] == entry["shape"]
        for place_, weight in enumerate(weights):
            red, _, blue, opacity = pixels[4 * place_ : 4 * place_ + 4]
            assert opacity == pytest.approx(abs(weight) / most * 255, abs=1.01 + 255 / 254)
            assert opacity < 8 or (red > blue) == (weight > 0)
        assert page.locator(".names").all_inner_texts() == ["length\nwidth", "no\nyes"]


@pytest.mark.sample(1)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_has_no_sideways_scrolling(place: Path, chromium: Browser, scheme: Any) -> None:
    for names in (["flowers-1"], ["default-1", "default-2", "flowers-1", "diverged-1"]):
        path, _ = report(place, *names)
        with opened(chromium, path, viewport={"width": 375, "height": 700}, color_scheme=scheme) as page:
            page.eval_on_selector_all("details", "all => all.forEach(one => one.open = true)")
            assert page.evaluate("document.documentElement.scrollWidth") == 375
            background = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert background == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 26)")


@pytest.mark.sample(1)
@pytest.mark.parametrize("width", [375, 1200])
def test_the_legend_has_every_run_within_the_chart(place: Path, chromium: Browser, width: int) -> None:
    with opened(chromium, report(place, *FOUR)[0], viewport={"width": width, "height": 700}) as page:
        charts = page.locator("#chart svg").all()
        assert len(charts) == 2  # one for the sum of squares, one for the mean cross entropy
        assert page.locator("#chart .role-legend-label text").count() == len(FOUR) + 2  # and training, validation
        for chart in charts:
            frame = chart.bounding_box()
            assert frame is not None
            for entry in chart.locator(".role-legend-label text").all():
                box = entry.bounding_box()
                assert box is not None
                assert frame["y"] <= box["y"]
                assert box["x"] + box["width"] <= frame["x"] + frame["width"]


def test_a_link_to_a_run_unfolds_it(place: Path, chromium: Browser) -> None:
    with opened(chromium, report(place, *FOUR)[0]) as page:
        assert page.locator("details[open]").count() == 0
        page.click("a[href='#run-3']")
        page.wait_for_selector("#run-3[open]")
        assert page.locator("details[open]").count() == 1


@pytest.mark.deep
def test_of_several_runs_print_has_every_figure(place: Path, chromium: Browser) -> None:
    if shutil.which("pdftotext") is None:
        pytest.skip("there is no pdftotext here")
    with opened(chromium, report(place, *FOUR)[0]) as page:
        page.pdf(path=place / "four.pdf", format="A4")
        names = page.locator("table.figures thead th").all_inner_texts()
        figures = page.locator("table.figures tbody").first.inner_text().split()
    command = ["pdftotext", "-layout", "four.pdf", "-"]
    text = subprocess.run(command, cwd=place, capture_output=True, text=True, check=True).stdout
    assert len(names) > 8
    words = text.split()
    assert {word for name in names for word in name.split()} <= set(words)
    assert [figure for figure in figures if figure not in words] == []


def test_configs_that_cannot_be_read_are_not_called_the_same(place: Path) -> None:
    for name in ("torn-1", "torn-2"):
        shutil.copytree(place / "runs/default-1", place / "runs" / name)
        (place / "runs" / name / "config.yaml").unlink()
    text = report(place, "torn-1", "torn-2")[0].read_text()
    assert "Nothing in the configs that can be read; not all can." in text
    assert "the configs are equal" not in text
    assert "the configs are equal" in report(place, "default-1", "default-1")[0].read_text()


def test_print_has_the_chart_and_all_that_is_folded_away_on_white_paper(place: Path, chromium: Browser) -> None:
    pdftoppm = shutil.which("pdftoppm")
    if pdftoppm is None:
        pytest.skip("there is no pdftoppm here")
    path, _ = report(place, "default-1", "default-2")
    with opened(chromium, path, color_scheme="dark") as page:
        page.pdf(path=place / "report.pdf", format="A4")
    subprocess.run([pdftoppm, "-r", "50", "report.pdf", "page"], cwd=place, check=True)
    colours = set()
    for sheet in sorted(place.glob("page-*.ppm")):
        pixels = sheet.read_bytes().split(b"\n", 3)[3]
        colours |= {tuple(pixels[i : i + 3]) for i in range(0, len(pixels), 3)}
        assert pixels[:3] == b"\xff\xff\xff"
    assert {(0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)} <= colours
    text = subprocess.run(
        ["pdftotext", "report.pdf", "-"], cwd=place, capture_output=True, text=True, check=True
    ).stdout
    assert text.count("initial weights, SHA-256") == 2  # details of each run
    assert "rows per page" not in text
    assert "628.283935546875" in text


def evil_run(place: Path) -> Path:
    """A run that is called, noted, configured and made of columns with what would run in a careless page."""
    run = place / "runs" / FOLDER
    cell = EVIL.replace('"', "")
    rows = "".join(f"{2 * i},{i * i % 7},{cell}{i % 2}\n" for i in range(20))
    make_run(run, f"{cell},b,c\n{rows}", target="c", exclude=[])
    config = {"N": 20, "D_in": 2, "H": 5, "D_out": 2, "lr": 0.1, "epochs": 3, "device": "cpu", "loss": "cross_entropy"}
    config["data"] = {"source": "file", "path": f"/{EVIL}.csv", "target": [EVIL]}
    text = json.dumps(config).encode()
    (run / "config.yaml").write_bytes(text)
    (run / "history.csv").write_text("iteration,loss\n1,3.0\n2,2.0\n3,1.0\n")
    info = json.loads((run / "run.json").read_text()) | {
        **dict.fromkeys(("note", "config", "engine", "device", "shape", "started", "platform", EVIL), EVIL),
        "config_sha256": [hashlib.sha256(text).hexdigest()],
        "torch": {EVIL: [EVIL]},
        "resumed": [{"at": EVIL, "iteration": EVIL, EVIL: EVIL}, 7],
        "seconds": 10**400,
        "epochs": True,
    }
    write_info(run, info)
    return run


def test_what_would_run_in_a_careless_page_is_text(place: Path, chromium: Browser) -> None:
    run = evil_run(place)
    for names in ([run.name], [run.name, "default-1"]):
        path, problems = report(place, *names)
        assert not problems
        with opened(chromium, path) as page:
            page.eval_on_selector_all("details", "all => all.forEach(one => one.open = true)")
            assert page.inner_text(".name >> nth=0").startswith(SAFE.replace("/", "\\"))
            assert page.inner_text(".note >> nth=0") == SAFE
            config = page.locator("table.config").first.inner_text()
            assert f"data.path\t/{SAFE}.csv" in config
            assert SAFE in page.locator("table.provenance").first.inner_text()
            assert SAFE in page.locator("table.resumed").first.inner_text()
            assert all(SAFE[:30] in names for names in page.locator(".names").all_inner_texts()[:2])
            assert "iteration" in told_at_the_middle(page)
            assert SAFE[7:17] in page.inner_text("#vg-tooltip-element") or len(names) > 1
            assert "{{7*7}}" in page.inner_text("#which") if len(names) > 1 else True
            assert page.evaluate("[typeof hacked, document.querySelectorAll('img[src=x], [onerror]').length]") == [
                "undefined",
                0,
            ]
            assert page.title() == f"{SAFE.replace('/', chr(92))}{' and default-1' if len(names) > 1 else ''}"


def test_a_diverged_run_has_its_last_losses_in_the_table_and_says_so(place: Path, chromium: Browser) -> None:
    _, rows = history(place / "runs/diverged-1")
    assert not math.isfinite(float(rows[-1][1]))
    with opened(chromium, report(place, "diverged-1")[0]) as page:
        assert f"in iteration {len(rows)}" in page.inner_text(".remark")
        assert page.inner_text("dt:text('last loss') + dd").endswith(f"iteration {len(rows) - 1:,}")
        assert cells(page) == rows
        sort(page, "loss", "ascending")
        assert cells(page)[-1] == rows[-1]  # inf and nan are the greatest
        assert len(lines(page)[0]) == len(rows) - 1


@pytest.mark.parametrize(("status", "is_told"), [("running", False), ("interrupted", True)])
def test_a_killed_continuation_does_not_pass_the_time_before_it_for_its_own(
    status: str, is_told: bool, place: Path
) -> None:
    name = f"{status}-again"
    shutil.copytree(place / "runs/default-1", place / "runs" / name)
    change_info(place / "runs" / name, status=status, seconds=41.5)
    page = report(place, name)[0].read_text()
    assert ("41.5 s" in page) == is_told
    assert ("was killed after" in page.lower()) != is_told


def test_what_is_left_of_broken_runs_is_shown(place: Path, chromium: Browser) -> None:
    parts = ("history.csv", "config.yaml", "run.json")
    for part in parts:
        (place / "runs" / f"only-{part}").mkdir()
        shutil.copy(place / "runs/default-1" / part, place / "runs" / f"only-{part}")
    path, problems = report(place, *(f"only-{part}" for part in parts))
    with opened(chromium, path) as page:
        page.eval_on_selector_all("details", "all => all.forEach(one => one.open = true)")
        assert len(lines(page)) == 1
        assert cells(page) == history(place / "runs/default-1")[1][:25]
        for number, left in enumerate(parts):
            wrong = page.locator("main > .problem").nth(number).locator("li").all_inner_texts()
            assert set(wrong) <= set(problems)
            assert all(any(name in line for line in wrong) for name in parts if name != left)
            shown = page.locator("details").nth(number)
            assert shown.locator("table.config").count() == shown.locator(".layers").count() == (left == "config.yaml")
            assert shown.locator("table.provenance").count() == (left == "run.json")


def test_damaged_files_are_named_on_the_page_and_on_stderr(place: Path, chromium: Browser) -> None:
    names = ("history.csv", "config.yaml", "run.json", "model.safetensors")
    for name in names:
        run = place / "runs" / f"damaged-{name}"
        shutil.copytree(place / "runs/default-1", run)
        data = (run / name).read_bytes()
        (run / name).write_bytes(data[: len(data) // 2] + b"\xff\x00garbage" + data[len(data) // 2 + 9 :])
    done = without_torch("report", *(f"damaged-{name}" for name in names), cwd=place)
    assert done.returncode == 0
    *said, last = done.stderr.splitlines()
    assert (last, done.stdout) == ("wrote report.html", "")
    with opened(chromium, place / "report.html") as page:
        assert said == page.locator("main > .problem li").all_inner_texts()
        for number, name in enumerate(names):
            assert f"runs/damaged-{name}/{name}: " in page.locator("main > .problem").nth(number).inner_text()


def test_a_run_without_a_model_shows_the_layers_alone(place: Path, chromium: Browser) -> None:
    run = place / "runs/interrupted-1"
    shutil.copytree(place / "runs/default-1", run)
    (run / "model.safetensors").unlink()
    info = json.loads((run / "run.json").read_text()) | {"status": "interrupted"}
    write_info(run, info)
    path, problems = report(place, run.name)
    assert not problems
    with opened(chromium, path) as page:
        assert page.locator(".layers code").all_inner_texts() == [
            "(0): Linear(in_features=1000, out_features=100, bias=True)",
            "(1): ReLU()",
            "(2): Linear(in_features=100, out_features=10, bias=True)",
        ]
        assert "There are no weights yet" in page.inner_text("main")
        assert f"twolayer train --resume {run}" in page.inner_text(".remark")


@pytest.mark.deep
def test_a_hundred_thousand_iterations_are_all_there_in_six_megabytes(place: Path, chromium: Browser) -> None:
    draw, run = random.Random(0), place / "runs/long-1"
    run.mkdir()
    rows = [
        [math.exp(-i / 3e4 + draw.gauss(0, 0.1)), draw.random(), draw.random(), 10 ** draw.uniform(-9, 20)]
        for i in range(100_000)
    ]
    rows[61_803][0], rows[31_415][0], rows[77_777][1] = 123.456, 1e-7, math.nan
    text = "".join(f"{i},{','.join(map(repr, row))}\n" for i, row in enumerate(rows, 1))
    (run / "history.csv").write_text("iteration,loss,accuracy,val_loss,lr\n" + text)
    written = history(run)[1]
    path, _ = report(place, run.name)
    assert path.stat().st_size < 6e6
    with opened(chromium, path) as page:
        assert page.inner_text(".dt-info") == "1 to 25 of 100,000 rows"
        page.click(".dt-paging-button.last")
        assert cells(page) == written[-25:]
        for key, at in (("1e-07", 31_415), ("123.456", 61_803)):
            page.fill(".dt-search input", key)
            found = [row for row in written if any(key in cell for cell in row)]
            assert written[at] in found
            assert cells(page) == found[:25]
        page.fill(".dt-search input", "nan")
        assert cells(page) == [written[77_777]]
        page.fill(".dt-search input", "")
        sort(page, "loss", "ascending")
        assert cells(page)[0] == written[31_415]
        points = sorted(y for _, y in lines(page)[0])
        assert 1000 < len(points) <= 2000
        assert points[0] < points[1] - 20  # the one spike up, and the one down
        assert points[-1] > points[-2] + 20
