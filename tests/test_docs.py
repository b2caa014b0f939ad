"""The docs tell the truth: generated pages are fresh, links lead somewhere, examples run."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from html import unescape
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from typer.main import get_group

from tests.helpers.forking import clean_environment
from tests.helpers.forking import run as forked
from tests.helpers.processes import COMMAND, without_torch
from twolayer import __version__
from twolayer.cli.main import app

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def is_fresh(path: Path, text: str) -> bool:
    if path.suffix == ".json":  # older versions of pydantic write 0.0 for 0
        return bool(json.loads(path.read_text()) == json.loads(text))
    return path.read_text() == text


def test_what_is_generated_is_fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)

    def help_text(command: str) -> str:
        return without_torch(*command.split(), "--help", cwd=tmp_path, COLUMNS="80").stdout.rstrip()

    # `make check` runs the program itself, whose processes take a second each.
    assert help_text("train") == generate.help_text("train")
    monkeypatch.setattr(generate, "help_text", help_text)
    generated = generate.generated()
    assert [path for path, text in generated.items() if not is_fresh(path, text)] == []
    assert len(generated) == 4


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_every_row_of_what_was_tried_has_a_command_that_runs_something() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text()
    tables = page[page.index("## What was tried") :].split("\n\n")
    rows = [row for table in tables if table.startswith("|") for row in table.splitlines()[2:]]
    commands = [shlex.split(re.findall(r"`([^`]+)` \|$", row)[0]) for row in rows]
    assert len(commands) > 30
    for command in commands:
        if command[0] == "pytest":
            paths = [ROOT / word for word in command if word.startswith("tests/")]
            files = [file for path in paths for file in (path.rglob("test_*.py") if path.is_dir() else [path])]
            names = re.findall(r"^def (test_\w+)", "".join(file.read_text() for file in files), re.MULTILINE)
            words = set(re.findall(r"\w+", command[command.index("-k") + 1])) if "-k" in command else set()
            assert names, command
            assert [word for word in words - {"or"} if not any(word in name for name in names)] == [], command
        elif command[0] == "make":
            assert (ROOT / "tests" / "fuzz" / "corpus" / command[2].removeprefix("TARGETS=")).is_dir(), command
        else:
            assert (ROOT / (command[1].replace(".", "/") + ".py")).is_file(), command


def test_every_page_of_the_docs_is_named_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert all(f"(docs/{page.name})" in readme for page in PAGES if page.parent.name == "docs")


def python_in(page: Path, folder: Path) -> list[list[str]]:
    """Run the page's Python, all of it as one program; the lines that it prints, as words."""
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.S)
    command = [sys.executable, "-c", "\n".join(blocks)]
    done = subprocess.run(command, cwd=folder, env=clean_environment(), capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return [line.split() for line in done.stdout.splitlines()]


def test_the_readmes_python_runs_and_prints_the_books_losses(tmp_path: Path) -> None:
    first, last, *_ = python_in(ROOT / "README.md", tmp_path)
    assert first[0].startswith("628.283")
    assert float(last[0]) < 1
    assert float(last[1]) < float(last[0])


def test_the_python_page_runs_and_both_ways_end_at_the_same_loss(tmp_path: Path) -> None:
    numbers = [area * 37 % 53 for area in range(50)]  # a column that counts the rows would be left out
    (tmp_path / "my.csv").write_text("area,price\n" + "".join(f"{area},{3 * area}\n" for area in numbers))
    assert forked(["train", "my.csv", "--target", "price", "-q"], tmp_path).returncode == 0
    first, *lines = python_in(ROOT / "docs" / "python.md", tmp_path)
    assert first[0].startswith("628.283")
    before = next(i for i, (word, *_) in enumerate(lines) if word == "1") + 1  # the first block of the loop
    end = next(line for line in lines[before:] if len(line) == 1)
    assert float(end[0]) == pytest.approx(float(first[2]), rel=1e-5)
    predicted = next(line for line in lines if len(line) == 2 and line[0].startswith("["))
    assert [float(word.strip("[],")) for word in predicted] == pytest.approx([30, 60], abs=6)
    assert float(lines[-1][0]) < 1e-5


def test_the_readmes_commands_are_commands(tmp_path: Path) -> None:
    blocks = re.findall(r"```console\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
    lines = re.findall(r"^(twolayer .+)$", "\n".join(blocks), flags=re.M)
    assert len(lines) >= 6
    without_torch("init", "my.yaml", cwd=tmp_path)
    (tmp_path / "my.csv").write_text("area,price\n" + "".join(f"{area},{3 * area}\n" for area in range(50)))
    for line in lines:
        arguments = line.partition("#")[0].partition(">")[0].split()[1:]
        arguments = [argument for argument in arguments if argument not in ("--format", "csv")]
        is_config = arguments[0] == "train" and "--resume" not in arguments
        checked = ["check", *arguments[1:]] if is_config else [*arguments, "--help"]
        if {"--sweep", "--seeds"}.intersection(arguments):
            checked = [*arguments, "--dry-run"]
        assert without_torch(*checked, cwd=tmp_path).returncode == 0, line


def test_the_errors_that_the_docs_show_are_the_real_ones(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("N: 64\nD_in: 1000\nH: -100\nD_out: 10\n\n\nseed: 0\n\nepoch: 500\n")
    shown = re.search(r"\$ twolayer train my.yaml\n(.*?)```", (ROOT / "docs" / "config.md").read_text(), flags=re.S)
    assert shown is not None
    assert without_torch("train", "my.yaml", cwd=tmp_path).stderr == shown[1]


def test_the_picture_shows_what_train_prints() -> None:
    root = ElementTree.parse(ROOT / "docs" / "train.svg").getroot()
    text = unescape(" ".join(element.text or "" for element in root.iter() if element.tag.endswith("text")))
    for words in ("$\xa0twolayer\xa0train", "Sequential(", "628.284", "loss\xa0after\xa0the\xa0last\xa0update"):
        assert words in text
    assert "http" not in text.replace("http://www.w3.org", "")


def test_the_changelog_knows_this_version() -> None:
    assert re.search(rf"^## (Unreleased|\[?{re.escape(__version__)})", (ROOT / "CHANGELOG.md").read_text(), flags=re.M)


def test_the_walk_through_a_table_is_what_happens(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "your-data.md").read_text()
    steps: list[tuple[str, str]] = []
    for block in re.findall(r"```console\n(.*?)```", page, flags=re.S):
        steps += [(step.partition("\n")[0], step.partition("\n")[2]) for step in block.split("$ ")[1:]]
    assert len(steps) > 6
    environment = clean_environment(PATH=f"{COMMAND.parent}:{os.environ['PATH']}")
    for command, shown in steps:
        if command.startswith("twolayer ") and not set(command) & set("|<>;&$*"):
            done = forked(shlex.split(command)[1:], tmp_path)
        else:
            done = subprocess.run(
                ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True
            )
        assert done.returncode == 0, done.stderr
        # What stands on stderr comes first here, but for the last line of a training. Digits are the machine's own.
        found, wanted = sorted(numberless(done.stderr + done.stdout)), sorted(numberless(shown))
        assert found == wanted, command
    (program,) = re.findall(r"```python\n(.*?)```", page, flags=re.S)
    alone = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    row = (tmp_path / "predicted.csv").read_text().splitlines()[1]
    assert float(alone.stdout.strip("[]\n")) == pytest.approx(float(row.split(",")[-1]), rel=1e-5)


def numberless(text: str) -> list[str]:
    """The lines, with every number and unit of time the same."""
    return [re.sub(r"-?\d[\d.e+-]*( [mµ]?s\b)?", "#", line) for line in text.splitlines()]


def test_the_walk_along_the_tutorials_runs(tmp_path: Path) -> None:
    page = ROOT / "docs" / "take-apart.md"
    commands = re.findall(r"^twolayer (.*?)(?: *#.*)?$", page.read_text(), flags=re.M)
    shown = {command: forked(command.split(), tmp_path) for command in commands}
    assert len(shown) > 12
    assert all(done.returncode == 0 for done in shown.values()), [done.stderr for done in shown.values()]
    assert "gradients are exactly 0" in shown["inspect modules --set N=10 --set H=16 --seed 3"].stdout
    assert "Importance of the columns" in shown["inspect diabetes-1"].stdout
    assert len(list(tmp_path.glob("*.py"))) == 6
    assert python_in(page, tmp_path) == [["100.0"], ["1.0"]]


def test_the_job_of_kubernetes_and_the_script_of_slurm_can_be_read() -> None:
    page = (ROOT / "docs" / "ranks.md").read_text()
    (manifest,) = re.findall(r"```yaml\n(.*?)```", page, flags=re.S)
    service, job = yaml.safe_load_all(manifest)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    endpoint = next(word for word in container["args"] if word.startswith("--rdzv-endpoint="))
    pod, host = endpoint.partition("=")[2].partition(":")[0].split(".")
    assert (pod, host) == (f"{job['metadata']['name']}-0", service["metadata"]["name"])
    assert job["spec"]["completions"] == int(container["args"][0].partition("=")[2])
    (script,) = re.findall(r"```bash\n(.*?)```", page, flags=re.S)
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    options = train_options()
    for command in (container["args"], script.split("srun")[1].split()):
        words = command[command.index("train") + 1 :]
        assert all(word.partition("=")[0] in options for word in words if word.startswith("--"))


def train_options() -> set[str]:
    (train,) = (command for command in get_group(app).commands.values() if command.name == "train")
    return {name for parameter in train.params for name in parameter.opts}
