"""The wheel, by itself, in a fresh environment outside the checkout."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from conftest import clean_environment

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w"]
    subprocess.run([*command, str(folder), str(ROOT)], check=True, capture_output=True)
    (path,) = folder.glob("twolayer-*.whl")
    return path


def test_the_wheel_holds_the_package_the_configs_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    pages = [f"twolayer/templates/{path.name}" for path in (ROOT / "twolayer/templates").iterdir()]
    assert len(pages) > 3
    for name in ("twolayer/py.typed", "twolayer/configs/default.yaml", "twolayer/configs/twolayer.schema.json", *pages):
        assert name in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"twolayer"}


def test_installed_without_the_dev_tools_it_trains(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    install = [
        str(python),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--constraint",
        str(ROOT / "constraints.txt"),
        str(wheel),
    ]
    subprocess.run(install, check=True, capture_output=True)
    (tmp_path / "elsewhere").mkdir()
    for command in (
        [str(python.with_name("twolayer")), "train"],
        [str(python), "-m", "twolayer", "train", "--no-save"],
    ):
        done = subprocess.run(
            command, cwd=tmp_path / "elsewhere", env=clean_environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "\n       500    1.457" in done.stdout
    for command, code, said in (
        (["show", "default-1"], 0, ""),
        (["compare", "default-1", "default-1", "--expect-equal"], 0, ""),
        (["plot", "default-1", "-o", "loss.png"], 1, "error: this needs altair: pip install 'twolayer[report]'\n"),
        (["report", "default-1"], 1, "error: this needs altair: pip install 'twolayer[report]'\n"),
    ):
        done = subprocess.run(
            [str(python.with_name("twolayer")), *command],
            cwd=tmp_path / "elsewhere",
            env=clean_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (code, said)
    listed = subprocess.run([python, "-m", "pip", "list"], check=True, capture_output=True, text=True).stdout
    assert "pytest" not in listed
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["runs"]
