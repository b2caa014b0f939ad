"""Trains many runs in one process that has torch imported: a child, forked, for each command line.

python tests/trained.py FOLDER < a JSON list of lists of arguments
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from conftest import clean_environment


def train(folder: Path, *commands: str) -> None:
    """Run `twolayer train ...` for each of the commands, in the folder, and in order."""
    subprocess.run(
        [sys.executable, __file__, folder],
        input=json.dumps([["train", *command.split()] for command in commands]),
        env=clean_environment(),
        text=True,
        check=True,
    )


def main(folder: Path, commands: list[list[str]]) -> None:
    """Fork for each of the commands."""
    import torch  # noqa: F401  this and the next: so that no child has to

    from twolayer import cli, session  # noqa: F401

    os.chdir(folder)
    for arguments in commands:
        if pid := os.fork():
            os.waitpid(pid, 0)
            continue
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        os._exit(cli.run(arguments))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.load(sys.stdin))
