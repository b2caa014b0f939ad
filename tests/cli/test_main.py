"""The commands as their users meet them: real processes and real files."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_group

from tests.helpers.forking import clean_environment
from tests.helpers.processes import BASE, Run, Write, without_torch
from tests.helpers.published import agree_to_three_digits, published
from twolayer import __version__
from twolayer.cli import main
from twolayer.config.bundled import bundled
from twolayer.config.schema import KEYS, schema

# --- twolayer train


@pytest.mark.parametrize("engine", ["autograd", "manual", "fused primal", "fused dual"])
@pytest.mark.parametrize("threads", ["1", "2"])
def test_the_books_500_losses_come_out_to_three_digits(twolayer: Run, engine: str, threads: str) -> None:
    name, _, form = engine.partition(" ")
    arguments = ["--engine", name, "--threads", threads, "--set", f"form={form or 'auto'}"]
    done = twolayer("train", "--format", "csv", *arguments)
    assert done.returncode == 0
    header, *rows = csv.reader(io.StringIO(done.stdout))
    assert header == ["iteration", "loss"]
    assert [int(row[0]) for row in rows] == list(range(1, 501))
    losses, book = [float(row[1]) for row in rows], published("rtorch_losses.csv", "loss")
    assert agree_to_three_digits(losses, book)
    if not form and threads == "1":  # and rounded alike, too, where no loss lies on the edge between two roundings
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


def test_a_named_option_comes_over_set(twolayer: Run) -> None:
    done = twolayer("check", "--set", "lr=1", "--lr", "2", "--format", "jsonl")
    rows = {row["key"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert (rows["lr"]["value"], rows["lr"]["origin"]) == (2, "--lr")


def test_a_divergence_ends_the_table_at_its_row_and_exits_3(twolayer: Run) -> None:
    done = twolayer("train", "--lr", "1", "--log-every", "100")
    lines = done.stdout.splitlines()
    assert done.returncode == 3
    assert lines[-2].split()[1] in ("inf", "nan")
    assert lines[-1] == "─" * 25
    assert re.fullmatch(
        r"run runs/default-1\n"
        r"error: the loss is \w+ at iteration \d, after \d updates?: "
        r"lr 1 is above 0\.0014, the largest stable learning rate at the start; try 0\.0007, or auto\n"
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
    assert agree_to_three_digits(losses, published("rtorch_losses.csv", "loss"))


@pytest.mark.cuda
def test_hidden_gpus_are_refused_with_that_reason(twolayer: Run) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA GPU here")
    done = twolayer("train", "--device", "cuda", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 1
    assert "CUDA_VISIBLE_DEVICES is '', which hides every GPU" in done.stderr


def test_python_m_twolayer_is_the_same_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "twolayer", "train", "scratch", "--quiet"]
    done = subprocess.run(command, cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, check=True)
    assert done.stdout.startswith("loss after the last update  ")


# --- check, init, schema, help: all without torch


def test_check_shows_every_key_its_value_and_its_origin(config_file: Write, tmp_path: Path) -> None:
    path = config_file(BASE + "log_every: 2\n")
    done = without_torch("check", "my.yaml", "--lr", "3", "--set", "H=9", cwd=path.parent, TWOLAYER_SEED="4")
    rows = [re.split(r"  +", line.rstrip()) for line in done.stdout.splitlines()]
    assert (done.returncode, done.stderr) == (0, "")
    assert rows[0] == ["key", "value", "origin"]
    assert ["N", "8", "my.yaml:1"] in rows
    assert ["H", "9", "--set H=9"] in rows
    assert ["lr", "3.0", "--lr"] in rows
    assert ["seed", "4", "TWOLAYER_SEED"] in rows
    assert ["engine", "auto", "default"] in rows
    assert len(rows) == 1 + len(KEYS)


def test_check_prints_csv_and_jsonl(tmp_path: Path) -> None:
    table = without_torch("check", "scratch", "--format", "csv", cwd=tmp_path)
    rows = list(csv.DictReader(io.StringIO(table.stdout)))
    assert {row["key"]: row["value"] for row in rows}["data.weights"] == "[0.2, -1.3, -0.5]"
    lines = without_torch("check", "scratch", "--format", "jsonl", cwd=tmp_path).stdout.splitlines()
    assert {row["key"]: row["value"] for row in map(json.loads, lines)}["data.weights"] == [0.2, -1.3, -0.5]


def test_init_writes_a_config_that_trains_and_never_overwrites_unasked(tmp_path: Path, twolayer: Run) -> None:
    done = without_torch("init", cwd=tmp_path)
    written = "wrote twolayer.yaml and twolayer.schema.json; train it with: twolayer train twolayer.yaml\n"
    assert (done.returncode, done.stderr) == (0, written)
    assert twolayer("train", "twolayer.yaml", "--quiet", "--epochs", "2").returncode == 0
    again = without_torch("init", cwd=tmp_path)
    assert (again.returncode, again.stderr) == (1, "error: twolayer.yaml already exists; --force overwrites it\n")
    done = without_torch("init", "--force", cwd=tmp_path)
    written = "wrote twolayer.yaml (its schema is twolayer.schema.json); train it with: twolayer train twolayer.yaml\n"
    assert (done.returncode, done.stderr) == (0, written)
    (tmp_path / "twolayer.schema.json").write_text("mine")
    done = without_torch("init", "--force", cwd=tmp_path)
    assert done.stderr == (
        "twolayer.schema.json is not a schema of twolayer and was not changed: editors cannot check twolayer.yaml\n"
        "wrote twolayer.yaml; train it with: twolayer train twolayer.yaml\n"
    )


def test_schema_is_the_one_that_the_bundled_configs_name(tmp_path: Path) -> None:
    done = without_torch("schema", cwd=tmp_path)
    assert json.loads(done.stdout) == schema()
    for path in bundled().values():
        first = path.read_text().splitlines()[0]
        assert first == "# yaml-language-server: $schema=twolayer.schema.json"
        assert (path.parent / "twolayer.schema.json").read_text() == done.stdout


@pytest.mark.parametrize("command", [[], ["train"], ["check"], ["init"], ["schema"]])
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_is_everywhere_with_an_example_and_without_torch(command: list[str], option: str, tmp_path: Path) -> None:
    done = without_torch(*command, option, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(" ".join(["Usage: twolayer", *command]))
    assert "Example:  twolayer " in done.stdout


def test_no_command_shows_the_help(tmp_path: Path) -> None:
    assert without_torch(cwd=tmp_path).stdout == without_torch("--help", cwd=tmp_path).stdout


def test_the_hint_of_init_can_be_pasted(tmp_path: Path) -> None:
    for name, hint in (("default", "./default"), ("a b.yaml", "'a b.yaml'")):
        done = without_torch("init", name, cwd=tmp_path)
        assert done.stderr.endswith(f"; train it with: twolayer train {hint}\n")
    assert without_torch("init", ".", cwd=tmp_path).stderr == "error: . is a folder; name a file\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a b.yaml", "default", "twolayer.schema.json"]


def test_a_torch_that_cannot_be_imported_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise OSError('libcublas.so.12: cannot open shared object file')")
    done = without_torch("train", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: PyTorch cannot be imported: libcublas.so.12: cannot open shared object file\n"


def test_version_and_completion_need_no_torch(tmp_path: Path) -> None:
    for more in ([], ["train"]):
        assert without_torch("--version", *more, cwd=tmp_path).stdout == f"twolayer {__version__}\n"
    words = {"COMP_WORDS": "twolayer train sc", "COMP_CWORD": "2", "_TWOLAYER_COMPLETE": "complete_bash"}
    assert without_torch(cwd=tmp_path, **words).stdout.split() == ["scratch"]


def test_lr_prints_the_largest_stable_step_and_where_the_configs_stands(twolayer: Run) -> None:
    done = twolayer("lr", "scratch")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["what", "lambda", "2 / lambda", "1 / lambda", "lr"]
    rows = list(csv.DictReader(io.StringIO(twolayer("lr", "scratch", "--format", "csv").stdout)))
    values = {row["what"]: float(row["value"]) for row in rows}
    assert values["2 / lambda"] == 2 / values["lambda"] == 2 * values["1 / lambda"]
    assert values["lr"] == 1e-4
    assert lines[-1].endswith(f"{1e-4 / values['2 / lambda']:.3g} times the limit")


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


def test_the_help_lists_every_command_in_a_group_with_its_whole_first_sentence(tmp_path: Path) -> None:
    lines = without_torch("--help", cwd=tmp_path, COLUMNS="80").stdout.splitlines()
    assert [line for line in lines if line.endswith(":") and not line.startswith(" ")] == [
        *("Options:", "Train:", "Your own table:", "Saved runs:", "Take apart:", "Measure:")
    ]
    listed = [re.fullmatch(r"  ([a-z]+) +([A-Z].+)", line) for line in lines[lines.index("Train:") :]]
    sentences = {found[1]: found[2] for found in listed if found}
    assert [*sentences] == [*get_group(main.app).commands]
    for name, sentence in sentences.items():
        assert sentence.endswith(".")
        assert sentence in without_torch(name, "--help", cwd=tmp_path).stdout
    assert "..." not in "".join(sentences.values())
