"""Files from strangers: nothing in them is executed, nothing outside is read unasked, and they take little memory."""

from __future__ import annotations

import ast
import json
import os
import pickle
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import twolayer as package
from tests.helpers.forking import run as forked
from tests.helpers.handmade import change_info, write_info
from tests.helpers.processes import BASE, COMPUTE, Run
from tests.helpers.trained import train
from twolayer.errors import DataError, TwolayerError
from twolayer.exporters import network, script
from twolayer.exporters.functions import eject
from twolayer.runs import checkpoint
from twolayer.runs.checksum import digest, parse_json
from twolayer.tables.features import Encoding

MODULES = sorted(Path(package.__file__).parent.rglob("*.py"))
ROWS = "".join(f"{i},{'abc'[i % 3]},{i * 7 % 5}\n" for i in range(40))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of a table, and one of drawn data."""
    folder = tmp_path_factory.mktemp("strangers")
    (folder / "my.yaml").write_text(BASE)
    (folder / "my.csv").write_text(f"size,kind,y\n{ROWS}")
    train(folder, "my.yaml -q --out runs/drawn", "my.csv --target y --epochs 5 -q --out runs/table")
    return folder


@pytest.fixture
def place(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return tmp_path


# --- Nothing is executed

# What can run a program that is in a file: a module's name, a function's, or a keyword argument with its value.
NEVER = {"marshal", "shelve", "dill", "joblib", "cloudpickle", "eval", "unsafe_load", "full_load", "literal_eval"}
NEVER |= {"os.system", "popen", "torch.load", "torch.save", "yaml.load", "pickle.load", "pickle.loads", "Unpickler"}
NEVER |= {"allow_pickle=True", "shell=True", "weights_only=False", "run_path", "run_module", "__import__"}
# Of what could, the places that may, with the test that shows why.
MAY = {
    ("tables/excel.py", "subprocess"): "our own module, and the path of the table as an argument",
    ("training/sweep_pool.py", "subprocess"): "our own module; its points are JSON on its stdin",
    ("cli/ranks.py", "subprocess"): "our own module; what it does is JSON on its stdin",
    ("hardware/environment.py", "subprocess"): "a system's own program, named there, without an argument of a user",
    ("exporters/writing.py", "subprocess"): "our own script; its constants are literals (below)",
    ("exporters/eject_table.py", "exec"): "our own script; its constants are literals (below)",
    ("exporters/eject_table.py", "compile"): "the same",
    ("__init__.py", "import_module"): "a name in our own table",
    ("system/folders.py", "import_module"): "modules of Python that are named there",
    ("system/network.py", "import_module"): "the same",
    ("tables/excel_child.py", "import_module"): "the same",
    ("system/available_memory.py", "ctypes"): "a function of Windows that is named there",
    ("system/available_memory.py", "import_module"): "modules of Python that are named there",
    ("system/names.py", "ctypes"): "a function of Windows that is named there",
    ("system/console.py", "subprocess"): "a number that it has, and no process",
}
COULD = NEVER | {"subprocess", "exec", "compile", "import_module", "os.execv", "runpy", "ctypes"}


def used(module: Path) -> Iterator[str]:
    """The names of COULD that a module uses."""
    text = module.read_text()
    if not any(re.split("[.=]", name)[-1 if "." in name else 0] in text for name in COULD):
        return  # most need not be parsed
    for node in ast.walk(ast.parse(text)):
        names = []
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            module_name = getattr(node, "module", "") or ""
            names = [module_name, *(alias.name for alias in node.names)]
            names += [f"{module_name}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            names = [node.func.id]
        elif isinstance(node, ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            names = [f"{owner}.{node.attr}", *([node.attr] if node.attr in NEVER else [])]
        elif isinstance(node, ast.keyword):
            names = [f"{node.arg}={ast.unparse(node.value)}"]
        yield from (name for name in names if name in COULD)


def test_no_module_of_ours_runs_what_is_in_a_file() -> None:
    root = Path(package.__file__).parent
    found = {(str(module.relative_to(root)), name) for module in MODULES for name in used(module)}
    assert found == set(MAY)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (open, ("pwned", "w"))


@pytest.mark.parametrize("name", ["model.safetensors", "checkpoints/5.safetensors", "run.json", "history.csv"])
def test_a_pickle_in_the_place_of_a_file_of_a_run_is_damage(name: str, twolayer: Run, place: Path) -> None:
    data = pickle.dumps(Bomb())
    (place / "runs/table" / name).write_bytes(data)
    if name == "model.safetensors":
        change_info(place / "runs/table", model_sha256=digest(data))
    for command in (
        ["show"],
        ["evaluate", "my.csv"],
        ["export", "-o", "m.json"],
        ["train", "--resume", "--epochs", "9"],
    ):
        at = 2 if command[0] == "train" else 1
        done = twolayer(*command[:at], "runs/table", *command[at:])
        assert "Traceback" not in done.stderr
    assert not (place / "pwned").exists()


# Texts that end a literal, a comment, a docstring or an f-string, if they are not escaped.
PAYLOADS = [
    'x"\npwned()\n"',
    "x'\npwned()\n'",
    'x"""\npwned()\n"""',
    "x'''\npwned()\n'''",
    "x\rpwned()\r",
    "x\x0cpwned()\n",
    "{pwned()}",
    'x\\"\npwned()\n\\"',
    "x\u2028pwned()",
    '"+pwned()+"',
]


def runs_a_payload(source: bytes | str) -> bool:
    """Whether code of Python uses the name that only payloads have."""
    return any(isinstance(node, ast.Name) and node.id == "pwned" for node in ast.walk(ast.parse(source)))


def test_a_payload_that_gets_out_of_a_literal_would_be_found() -> None:
    assert runs_a_payload(f'NAME = "{PAYLOADS[0]}"\n')
    assert not runs_a_payload(f"NAME = {PAYLOADS[0]!r}\n")


def texts(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all texts in a tree, and of all keys."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        if isinstance(value, str):
            yield (*path, key)
        if isinstance(key, str):
            yield (*path, key, None)
        yield from texts(value, (*path, key))


def replaced(tree: Any, path: tuple[Any, ...], text: str) -> Any:
    """The tree with another text at a path, or, where that ends with None, another key."""
    tree = json.loads(json.dumps(tree))
    *above, last = path[:-1] if path[-1] is None else path
    parent = tree
    for key in above:
        parent = parent[key]
    if path[-1] is None:
        parent[text] = parent.pop(last)
    else:
        parent[last] = text
    return tree


def test_no_text_in_a_model_becomes_code_of_the_script_that_is_made_of_it(trained: Path) -> None:
    known = network.load(trained / "runs/table")
    _, metadata = checkpoint.unpack((trained / "runs/table/model.safetensors").read_bytes())
    columns, tried = metadata["columns"], 0
    for path in texts(columns):
        for payload in (PAYLOADS[tried % len(PAYLOADS)], PAYLOADS[-1 - tried % 3]):
            try:
                changed = Encoding.of(replaced(columns, path, payload))
                source = script.dump(network.Network(known.w1, known.b1, known.w2, known.b2, changed, "0" * 64))
            except (TwolayerError, DataError):
                continue
            assert not runs_a_payload(source), (path, payload)
            tried += 1
    assert tried > len(PAYLOADS)


def test_no_text_in_run_json_becomes_code_of_a_script_that_is_ejected(place: Path) -> None:
    run, tried = place / "runs/drawn", 0
    info = {key: value for key, value in json.loads((run / "run.json").read_text()).items() if key != "sha256"}
    for path in [path for path in texts(info) if path[-1] is not None]:
        write_info(run, replaced(info, path, PAYLOADS[tried % len(PAYLOADS)]))
        try:
            source = eject(run)
        except TwolayerError:
            continue
        assert not runs_a_payload(source), path
        tried += 1
    assert tried > 5


def test_no_text_in_a_table_becomes_code(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of columns, categories and the file's own name are payloads; a script is run while it is made."""
    monkeypatch.chdir(place)
    quoted = [f'"{payload.replace(chr(34), chr(34) * 2)}"' for payload in PAYLOADS]
    names = [*quoted[:4], "y"]
    lines = [",".join([*(quoted[(i + j) % len(quoted)] for j in range(3)), str(i % 7), str(i % 5)]) for i in range(60)]
    path = place / 'x"\npwned()\n".csv'
    path.write_text("\n".join([",".join(names), *lines]) + "\n", newline="")
    assert forked(["train", path, "--target", "y", "--epochs", "3", "-q", "--out", "odd"], place).returncode == 0
    for command in (["export", "odd", "-o", "p.py"], ["eject", "odd", "-o", "e.py"]):
        done = forked(command, place)
        assert "not defined" not in done.stderr
        if command[0] == "export":
            assert done.returncode == 0, done.stderr
        else:  # polars finds no column whose name has a line end
            assert done.returncode == 1
            assert "a plain script cannot read this table" in done.stderr
    assert not runs_a_payload((place / "p.py").read_text())


# --- Nothing outside is read unasked


def is_read(path: Path) -> bool:
    """Whether a file was read since its time of access was set to 0, by whatever library."""
    return path.stat().st_atime_ns != 0


@pytest.fixture
def decoys(tmp_path: Path, place: Path) -> list[Path]:
    """Tables outside of the run, which nobody has read yet."""
    folder = tmp_path / "decoys"
    folder.mkdir()
    paths = [folder / f"{name}.csv" for name in ("absolute", "beside", "validation", "probe")]
    for path in paths:
        path.write_text(f"size,kind,y\n{ROWS}")
        os.utime(path, ns=(0, path.stat().st_mtime_ns))
    paths[-1].read_bytes()
    if not is_read(paths[-1]):
        pytest.skip("this file system keeps no times of access")
    return paths[:-1]


def test_to_look_at_a_run_or_to_predict_with_it_reads_no_file_that_only_the_run_names(
    twolayer: Run, place: Path, decoys: list[Path]
) -> None:
    run = place / "runs/table"
    config = (run / "config.yaml").read_text()
    text = re.sub('"path": "[^"]*"', f'"path": "{decoys[0]}"', config)
    text = re.sub("^validation: .*$", f'validation: "{decoys[2]}"', text, flags=re.MULTILINE)
    assert text.count("decoys") == 2
    (run / "config.yaml").write_text(text)
    beside = {"data.path": str(decoys[1]), "validation": str(decoys[1])}
    change_info(run, config_sha256=[digest(text.encode())], tables_beside=beside)
    for command in (
        ["runs"],
        ["show", "table"],
        ["report", "table", "drawn"],
        ["evaluate", "table", "my.csv"],
        ["predict", "table", "my.csv"],
        ["export", "table", "-o", "m.py"],
    ):
        done = twolayer(*command)
        assert done.returncode == 0, (command, done.stderr)
        assert not any(map(is_read, decoys)), command
    # A card has the scores on the validation rows, for which it reads the table; of another table it says nothing.
    assert twolayer("export", "table", "-o", "m.md").returncode == 0
    assert "Not measured: the table is not the one that the run was trained on." in (place / "m.md").read_text()


def test_a_table_that_is_read_in_the_place_of_another_is_named(twolayer: Run, place: Path, decoys: list[Path]) -> None:
    run = place / "runs/table"
    text = re.sub('"path": "[^"]*"', '"path": "gone.csv"', (run / "config.yaml").read_text())
    (run / "config.yaml").write_text(text)
    change_info(run, config_sha256=[digest(text.encode())], tables_beside={"data.path": str(decoys[0])})
    done = twolayer("train", "--resume", "table", "--epochs", "9", "-q")
    assert f"no such file; {decoys[0]} is read in its place\n" in done.stderr


# --- Memory and time

MEGABYTES = 48  # of JSON that would be a gigabyte in Python
LITTLE = 600 * 2**20


def many(count: int) -> bytes:
    """JSON of so many bytes in which each value takes three bytes, and fifty in Python."""
    return b"[" + b"[]," * (count // 3) + b"[]]"


@pytest.mark.parametrize(
    ("name", "commands"),
    [
        ("run.json", ["runs", "show table"]),
        ("model.safetensors", ["predict runs/table/model.safetensors my.csv"]),
        pytest.param(
            "checkpoints/5.safetensors", ["runs", "train --resume table -q --epochs 9"], marks=pytest.mark.deep
        ),
    ],
)
def test_json_of_many_small_values_is_refused_before_it_takes_memory(
    name: str, commands: list[str], place: Path
) -> None:
    run = place / "runs/table"
    if name == "run.json":
        (run / name).write_bytes(b'{"format": 1, "x": ' + many(MEGABYTES * 2**20) + b"}")
    else:
        header = b'{"__metadata__": {"twolayer": "{}"}, "x": ' + many(MEGABYTES * 2**20) + b"}"
        (run / name).write_bytes(len(header).to_bytes(8, "little") + header)
        change_info(run, status="running")
    for command in map(str.split, commands):
        done = forked(command, place, bare=not COMPUTE.intersection(command), memory=LITTLE)
        assert "Traceback" not in done.stderr
        assert "memory" not in done.stderr, command
        assert done.returncode in (0, 1, 2)


def test_a_model_of_very_many_columns_is_still_read(trained: Path) -> None:
    """The limit on JSON is above what the model of a table of the most columns needs, 200,000."""
    _, metadata = checkpoint.unpack((trained / "runs/table/model.safetensors").read_bytes())
    feature = json.dumps(metadata["columns"]["features"][0]).encode()
    others = b",0.5" * 400_000  # the deviations, and whatever else there is one of for each column
    assert len(parse_json(b"[" + b",".join([feature] * 200_000) + others + b"]")) == 600_000
