"""twolayer train: its tables, its messages and its exit codes."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest

from tests.helpers.processes import Run, without_torch
from tests.helpers.published import agree_to_three_digits
from twolayer.training.doctor.book import published_losses


@pytest.mark.parametrize("engine", ["autograd", "manual", "fused primal", "fused dual", "compiled"])
@pytest.mark.parametrize("threads", ["1", "2"])
def test_the_books_500_losses_come_out_to_three_digits(twolayer: Run, engine: str, threads: str) -> None:
    name, _, form = engine.partition(" ")
    arguments = ["--engine", name, "--threads", threads, "--set", f"form={form or 'auto'}"]
    done = twolayer("train", "--format", "csv", *arguments)
    assert done.returncode == 0
    header, *rows = csv.reader(io.StringIO(done.stdout))
    assert header == ["iteration", "loss"]
    assert [int(row[0]) for row in rows] == list(range(1, 501))
    losses, book = [float(row[1]) for row in rows], published_losses()
    assert agree_to_three_digits(losses, book)
    # And rounded alike, too, where no loss lies on the edge between two roundings.
    if engine in ("autograd", "manual") and threads == "1":
        assert [f"{loss:.3g}" for loss in losses] == [f"{loss:.3g}" for loss in book]


def test_train_prints_the_model_what_computes_the_table_and_the_end(twolayer: Run) -> None:
    done = twolayer("train")
    lines = done.stdout.splitlines()
    assert done.returncode == 0
    assert done.stderr == ("run runs/default-1\nsaved; see: twolayer show default-1, twolayer report default-1\n")
    assert lines[:5] == [
        "Sequential(",
        "  (0): Linear(in_features=1000, out_features=100, bias=True)",
        "  (1): ReLU()",
        "  (2): Linear(in_features=100, out_features=10, bias=True)",
        ")",
    ]
    assert lines[5] == "config default, device cpu, engine fused (dual), threads 1, seed 0"
    assert lines[6:9] == [" iteration           loss", "─" * 25, "         1        628.284"]
    assert lines[507].startswith("       500    1.457")
    assert lines[508] == "─" * 25
    assert re.fullmatch(r"loss after the last update  1\.41\d\d\de-05", lines[509])
    assert re.fullmatch(r"training time  \S+ (ms|s), \S+ (µs|ms) per iteration", lines[510])
    assert len(lines) == 511


def test_the_tutorials_print_every_tenth_iteration(twolayer: Run) -> None:
    rows = twolayer("train", "scratch", "--format", "csv").stdout.splitlines()[1:]
    assert [int(row.split(",")[0]) for row in rows] == list(range(10, 201, 10))


def test_jsonl_is_json_and_the_same_numbers_as_csv(twolayer: Run) -> None:
    jsonl = twolayer("train", "modules", "--format", "jsonl")
    table = twolayer("train", "modules", "--format", "csv")
    rows = [json.loads(line) for line in jsonl.stdout.splitlines()]
    assert [f"{row['iteration']},{row['loss']!r}" for row in rows] == table.stdout.splitlines()[1:]
    assert jsonl.stderr.splitlines()[:2] == [
        "run runs/modules-1",
        "config modules, device cpu, engine autograd, threads 1, seed 0",
    ]
    assert jsonl.stderr.splitlines()[2].startswith("loss after the last update  ")


def test_quiet_prints_the_lines_below_the_table_alone(twolayer: Run) -> None:
    done = twolayer("train", "scratch", "--quiet")
    assert [line.split("  ")[0] for line in done.stdout.splitlines()] == ["loss after the last update", "training time"]
    assert done.stderr == "saved; see: twolayer show scratch-1, twolayer report scratch-1\n"


def test_quiet_and_rows_exclude_each_other(tmp_path: Path) -> None:
    done = without_torch("train", "--quiet", "--format", "csv", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


def test_options_variables_and_sets_reach_the_training(twolayer: Run) -> None:
    done = twolayer("train", "scratch", "--set", "H=7", "--epochs", "3", "--log-every", "2", TWOLAYER_SEED="5")
    assert "(0): Linear(in_features=3, out_features=7, bias=True)" in done.stdout
    assert "seed 5\n" in done.stdout
    assert done.stdout.count("\n         ") == 1
    assert "\n         2  " in done.stdout


def test_a_divergence_ends_the_table_at_its_row_and_exits_3(twolayer: Run) -> None:
    done = twolayer("train", "--lr", "1", "--log-every", "100")
    lines = done.stdout.splitlines()
    assert done.returncode == 3
    assert lines[-2].split()[1] in ("inf", "nan")
    assert lines[-1] == "─" * 25
    assert re.fullmatch(
        r"run runs/default-1\n"
        r"error: the loss is \w+ at iteration \d, after \d updates?: "
        r"lr 1 is above 0\.00139, the largest stable learning rate at the start; try 0\.0007, or auto\n"
        r"run runs/default-1 keeps the last weights that gave a finite loss, in model\.safetensors\n",
        done.stderr,
    )


@pytest.mark.parametrize("device", ["cuda", "cuda:7", "mps"])
def test_a_device_that_cannot_be_had_is_one_line_and_exit_1(twolayer: Run, device: str) -> None:
    import torch

    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("there is a GPU")
    done = twolayer("train", "--device", device)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(rf"error: no device {device}: PyTorch .+\n", done.stderr)


@pytest.mark.cuda
def test_on_cuda_the_books_losses_come_out_to_three_digits(twolayer: Run) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA GPU here")
    done = twolayer("train", "--device", "cuda", "--format", "csv")
    losses = [float(row.split(",")[1]) for row in done.stdout.splitlines()[1:]]
    assert agree_to_three_digits(losses, published_losses())


@pytest.mark.cuda
def test_hidden_gpus_are_refused_with_that_reason(twolayer: Run) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA GPU here")
    done = twolayer("train", "--device", "cuda", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 1
    assert "CUDA_VISIBLE_DEVICES is '', which hides every GPU" in done.stderr


def test_a_step_above_the_limit_is_told_at_the_start_where_that_is_cheap(twolayer: Run) -> None:
    arguments = ["train", "scratch", "--lr", "3e-4", "--no-save", "--log-every", "100000"]
    assert "largest stable learning rate" not in twolayer(*arguments).stderr
    done = twolayer(*arguments, "--epochs", "50000")
    assert done.stderr == "lr 0.0003 is above 0.000234, the largest stable learning rate at the start\n"


def test_with_lr_auto_csv_and_json_have_the_step(twolayer: Run, tmp_path: Path) -> None:
    done = twolayer("train", "scratch", "--lr", "auto", "--format", "csv", "--log-every", "1")
    assert done.stdout == (tmp_path / "runs" / "scratch-1" / "history.csv").read_text()
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert list(rows[0]) == ["iteration", "loss", "lr"]
    first = json.loads(
        twolayer("train", "scratch", "--lr", "auto", "--format", "jsonl", "--log-every", "1").stdout.splitlines()[0]
    )
    assert first == {"iteration": 1, "loss": float(rows[0]["loss"]), "lr": float(rows[0]["lr"])}
