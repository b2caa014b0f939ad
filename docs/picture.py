"""Makes `docs/train.svg`: what a terminal shows of `twolayer train`, from a real run in a real terminal."""

from __future__ import annotations

import os
import pty
import re
import sys
import tempfile
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

HERE = Path(__file__).parent
COLUMNS = 66


def in_terminal(*arguments: str) -> str:
    """All that the command writes to a terminal of its own."""
    child, leader = pty.fork()
    if child == 0:
        os.chdir(tempfile.mkdtemp())  # its run folder is of no use
        os.environ.update(COLUMNS=str(COLUMNS), TERM="xterm-256color", LC_ALL="C.UTF-8")
        os.execv(sys.executable, [sys.executable, "-m", "twolayer", *arguments])
    written = b""
    try:
        while chunk := os.read(leader, 65536):
            written += chunk
    except OSError:  # the other end is closed
        pass
    if os.waitpid(child, 0)[1] != 0:
        raise SystemExit("the command failed")
    return written.decode()


def main() -> None:
    """Write the picture: the first rows and the last, with the middle left out."""
    # The bar is drawn and erased between the blocks; what counts is what stands in the end.
    lines = [line.rpartition("\x1b[2K")[2].lstrip("\r") for line in in_terminal("train").split("\r\n")]
    rows = [i for i, line in enumerate(lines) if line[:10].strip().isdigit()]
    shown = [*lines[: rows[5]], "       ...", *lines[rows[-4] :]]
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True, color_system="truecolor")
        console.print(Text.from_ansi("$ twolayer train\n" + "\n".join(shown).rstrip()))
        local_fonts = re.sub(r"@font-face \{\{.*?\}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.S)  # else fetched from afar
        console.save_svg(str(HERE / "train.svg"), title="twolayer", code_format=local_fonts)


if __name__ == "__main__":
    main()
