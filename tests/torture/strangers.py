"""Forged run folders with correct checksums: no command crashes, or changes or tells what is outside of them.

python -m tests.torture.strangers [--seed N] [--rounds N] [--minutes M]
"""

from __future__ import annotations

import json
import math
import random
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from tests.helpers.handmade import change_info, write_history, write_info
from tests.torture import runs
from tests.torture.driver import Round, Trial, contents, judged, main
from twolayer.runs import checkpoint
from twolayer.runs.checksum import digest

SECRET = "SECRET"  # what is in a file outside of the run
READING = ("train", "inspect", "eject")  # they read the table that the config names, and name it in their messages

# Values that nobody expects; also in place of a number, a text, a list.
ODD: list[Any] = [
    None, True, False, 0, -1, 1, 2, 0.5, -0.0, 1e308, 2**63, 2**64, 10**30, 10**400, math.nan, math.inf, -math.inf,
    "", "x", "0", "nan", "1e999", "a\nb", "\x1b[31m", "\x00", "\ud800", "\u202e", "x" * 70_000, "<script>", "=1+1",
    "/etc/passwd", "../../secret.csv", "~/secret.csv", "/dev/zero", "cuda", "[bold]", "%s{0}", "file", "running",
    [], [1], [None], ["a", "a"], [[1]], {}, {"a": 1}, {"": None}, [0.0] * 5000,
]  # fmt: skip


def nodes(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values in a tree."""
    yield path
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from nodes(value, (*path, key))
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from nodes(value, (*path, index))


def changed(tree: Any, chosen: random.Random) -> Any:
    """The tree with some values that are odd, missing, doubled, or those of other places."""
    tree = json.loads(json.dumps(tree))
    for _ in range(chosen.choice((1, 1, 1, 2, 4))):
        paths = list(nodes(tree))[1:]
        if not paths:
            return chosen.choice(ODD)
        path = chosen.choice(paths)
        parent, key = at(tree, path[:-1]), path[-1]
        kind = chosen.randrange(8)
        if kind == 0:
            del parent[key]
        elif kind == 1:
            parent[key] = json.loads(json.dumps(at(tree, chosen.choice(paths))))
        elif kind == 2 and isinstance(parent, list):
            parent.extend(json.loads(json.dumps(parent)))
        elif kind == 3:
            parent[key] = nested(chosen.choice((10, 100, 900)))
        else:
            parent[key] = chosen.choice(ODD)
    return tree


def at(tree: Any, path: tuple[Any, ...]) -> Any:
    """The value at a path."""
    for key in path:
        tree = tree[key]
    return tree


def nested(depth: int) -> list[Any]:
    """Lists within lists."""
    tree: list[Any] = []
    for _ in range(depth):
        tree = [tree]
    return tree


# --- what is forged


def info(run: Path, chosen: random.Random) -> None:
    """run.json."""
    write_info(run, changed(json.loads((run / "run.json").read_text()), chosen))


def config(run: Path, chosen: random.Random) -> None:
    """A value of config.yaml, or several; or a line of it is missing."""
    lines = (run / "config.yaml").read_text().splitlines()
    for _ in range(chosen.choice((1, 1, 2))):
        number = chosen.randrange(len(lines))
        key = lines[number].partition(":")[0]
        value = chosen.choice([*ODD, str(run.parents[1] / "secret.csv")])
        text = json.dumps(value).replace("Infinity", ".inf").replace("NaN", ".nan")
        lines[number] = f"{key}: {text}" if chosen.random() < 0.9 else f"{key}:"
    seal_config(run, "\n".join(lines) + "\n")


def path(run: Path, chosen: random.Random) -> None:
    """The path of the table in config.yaml and in run.json leads out of the folder."""
    lines = (run / "config.yaml").read_text().splitlines()
    outside = chosen.choice(
        [str(run.parents[1] / "secret.csv"), "secret.csv", "../../secret.csv", "/proc/self/environ"]
    )
    kept = [re.sub('"path": "[^"]*"', f'"path": "{outside}"', line) for line in lines]
    seal_config(run, "\n".join(kept) + "\n")
    change_info(run, tables_beside={"data.path": outside})


def seal_config(run: Path, text: str) -> None:
    """Write config.yaml, and its checksum."""
    (run / "config.yaml").write_text(text, errors="surrogatepass")
    change_info(run, config_sha256=[digest((run / "config.yaml").read_bytes())])


def model(run: Path, chosen: random.Random) -> None:
    """The metadata or the tensors of the model, or its bare header."""
    file = run / "model.safetensors"
    if file.exists():
        forge_tensors(file, chosen)
        change_info(run, model_sha256=digest(file.read_bytes()))


def checkpoints(run: Path, chosen: random.Random) -> None:
    """The same of the newest checkpoint; the run has not ended."""
    for file in sorted((run / "checkpoints").glob("*"))[-1:]:
        forge_tensors(file, chosen)
        change_info(run, status=chosen.choice(("running", "interrupted")))


def forge_tensors(file: Path, chosen: random.Random) -> None:
    """Write a safetensors file whose checksum is right, or one with a header of our own."""
    tensors, metadata = checkpoint.unpack(file.read_bytes())
    kind = chosen.randrange(4)
    if kind == 0:
        header = changed(json.loads(file.read_bytes()[8 : 8 + int.from_bytes(file.read_bytes()[:8], "little")]), chosen)
        text = json.dumps(header).encode(errors="surrogatepass")
        size = chosen.choice([len(text), len(text), len(text) - 1, 0, 2**63 - 1, 2**64 - 1, 100 * 2**20])
        file.write_bytes(size.to_bytes(8, "little") + text + bytes(chosen.choice((0, 8, 4096))))
        return
    if kind == 1:
        name = chosen.choice(list(tensors))
        tensor = tensors[name]
        others = [tensor.double(), tensor.reshape(-1), tensor[:0], torch.full_like(tensor, math.nan)]
        others += [torch.full_like(tensor, 3e38), tensor.to(torch.bfloat16), tensor.to(torch.int64), torch.zeros(())]
        tensors[name] = chosen.choice(others)
    else:
        metadata = changed(metadata, chosen)
    parts = checkpoint.pack(tensors, metadata if isinstance(metadata, dict) else {"iteration": metadata})
    file.write_bytes(b"".join(parts))


def history(run: Path, chosen: random.Random) -> None:
    """Odd numbers in the history."""
    lines = (run / "history.csv").read_text().splitlines()
    for _ in range(chosen.choice((1, 1, 3))):
        number = chosen.randrange(len(lines))
        cells = lines[number].split(",")
        odd = ["nan", "inf", "-inf", "1e999", "1e-320", "-1", "x", "", "0x1", "1_0", "٣", "9" * 5000, "1e308"]
        cells[chosen.randrange(len(cells))] = chosen.choice(odd)
        lines[number] = ",".join(cells)
    write_history(run, "\n".join(lines) + "\n")


FORGED: list[Callable[[Path, random.Random], None]] = [info, info, config, path, model, model, checkpoints, history]


def make_round(shared: Path) -> Round:
    """Forge a file of a run, with checksums that are right, and run the commands that read runs."""
    names = runs.make_runs(shared)
    secret = f"{SECRET},{SECRET}x,y\n{SECRET},1,2\n{SECRET}2,2,3\n"

    def one(chosen: random.Random, folder: Path) -> Iterator[Trial]:
        name, forge = chosen.choice(list(names)), chosen.choice(FORGED)
        shutil.copytree(shared, folder, dirs_exist_ok=True)
        (folder / "secret.csv").write_text(secret)
        run = folder / "runs" / name
        forge(run, chosen)
        forged = f"{name}, {forge.__name__}"
        others = outside(folder, name)
        for command in runs.some_commands(name, names[name], chosen):
            done = runs.ran(command, folder)
            page = "".join(str(part) for part in runs.result(done, folder, name).values())
            tells = SECRET in page + done.stderr and not (command[0] in READING and "secret.csv" in page + done.stderr)
            wrong = f"it tells what is in another file: {done.stderr}" if tells else ""
            if outside(folder, name) != others:
                wrong = "it changed a file outside of the run"
            trial = judged(f"{forge.__name__} forged", done, wrong)
            if wrong or trial.outcome == "lost":
                trial = Trial(trial.what, "lost", f"{forged}: {' '.join(command)}: {trial.detail or wrong}")
            yield trial

    return one


def outside(folder: Path, name: str) -> dict[str, bytes]:
    """All files but those of the run, and those that the commands are told to write."""
    found = contents(folder)
    return {path: found[path] for path in found if not path.startswith(f"runs/{name}/") and path not in runs.OUTPUTS}


if __name__ == "__main__":
    raise SystemExit(main("strangers", make_round))
