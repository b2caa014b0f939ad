"""The runs that the drivers damage or forge, of every kind, with their tables; and all commands that read runs."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.helpers.forking import Forked
from tests.helpers.handmade import change_info
from tests.helpers.processes import BASE
from tests.torture.driver import Done, run

TABLES = {
    "drawn": "",
    "numbers": "numbers.csv --target y --epochs 8 --set batch_size=16",
    "classes": "classes.csv --target kind --epochs 8",
    "epochs": "my.yaml --lr auto --checkpoint-every 2",
    "parts": "my.yaml --set parts=3 --set split=units --checkpoint-every 2",
}
OUTPUTS = ("out.json", "out.md", "out.py", "out.onnx", "out.svg", "out.html", "out.csv", "eject.py")


def make_runs(folder: Path) -> dict[str, int]:
    """Train runs into runs/; their names, and how many epochs to go on to."""
    (folder / "my.yaml").write_text(BASE)
    rows = range(60)
    numbers = (f"{i % 13}.5,{'abc'[i % 3]},{'' if i % 9 == 4 else i * 7 % 11},{i % 13 * 2 - i * 7 % 11}" for i in rows)
    (folder / "numbers.csv").write_text("\n".join(["a,b,c,y", *numbers]) + "\n")
    kinds = (f"{i % 17},2024-01-{i % 28 + 1:02},{['red', 'green', 'blue'][i % 17 % 3]}" for i in rows)
    (folder / "classes.csv").write_text("\n".join(["size,day,kind", *kinds]) + "\n")
    for name, options in TABLES.items():
        done = run(["train", *(options or "my.yaml").split(), "-q", "--out", f"runs/{name}"], folder)
        assert done.returncode == 0, done.stderr
    with Forked(["train", "my.yaml", "--epochs", "3000000", "-q", "--out", "runs/interrupted"], folder) as process:
        history = folder / "runs/interrupted/history.csv"
        while not history.exists() or history.stat().st_size < 2000:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        process.communicate()
    shutil.copytree(folder / "runs/drawn", folder / "runs/killed")
    change_info(folder / "runs/killed", status="running")
    done = json.loads((folder / "runs/interrupted/run.json").read_text())["iterations"]
    return {**dict.fromkeys(TABLES, 12), "interrupted": done + 1000, "killed": 12}


def commands(name: str, epochs: int = 12) -> Iterator[list[str]]:
    """Everything that reads a run; what writes, writes a file of OUTPUTS, and the last one goes on with the run."""
    path, table = f"runs/{name}", table_of(name)
    yield ["runs", "--format", "csv"]
    yield ["show", path, "--format", "csv"]
    yield ["show", path]
    yield ["compare", path, path, "--expect-equal", "--format", "csv"]
    yield ["plot", path, "-o", "out.svg"]
    yield ["report", path, "-o", "out.html"]
    yield ["inspect", path]
    yield ["eject", path, "-o", "eject.py"]
    if table:
        yield ["evaluate", path, table, "--format", "csv"]
        yield ["predict", path, table, "-o", "out.csv"]
        yield ["predict", f"{path}/model.safetensors", table]
        yield ["data", table, "--run", path, "--format", "csv"]
        for suffix in ("json", "md", "py", "onnx"):
            yield ["export", path, "-o", f"out.{suffix}", "--force"]
    yield resumed(name, epochs)


def some_commands(name: str, epochs: int, chosen: random.Random) -> list[list[str]]:
    """The quick ones of them, two of those that take seconds, and the last one."""
    known = list(commands(name, epochs))
    slow = [command for command in known[:-1] if command[0] in ("plot", "report", "inspect", "eject", "export")]
    kept = chosen.sample(slow, 2)
    return [command for command in known if command not in slow or command in kept]


def resumed(name: str, epochs: int) -> list[str]:
    """The command that goes on with a run."""
    return ["train", "--resume", f"runs/{name}", "--epochs", str(epochs), "-q"]


def table_of(name: str) -> str:
    """The table of a run."""
    return f"{name}.csv" if f"{name}.csv" in TABLES.get(name, "") else ""


def result(done: Done, folder: Path, name: str) -> dict[str, str | bytes]:
    """What a command gave: its stdout, the files that it wrote, and the run that it went on with; no times."""
    found: dict[str, str | bytes] = {"stdout": re.sub("training time .*", "", done.stdout)}
    for path in (folder / output for output in OUTPUTS):
        if path.exists():
            found[path.name] = re.sub(rb"Written by twolayer [^<]*", b"", path.read_bytes())
            path.unlink()
    if done.returncode == 0 and "--resume" in done.args:
        found |= {part: (folder / "runs" / name / part).read_bytes() for part in ("history.csv", "model.safetensors")}
    return found


def ran(command: list[str], folder: Path) -> Done:
    """Run a command, and remember it in `args`."""
    done = run(command, folder)
    return subprocess.CompletedProcess(command, done.returncode, done.stdout, done.stderr)
