"""The wheel, by itself, in a fresh environment outside the checkout."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.helpers.forking import clean_environment

ROOT = Path(__file__).parent.parent
check_changelog = runpy.run_path(str(ROOT / "docs" / "release_check.py"))["check_changelog"]


CHANGELOG = "# Changelog\n\nSome words.\n\n## {}\n\n### Added\n\n- A thing.\n\n## 0.1.0 (2025-01-31)\n\n- All.\n"


@pytest.mark.parametrize(
    ("heading", "unreleased", "says"),
    [
        ("1.2.0 (2026-01-31)", False, ""),
        ("[1.2.0] - 2026-01-31", False, ""),
        ("1.2.0", False, "the first heading of CHANGELOG.md is '1.2.0', not 1.2.0 with a date (2026-01-31)"),
        ("Unreleased", False, "the first heading of CHANGELOG.md is 'Unreleased', not 1.2.0 with a date (2026-01-31)"),
        ("Unreleased", True, ""),
        (
            "1.2.1 (2026-01-31)",
            True,
            "the first heading of CHANGELOG.md is '1.2.1 (2026-01-31)', not 1.2.0 with a date",
        ),
        ("1x2.0 (2026-01-31)", False, "the first heading of CHANGELOG.md is '1x2.0 (2026-01-31)', not 1.2.0 with"),
        (
            "1.2.0 (2026-01-31)\n\n## 0.9.0 (2025-02-01)",
            False,
            "the section 1.2.0 (2026-01-31) of CHANGELOG.md is empty",
        ),
    ],
)
def test_a_release_is_what_the_changelog_begins_with(heading: str, unreleased: bool, says: str) -> None:
    found = check_changelog(CHANGELOG.format(heading), "1.2.0", unreleased=unreleased)
    assert found.startswith(says) if says else not found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w"]
    subprocess.run([*command, str(folder), str(ROOT)], check=True, capture_output=True)
    (path,) = folder.glob("twolayer-*.whl")
    return path


def test_the_wheel_holds_the_package_the_configs_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    pages = [
        f"twolayer/reporting/html/templates/{path.name}"
        for path in (ROOT / "twolayer/reporting/html/templates").iterdir()
    ]
    assert len(pages) > 3
    for name in (
        "twolayer/py.typed",
        "twolayer/config/configs/default.yaml",
        "twolayer/config/configs/twolayer.schema.json",
        *pages,
    ):
        assert name in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"twolayer"}


def needed(wheel: Path) -> set[str]:
    """The packages that the wheel says it needs, and all that these need, extras aside."""
    archive = zipfile.ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    lines = re.findall("^Requires-Dist: (.+)$", archive.read(name).decode(), re.MULTILINE)
    found: set[str] = set()
    while lines:
        wanted = map(Requirement, lines)
        names = {one.name for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})} - found
        found |= names
        lines = [line for each in names for line in metadata.requires(each) or []]
    return found


def link(name: str, folder: Path) -> None:
    """Put links to an installed package's files into a folder."""
    package = metadata.distribution(name)
    for top in {file.parts[0] for file in package.files or [] if file.parts[0] not in ("..", "__pycache__")}:
        if not (folder / top).exists():
            (folder / top).symlink_to(Path(str(package.locate_file(top))).absolute())


@pytest.mark.parametrize("by", ["links", pytest.param("pip", marks=pytest.mark.deep)])
def test_installed_without_the_dev_tools_it_trains(by: str, wheel: Path, tmp_path: Path) -> None:
    """With what the wheel says that it needs, and no more: from pip, or, which is sooner done, links."""
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    install = [*pip, "install", "--quiet", str(wheel)]
    if by == "pip":
        install += ["--constraint", str(ROOT / "constraints.txt")]
    else:
        install += ["--no-deps"]
        (folder,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
        for name in needed(wheel):
            link(name, folder)
    subprocess.run(install, check=True, capture_output=True)
    (tmp_path / "elsewhere").mkdir()
    environment = {key: value for key, value in clean_environment().items() if key != "PYTHONPATH"}
    for command in (
        [str(python.with_name("twolayer")), "train"],
        [str(python), "-m", "twolayer", "train", "--no-save"],
    ):
        done = subprocess.run(
            command, cwd=tmp_path / "elsewhere", env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "\n       500    1.457" in done.stdout
    for command, code, said in (
        (["show", "default-1"], 0, ""),
        (["compare", "default-1", "default-1", "--expect-equal"], 0, ""),
        (["plot", "default-1", "-o", "loss.png"], 1, "error: this needs altair: pip install 'twolayer[report]'\n"),
        (
            ["train", "--engine", "compiled"],
            1,
            "error: the compiled engine needs numba: pip install 'twolayer[fast]'\n",
        ),
        (["report", "default-1"], 1, "error: this needs altair: pip install 'twolayer[report]'\n"),
    ):
        done = subprocess.run(
            [str(python.with_name("twolayer")), *command],
            cwd=tmp_path / "elsewhere",
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (code, said)
    listed = subprocess.run([*pip, "list"], check=True, capture_output=True, text=True).stdout
    assert "pytest" not in listed
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["runs"]
