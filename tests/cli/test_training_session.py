"""Runs that lose nothing, as their users meet them: real processes, real signals, real files."""

from __future__ import annotations

import json
import os
import random
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
from torch import nn

from tests.helpers.forking import HANGS, Forked, clean_environment, run
from tests.helpers.killing import KILLED
from tests.helpers.oracles import needs_cuda
from tests.helpers.processes import Run
from tests.helpers.trained import train
from twolayer.config.loading import load_config
from twolayer.config.schema import document
from twolayer.training.metrics import final_loss
from twolayer.training.setup import prepare

ENGINES = [["autograd"], ["manual"], ["fused", "--set", "form=primal"], ["fused", "--set", "form=dual"], ["compiled"]]
# Long enough to be stopped in its midst: about a second.
LONG = ["scratch", "--engine", "autograd", "--epochs", "8000", "--lr", "1e-6"]
LONG_COMPILED = ["scratch", "--engine", "compiled", "--epochs", "4000", "--lr", "1e-9", "--set", "N=20000"]


def start(folder: Path, *arguments: str) -> Forked:
    return Forked(arguments, folder, stdout=subprocess.DEVNULL)


def wait_for_rows(run: Path, rows: int = 100) -> None:
    end = time.monotonic() + HANGS
    while not (run / "history.csv").exists() or (run / "history.csv").read_bytes().count(b"\n") < rows:
        assert time.monotonic() < end
        time.sleep(0.002)


def send_until_it_ends(process: Forked | subprocess.Popen[bytes]) -> None:
    """Send SIGINT twice, and more if the system has made one of two."""
    end = time.monotonic() + HANGS
    while process.poll() is None:
        assert time.monotonic() < end
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)


def status(run: Path) -> str:
    return str(json.loads((run / "run.json").read_text())["status"])


def same(one: Path, other: Path) -> bool:
    return all(
        (one / part).read_bytes() == (other / part).read_bytes() for part in ("history.csv", "model.safetensors")
    )


@pytest.mark.sample(3)
@pytest.mark.parametrize("engine", ENGINES, ids=" ".join)
def test_500_iterations_are_250_and_250_more(engine: list[str], twolayer: Run, tmp_path: Path) -> None:
    whole = twolayer("train", "--engine", *engine, "--out", "whole")
    half = twolayer("train", "--engine", *engine, "--out", "halves", "--epochs", "250")
    rest = twolayer("train", "--resume", "halves", "--epochs", "500")
    assert [done.returncode for done in (whole, half, rest)] == [0, 0, 0]
    assert same(tmp_path / "whole", tmp_path / "halves")
    rows = rest.stdout.splitlines()
    assert rows[8].split()[0] == "251"
    assert rows[-3:-2] == whole.stdout.splitlines()[-3:-2]  # the loss after the last update
    assert rest.stderr.startswith("run halves, from iteration 251\n")


def test_a_run_is_the_same_files_whatever_the_order_of_a_set(tmp_path: Path) -> None:
    for seed in ("1", "2"):  # of Python's hashes; a forked process would have its parent's
        program = (
            "import sys; from twolayer.cli import main\n"
            f"sys.exit(main.run(['train', 'scratch', '-q', '--out', 'scratch-{seed}'])\n"
            f"    or main.run(['train', 'diabetes', '-q', '--epochs', '5', '--out', 'diabetes-{seed}']))"
        )
        command = [sys.executable, "-c", program]
        subprocess.run(command, cwd=tmp_path, env=clean_environment(PYTHONHASHSEED=seed), check=True)
    for name in ("scratch", "diabetes"):
        assert same(tmp_path / f"{name}-1", tmp_path / f"{name}-2")


def test_a_run_folder_holds_all_there_is_to_know(twolayer: Run, tmp_path: Path) -> None:
    done = twolayer("train", "scratch", "--note", "the first")
    run = tmp_path / "runs" / "scratch-1"
    assert sorted(path.name for path in run.iterdir()) == [
        "checkpoints",
        "config.yaml",
        "history.csv",
        "model.safetensors",
        "run.json",
    ]
    rows = (run / "history.csv").read_text().splitlines()
    assert rows[0] == "iteration,loss"
    assert [int(row.split(",")[0]) for row in rows[1:]] == list(range(1, 201))
    config = load_config(run / "config.yaml")
    assert document(config) == (run / "config.yaml").read_text()
    assert "auto" not in (config.engine, config.threads)
    info = json.loads((run / "run.json").read_text())
    assert (info["status"], info["exit_code"], info["note"], info["iterations"]) == ("completed", 0, "the first", 200)
    assert info["first_loss"] == float(rows[1].split(",")[1])
    assert info["best_loss"] == min(float(row.split(",")[1]) for row in rows[1:])
    assert f"{info['final_loss']:#.6g}" in done.stdout
    for key in ("twolayer", "torch", "python", "platform", "cpu_capability", "device", "data_sha256", "initial_sha256"):
        assert info[key]


def test_the_saved_weights_in_a_plain_module_give_the_printed_loss(twolayer: Run, tmp_path: Path) -> None:
    done = twolayer("train", "--epochs", "100")
    model = nn.Sequential(nn.Linear(1000, 100), nn.ReLU(), nn.Linear(100, 10))
    model.load_state_dict(safetensors.torch.load_file(tmp_path / "runs" / "default-1" / "model.safetensors"))
    config, data, _ = prepare(load_config("default"))
    assert f"loss after the last update  {final_loss(model, data, config):#.6g}" in done.stdout


def test_no_save_leaves_nothing(twolayer: Run, tmp_path: Path) -> None:
    assert twolayer("train", "scratch", "--no-save").stderr == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "code", "long"),
    [
        (signal.SIGINT, 130, LONG),
        pytest.param(signal.SIGINT, 130, LONG_COMPILED, marks=pytest.mark.deep),
        pytest.param(signal.SIGTERM, 143, LONG, marks=pytest.mark.deep),
        pytest.param(signal.SIGHUP, 143, LONG, marks=pytest.mark.deep),
    ],
)
def test_after_a_signal_a_run_goes_on_to_the_same_end(
    number: int, code: int, long: list[str], twolayer: Run, tmp_path: Path
) -> None:
    run = tmp_path / "runs" / "scratch-1"
    with start(tmp_path, "train", *long) as process:
        wait_for_rows(run)
        process.send_signal(number)
        messages = process.stderr.read()
    assert process.returncode == code
    assert messages.splitlines()[-1] == "resume with: twolayer train --resume scratch-1"
    assert re.search(r"^interrupted after \d+ of (8000|4000) iterations$", messages, re.M)
    assert status(run) == "interrupted"
    assert twolayer(*messages.splitlines()[-1].split()[3:]).returncode == 0
    assert twolayer("train", *long, "--out", "whole").returncode == 0
    assert same(run, tmp_path / "whole")


def long_epochs(folder: Path) -> list[str]:
    """The training of a table whose epochs have 20,000 updates each: about two seconds."""
    lines = [f"{i % 89 / 89:.4f},{i % 97 / 97:.4f},{(i % 89) * (i % 97) / 9000:.4f}" for i in range(20_000)]
    (folder / "long.csv").write_text("\n".join(["a,b,y", *lines]) + "\n")
    fixed = ["--set", "batch_size=1", "--set", "validation=null", "--set", "H=8", "--lr", "0.01", "-q"]
    return ["train", "long.csv", "--target", "y", "--epochs", "2", *fixed]


def wait_for_an_update(run: Path) -> None:
    """Wait for a checkpoint within an epoch."""
    end = time.monotonic() + 120
    while not any((run / "checkpoints").glob("*-*.safetensors")):
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.deep)]
)
def test_after_a_signal_within_an_epoch_a_run_goes_on_to_the_same_end(
    number: int, code: int, twolayer: Run, tmp_path: Path
) -> None:
    command = long_epochs(tmp_path)
    run = tmp_path / "run"
    with start(tmp_path, *command, "--out", "run", "--checkpoint-every", "0.01s") as process:
        wait_for_an_update(run)
        process.send_signal(number)
        messages = process.stderr.read()
    assert process.returncode == code
    found = re.search(r"^interrupted after 0 of 2 epochs, in epoch 1 after (\d+) of 20000 updates$", messages, re.M)
    assert found is not None
    assert 0 < int(found[1]) < 20_000
    info = json.loads((run / "run.json").read_text())
    assert (info["status"], info["iterations"]) == ("interrupted", 0)
    assert (info["updates"], info["updates_per_epoch"]) == (int(found[1]), 20_000)
    assert (run / "checkpoints" / f"0-{found[1]}.safetensors").exists()
    shown = " ".join(twolayer("show", "run").stdout.split())
    assert f"0 of 2 epochs, in epoch 1 after {int(found[1]):,} of 20,000 updates" in shown
    scored = twolayer("evaluate", "run", "long.csv")
    assert (scored.returncode, "train --resume" in scored.stderr) == (1, True)
    done = twolayer("train", "--resume", "run", "-q")
    assert (done.returncode, twolayer(*command, "--out", "whole").returncode) == (0, 0)
    assert same(run, tmp_path / "whole")
    assert "updates" not in json.loads((run / "run.json").read_text())


def test_a_run_that_was_killed_within_an_epoch_says_where_its_checkpoint_is(twolayer: Run, tmp_path: Path) -> None:
    command = long_epochs(tmp_path)
    run = tmp_path / "run"
    with start(tmp_path, *command, "--out", "run", "--checkpoint-every", "0.01s") as process:
        wait_for_an_update(run)
        process.kill()
    newest = max(int(path.stem.split("-")[1]) for path in (run / "checkpoints").glob("0-*.safetensors"))
    shown = " ".join(twolayer("show", "run").stdout.split())
    assert f"0 of 2 epochs, in epoch 1 after at least {newest:,} of 20,000 updates" in shown
    assert twolayer("runs", "run", "--format", "csv").stdout.splitlines()[1].startswith("run,killed,")
    again = twolayer("train", "--resume", "run", "--epochs", "1")
    assert again.stderr.startswith(f"run run, from epoch 1, update {newest + 1} of 20000\n")
    assert again.returncode == 0
    assert len((run / "history.csv").read_text().splitlines()) == 2


def test_a_second_signal_leaves_at_once_and_the_run_can_go_on(twolayer: Run, tmp_path: Path) -> None:
    # Each iteration takes long, and the first checkpoint comes after it.
    slow = ["--set", "N=20000", "--set", "H=1000", "--engine", "autograd", "--lr", "1e-9", "--epochs", "300"]
    run = tmp_path / "runs" / "default-1"
    with start(tmp_path, "train", *slow) as process:
        wait_for_rows(run, 2)
        # Two of one kind could be made one; between two with a pause, the iteration could end.
        process.send_signal(signal.SIGSTOP)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)
        assert process.wait() in {130, 143}
        assert "interrupted" not in process.stderr.read()
    assert status(run) == "running"  # nothing was written any more
    done = twolayer("train", "--resume", "runs/default-1", "--epochs", "2")
    assert (done.returncode, status(run)) == (0, "completed")


def test_two_signals_within_one_call_count_as_two() -> None:
    program = """
import hashlib
from twolayer.cli.process import Stop
with Stop():
    print(flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # many minutes of C, in which Python handles no signal
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        send_until_it_ends(process)
        assert process.returncode == 130


def test_ctrl_c_before_the_first_iteration_is_an_interruption(twolayer: Run, tmp_path: Path) -> None:
    # What is measured unasked takes a while here: `is_cheap`, beside ten million iterations.
    long = ["--set", "N=3000", "--set", "H=3000", "--engine", "autograd", "--epochs", "10000000"]
    run = tmp_path / "runs" / "default-1"
    with start(tmp_path, "train", *long) as process:
        assert process.stderr.readline() == "run runs/default-1\n"  # before it, there is no run to go on with
        process.send_signal(signal.SIGINT)
        messages = process.stderr.read().splitlines()
    assert process.returncode == 130
    assert messages[-1] == "resume with: twolayer train --resume default-1"
    assert messages[-2].startswith("interrupted after ")
    assert status(run) == "interrupted"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_an_output_that_cannot_be_written_leaves_a_run_that_goes_on(twolayer: Run, tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = run(["train", "scratch", "--out", "run"], tmp_path, stdout=full)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-2:] == [
        "error: the output cannot be written: No space left on device",
        "run run keeps its last checkpoint; resume with: twolayer train --resume run",
    ]
    assert status(tmp_path / "run") == "failed"
    assert twolayer("train", "--resume", "run").returncode == 0
    assert twolayer("train", "scratch", "--out", "whole").returncode == 0
    assert same(tmp_path / "run", tmp_path / "whole")


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("name", "rounds"),
    [
        *((name, 2) for name in ("primal", "table", "auto", "within epochs")),
        pytest.param("compiled", 1),
        *(pytest.param(name, 30, marks=pytest.mark.deep) for name in KILLED),
    ],
)
def test_a_kill_at_any_moment_leaves_a_run_that_goes_on_to_the_same_end(name: str, rounds: int, tmp_path: Path) -> None:
    killing = Path(__file__).parents[1] / "helpers" / "killing.py"
    size = "pieces" if name == "within epochs" else "blocks"
    done = subprocess.run(
        [sys.executable, killing, tmp_path, str(rounds), "0", size, *KILLED[name]],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    same = done.stdout.splitlines()
    assert len(same) >= rounds
    assert set(same) == {"True"}


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(twolayer: Run, tmp_path: Path) -> None:
    twolayer("train", "scratch", "--out", "run", "--checkpoint-every", "80")
    twolayer("train", "scratch", "--out", "whole", "--epochs", "300")
    newest = tmp_path / "run" / "checkpoints" / "200.safetensors"
    data = bytearray(newest.read_bytes())
    data[-3] ^= 1
    newest.write_bytes(bytes(data))
    done = twolayer("train", "--resume", "run", "--epochs", "300")
    assert done.returncode == 0
    assert done.stderr.splitlines()[:2] == [
        "run/checkpoints/200.safetensors: is damaged: its checksum does not match",
        "run run, from iteration 161",
    ]
    assert same(tmp_path / "run", tmp_path / "whole")


def test_two_processes_do_not_train_one_run(twolayer: Run, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with start(tmp_path, "train", *LONG, "--out", "run") as process:
        wait_for_rows(run)
        second = twolayer("train", "--resume", "run")
        third = twolayer("train", "--out", "run")
        process.communicate()
    assert process.returncode == 0
    assert (second.returncode, second.stderr) == (2, "error: run: another process is training this run\n")
    assert third.returncode == 2
    assert third.stderr.startswith("error: run: already exists; resume it with --resume run")
    assert twolayer("train", *LONG, "--out", "whole").returncode == 0
    assert same(run, tmp_path / "whole")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--lr", "1e-3"], "lr is 0.0001, not 0.001"),
        (["--set", "H=7"], "H is 32, not 7"),
        (["--engine", "autograd"], "engine is 'manual', not 'autograd'"),
        (["--epochs", "200"], "has 200 iterations already; for more, add --epochs 400"),
        (["--epochs", "100"], "has 200 iterations already; for more, add --epochs 400"),
        (["scratch"], "--resume continues an existing run; remove CONFIG"),
        (["--out", "x"], "--resume continues an existing run; remove --out"),
        (["--no-save"], "--resume requires a run folder; remove --no-save"),
        (["--no-save", "--checkpoint-every", "5"], "--resume requires a run folder; remove --no-save"),
        (["--checkpoint-every", "0"], "must be iterations (500) or seconds (30s), not '0'"),
    ],
)
def test_a_run_goes_on_as_it_began_or_not_at_all(options: list[str], message: str, done_run: Path) -> None:
    before = {path: path.read_bytes() for path in done_run.rglob("*") if path.is_file()}
    done = run(["train", "--resume", "runs/scratch-1", *options], done_run.parent.parent)
    assert done.returncode == 2
    assert message in done.stderr
    assert {path: path.read_bytes() for path in done_run.rglob("*") if path.is_file()} == before


@pytest.fixture(scope="module")
def done_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("done")
    train(folder, "scratch -q")
    return folder / "runs" / "scratch-1"


def test_a_reader_that_has_enough_does_not_end_a_run(tmp_path: Path) -> None:
    with Forked(["train"], tmp_path) as process:
        assert process.stdout.readline() == "Sequential(\n"
        process.stdout.close()
        assert process.wait() == 0
    assert status(tmp_path / "runs" / "default-1") == "completed"


def test_a_run_that_diverges_keeps_the_last_weights_with_a_finite_loss(twolayer: Run, tmp_path: Path) -> None:
    done = twolayer("train", "--lr", "1e-2", "--format", "csv")
    run = tmp_path / "runs" / "default-1"
    rows = (run / "history.csv").read_text().splitlines()
    assert done.returncode == 3
    assert status(run) == "diverged"
    assert done.stdout.splitlines() == rows
    *_, before, last = rows
    assert last.split(",")[1] in ("inf", "nan")
    model = nn.Sequential(nn.Linear(1000, 100), nn.ReLU(), nn.Linear(100, 10))
    model.load_state_dict(safetensors.torch.load_file(run / "model.safetensors"))
    config, data, _ = prepare(load_config("default"))
    assert final_loss(model, data, config) == pytest.approx(float(before.split(",")[1]), rel=1e-3)
    kept = str(json.loads((run / "run.json").read_text())["diverged_at"] - 2)
    assert twolayer("train", "--lr", "1e-2", "--epochs", kept, "--out", "before").returncode == 0
    assert (run / "model.safetensors").read_bytes() == (tmp_path / "before" / "model.safetensors").read_bytes()
    again = twolayer("train", "--resume", "runs/default-1")
    assert again.returncode == 2
    assert "has diverged, and would diverge again" in again.stderr


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="only root can make a small disk")
def test_a_full_disk_is_found_before_the_first_iteration(twolayer: Run, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "none", disk], check=False).returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        done = twolayer("train", "--out", disk / "run")
        assert (done.returncode, done.stdout) == (1, "")
        assert re.fullmatch(r"error: .+/run: the disk has .+ free, and the run may need .+; take .+\n", done.stderr)
        assert list(disk.iterdir()) == []
        assert twolayer("train", "scratch", "--out", disk / "run").returncode == 0
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_folder_that_cannot_be_made_is_one_line(twolayer: Run, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    done = twolayer("train")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: runs: is not a folder\n"


@pytest.mark.parametrize("note", ["a\nb", "\x1b[31m", "x" * 1001])
def test_a_note_that_is_no_line_of_text_is_refused(note: str, twolayer: Run, tmp_path: Path) -> None:
    done = twolayer("train", "--note", note)
    assert done.returncode == 2
    assert "--note: must be a line of at most 1000 printable characters" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.cuda
@needs_cuda
def test_a_run_goes_on_on_another_device(twolayer: Run, tmp_path: Path) -> None:
    assert twolayer("train", "--epochs", "100").returncode == 0
    assert twolayer("train", "--resume", "default-1", "--device", "cuda", "--epochs", "200").returncode == 0
    assert twolayer("train", "--resume", "default-1", "--device", "cpu", "--epochs", "300").returncode == 0
    rows = (tmp_path / "runs" / "default-1" / "history.csv").read_text().splitlines()[1:]
    assert [int(row.split(",")[0]) for row in rows] == list(range(1, 301))
    truth = twolayer("train", "--epochs", "300", "--format", "csv").stdout.splitlines()[1:]
    losses = [[float(row.split(",")[1]) for row in each] for each in (rows, truth)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert torch.cuda.is_available()


@pytest.mark.parametrize(("options", "rows"), [([], 30), (["--log-every", "10"], 15), (["--format", "csv"], 150)])
def test_of_a_table_some_thirty_rows_are_on_the_screen_and_all_in_csv(
    options: list[str], rows: int, twolayer: Run
) -> None:
    whole = ["--epochs", "150", "--set", "patience=null", "--no-save"]
    lines = twolayer("train", "diabetes", *whole, *options).stdout.splitlines()
    assert sum(re.fullmatch(r"\s*\d+[ ,].*", line) is not None for line in lines) == rows
    said = [line for line in lines if line.startswith("only one row in")]
    assert said == ([f"only one row in {150 // rows} is printed; --log-every 1 prints all"] if rows < 150 else [])


# --- how a training on a table ends


def table_rows(folder: Path) -> list[str]:
    """A table on which the validation loss is best early, and much worse at the end."""
    draw = random.Random(3)
    lines = [f"{draw.gauss(0, 1):.4f},{draw.gauss(0, 1):.4f},{draw.gauss(0, 1):.4f}" for _ in range(60)]
    (folder / "t.csv").write_text("\n".join(["a,b,y", *lines]) + "\n")
    return ["train", "t.csv", "--target", "y", "--set", "validation=0.3"]


def val_losses(run: Path) -> list[float]:
    header, *rows = (run / "history.csv").read_text().splitlines()
    at = header.split(",").index("val_loss")
    return [float(row.split(",")[at]) for row in rows]


def test_patience_stays_on_when_epochs_are_given(twolayer: Run, tmp_path: Path) -> None:
    command = table_rows(tmp_path)
    done = twolayer(*command, "--epochs", "5000", "--out", "r")
    losses = val_losses(tmp_path / "r")
    info = json.loads((tmp_path / "r/run.json").read_text())
    assert (done.returncode, info["stopped_early"], len(losses)) == (0, True, info["kept"] + 30)
    # The line below the table names the row that has the validation loss of the weights that are kept.
    last = next(line for line in done.stdout.splitlines() if line.startswith("best weights"))
    found = re.fullmatch(r"best weights, those of row (\d+) \(lowest val_loss\): .*, val_loss (\S+)", last)
    assert found is not None
    assert int(found[1]) == info["kept"] + 1
    assert float(found[2]) == pytest.approx(losses[info["kept"]], rel=1e-4)
    assert losses[info["kept"]] == min(losses)
    assert "val_loss was best" not in done.stderr


def test_a_run_that_patience_ended_goes_on_with_epochs(twolayer: Run, tmp_path: Path) -> None:
    command = table_rows(tmp_path)
    assert twolayer(*command, "--epochs", "5000", "--out", "r").returncode == 0
    before = {path: path.read_bytes() for path in (tmp_path / "r").rglob("*") if path.is_file()}
    ended = json.loads((tmp_path / "r/run.json").read_text())
    refused = twolayer("train", "--resume", "r")
    assert refused.returncode == 2
    reason = f"stopped after {ended['iterations']} epochs: the validation loss had not improved for 30 epochs"
    assert refused.stderr == f"error: r: {reason}; to go on, add --epochs {2 * ended['iterations']}\n"
    assert {path: path.read_bytes() for path in (tmp_path / "r").rglob("*") if path.is_file()} == before

    more = ended["iterations"] + 20
    done = twolayer("train", "--resume", "r", "--epochs", str(more))
    assert done.returncode == 0
    assert "it had stopped early: the 30 epochs of patience count from here\n" in done.stderr
    assert twolayer(*command, "--epochs", str(more), "--set", "patience=5000", "--out", "whole").returncode == 0
    assert same(tmp_path / "r", tmp_path / "whole")
    info = json.loads((tmp_path / "r/run.json").read_text())
    assert (info["iterations"], info["stopped_early"]) == (more, False)
    losses = val_losses(tmp_path / "r")
    assert losses[info["kept"]] == min(losses)


def test_without_patience_it_is_said_that_the_validation_loss_was_better(twolayer: Run, tmp_path: Path) -> None:
    command = table_rows(tmp_path)
    more = ["--set", "patience=null", "--set", "H=300", "--out", "r", "-q"]
    done = twolayer(*command, *more, "--epochs", "200")
    losses, final = val_losses(tmp_path / "r"), json.loads((tmp_path / "r/run.json").read_text())["final_val_loss"]
    best = min(losses)
    wanted = f"val_loss was best at epoch {losses.index(best) + 1} ({best:.3g}) and is {final:.3g} now; with `patience`"
    assert wanted in done.stderr
    # A resumed run knows the rows before, too.
    done = twolayer("train", "--resume", "r", "--epochs", "210", "-q")
    assert f"val_loss was best at epoch {losses.index(best) + 1} ({best:.3g}) and is " in done.stderr


def test_few_validation_rows_are_said_to_be_few(twolayer: Run, tmp_path: Path) -> None:
    command = table_rows(tmp_path)
    done = twolayer(*command, "--epochs", "2", "--no-save")
    assert "18 validation rows are few: on other rows val_loss may differ much; --folds 5" in done.stderr
    lines = [f"{i},{i % 7}" for i in range(200)]
    (tmp_path / "many.csv").write_text("\n".join(["a,y", *lines]) + "\n")
    done = twolayer("train", "many.csv", "--target", "y", "--set", "validation=0.3", "--epochs", "2", "--no-save")
    assert "are few" not in done.stderr
