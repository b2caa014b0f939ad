"""`inspect`: its page and its views, of configs and of runs in any state; it writes nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch

from tests.helpers.forking import HANGS, Forked, clean_environment, run
from tests.helpers.processes import in_terminal
from tests.helpers.trained import train


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs in several states."""
    folder = tmp_path_factory.mktemp("inspected")
    train(
        folder,
        "modules -q --checkpoint-every 40 --epochs 100",
        "modules -q --lr 1 --out runs/diverged",
        "modules -q --epochs 30 --checkpoint-every 10 --out runs/stopped",
        "diabetes -q --epochs 4",
        "modules -q --epochs 3 --out runs/broken",
    )
    stopped = folder / "runs" / "stopped"
    (stopped / "model.safetensors").unlink()
    text = (stopped / "run.json").read_text()
    info = {key: value for key, value in json.loads(text).items() if key not in ("sha256", "model_sha256")}
    (stopped / "run.json").write_text(json.dumps(info | {"status": "interrupted", "format": 1}))
    (folder / "runs" / "broken" / "config.yaml").write_text("N: [")
    return folder


def lines(folder: Path, *words: str) -> list[dict[str, object]]:
    done = run(["inspect", *words, "--format", "jsonl"], folder)
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def weights(folder: Path, *words: str) -> dict[str, torch.Tensor]:
    return {str(row["name"]): torch.tensor(row["values"]) for row in lines(folder, *words, "--parameters")}


def test_the_end_of_a_run_is_its_model_and_the_start_that_of_its_config(runs: Path) -> None:
    model = safetensors.torch.load_file(runs / "runs" / "modules-1" / "model.safetensors")
    found = weights(runs, "modules-1")
    assert all(torch.equal(found[name], model[name]) for name in model)
    assert json.dumps(lines(runs, "modules-1", "--at", "start")) == json.dumps(lines(runs, "modules"))


def test_an_iteration_in_between_has_the_bits_of_a_training_that_ended_there(runs: Path, tmp_path: Path) -> None:
    train(tmp_path, "modules -q --epochs 97")
    model = safetensors.torch.load_file(tmp_path / "runs" / "modules-1" / "model.safetensors")
    for words in (("modules-1", "--at", "97"), ("modules", "--at", "97")):
        found = weights(runs, *words)
        assert all(torch.equal(found[name], model[name]) for name in model)


def test_a_stopped_run_is_shown_at_its_newest_checkpoint_and_a_diverged_one_at_what_it_keeps(runs: Path) -> None:
    stopped = run(["inspect", "stopped"], runs)
    assert stopped.stdout.startswith("run stopped, interrupted: the weights after iteration 30\n"), stopped.stderr
    diverged = run(["inspect", "diverged"], runs)
    assert diverged.stdout.startswith("run diverged, diverged: the weights that it keeps, of iteration ")


def test_that_the_last_checkpoint_of_a_stopped_run_is_damaged_or_missing_is_said(runs: Path) -> None:
    shutil.copytree(runs / "runs" / "stopped", runs / "runs" / "hurt")
    newest = runs / "runs" / "hurt" / "checkpoints" / "30.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1] + b"?")
    done = run(["inspect", "hurt"], runs)
    assert done.stdout.startswith("run hurt, interrupted: the weights after iteration 20\n")
    assert done.stderr == "runs/hurt/checkpoints/30.safetensors: is damaged: its checksum does not match\n"
    newest.unlink()
    done = run(["inspect", "hurt"], runs)
    assert done.stdout.startswith("run hurt, interrupted: the weights after iteration 20\n")
    assert done.stderr == "runs/hurt: has 30 iterations, and no checkpoint of the last\n"


def test_a_broken_run_is_one_line(runs: Path) -> None:
    done = run(["inspect", "broken"], runs)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "config.yaml" in done.stderr


def test_nothing_is_written(runs: Path) -> None:
    def state() -> dict[str, tuple[int, int]]:
        return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(runs.rglob("*"))}

    before = state()
    for words in ("modules-1", "modules-1 --at 50 --step", "stopped --backward", "diabetes-1", "modules --forward"):
        assert run(["inspect", *words.split()], runs).returncode == 0
    assert state() == before


def test_a_run_that_another_process_holds_is_shown(runs: Path) -> None:
    holder = os.open(runs / "runs" / "modules-1", os.O_RDONLY)
    try:
        import fcntl

        fcntl.flock(holder, fcntl.LOCK_EX)
        assert run(["inspect", "modules-1"], runs).returncode == 0
    finally:
        os.close(holder)


@pytest.mark.sample(2)
@pytest.mark.parametrize("words", ["modules-1", "modules --at 20", "modules-1 --at 50 --backward", "diabetes-1 --step"])
def test_the_lines_of_python_run_and_give_the_same_loss(words: str, runs: Path) -> None:
    done = run(["inspect", *words.split(), "--as-python"], runs)
    program = done.stdout + "\nprint('loss', loss.item())\n"
    command = [sys.executable, "-c", program]
    python = subprocess.run(command, cwd=runs, env=clean_environment(), capture_output=True, text=True, check=False)
    assert python.returncode == 0, python.stderr
    loss = float(python.stdout.split()[-1])
    name, *rest = words.split()
    page = lines(runs, name, *[word for word in rest if word in ("--at",) or word.isdecimal()])
    found = next(row["loss"] for row in page if "loss" in row)
    assert loss == pytest.approx(found, rel=1e-6)


def test_the_page_of_a_table_has_the_importance_of_its_columns(runs: Path) -> None:
    columns = [row for row in lines(runs, "diabetes-1") if "column" in row]
    assert len(columns) == 10
    assert "Importance of the columns" in run(["inspect", "diabetes-1"], runs).stdout


def test_the_page_fits_eighty_columns_and_says_that_the_bits_are_the_same(runs: Path) -> None:
    code, written = in_terminal(["inspect", "diabetes-1"], runs, {"COLUMNS": "80"})
    shown = re.sub(r"\x1b\[[0-9;]*m", "", written).split("\r\n")
    assert code == 0
    assert all(len(line) <= 80 for line in shown)
    assert sum(line.endswith("same bits") for line in shown) == 4
    assert not any("not shown" in line for line in shown)


def test_the_views_print_tensors_as_pytorch_does(runs: Path) -> None:
    model = safetensors.torch.load_file(runs / "runs" / "modules-1" / "model.safetensors")
    shown = run(["inspect", "modules-1", "--layer", "2"], runs).stdout
    assert str(model["2.bias"]) in shown
    assert "gradient of 2.weight" in shown
    first = run(["inspect", "modules-1", "--layer", "0"], runs).stdout
    assert "gradient of 0.weight" in first
    assert "2.bias" not in first
    assert run(["inspect", "modules-1", "--device", "cpu"], runs).stdout.count("same bits") == 6


@pytest.fixture(scope="module")
def gone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run whose table is gone."""
    folder = tmp_path_factory.mktemp("gone")
    table = folder / "table.csv"
    table.write_text("a,b,y\n" + "".join(f"{i * i},{i % 3},{i * i % 7}\n" for i in range(40)))
    train(folder, "table.csv --target y -q --epochs 2 --lr 0.1 --set H=5")
    table.rename(folder / "elsewhere")
    return folder


def test_of_a_run_whose_table_is_gone_all_is_shown_that_needs_no_rows(gone: Path) -> None:
    model = safetensors.torch.load_file(gone / "runs" / "table-1" / "model.safetensors")
    found = weights(gone, "table-1")
    assert list(found) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert all(torch.equal(found[name], model[name].float()) for name in found)
    done = run(["inspect", "table-1"], gone)
    assert (done.returncode, done.stderr) == (0, "")
    assert "y from 2 columns (a, b); 34 rows trained on" in done.stdout
    assert f"0.weight  5 x 2  10  {float(model['0.weight'].norm()):.4g}" in re.sub(" {3,}", "  ", done.stdout)
    lacking = "not available: hidden units, gradients and the importance of columns: "
    reason = f"{gone / 'table.csv'}: no such file; put back the table that the run was trained on"
    assert done.stdout.splitlines()[-1] == lacking + reason
    as_lines = run(["inspect", "table-1", "--format", "jsonl"], gone)
    assert [json.loads(line)["tensor"] for line in as_lines.stdout.splitlines()] == list(found)
    assert as_lines.stderr == f"{lacking}{reason}\n"


@pytest.mark.parametrize(
    "view", ["--forward", "--backward", "--step", "--layer 0", "--device cpu", "--forward --as-python"]
)
def test_of_a_run_whose_table_is_gone_views_of_rows_are_refused(view: str, gone: Path) -> None:
    done = run(["inspect", "table-1", *view.split()], gone)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    needs = f"error: {view.split()[0]} needs the rows of the training: {gone / 'table.csv'}: no such file; without them"
    assert done.stderr.startswith(needs)


def test_a_run_whose_table_is_gone_is_shown_at_its_end_alone(gone: Path) -> None:
    done = run(["inspect", "table-1", "--at", "1"], gone)
    reason = f"{gone / 'table.csv'}: no such file; put back the table that the run was trained on"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"error: runs/table-1: {reason}\n")


WRONG = {
    "modules-1 --at 101": "has 100 iterations, so there is no 101",
    "modules --at 201": "--at 201 is after the last of 200; add --epochs 201",
    "modules --at middle": "--at must be start, end or a number of iterations or epochs, not 'middle'",
    "modules --layer 3": "--layer must be 0, 1 or 2, not 3",
    "modules --layer 0 --step": "--layer and --step are two views; ask for one",
    "modules --forward --step": "--forward and --step are two views; ask for one",
    "modules-1 --lr 1": "a run is taken as it was trained; remove --lr",
    "modules --device cud": "--device must be cpu, cuda, cuda:<n>, mps or auto, not 'cud'",
}


@pytest.mark.parametrize("words", WRONG)
def test_a_wrong_use_is_one_line(words: str, runs: Path) -> None:
    done = run(["inspect", *words.split()], runs)
    assert done.returncode in (1, 2)
    assert done.stderr.count("\n") == 1
    assert WRONG[words] in done.stderr


@pytest.mark.parametrize("delay", [0.1, pytest.param(2.0, marks=pytest.mark.deep)])
def test_ctrl_c_ends_a_long_one_with_130_without_a_word(delay: float, tmp_path: Path) -> None:
    names = [f"c{i}" for i in range(40)]
    rows = [",".join(str(i * j % 97) for j in range(1, 41)) for i in range(2000)]
    (tmp_path / "wide.csv").write_text("\n".join([",".join(names), *rows]) + "\n")
    words = ["wide.csv", "--target", "c3", "--set", "H=40000", "--set", "validation=null"]  # minutes, wherever it is
    with Forked(["inspect", *words], tmp_path) as process:
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=HANGS)
    assert (process.returncode, out, error) == (130, "", "")
    assert [path.name for path in tmp_path.iterdir()] == ["wide.csv"]
