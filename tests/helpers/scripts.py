"""Runs ejected scripts, each in a process of its own: forked from one that has imported torch, but nothing of ours."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.helpers.forking import clean_environment

_PROGRAM = """
import os, runpy, sys, traceback
import numpy, safetensors.torch, torch

for path in sys.argv[1:]:
    if pid := os.fork():
        os.waitpid(pid, 0)
        continue
    for number, ending in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{path}.{ending}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    try:
        found = runpy.run_path(path, run_name="__main__")
        assert not any(name.partition(".")[0] == "twolayer" for name in sys.modules), "twolayer was imported"
        if "model" in found:
            safetensors.torch.save_file(found["model"].state_dict(), f"{path}.safetensors")
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
"""


def run_scripts(paths: Sequence[Path], cwd: Path) -> list[str]:
    """What the scripts print; the weights that `model` has in the end are in `<path>.safetensors`.

    Fails if one writes on stderr, or imports twolayer.
    """
    command = [sys.executable, "-c", _PROGRAM, *map(str, paths)]
    subprocess.run(command, cwd=cwd, env=clean_environment(), check=True, timeout=300)
    for path in paths:
        assert Path(f"{path}.err").read_text() == "", path
    return [Path(f"{path}.out").read_text() for path in paths]
