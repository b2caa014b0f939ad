"""Run folders with the losses that a test wants, and what a chart of them shows."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from twolayer.runs import saved_run
from twolayer.runs.checksum import BLANK
from twolayer.runs.history import csv_header, csv_row
from twolayer.runs.saved_run import SavedRun


def make(
    path: Path,
    losses: Sequence[float],
    validation: Sequence[float] = (),
    *,
    unit: str = "iteration",
    keys: str = "",
    **info: Any,
) -> SavedRun:
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
    return saved_run.read(path)


def write_info(run: Path, info: Mapping[str, Any]) -> None:
    """Write a run's run.json, with the checksum of itself; also with values that JSON does not have."""
    blank = json.dumps({**{key: value for key, value in info.items() if key != "sha256"}, "sha256": BLANK}).encode()
    start = blank.rindex(BLANK.encode())
    digest = hashlib.sha256(blank).hexdigest().encode()
    (run / "run.json").write_bytes(blank[:start] + digest + blank[start + len(BLANK) :])


def change_info(run: Path, **fields: Any) -> None:
    """Change what a run's run.json says; None takes a field out, and `running` what is written at the end."""
    info = json.loads((run / "run.json").read_text()) | fields
    ended = ("history_bytes", "history_sha256") if fields.get("status") == "running" else ()
    write_info(run, {key: value for key, value in info.items() if value is not None and key not in ended})


def write_history(run: Path, text: str, **fields: Any) -> None:
    """Give a run that has ended another history, as if that were its own."""
    (run / "history.csv").write_text(text)
    losses = dict.fromkeys(("first_loss", "best_loss", "last_loss"))
    rows = text.count("\n") - 1
    digest = hashlib.sha256(text.encode()).hexdigest()
    change_info(run, **{"iterations": rows, "history_bytes": len(text), "history_sha256": digest} | losses | fields)


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
