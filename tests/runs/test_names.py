from __future__ import annotations

from pathlib import Path

import pytest

from tests.runs.test_folder import made
from twolayer.errors import RunError
from twolayer.runs.folder import open_for_resume
from twolayer.runs.names import find, safe_name


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("default", "default"),
        ("my.yaml", "my"),
        ("/etc/my config.yml", "my-config"),
        ("../x", "x"),
        ("..", "run"),
        (".hidden", "hidden"),
        ("a\0b", "a-b"),
        ("-rf", "rf"),
        ("x" * 300, "x" * 60),
        ("é.yaml", "é"),
        ("東京 2.csv", "東京-2"),
        ("\udcff.csv", "run"),
    ],
)
def test_a_runs_name_is_made_safe(name: str, safe: str) -> None:
    assert safe_name(name) == safe
    assert made(safe).path.parent == Path("runs")


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a\0b", "x" * 300, "nothing", "", "."])
def test_what_is_no_run_is_refused(name: str) -> None:
    with pytest.raises(RunError) as caught:
        open_for_resume(find(name))
    assert caught.value.exit_code == 2


def test_a_run_is_found_by_its_name_and_by_its_path(tmp_path: Path) -> None:
    made().close()
    assert find("x-1") == find("runs/x-1") == Path("runs/x-1")
    assert find(str(tmp_path / "runs" / "x-1")) == tmp_path / "runs" / "x-1"


def test_a_link_out_of_the_runs_is_refused(tmp_path: Path) -> None:
    made(out=Path("elsewhere")).close()
    Path("runs").mkdir()
    Path("runs/x-1").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="runs/x-1: is a link to a place outside runs"):
        find("x-1")
