"""Makes the images of the docs from real runs: a terminal, plots, and the report in a browser.

`train.svg`, `show.svg`, `compare.svg`; `loss.svg`; `report.png`, `report-dark.png`, `report-phone.png`. Needs Chromium.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import sync_playwright
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

HERE = Path(__file__).parent
COMMAND = [sys.executable, "-m", "twolayer"]


def in_terminal(folder: Path, columns: int, rows: int, *arguments: str) -> list[str]:
    """The lines that a command, run in a folder, writes to a terminal of this size."""
    child, leader = pty.fork()
    if child == 0:
        os.chdir(folder)
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        os.environ.update(TERM="xterm-256color", LC_ALL="C.UTF-8")
        os.execv(sys.executable, [*COMMAND, *arguments])
    written = b""
    try:
        while chunk := os.read(leader, 65536):
            written += chunk
    except OSError:  # the other end is closed
        pass
    if os.waitpid(child, 0)[1] != 0:
        raise SystemExit(f"twolayer {' '.join(arguments)} failed:\n{written.decode()}")
    # A bar is drawn and erased between the rows; only what is left in the end counts.
    return [line.rpartition("\x1b[2K")[2].lstrip("\r") for line in written.decode().split("\r\n")]


def draw(name: str, columns: int, command: str, lines: Sequence[str]) -> None:
    """Draw a terminal with a command and the lines it has written."""
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=columns, file=nowhere, force_terminal=True, color_system="truecolor")
        console.print(Text.from_ansi(f"$ {command}\n" + "\n".join(lines).rstrip()))
        local_fonts = re.sub(r"@font-face \{\{.*?\}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.S)  # else downloaded
        console.save_svg(str(HERE / name), title="twolayer", code_format=local_fonts, unique_id=Path(name).stem)


def shortened(lines: Sequence[str]) -> list[str]:
    """The lines of a table without the rows in the middle."""
    rows = [i for i, line in enumerate(lines) if line[:10].strip().isdigit()]
    return [*lines[: rows[5]], "       ...", *lines[rows[-4] :]]


def shoot(page: Path) -> None:
    """Take screenshots of the report: light, dark, and on a phone."""
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for name, scheme, width, height in (
            ("report.png", "light", 1100, 1400),
            ("report-dark.png", "dark", 1100, 1400),
            ("report-phone.png", "light", 390, 1400),
        ):
            view = browser.new_page(
                color_scheme="dark" if scheme == "dark" else "light", viewport={"width": width, "height": height}
            )
            view.goto(page.as_uri())
            view.wait_for_selector("svg.marks")
            view.screenshot(path=HERE / name)
        browser.close()


def main() -> None:
    """Make all images."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        draw("train.svg", 66, "twolayer train", shortened(in_terminal(folder, 66, 24, "train")))
        for options in (["train", "--lr", "auto"], ["train", "diabetes"], ["train", "--set", "H=50"]):
            subprocess.run([*COMMAND, *options, "--quiet"], cwd=folder, check=True, capture_output=True)
        draw("show.svg", 80, "twolayer show default-1", in_terminal(folder, 80, 40, "show", "default-1"))
        compare = ["compare", "default-1", "default-2"]
        draw("compare.svg", 80, f"twolayer {' '.join(compare)}", in_terminal(folder, 80, 40, *compare))
        for options in (
            ["plot", "default-1", "default-2", "default-3", "-o", str(HERE / "loss.svg")],
            ["report", "default-1", "default-2", "-o", "report.html"],
        ):
            subprocess.run([*COMMAND, *options], cwd=folder, check=True)
        shoot(folder / "report.html")


if __name__ == "__main__":
    main()
