"""Exported models, each read by its own kind of program, predict what `predict` does."""

from __future__ import annotations

import csv
import errno
import importlib.util
import io
import json
import os
import runpy
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from tests.exporters.tables import KINDS, NAMES, Made, Numbers, made, run_of
from tests.helpers.handmade import change_info
from tests.helpers.processes import Run, examples
from tests.helpers.tablerun import make_run
from twolayer.errors import DataError, RunError
from twolayer.evaluation.predictor import load_model, predict
from twolayer.exporters import json_file, onnx_file, script
from twolayer.exporters.network import load
from twolayer.exporters.writing import export
from twolayer.tables.encoding import encode

OLD = Path(__file__).parents[1] / "runs-0.1.0"
BOUNDS = {"float32": 1e-5, "float64": 1e-11}

tables = st.builds(
    made,
    st.lists(st.sampled_from(KINDS), min_size=1, max_size=len(NAMES)),
    st.integers(0, 999),
    missing=st.booleans(),
)


def expected(run: Path, table: Made) -> Numbers:
    """What `predict` makes of the table's text: targets in their standard deviations, or probabilities."""
    model = load_model(run)
    found: Numbers = predict(model, encode(pl.DataFrame(table.cells), model.columns, "table")).numpy()
    return scaled(found, model.columns)


def scaled(found: Numbers, columns: Any) -> Numbers:
    if columns.classes is not None:
        return found
    return np.asarray(found / np.array([target.deviation for target in columns.targets]))


def of_onnx(data: bytes, table: Made, columns: Any, rows: slice = slice(None)) -> tuple[Numbers, Any]:
    """The predictions of an ONNX file in onnxruntime, and its first output as it is."""
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    feed = {}
    for one in session.get_inputs():
        values = table.values[one.name][rows, None]
        feed[one.name] = values.astype(object) if one.type == "tensor(string)" else values
    found = session.run(None, feed)
    numbers = found[1:] if columns.classes is not None else found
    return scaled(np.concatenate(numbers, axis=1), columns), found[0]


def of_script(path: Path, folder: Path, table: Made) -> list[list[str]]:
    """The rows that predict.py prints, in this process."""
    file, out = folder / "new.csv", io.StringIO()
    file.write_text(table.text, newline="")
    functions = runpy.run_path(str(path))
    with redirect_stdout(out), redirect_stderr(io.StringIO()):
        functions["main"](str(file))
    return list(csv.reader(io.StringIO(out.getvalue(), newline="")))


@examples(8)
@given(
    table=tables,
    target=st.sampled_from(["numbers", "two", "classes"]),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_a_table_of_any_columns_is_predicted_alike_by_all(
    table: Made, target: str, dtype: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("export")
    run = folder / "run"
    table = run_of(run, table, target, dtype=dtype)
    known, network = expected(run, table), load(run)
    columns = network.columns
    assert columns is not None
    table = Made(table.cells, {name: table.values[name] for name in columns.inputs})
    data = onnx_file.dump(network, folder / "model.onnx")
    onnx.checker.check_model(data, full_check=True)
    found, first = of_onnx(data, table, columns)
    assert np.abs(found - known).max() <= BOUNDS[dtype]
    read = json_file.predicted(json_file.dump(network), table.values)
    assert np.abs(scaled(read, columns) - known).max() <= BOUNDS[dtype]
    path = folder / "predict.py"
    path.write_bytes(script.dump(network))
    header, *lines = of_script(path, folder, table)
    assert header[: len(table.cells)] == list(table.cells)
    printed = np.array([line[-known.shape[1] :] for line in lines], float)
    assert np.abs(scaled(printed, columns) - known).max() <= BOUNDS[dtype]
    if columns.classes is not None:
        apart = np.sort(known, axis=1)[:, -1] - np.sort(known, axis=1)[:, -2] > 1e-5
        classes = np.array(columns.classes)[known.argmax(axis=1)]
        assert (first[apart, 0] == classes[apart]).all()
        assert (np.array([line[len(table.cells)] for line in lines])[apart] == classes[apart]).all()


def test_ruff_formats_a_script_as_it_is(tmp_path: Path) -> None:
    cases: list[tuple[str, dict[str, Any]]] = [
        ("numbers", {}),
        ("two", {"missing": "refuse", "na": ["-999", "kein"]}),
        ("classes", {"scale": False}),
    ]
    for number, (target, data) in enumerate(cases):
        table = made(KINDS[:6] + KINDS[7:], 3, missing="missing" not in data)
        run_of(tmp_path / f"run{number}", table, target, **data)
        (tmp_path / f"p{number}.py").write_bytes(script.dump(load(tmp_path / f"run{number}")))
    (tmp_path / "drawn.py").write_bytes(script.dump(load(OLD / "drawn")))
    ruff = [sys.executable, "-m", "ruff"]
    for words in (["format", "--check", "--diff"], ["check"]):
        done = subprocess.run([*ruff, *words, "--isolated", tmp_path], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_a_script_ends_quietly_at_a_closed_pipe_and_loses_nothing_in_a_file(tmp_path: Path) -> None:
    table = run_of(tmp_path / "run", made(KINDS[:1], 3, missing=False), "numbers")
    networks = {"table": load(tmp_path / "run"), "drawn": load(OLD / "drawn")}
    header, *rows = table.text.split("\r\n")[:-1]
    lines = {"table": [header, *rows * 1000], "drawn": [",".join("1" * networks["drawn"].shape[0])] * 2000}

    def start(name: str, out: Any) -> subprocess.Popen[str]:
        command = [sys.executable, f"{name}.py", "new.csv"]
        return subprocess.Popen(command, cwd=tmp_path, stdout=out, stderr=subprocess.PIPE, text=True)

    for name, wanted in (("drawn", 0), ("table", 1)):
        (tmp_path / f"{name}.py").write_bytes(script.dump(networks[name]))
        (tmp_path / "new.csv").write_text("\n".join(lines[name]) + "\n")
        with start(name, subprocess.PIPE) as process:
            assert process.stdout is not None
            assert all(process.stdout.readline() for _ in range(wanted))
            process.stdout.close()
            assert (process.communicate()[1], process.returncode) == ("", 0)
    with (tmp_path / "out.csv").open("w") as out, start("table", out) as process:
        assert (process.communicate()[1], process.returncode) == ("", 0)
    assert len((tmp_path / "out.csv").read_text().splitlines()) == len(lines["table"])
    with Path("/dev/full").open("w") as full, start("table", full) as process:
        assert "No space left" in process.communicate()[1]
    assert process.returncode == 1


@pytest.fixture
def numpy_alone(tmp_path: Path) -> list[str]:
    """The start of a command: Python that can import numpy and its own library, and nothing else."""
    place = tmp_path / "only"
    place.mkdir()
    spec = importlib.util.find_spec("numpy")
    assert spec is not None
    assert spec.origin is not None
    installed = Path(spec.origin).parents[1]
    for name in ("numpy", "numpy.libs"):
        if (installed / name).exists():
            (place / name).symlink_to(installed / name)
    start = (
        f"import runpy, sys; sys.path.append({str(place)!r}); sys.argv = sys.argv[1:];"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    return [sys.executable, "-I", "-S", "-c", start]


def test_a_script_needs_numpy_alone(tmp_path: Path, numpy_alone: list[str]) -> None:
    table = made([*KINDS[:2], "category", "moment", "boolean"], 1, missing=True)
    table = run_of(tmp_path / "run", table, "numbers")
    (tmp_path / "p.py").write_bytes(script.dump(load(tmp_path / "run")))

    def run(text: str) -> tuple[int, str, str]:
        command = [*numpy_alone, "p.py", "-"]
        done = subprocess.run(command, cwd=tmp_path, input=text.encode(), capture_output=True, check=False)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    code, out, err = run(table.text)
    assert (code, err) == (0, "")
    rows = pl.read_csv(io.StringIO(out))
    known = expected(tmp_path / "run", table)[:, 0]
    deviation = load_model(tmp_path / "run").columns.targets[0].deviation
    np.testing.assert_allclose(rows["mass_predicted"].to_numpy() / deviation, known, atol=1e-5)
    header = table.text.split("\r\n")[0]
    for lines, message in (
        ([header + ",mass_predicted"], "already has a column mass_predicted"),
        (['size,class,x'], "has no column größe, €, a \"b\", probability"),
        ([header, "1,$2,red,2024-01-01"], "row 1 has 4 cells, and the first line has 6"),
        ([header, "1,$2,red,2024-01-01,true,1", "1,$2,red,2024-02-30,true,1"],
         "row 2, column class: '2024-02-30' is not a date"),
        ([header, "1,2 $,red,2024-01-01,true,1"],
         "row 1, column größe, €: '2 $' is not a number; in training: $1,234.5"),
        ([header, "one,$2,red,2024-01-01,true,1"], "row 1, column size: 'one' is not a number"),
        ([header, "1,$2,red,2024-01-01,2,1"], "row 1, column probability: 2 is neither true (1) nor false (0)"),
    ):  # fmt: skip
        assert run("\n".join(lines)) == (1, "", f"-: {message}\n")
    assert run(header) == (0, f"{header},mass_predicted\n", "")
    code, _, err = run(f"{header}\n1,$2,magenta,2024-01-01,true,1")
    assert (code, err) == (0, '-: column a "b": a category that is not known, rows: 1\n')
    done = subprocess.run([*numpy_alone, "p.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "usage: python p.py FILE (- is stdin)\n")


@pytest.mark.sample(2)
@pytest.mark.parametrize("rows", [0, 1, 7])
def test_onnx_takes_any_number_of_rows(rows: int, tmp_path: Path) -> None:
    table = made(KINDS[:10], 2, missing=True)
    for target in ("two", "classes"):
        run_of(tmp_path / target, table, target)
        network = load(tmp_path / target)
        data = onnx_file.dump(network, tmp_path)
        found, first = of_onnx(data, table, network.columns, slice(rows))
        whole, _ = of_onnx(data, table, network.columns)
        assert first.shape == (rows, 1)
        np.testing.assert_allclose(found, whole[:rows], atol=1e-6)


def test_equal_models_are_equal_files_without_folders_users_or_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = made(KINDS[:10], 4, missing=True)
    for folder in ("one-folder", "another"):
        (tmp_path / folder).mkdir()
        run_of(tmp_path / folder / "run", table, "classes")
        monkeypatch.setenv("USER", f"user-of-{folder}")
        monkeypatch.setenv("LOGNAME", f"user-of-{folder}")
        for suffix in ("onnx", "json", "py"):
            export(tmp_path / folder / "run", tmp_path / folder / f"m.{suffix}")
    for suffix in ("onnx", "json", "py"):
        data = (tmp_path / "one-folder" / f"m.{suffix}").read_bytes()
        assert data == (tmp_path / "another" / f"m.{suffix}").read_bytes()
        export(tmp_path / "another" / "run", tmp_path / "another" / f"m.{suffix}", force=True)
        assert data == (tmp_path / "another" / f"m.{suffix}").read_bytes()
        for word in ("one-folder", "user-of", tmp_path.name, str(Path.cwd()), "run.csv"):
            assert word.encode() not in data


def test_onnx_has_the_versions_that_runtimes_of_2022_read(tmp_path: Path) -> None:
    run_of(tmp_path / "run", made(KINDS[:10], 5, missing=False), "classes")
    network = load(tmp_path / "run")
    model = onnx.load_from_string(onnx_file.dump(network, tmp_path))
    versions = {one.domain: one.version for one in model.opset_import}
    assert (model.ir_version, versions) == (8, {"": 17, "ai.onnx.ml": 3})
    about = json.loads({one.key: one.value for one in model.metadata_props}["twolayer"])
    assert about["sha256"] == network.sha256
    assert [one["column"] for one in about["inputs"]] == [one.name for one in model.graph.input]
    docs = {one.name: one.doc_string for one in model.graph.input}
    assert docs["größe, €"] == "a number, as a number; ONNX cannot read text like $1,234.5; NaN where it is missing"
    drawn = onnx.load_from_string(onnx_file.dump(load(OLD / "drawn"), tmp_path))
    assert [one.name for one in (*drawn.graph.input, *drawn.graph.output)] == ["x", "y"]


def test_onnx_is_the_same_in_its_reference_evaluator(tmp_path: Path) -> None:
    table = made([*KINDS[:10]], 6, missing=True)
    run_of(tmp_path / "run", table, "two")
    network = load(tmp_path / "run")
    data = onnx_file.dump(network, tmp_path)
    feed = {name: v[:, None].astype(object if v.dtype.kind == "U" else float) for name, v in table.values.items()}
    found: Any = ReferenceEvaluator(onnx.load_from_string(data)).run(None, feed)
    known = expected(tmp_path / "run", table)
    assert np.abs(scaled(np.concatenate(found, axis=1), network.columns) - known).max() <= 1e-5


def test_json_has_every_digit(tmp_path: Path) -> None:
    for dtype in ("float32", "float64"):
        make_run(tmp_path / dtype, dtype=dtype)
        network = load(tmp_path / dtype)
        found = json.loads(json_file.dump(network))
        for name, tensor in (("0.weight", network.w1), ("0.bias", network.b1), ("2.weight", network.w2)):
            assert (np.array(found[name]) == tensor.astype(np.float64)).all()
        assert network.columns is not None
        assert [one["mean"] for one in found["features"]] == network.columns.mean.tolist()


def test_marks_of_missing_values_and_constant_features_count_as_in_predict(tmp_path: Path) -> None:
    # `rare` is in the held-out rows alone: constant in training. -999 stands for a missing value.
    text = "a,b,y\n" + "".join(f"{-999 if k % 5 == 0 else k},{'uv'[k % 2]},{k % 7}\n" for k in range(40))
    make_run(tmp_path / "run", text, target="y", exclude=[], na=["-999"])
    a, b = ["-999", "3", "", "-999.0"], ["u", "none of these", "NA", "v"]
    table = Made({"a": a, "b": b}, {"a": np.array([-999.0, 3, np.nan, -999]), "b": np.array(b)})
    network, known = load(tmp_path / "run"), expected(tmp_path / "run", table)
    found, _ = of_onnx(onnx_file.dump(network, tmp_path), table, network.columns)
    assert np.abs(found - known).max() <= 1e-5
    read = json_file.predicted(json_file.dump(network), table.values)
    assert np.abs(scaled(read, network.columns) - known).max() <= 1e-5
    (tmp_path / "p.py").write_bytes(script.dump(network))
    _, *lines = of_script(tmp_path / "p.py", tmp_path, table)
    printed = np.array([[float(line[-1])] for line in lines])
    assert np.abs(scaled(printed, network.columns) - known).max() <= 1e-5


@pytest.mark.parametrize(
    ("separator", "names", "row"),
    [
        (";", "a;b;y\n", "{0},5;{1};{2},25\n"),
        (" ", "a b y\n", '{0}.5   "{1} {1}"  {2}\n'),
        (",", "", "{0}.5,{1},{2}\n"),
    ],
)
def test_a_script_reads_the_files_that_its_run_was_trained_on(
    separator: str, names: str, row: str, tmp_path: Path
) -> None:
    text = names + "".join(row.format(k * 7 % 11, ("yes", "no")[k % 3 == 0], k % 5) for k in range(40))
    header = {"header": "none"} if not names else {}
    make_run(tmp_path / "run", text, target="y" if names else "2", exclude=[], **header)
    assert export(tmp_path / "run", tmp_path / "p.py").difference < 1e-5
    model = load_model(tmp_path / "run")
    a, b = [f"{k * 7 % 11}.5" for k in range(40)], [("yes", "no")[k % 3 == 0] for k in range(40)]
    if separator == " ":
        b = [f"{word} {word}" for word in b]
    if separator == ";":
        a = [number.replace(".", ",") for number in a]
    cells = Made(dict(zip(model.columns.inputs, (a, b), strict=True)), {})
    known = expected(tmp_path / "run", cells)
    out = io.StringIO()
    with redirect_stdout(out):
        runpy.run_path(str(tmp_path / "p.py"))["main"](str(tmp_path / "run.csv"))
    printed = np.array([[float(line[-1])] for line in list(csv.reader(io.StringIO(out.getvalue())))[1:]])
    assert np.abs(scaled(printed, model.columns) - known).max() <= 1e-5


@pytest.mark.parametrize("name", ["drawn", "table"])
def test_runs_of_version_0_1_0_are_exported(name: str, tmp_path: Path) -> None:
    for suffix in ("onnx", "json", "py"):
        done = export(OLD / name, tmp_path / f"m.{suffix}")
        assert done.difference < 1e-5


# --- what goes wrong


def test_a_file_that_would_predict_something_else_is_never_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path / "run")
    right = json_file.predicted
    monkeypatch.setattr(json_file, "predicted", lambda *given: right(*given) * 1.001)
    with pytest.raises(RunError, match=r"its predictions differ from those of `predict` by .*; it was not written"):
        export(tmp_path / "run", tmp_path / "m.json")
    monkeypatch.setattr(script, "dump", lambda network: b"import no_such_module\n")
    with pytest.raises(RunError, match="does not run, and was not written: ModuleNotFoundError"):
        export(tmp_path / "run", tmp_path / "m.py")
    assert {entry.name for entry in tmp_path.iterdir()} == {"run", "run.csv"}


def test_what_cannot_be_exported_is_told_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, change in (("run", {}), ("bad", {"status": "diverged"}), ("new", {"format": 99})):
        make_run(tmp_path / name)
        if change:
            change_info(tmp_path / name, **change)
    make_run(tmp_path / "stopped", status="interrupted")
    (tmp_path / "there.json").write_text("mine")
    (tmp_path / "folder.py").mkdir()
    for run, name, code, message in (
        ("run", "m.txt", 2, "m.txt: its name must end in .onnx, .json, .py or .md"),
        ("run", "there.json", 2, "there.json: already exists; force=True overwrites it"),
        ("run", "folder.py", 2, "folder.py: exists and is not a file; choose another name"),
        ("run", "no/m.py", 1, "no/m.py: cannot be written: No such file or directory"),
        ("there.json", "m.py", 1, "there.json: is not a safetensors file, or is damaged"),
        ("bad", "m.py", 1, "bad: its training diverged; train it with a smaller lr, and export that run"),
        ("new", "m.py", 1, "new/run.json: has format 99, and this version of twolayer reads 2 at most; "
         "install a newer version"),
        ("stopped", "m.md", 1, "stopped: has no model yet: its training was interrupted; resume it with: "
         "twolayer train --resume stopped"),
    ):  # fmt: skip
        with pytest.raises(RunError) as caught:
            export(Path(run), Path(name))
        assert (caught.value.exit_code, str(caught.value)) == (code, message)
    assert (tmp_path / "there.json").read_text() == "mine"


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path / "run")
    (tmp_path / "m.json").write_text("before")

    def full(*given: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"m\.json: cannot be written: No space left on device"):
        export(tmp_path / "run", tmp_path / "m.json", force=True)
    assert (tmp_path / "m.json").read_text() == "before"
    assert {entry.name for entry in tmp_path.iterdir()} == {"run", "run.csv", "m.json"}


def test_the_command_says_what_it_wrote_and_how_far_it_is_from_predict(tmp_path: Path, twolayer: Run) -> None:
    make_run(tmp_path / "run")
    (tmp_path / "m.json").write_text("mine")
    done = twolayer("export", "run/model.safetensors", "-o", "m.json", "--force")
    first, second = done.stderr.splitlines()
    assert (done.returncode, done.stdout, first[:14]) == (0, "", "wrote m.json (")
    start = "tried on 100 rows, with its formulas, in numpy: the largest difference from predict is "
    assert second.startswith(start)
    assert second.endswith(" standard deviations of the target")
    assert json.loads((tmp_path / "m.json").read_text())["H"] == 5
    done = twolayer("export", "run", "-o", "m.json")
    assert (done.returncode, done.stderr) == (2, "error: m.json: already exists; --force overwrites it\n")


def test_without_onnx_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path / "run")
    monkeypatch.setitem(sys.modules, "onnx", None)
    for name in ("onnx_file", "onnx_graph"):
        monkeypatch.delitem(sys.modules, f"twolayer.exporters.{name}")
    monkeypatch.delattr("twolayer.exporters.onnx_file")
    with pytest.raises(DataError, match=r"this needs onnx: pip install 'twolayer\[export\]'"):
        export(tmp_path / "run", tmp_path / "m.onnx")
