"""twolayer check: every key, its value and its origin."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

from tests.helpers.processes import BASE, Run, Write, without_torch
from twolayer.config.schema import KEYS


def test_a_named_option_comes_over_set(twolayer: Run) -> None:
    done = twolayer("check", "--set", "lr=1", "--lr", "2", "--format", "jsonl")
    rows = {row["key"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert (rows["lr"]["value"], rows["lr"]["origin"]) == (2, "--lr")


def test_check_shows_every_key_its_value_and_its_origin(config_file: Write, tmp_path: Path) -> None:
    path = config_file(BASE + "log_every: 2\n")
    done = without_torch("check", "my.yaml", "--lr", "3", "--set", "H=9", cwd=path.parent, TWOLAYER_SEED="4")
    rows = [re.split(r"  +", line.rstrip()) for line in done.stdout.splitlines()]
    assert (done.returncode, done.stderr) == (0, "")
    assert rows[0] == ["key", "value", "origin"]
    assert ["N", "8", "my.yaml:1"] in rows
    assert ["H", "9", "--set H=9"] in rows
    assert ["lr", "3.0", "--lr"] in rows
    assert ["seed", "4", "TWOLAYER_SEED"] in rows
    assert ["engine", "auto", "default"] in rows
    assert len(rows) == 1 + len(KEYS)


def test_check_prints_csv_and_jsonl(tmp_path: Path) -> None:
    table = without_torch("check", "scratch", "--format", "csv", cwd=tmp_path)
    rows = list(csv.DictReader(io.StringIO(table.stdout)))
    assert {row["key"]: row["value"] for row in rows}["data.weights"] == "[0.2, -1.3, -0.5]"
    lines = without_torch("check", "scratch", "--format", "jsonl", cwd=tmp_path).stdout.splitlines()
    assert {row["key"]: row["value"] for row in map(json.loads, lines)}["data.weights"] == [0.2, -1.3, -0.5]
