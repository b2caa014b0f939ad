"""Runs ejected scripts, in one process that has imported torch, but nothing of ours.

python tests/helpers/scripts.py FILE...
"""

from __future__ import annotations

import contextlib
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path


def run_scripts(paths: Sequence[Path], cwd: Path) -> list[str]:
    """What the scripts print; the weights that `model` has in the end are in `<path>.safetensors`.

    Fails if one raises, writes on stderr, or imports twolayer.
    """
    from tests.helpers.forking import run  # not in the process that runs them

    done = run([__file__, *paths], cwd, python=True)
    assert (done.returncode, done.stderr) == (0, "")
    return [Path(f"{path}.out").read_text() for path in paths]


def _run(path: str) -> None:
    import safetensors.torch

    with Path(f"{path}.out").open("w") as out, contextlib.redirect_stdout(out):
        found = runpy.run_path(path, run_name="__main__")
    assert not any(name.partition(".")[0] == "twolayer" for name in sys.modules), f"{path} imported twolayer"
    if "model" in found:
        safetensors.torch.save_file(found["model"].state_dict(), f"{path}.safetensors")


if __name__ == "__main__":
    for path in sys.argv[1:]:
        _run(path)
