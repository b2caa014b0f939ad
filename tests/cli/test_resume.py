"""A run whose table has moved goes on, bit for bit; with another table it does not."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.helpers.forking import run
from twolayer.runs.model_file import encoding_of
from twolayer.tables.dataset import read
from twolayer.tables.older import keys_of_0_1_0
from twolayer.tables.options import FileData

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
        (
            "a,b,y\n" + "".join(f"{'uvw'[i % 3]},{i * i % 17},{i * 5 % 11}.25\n" for i in range(60)),
            "D_in is 2, but other.csv gives 4; column a gives 3 inputs, not 1\n",
        ),
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


# --- A run of version 0.1.0: it read columns otherwise, and wrote other fingerprints

OLD_TABLE = "id,day,price,seen,k,y\n" + "".join(
    f"{i},{i % 9 + 1:02},${i % 7}.50,{i % 5 + 1}.3.2020,{'ab'[i % 2]},{i * 5 % 11}.25\n" for i in range(60)
)
AS_THEN: dict[str, Any] = {
    "inputs": ["id", "day", "price", "seen", "k"],
    "numbers": ["day"],
    "categories": ["price", "seen"],
    "thousands": "none",
    "header": "first",
}


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A run of 5 epochs and one of 9, the first of them with the config and the fingerprint that 0.1.0 wrote."""
    table = tmp_path / "t.csv"
    table.write_text(OLD_TABLE)
    own: dict[str, Any] = {"missing": "refuse", "scale": True, "stratify": False, **AS_THEN}
    sets = [f"--set=data.{key}={json.dumps(value)}" for key, value in own.items()]
    options = [*sets, "--set=average=null", "--set=patience=null", "--set=validation=0.05", "--set=H=4", "-q"]
    for name, epochs in (("whole", "9"), ("part", "5")):
        done = twolayer(
            "train", "t.csv", "--target=y", *options, f"--epochs={epochs}", f"--out=runs/{name}", cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
    part = tmp_path / "runs/part"
    columns = encoding_of(part).document()
    given: dict[str, Any] = {
        "source": "file",
        "path": str(table),
        "target": ["y"],
        "inputs": None,
        "exclude": [],
        "missing": "refuse",
    }
    given |= {"scale": True, "separator": "auto", "decimal": "."}
    lines = (part / "config.yaml").read_text().splitlines()
    lines = [line for line in lines if not line.startswith(("data:", "average:"))]
    (part / "config.yaml").write_text("\n".join([*lines, f"data: {json.dumps(given)}"]) + "\n")
    document = {key: columns[key] for key in ("features", "targets", "classes", "kinds", "decimal")}
    for feature in document["features"]:
        del feature["part"]
    found = read(FileData(path=str(table), target=["y"], **own), validation=0.05, seed=0, loss="mse")
    digest = hashlib.sha256(json.dumps(document).encode() + found.x.tobytes() + found.y.tobytes()).hexdigest()
    info = json.loads((part / "run.json").read_text()) | {"format": 1, "data_sha256": digest}
    info["config_sha256"] = [hashlib.sha256((part / "config.yaml").read_bytes()).hexdigest()]
    ours = ("sha256", "history_bytes", "history_sha256", "model_sha256", "row_sums", "tables_beside")
    (part / "run.json").write_text(json.dumps({key: info[key] for key in info if key not in ours}) + "\n")
    return tmp_path


def test_a_run_of_version_0_1_0_goes_on_with_its_columns_as_it_read_them(older: Path) -> None:
    for epochs in ("7", "9"):  # at the second time it has every key of this version
        done = twolayer("train", "--resume=part", f"--epochs={epochs}", "-q", cwd=older)
        assert done.returncode == 0, done.stderr
    assert_equal(older)


def test_another_table_is_refused_for_a_run_of_version_0_1_0(older: Path) -> None:
    (older / "t.csv").write_text(OLD_TABLE.replace("5.25", "5.5"))
    done = twolayer("train", "--resume=part", "--epochs=9", "-q", cwd=older)
    assert (done.returncode, "is not the table that" in done.stderr) == (1, True)
    (older / "t.csv").write_text(OLD_TABLE.replace(",a,", ",c,", 1))
    done = twolayer("train", "--resume=part", "--epochs=9", "-q", cwd=older)
    assert done.returncode == 1
    assert "has changed since: D_in is " in done.stderr
    assert "gives 17; column k gives 3 inputs, not 2; or this version" in done.stderr
    assert done.stderr.endswith("or this version of twolayer reads it otherwise than 0.1.0 did: then train anew\n")


def test_typed_text_and_decimal_commas_are_as_they_were_in_version_0_1_0(tmp_path: Path) -> None:
    frame = pl.DataFrame({"zip": ["02134", "10001"], "n": [1, 2], "when": ["2020-01-02"] * 2, "y": [1.0, 2.0]})
    frame.write_parquet(tmp_path / "t.parquet")
    data = FileData(path=str(tmp_path / "t.parquet"), target=["y"])
    assert keys_of_0_1_0(data) == {
        "inputs": ["zip", "n", "when"], "numbers": [], "categories": ["when"], "thousands": "none"
    }  # fmt: skip
    (tmp_path / "t.csv").write_text("a;y\n1,5;2\n2,5;3\n")
    data = FileData(path=str(tmp_path / "t.csv"), target=["y"], decimal=",")
    assert keys_of_0_1_0(data) == {"inputs": ["a"], "numbers": [], "thousands": "none", "header": "first"}
