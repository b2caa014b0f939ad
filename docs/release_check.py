"""What a release must be: built, checked, installed from wheel and sdist into empty environments, and run there.

python docs/release_check.py [--unreleased] [--cuda]

It runs in the environment of `make release-check`, which has build and twine, and prints a line for each step. The exit
code is 1 if a step failed. Nothing is uploaded, and nothing is written into the checkout.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
PIP = ["--disable-pip-version-check", "--constraint", str(ROOT / "constraints.txt")]
GPU = re.compile("nvidia-|triton")  # what PyTorch brings where it is built for CUDA: gigabytes
EPOCHS_500 = "\n       500    1.457"  # the last row that `twolayer train` prints: the book's


class FailedError(Exception):
    """A step failed; the message says how."""


def run(*command: str | Path, cwd: Path = ROOT, code: int = 0) -> str:
    """Run a command without our variables; its stdout. Raises FailedError where it ends with another code."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("TWOLAYER_", "PYTHON"))}
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=kept, capture_output=True, text=True, check=False)
    if done.returncode != code:
        raise FailedError(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def version() -> str:
    """The version in the source."""
    match = re.search('__version__ = "(.+)"', (ROOT / "twolayer" / "version.py").read_text())
    assert match is not None
    return match[1]


def check_changelog(text: str, wanted: str, *, unreleased: bool) -> str:
    """What is wrong with the changelog of a release, empty if nothing: its first section must be the version's."""
    sections = re.findall(r"^## (.+)\n((?:(?!## ).*\n?)*)", text, re.MULTILINE)
    if not sections:
        return "CHANGELOG.md has no section"
    heading, body = sections[0]
    if unreleased and heading == "Unreleased":
        return ""
    if not re.fullmatch(rf"\[?{re.escape(wanted)}\]?,? (\(|- )?[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}\)?", heading):
        return f"the first heading of CHANGELOG.md is {heading!r}, not {wanted} with a date (2026-01-31)"
    return "" if body.strip() else f"the section {heading} of CHANGELOG.md is empty"


def build(folder: Path) -> list[Path]:
    """The sdist, and the wheel that is made from it."""
    run(sys.executable, "-m", "build", "--outdir", folder)
    names = sorted(path.name for path in folder.iterdir())
    wanted = [f"twolayer-{version()}-py3-none-any.whl", f"twolayer-{version()}.tar.gz"]
    if names != wanted:
        raise FailedError(f"built {names}, not {wanted}")
    run(sys.executable, "-m", "twine", "check", "--strict", *(folder / name for name in names))
    return [folder / name for name in names]


def install(distribution: Path, place: Path, *, cuda: bool) -> Path:
    """Install into an empty environment, with what it requires alone; the folder of its commands."""
    venv.create(place, with_pip=True)
    python = place / "bin" / "python"
    pip: list[str | Path] = [python, "-m", "pip", "install", "--quiet", *PIP]
    plan = json.loads(run(*pip, "--dry-run", "--report", "-", distribution))
    names = [item["metadata"]["name"] for item in plan["install"]]
    if not cuda and (found := [name for name in names if GPU.match(name)]):
        raise FailedError(
            f"PyTorch would come with {len(found)} packages for CUDA, which are gigabytes; "
            "set PIP_EXTRA_INDEX_URL to an index of its CPU builds, or add --cuda"
        )
    run(*pip, distribution)
    run(python, "-m", "pip", "check")
    return python.parent


def use(commands: Path, place: Path) -> None:
    """Run the installed commands in an empty folder."""
    place.mkdir()
    said = f"twolayer {version()}\n"
    ways: list[list[str | Path]] = [[commands / "twolayer"], [commands / "python", "-m", "twolayer"]]
    for command in ways:
        if (shown := run(*command, "--version", cwd=place)) != said:
            raise FailedError(f"--version says {shown!r}, not {said!r}")
    for command, option in zip(ways, ([], ["--no-save"]), strict=True):
        if EPOCHS_500 not in run(*command, "train", *option, cwd=place):
            raise FailedError("`twolayer train` does not print the book's last loss")
    run(commands / "twolayer", "compare", "default-1", "default-1", "--expect-equal", cwd=place)
    if (names := [path.name for path in place.iterdir()]) != ["runs"]:
        raise FailedError(f"it left {names}")


def main() -> int:
    """Do all steps, also after one that failed where that can be; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--unreleased", action="store_true", help="allow a changelog that is not closed yet")
    parser.add_argument("--cuda", action="store_true", help="allow PyTorch's packages for CUDA")
    given = parser.parse_args()
    failed = 0

    def step(name: str, action: Callable[[], object]) -> None:
        nonlocal failed
        try:
            action()
            print(f"{name}: ok", flush=True)
        except FailedError as error:
            failed += 1
            print(f"{name}: FAILED: {error}", flush=True)

    def changelog() -> None:
        text = (ROOT / "CHANGELOG.md").read_text()
        if wrong := check_changelog(text, version(), unreleased=given.unreleased):
            raise FailedError(wrong)

    step(f"changelog of {version()}", changelog)
    with tempfile.TemporaryDirectory(prefix="twolayer-release-") as name:
        folder = Path(name)
        built: list[Path] = []
        step("build, and twine check", lambda: built.extend(build(folder / "dist")))
        for distribution in built:
            kind = "sdist" if distribution.suffix == ".gz" else "wheel"
            place = folder / kind
            step(f"install the {kind}", lambda d=distribution, p=place: install(d, p, cuda=given.cuda))  # type: ignore[misc]
            if (place / "bin" / "twolayer").exists():
                step(f"run the {kind}", lambda p=place, k=kind: use(p / "bin", folder / f"use-{k}"))  # type: ignore[misc]
    print(f"failed steps: {failed}" if failed else "everything is in order")
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
