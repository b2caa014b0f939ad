"""Run folders with the losses that a test wants, and what a chart of them shows."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from twolayer import saved
from twolayer.history import csv_header, csv_row
from twolayer.saved import Saved


def make(
    path: Path,
    losses: Sequence[float],
    validation: Sequence[float] = (),
    *,
    unit: str = "iteration",
    keys: str = "",
    **info: Any,
) -> Saved:
    """Write a run folder with that history and those keys in its config, and read it."""
    path.mkdir(parents=True)
    info = {"format": 1, "status": "completed", "config": "made", "shape": "8 x 3 -> 4 -> 2"} | info
    (path / "run.json").write_text(json.dumps(info))
    config = {"N": "8", "D_in": "3", "H": "4", "D_out": "2", "lr": "1e-3", "epochs": "5"}
    config |= dict(line.split(": ", 1) for line in keys.splitlines())
    (path / "config.yaml").write_text("".join(f"{key}: {value}\n" for key, value in config.items()))
    (path / "model.safetensors").touch()
    columns = (losses, *([validation] if validation else []))
    with (path / "history.csv").open("w") as file:
        file.write(csv_header([unit, "loss", "val_loss"][: 1 + len(columns)]))
        file.writelines(csv_row((i + 1, *row)) for i, row in enumerate(zip(*columns, strict=True)))
    return saved.read(path)


@dataclass(frozen=True)
class Line:
    """A line of a chart: its points in pixels of the frame, from the upper left."""

    points: list[tuple[float, float]]
    colour: str
    is_dashed: bool


@dataclass(frozen=True)
class Drawn:
    """What an SVG of a chart shows: its lines, its dots, and all its texts."""

    lines: list[Line]
    dots: int
    texts: list[str]


def look(svg: str) -> Drawn:
    """Read an SVG of a chart. Raises ParseError where it is no XML."""
    root = ElementTree.fromstring(svg)
    name = "{http://www.w3.org/2000/svg}"
    groups = [(group.get("class", ""), group) for group in root.iter(f"{name}g")]
    return Drawn(
        [
            Line(
                [(float(x), float(y)) for x, y in re.findall(r"(-?[\d.e-]+),(-?[\d.e-]+)", path.get("d", ""))],
                path.get("stroke", ""),
                path.get("stroke-dasharray", "1,0") != "1,0",
            )
            for kind, group in groups
            if kind.startswith("mark-line")
            for path in group.iter(f"{name}path")
        ],
        sum(
            len(list(group.iter(f"{name}path")))
            for kind, group in groups
            if kind.startswith("mark-symbol") and "legend" not in kind
        ),
        ["".join(text.itertext()) for text in root.iter(f"{name}text")],
    )
