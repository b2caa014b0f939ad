"""A network in a notebook: whatever the numbers and names are, it is well-formed, inside its frame, and small."""

from __future__ import annotations

import math
import re
import sys
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twolayer.reporting.notebook import ParameterFigures, html, text

PARAMETER = ParameterFigures("0.weight", "100 x 3", (-1.0, 2.0, 0.5, 0.25))


def parsed(found: str) -> ElementTree.Element:
    return ElementTree.fromstring(found.replace("http://www.w3.org/2000/svg", ""))


def points(found: str) -> list[list[tuple[float, float]]]:
    """The points of each curve."""
    lines = [element.attrib["points"] for element in parsed(found).iter("polyline")]
    pairs = [[point.split(",") for point in line.split()] for line in lines]
    return [[(float(x), float(y)) for x, y in line] for line in pairs]


@given(st.lists(st.floats(), max_size=30), st.text())
def test_every_history_and_name_gives_a_well_formed_page_and_curves_inside_the_frame(
    losses: list[float], name: str
) -> None:
    found = html(name, {"iteration": range(len(losses)), "loss": losses}, [PARAMETER])
    for curve in points(found):
        assert len(curve) == sum(map(math.isfinite, losses))
        assert all(62 <= x <= 412 and 8 <= y <= 128 for x, y in curve)


def test_a_falling_loss_falls_in_equal_steps_where_it_falls_by_equal_factors() -> None:
    (curve,) = points(html("x", {"epoch": range(5), "loss": [1000, 100, 10, 1, 0.1]}, []))
    assert [y for _, y in curve] == pytest.approx([8, 38, 68, 98, 128], abs=0.1)
    assert [x for x, _ in curve] == pytest.approx([62, 149.5, 237, 324.5, 412], abs=0.1)


def test_the_largest_and_the_least_number_are_labels_as_they_are() -> None:
    found = html("x", {"iteration": range(2), "loss": [5e-324, sys.float_info.max]}, [])
    labels = ["".join(element.itertext()) for element in parsed(found).iter("text")]
    assert labels[:2] == ["1.798e+308", "4.941e-324"]


def test_the_edges_are_labelled_and_accuracies_are_no_curves() -> None:
    history = {"epoch": range(3), "loss": [3, 2, 1.5], "accuracy": [0.1, 0.2, 0.3], "val_loss": [4, 3.5, 3]}
    found = html("x", history, [])
    assert len(points(found)) == 2
    labels = ["".join(element.itertext()) for element in parsed(found).iter("text")]
    assert labels[:4] == ["4", "1.5", "1", "3 epochs"]
    assert re.findall(r"\w+", labels[4]) == ["loss", "val_loss"]


def test_a_network_is_one_line_of_text() -> None:
    history: dict[str, list[float]] = {"iteration": [1, 2], "loss": [628.2839, 1.45e-5]}
    assert text("Training", "3 -> 4 -> 1", history, "1 s") == (
        "<Training 3 -> 4 -> 1: 2 iterations, loss 628.3 to 1.45e-05, 1 s>"
    )
    assert text("Training", "3 -> 4 -> 1", {"epoch": [1], "loss": [2.0]}) == (
        "<Training 3 -> 4 -> 1: 1 epoch, loss 2 to 2>"
    )
    assert text("LoadedRun x", "3 -> 4 -> 1", {"epoch": [], "loss": []}) == "<LoadedRun x 3 -> 4 -> 1>"
