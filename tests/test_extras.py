"""Where a package of an extra is missing, one line says which extra to install; what does not need it works."""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers.table_files import workbook
from tests.helpers.trained import train

Command = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tables, a run of drawn data, and one of a table; both with event files."""
    folder = tmp_path_factory.mktemp("extras")
    rows = [(i, i * 7 % 5, i * 3 % 4) for i in range(40)]
    (folder / "t.csv").write_text("a,b,y\n" + "".join(f"{a},{b},{y}\n" for a, b, y in rows))
    (folder / "t.yaml").write_text("data: {source: file, path: t.csv, target: y}\n")
    (folder / "t.xlsx").write_bytes(workbook({"one": [("a", "b", "y"), *rows]}))
    short = "--epochs 5 -q --tensorboard --threads 1"
    train(folder, f"scratch {short} --out drawn", f"t.csv --target y {short} --out table")
    return folder


@pytest.fixture
def without(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Command]]:
    """Run command lines as if some packages were not installed: their exit codes and stderr."""
    monkeypatch.chdir(place)

    def missing(packages: str) -> Command:
        names = packages.split()
        for name in [name for name in sys.modules if name.partition(".")[0] in ("twolayer", *names)]:
            monkeypatch.delitem(sys.modules, name)
        for name in names:
            monkeypatch.setitem(sys.modules, name, None)
        main = importlib.import_module("twolayer.cli.main")

        def run(*arguments: str) -> tuple[int, str]:
            before = sorted(place.rglob("*"))
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as stderr:
                code: int = main.run(arguments)
            if code:
                assert sorted(place.rglob("*")) == before, "it left something"
            return code, stderr.getvalue()

        return run

    before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "twolayer"}
    yield missing
    for name in [name for name in sys.modules if name.partition(".")[0] == "twolayer"]:
        del sys.modules[name]
    sys.modules.update(before)


@pytest.mark.parametrize(
    ("package", "extra", "commands"),
    [
        ("polars", "data", ["data t.csv", "train t.yaml --no-save", "evaluate table t.csv"]),
        pytest.param(
            "polars",
            "data",
            [
                "check t.csv --target y",
                "check t.yaml",
                "train t.csv --target y",
                "train --resume table --epochs 9",
                "lr t.yaml",
                "bench t.yaml",
                "predict table t.csv",
                "export table -o model.json",
                "eject table",
                "inspect table",
            ],
            marks=pytest.mark.deep,
        ),
        ("fastexcel", "excel", ["data t.xlsx", "train t.xlsx --target y", "predict table t.xlsx"]),
        (
            "polars fastexcel",
            "excel",
            ["data t.xlsx", "train t.xlsx --target y", "predict table t.xlsx", "evaluate table t.xlsx"],
        ),
        ("numba", "fast", ["train --engine compiled"]),
        ("altair", "report", ["plot drawn -o x.svg", "report drawn"]),
        pytest.param("vl_convert", "report", ["plot drawn -o x.svg", "report drawn"], marks=pytest.mark.deep),
        pytest.param("itables", "report", ["report drawn"], marks=pytest.mark.deep),
        pytest.param("jinja2", "report", ["report drawn"], marks=pytest.mark.deep),
        ("PIL", "report", ["report drawn"]),
        ("onnx", "export", ["export table -o model.onnx"]),
        ("polars onnx", "export", ["export drawn -o model.onnx", "export table -o model.onnx"]),
        ("tensorboard", "tensorboard", ["train scratch --tensorboard", "train --resume drawn --epochs 9"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_missing_extra_is_named_in_one_line(
    package: str, extra: str, commands: list[str], without: Callable[[str], Command]
) -> None:
    run = without(package)
    for command in commands:
        code, stderr = run(*command.split())
        assert (code, stderr.count("\n")) == (1, 1), (command, stderr)
        assert stderr.startswith("error: "), command
        assert stderr.endswith(f": pip install 'twolayer[{extra}]'\n"), (command, stderr)


@pytest.mark.parametrize(
    ("package", "commands"),
    [
        (
            "polars",
            ["check", "train scratch --no-save -q", "runs .", "show table", "compare table drawn", "lr scratch"],
        ),
        ("numba", ["train scratch --no-save -q", "train t.csv --target y --no-save -q", "lr t.yaml"]),
        ("onnxruntime", ["export table -o model.onnx --force", "export table -o model.json --force"]),
        pytest.param("onnx", ["export table -o model.json --force"], marks=pytest.mark.deep),
        pytest.param("altair", ["show drawn", "show table"], marks=pytest.mark.deep),
        pytest.param("tensorboard", ["show drawn", "train scratch --no-save -q"], marks=pytest.mark.deep),
        pytest.param("fastexcel", ["data t.csv"], marks=pytest.mark.deep),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_needs_no_extra_works_without_it(
    package: str, commands: list[str], without: Callable[[str], Command]
) -> None:
    run = without(package)
    for command in commands:
        code, stderr = run(*command.split())
        assert code == 0, (command, stderr)
