"""twolayer report: the page that is written, and opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.processes import without_torch
from tests.helpers.trained import train


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a run as `train` leaves it."""
    train(tmp_path, "default")
    return tmp_path


def test_only_a_page_is_written_and_whole(place: Path) -> None:
    for name in ("report.txt", "model.safetensors", "report"):
        done = without_torch("report", "default-1", "-o", name, cwd=place)
        assert (done.returncode, done.stderr) == (
            2,
            f"error: {name}: a report is an HTML page; its name must end in .html\n",
        )
        assert not (place / name).exists()
    done = without_torch("report", "default-1", "-o", "nowhere/report.html", cwd=place)
    assert (done.returncode, done.stderr) == (
        1,
        "error: nowhere/report.html: cannot be written: No such file or directory\n",
    )
    done = without_torch("report", "no-such-run", cwd=place)
    assert done.returncode == 2
    assert "no such run folder" in done.stderr


def test_the_report_is_opened_in_the_browser(place: Path) -> None:
    browser = place / "browser.sh"
    browser.write_text('#!/bin/sh\necho "$1" > opened\n')
    browser.chmod(0o755)
    done = without_torch("report", "default-1", "--open", cwd=place, BROWSER=f"{browser} %s")
    assert (done.returncode, done.stderr) == (0, "wrote report.html\n")
    assert (place / "opened").read_text() == f"{(place / 'report.html').as_uri()}\n"
