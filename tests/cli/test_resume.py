"""A run whose table has moved goes on, bit for bit; with another table it does not."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers.forking import run

TABLE = "a,b,y\n" + "".join(f"{i * 7 % 13},{i * i % 17},{i * 5 % 11}.25\n" for i in range(60))


def twolayer(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return run(arguments, cwd)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a table and its validation rows, a run of 9 epochs, and one of 5."""
    place = tmp_path / "p"
    place.mkdir()
    (place / "t.csv").write_text(TABLE)
    (place / "v.csv").write_text(TABLE[: len(TABLE) // 2].rpartition("\n")[0] + "\n")
    for name, epochs in (("whole", "9"), ("part", "5")):
        options = ["--set=validation=v.csv", f"--epochs={epochs}", f"--out=runs/{name}", "-q"]
        assert twolayer("train", "t.csv", "--target=y", *options, cwd=place).returncode == 0
    return place


def assert_equal(place: Path) -> None:
    done = twolayer("compare", "whole", "part", "--expect-equal", cwd=place)
    assert done.returncode == 0, done.stderr


def test_a_table_that_moved_with_its_run_is_found_beside_it(project: Path) -> None:
    moved = project.rename(project.with_name("q"))
    done = twolayer("train", "--resume", "part", "--epochs=9", "-q", cwd=moved)
    assert done.returncode == 0, done.stderr
    assert f"{project / 't.csv'}: no such file; {moved / 't.csv'} is read in its place\n" in done.stderr
    assert_equal(moved)
    again = moved.rename(project.with_name("r"))  # what was found is kept
    assert twolayer("train", "--resume", "part", "--epochs=10", "-q", cwd=again).returncode == 0


def test_a_table_that_moved_alone_can_be_named(project: Path) -> None:
    (project / "t.csv").rename(project / "u.csv")
    done = twolayer("train", "--resume", "part", "--epochs=9", cwd=project)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"error: runs/part: its table is not at {project / 't.csv'}; if it was moved, add --set data.path=PATH\n"
    )
    done = twolayer("train", "--resume", "part", "--epochs=9", "-q", "--set", "data.path=u.csv", cwd=project)
    assert done.returncode == 0, done.stderr
    assert_equal(project)
    (project / "v.csv").rename(project / "w.csv")
    sets = ["--set", "validation=w.csv"]
    assert twolayer("train", "--resume", "part", "--epochs=10", "-q", *sets, cwd=project).returncode == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TABLE.replace("5.25", "5.5"), "other.csv: is not the table that runs/part was started with, or has changed"),
        (
            TABLE + "1,2,3\n",
            "runs/part: its table is another one, or has changed since: N is 60, but other.csv gives 61",
        ),
        ("a,y\n1,2\n2,3\n3,5\n", "runs/part: its table is another one, or has changed since: "),
    ],
)
def test_another_table_is_refused_and_the_run_stays_as_it_was(project: Path, text: str, message: str) -> None:
    (project / "other.csv").write_text(text)
    before = (project / "runs/part/run.json").read_text()
    done = twolayer("train", "--resume", "part", "--epochs=9", "--set=data.path=other.csv", cwd=project)
    assert done.returncode == 1
    assert message in done.stderr
    assert (project / "runs/part/run.json").read_text() == before
    done = twolayer("train", "--resume", "part", "--epochs=9", "-q", cwd=project)
    assert done.returncode == 0
    assert_equal(project)


def test_a_part_that_is_held_out_cannot_become_a_file(project: Path) -> None:
    options = ["--target=y", "--set=validation=0.2", "--epochs=3", "-q", "--out=runs/held"]
    assert twolayer("train", "t.csv", *options, cwd=project).returncode == 0
    done = twolayer("train", "--resume", "held", "--epochs=9", "--set=validation=v.csv", cwd=project)
    assert done.returncode == 2
    assert (
        "validation is 0.2, not 'v.csv': when a run is resumed, only epochs, log_every, device, data.path"
        in done.stderr
    )


def test_a_run_without_the_paths_beside_it_names_the_way_out(project: Path) -> None:
    """Runs of earlier versions have none; a copy elsewhere does not find its table either."""
    shutil.copytree(project / "runs/part", project.parent / "copy")
    assert json.loads((project / "runs/part/run.json").read_text())["tables_beside"] == {
        "data.path": "../../t.csv",
        "validation": "../../v.csv",
    }
    (project / "t.csv").rename(project.parent / "elsewhere.csv")
    done = twolayer("train", "--resume", "copy", "--epochs=9", cwd=project.parent)
    assert done.stderr.endswith("add --set data.path=PATH\n")
    done = twolayer("train", "--resume=copy", "--epochs=9", "-q", "--set=data.path=elsewhere.csv", cwd=project.parent)
    assert done.returncode == 0, done.stderr
