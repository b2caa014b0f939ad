from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import vl_convert

from tests.helpers.handmade import Drawn, look, make
from twolayer.errors import RunError
from twolayer.reporting import chart, chart_labels, downsampling
from twolayer.runs.saved_run import SavedRun

FALLING = [600 * math.exp(-i / 40) for i in range(500)]
HUGE, TINY = 1.7976931348623157e308, 5e-324


def drawn(*runs: SavedRun, scale: downsampling.Scale = "auto") -> Drawn:
    return look(vl_convert.vegalite_to_svg(chart.spec(runs, scale=scale)))


def rows(*runs: SavedRun, scale: downsampling.Scale = "auto") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = chart.spec(runs, scale=scale)["datasets"][chart.DATA]
    return found


def correlation(xs: Sequence[float], ys: Sequence[float]) -> float:
    mx, my = sum(xs) / len(xs), sum(ys) / len(ys)
    product = sum((x - mx) * (y - my) for x, y in zip(xs, ys, strict=True))
    return product / math.sqrt(sum((x - mx) ** 2 for x in xs) * sum((y - my) ** 2 for y in ys))


@pytest.mark.parametrize("scale", ["log", "linear"])
def test_every_loss_stands_where_the_scale_has_it(tmp_path: Path, scale: Literal["log", "linear"]) -> None:
    (line,) = drawn(make(tmp_path / "a", FALLING), scale=scale).lines
    heights = [math.log(loss) for loss in FALLING] if scale == "log" else FALLING
    xs, ys = zip(*line.points, strict=True)
    assert len(line.points) == 500
    assert (xs[0], xs[-1]) == (0, 720)
    assert correlation(range(500), xs) > 1 - 1e-9
    assert correlation(heights, ys) < -1 + 1e-9  # y grows downwards
    assert min(ys) >= 0
    assert max(ys) <= 400
    assert max(ys) - min(ys) > 360  # the frame is used


def test_validation_is_dashed_in_the_colour_of_its_run_and_the_legend_has_both(tmp_path: Path) -> None:
    runs = [make(tmp_path / name, FALLING, [loss + 9 for loss in FALLING]) for name in ("a", "b")]
    found = drawn(*runs)
    assert [line.is_dashed for line in found.lines].count(True) == 2
    assert len({(line.colour, line.is_dashed) for line in found.lines}) == 4
    assert len({line.colour for line in found.lines}) == 2
    assert {"a", "b", "training", "validation"} <= set(found.texts)


def test_losses_of_another_kind_have_a_panel_of_their_own(tmp_path: Path) -> None:
    runs = [
        make(tmp_path / "a", FALLING),
        make(tmp_path / "b", FALLING[:9], keys="reduction: mean"),
        make(tmp_path / "c", FALLING, keys="lr: 2e-3"),
        make(tmp_path / "empty", []),
    ]
    assert [[run.name for run in group] for group in chart.panels(runs)] == [["a", "c"], ["b"]]
    assert chart.missing(runs) == [f"{tmp_path}/empty: has no losses"]
    found = look(vl_convert.vegalite_to_svg(chart.picture(runs)))
    assert {"loss (mse, sum)", "loss (mse, mean)", "a: lr 0.001", "b", "c: lr 0.002"} <= set(found.texts)
    assert "loss (mse, sum)" in drawn(runs[0]).texts


def test_a_legend_is_there_only_where_it_tells_something(tmp_path: Path) -> None:
    one = drawn(make(tmp_path / "one", FALLING))
    assert not {"one", "training", "validation"} & set(one.texts)
    two = drawn(make(tmp_path / "two", FALLING), make(tmp_path / "three", FALLING))
    assert {"two", "three"} <= set(two.texts)
    assert "training" not in two.texts


def test_a_long_curve_is_thinned_and_keeps_its_least_its_greatest_and_its_ends(tmp_path: Path) -> None:
    dice = random.Random(0)
    losses = [dice.uniform(2, 3) for _ in range(50_000)]
    losses[31_337], losses[22_222] = 9.0, 1.0
    found = rows(make(tmp_path / "a", losses))
    assert len(found) <= 2000
    points = {row["iteration"]: row["loss"] for row in found}
    assert points == {number: losses[number - 1] for number in points}
    assert {1, 31_338, 22_223, 50_000} <= set(points)


def test_many_long_curves_share_the_points_there_are(tmp_path: Path) -> None:
    runs = [make(tmp_path / str(i), FALLING * 6) for i in range(20)]
    assert len(rows(*runs)) <= 24_000


def test_a_diverged_run_ends_with_its_last_finite_loss(tmp_path: Path) -> None:
    losses = [10 * 1.5**i for i in range(60)]
    for end in (math.inf, math.nan, -math.inf):
        run = make(tmp_path / str(end), [*losses, end], status="diverged")
        assert [row["loss"] for row in rows(run)] == losses
        assert len(drawn(run).lines[0].points) == 60


def test_a_loss_of_zero_is_left_out_of_a_log_scale_which_says_so(tmp_path: Path) -> None:
    run = make(tmp_path / "a", [10.0**-i for i in range(10)] + [0.0] * 10)
    assert chart.chosen([run], "auto") == "log"
    found = drawn(run)
    assert len(found.lines[0].points) == 10
    assert max(x for x, _ in found.lines[0].points) < 360  # the axis goes on to the run's end
    assert "loss (mse, sum); 0 is not drawn" in found.texts
    assert len(drawn(run, scale="linear").lines[0].points) == 20


@pytest.mark.parametrize(
    ("losses", "scale"),
    [
        ([[500.0, 1.0]], "log"),
        ([[99.0, 1.0]], "linear"),
        ([[500.0, 400.0], [5.0, 4.0]], "log"),  # between the two
        ([[500.0, 1.0], [0.0, 0.0]], "linear"),  # a log scale would leave out a run
        ([[500.0, 1.0], [math.nan]], "log"),
        ([[500.0, 1.0, 0.0, math.inf]], "log"),
        ([[-5.0, -1.0]], "linear"),
        ([[HUGE, TINY]], "log"),
        ([[]], "linear"),
    ],
)
def test_auto_takes_log_where_losses_span_a_factor_of_a_hundred(
    tmp_path: Path, losses: list[list[float]], scale: str
) -> None:
    runs = [make(tmp_path / str(i), each) for i, each in enumerate(losses)]
    assert chart.chosen(runs, "auto") == scale
    assert chart.chosen(runs, "log") == "log"
    assert chart.chosen(runs, "linear") == "linear"


@pytest.mark.sample(10)
@pytest.mark.parametrize("scale", ["log", "linear"])
@pytest.mark.parametrize(
    "losses",
    [
        *([2.5], [2.5] * 30, [2.5, 1.0], [HUGE, TINY], [HUGE] * 30, [TINY, 1e-323] * 9, [1e300, 1.0, 1e-300]),
        *([1.0, 1.0 + 2**-52] * 15, [1.0 + i * 1e-9 for i in range(30)], [1e-310, 1e-311] * 9, [0.0] * 30, [0.0]),
        *([1.0, 0.0], [HUGE, -HUGE, 1.0], [-1e-9, 1.0]),
    ],
    ids=str,
)
def test_no_losses_however_odd_leave_the_frame_or_the_numbers(
    tmp_path: Path, losses: list[float], scale: Literal["log", "linear"], capfd: pytest.CaptureFixture[str]
) -> None:
    run = make(tmp_path / "a", losses)
    if scale == "log" and max(losses) <= 0:
        with pytest.raises(RunError, match="has no loss above zero, as a log scale needs; --scale linear draws it"):
            chart.spec([run], scale=scale)
        return
    found = drawn(run, scale=scale)
    (line,) = found.lines
    assert len(line.points) == sum(loss > 0 or scale == "linear" for loss in losses)
    assert found.dots == (len(line.points) if len(losses) <= 20 else 0)
    if -HUGE not in losses:  # no training makes those
        assert all(0 <= x <= 720 and 0 <= y <= 400 for x, y in line.points)
    assert sum(any(digit in text for digit in "0123456789") for text in found.texts) >= 3  # a title and two ticks
    assert not any(word in text for text in found.texts for word in ("NaN", "Infinity", "undefined", "null"))
    assert capfd.readouterr().err == ""


def test_ticks_of_iterations_are_whole_numbers(tmp_path: Path) -> None:
    for count, last in ((1, "1"), (2, "2"), (3, "3"), (11, "11"), (2000, "2,000")):
        found = drawn(make(tmp_path / str(count), [5.0 - i / 1000 for i in range(count)]))
        place = found.texts.index("iteration")
        assert found.texts[place - 1] == last
        assert all(text.replace(",", "").isdecimal() for text in found.texts[:place] if text)


def test_the_axis_says_what_a_row_is_of(tmp_path: Path) -> None:
    runs = [make(tmp_path / unit, FALLING, unit=unit) for unit in ("iteration", "epoch")]
    assert "iteration" in drawn(runs[0]).texts
    assert "epoch" in drawn(runs[1]).texts
    assert "iteration or epoch" in drawn(*runs).texts


def test_twenty_runs_have_twenty_colours_and_a_legend_that_fits(tmp_path: Path) -> None:
    runs = [make(tmp_path / f"run-{i}", FALLING, keys=f"lr: {i + 1}e-4") for i in range(20)]
    spec = chart.spec(runs)
    found = look(vl_convert.vegalite_to_svg(spec))
    assert len({line.colour for line in found.lines}) == 20
    assert set(chart_labels.labels(runs)) <= set(found.texts)  # none is cut
    assert vl_convert.vegalite_to_svg(spec).split('width="')[1].split('"')[0] < "850"


def test_runs_that_have_nothing_to_draw_are_told_with_the_reason(tmp_path: Path) -> None:
    runs = [
        make(tmp_path / "empty", [], status="running"),
        make(tmp_path / "lost", [math.nan]),
        make(tmp_path / "zero", [0.0]),
    ]
    (tmp_path / "lost" / "run.json").unlink()
    with pytest.raises(RunError) as caught:
        chart.spec(runs, scale="log")
    assert str(caught.value) == (
        f"{tmp_path}/empty: has no losses; "
        f"{tmp_path}/lost: has no loss that is a finite number; "
        f"{tmp_path}/zero: has no loss above zero, as a log scale needs; --scale linear draws it"
    )
    assert len(drawn(*runs, make(tmp_path / "fine", FALLING)).lines) == 2  # on the linear scale zero is fine


def test_the_title_says_what_differs(tmp_path: Path) -> None:
    a = make(tmp_path / "a", [1.0], keys="lr: 1e-4\nseed: 3")
    b = make(tmp_path / "b", [1.0], keys="lr: 2e-4\nseed: 4")
    c = make(tmp_path / "c", [1.0], keys="threads: 1\nlr: 2e-4\nseed: 3\nH: 9\nN: 7\ndtype: float64")
    assert chart_labels.title([a]) == "a: made, 8 x 3 -> 4 -> 2, lr 0.0001"
    assert chart_labels.title([a, b]) == "Loss by lr and seed"
    assert chart_labels.title([b, c]) == "Loss of 2 runs"
    assert chart_labels.title([a, a]) == "Loss of 2 runs of the same config"
    (tmp_path / "b" / "config.yaml").unlink()
    lost = SavedRun(b.path, b.status, {}, None, b.history, ())
    assert chart_labels.title([a, lost]) == "Loss of 2 runs"
    assert chart_labels.title([lost]) == "b"


def test_labels_tell_the_runs_apart(tmp_path: Path) -> None:
    a = make(tmp_path / "a", [1.0], keys="lr: 1e-4\nseed: 0")
    b = make(tmp_path / "b", [1.0], keys="lr: 0.123456789\nseed: 18446744073709551615")
    assert chart_labels.labels([a, b]) == ["a: lr 0.0001, seed 0", "b: lr 0.123456789, seed 18446744073709551615"]
    many = [make(tmp_path / str(i), [1.0], keys=f"H: {4 + i // 3}\nseed: {i // 3}\nlr: {i + 1}.0") for i in range(6)]
    assert chart_labels.labels(many)[5] == "5: lr 6.0, H 5, seed 1"  # first what tells them apart
    once, again = chart_labels.labels([a, a])
    assert again == f"{once} (2)"


def test_labels_and_titles_keep_a_sensible_length(tmp_path: Path) -> None:
    data = "data: " + json.dumps({"source": "linear", "weights": [[1.5] * 300] * 2})
    long = make(tmp_path / ("x" * 200), [1.0], keys=f"{data}\nD_in: 300", shape="y" * 1000)
    short = make(tmp_path / "a", [1.0])
    assert [len(label) < 120 for label in chart_labels.labels([long, short])] == [True, True]
    assert len(chart_labels.title([long])) < 120
    assert len(chart_labels.title([long, short])) < 120


def test_names_are_text_in_a_chart_whatever_they_hold(tmp_path: Path) -> None:
    names = [
        "<img src=x onerror=alert(1)>",
        "datum['a'].b[0]",
        "{{7*7}}${7*7}",
        "\"'`&amp;",
        "a\nb\x1b[31m\u202e",
        "NaN",
        "2026-11-22",
        "1",
    ]
    runs = [make(tmp_path / name, FALLING, [9.0] * 500) for name in names]
    found = drawn(*runs)
    assert {*names[:4], *names[5:], "a\\nb\\x1b[31m\\u202e"} <= set(found.texts)
    assert len({line.colour for line in found.lines}) == len(names)


def test_a_chart_asks_the_network_for_nothing(tmp_path: Path) -> None:
    for interactive in (False, True):
        spec = chart.spec([make(tmp_path / str(interactive), FALLING)], interactive=interactive)
        assert spec.pop("$schema").startswith(
            "https://vega.github.io/schema/vega-lite/"
        )  # a name, which nobody asks for
        assert "http" not in json.dumps(spec)
        assert '"url"' not in json.dumps(spec)
