"""Runs the suite with other versions of Python and of what twolayer needs, in environments outside the checkout.

    python tests/versions.py [NAME...] [-- ARGUMENTS OF PYTEST]

NAME is one of NAMES: a Python, and `lowest` (the lower bound of every range in pyproject.toml),
`newest` (the newest of all) or `torch==VERSION` (that one, and the newest of the rest). Without names all are run.
Needs uv. The environments are made in ENVIRONMENTS, by default ~/.cache/twolayer/environments, and kept; each
takes up to 7 GB, since PyPI's torch for Linux is a build with CUDA. A version that cannot be had here is "not
available", and fails nothing; at the end stands a line for each, and the exit code is 1 if a test failed anywhere.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMES = ("3.11-lowest", "3.12-torch==2.14.1", "3.13-newest", "3.14-newest")
PLACE = Path(os.environ.get("ENVIRONMENTS", "~/.cache/twolayer/environments")).expanduser()


def environment() -> dict[str, str]:
    """Without what leads to another Python."""
    return {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "PYTHONPATH")}


def run(*command: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, check=False)


def make(name: str, uv: str) -> Path | str:
    """The environment's Python; or why there is none."""
    version, _, what = name.partition("-")
    python = run(uv, "python", "find", version).stdout.strip()
    if not python:
        return f"no Python {version} here"
    folder = PLACE / name.replace("==", "-")
    requirements, pinned = (PLACE / f"{folder.name}.{kind}" for kind in ("txt", "in"))
    folder.parent.mkdir(parents=True, exist_ok=True)
    options = ["--resolution", "lowest-direct"] if what == "lowest" else []
    pinned.write_text("pip>=24\n" + (f"{what}\n" if "==" in what else ""))  # tests build and install the wheel
    steps: list[list[str | Path]] = [
        [uv, "pip", "compile", "--python", python, "--extra", "dev", *options, "pyproject.toml", pinned],
        [uv, "venv", "--allow-existing", "--python", python, folder],
        [uv, "pip", "sync", "--python", folder, requirements],
        [uv, "pip", "install", "--no-deps", "--python", folder, "--editable", ROOT],
    ]
    steps[0] += ["--quiet", "--output-file", requirements]
    for step in steps:
        if (done := run(*step)).returncode:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            return f"{step[1]} {step[2]}: {lines[-1] if lines else done.returncode}"
    return folder / ("Scripts" if os.name == "nt" else "bin") / "python"


def test(python: Path, arguments: list[str]) -> tuple[int, str]:
    """The exit code of the suite in an environment, and its last line; what pytest prints is shown as it comes."""
    command: list[str | Path] = [python, "-m", "pytest", *arguments]
    last = ""
    with subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            sys.stdout.write(line)
            sys.stdout.flush()
            last = line.strip() if re.search(r"\d+ (passed|failed|error)", line) else last
    return process.returncode, last


def versions(python: Path) -> str:
    program = "import platform, torch; print(platform.python_version(), 'torch', torch.__version__)"
    return f"Python {run(python, '-c', program).stdout.strip()}"


def main() -> int:
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    names, arguments = sys.argv[1:end], sys.argv[end + 1 :]
    if unknown := [name for name in names if name not in NAMES]:
        print(f"{unknown[0]}: is none of {', '.join(NAMES)}")
        return 2
    uv = shutil.which("uv")
    if uv is None:
        print("uv is missing: pip install uv")
        return 1
    table, code = [], 0
    for name in names or NAMES:
        python = make(name, uv)
        if isinstance(python, str):
            table.append(f"{name:<20} not available: {python}")
            continue
        failed, line = test(python, arguments or ["--numprocesses", "auto", "--dist", "worksteal"])
        code = code or failed
        table.append(f"{name:<20} {versions(python)}: {line or f'pytest ended with {failed}'}")
    print("\n".join(["", *table]))
    return 1 if code else 0


if __name__ == "__main__":
    sys.exit(main())
