"""What is wrong is refused with its place and harms nobody: files, options, and names of every kind."""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import typer.main
from hypothesis import example, given
from hypothesis import strategies as st

from tests.helpers.processes import BASE, Run, Write, examples, in_terminal, without_torch
from twolayer.cli import main
from twolayer.config.schema import KEYS
from twolayer.tables.options import is_table


@pytest.fixture(autouse=True, scope="module")
def _commands_are_built_once() -> Iterator[None]:
    """By typer, from our functions: that takes longer than to refuse a file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.main, "get_command", cache(typer.main.get_command))
        yield


def assert_refused(done: subprocess.CompletedProcess[str], place: str) -> None:
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {place}")
    assert done.stderr.count("\n") == 1
    assert len(done.stderr) < 250
    assert "Traceback" not in done.stderr


def instead(key: str, value: str) -> str:
    return re.sub(rf"^{key}: .*$", f"{key}: {value}", BASE, flags=re.M)


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGE_BOMB = "a: &a {x: 1}\nb: &b {<<: [*a,*a,*a,*a,*a,*a]}\nc: {<<: [*b,*b,*b,*b,*b,*b]}\n"
WRONG: dict[str, tuple[str | bytes, str]] = {
    "not UTF-8": (BASE.encode() + b"# caf\xe9", "my.yaml:7:6: "),
    "empty": ("", "my.yaml: "),
    "a list": ("- N: 64\n- H: 3\n", "my.yaml:1:1: "),
    "lr negative": (instead("lr", "-1"), "my.yaml:5:5: lr: "),
    "lr nan": (instead("lr", ".nan"), "my.yaml:5:5: lr: "),
    "lr fast": (instead("lr", "fast"), "my.yaml:5:5: lr: "),
    "N 1.5": (instead("N", "1.5"), "my.yaml:1:4: N: "),
    "N true": (instead("N", "true"), "my.yaml:1:4: N: "),
    "N 0": (instead("N", "0"), "my.yaml:1:4: N: "),
    "N -3": (instead("N", "-3"), "my.yaml:1:4: N: "),
    "seed -1": (BASE + "seed: -1", "my.yaml:7:7: seed: "),
    "seed 2^64": (BASE + f"seed: {2**64}", "my.yaml:7:7: seed: "),
    "unknown key": (BASE + "epoch: 3", "my.yaml:7:1: epoch: unknown key; did you mean epochs?"),
    "duplicate key": (BASE + "N: 3", "my.yaml:7:1: N: given twice"),
    "device gpu": (BASE + "device: gpu", "my.yaml:7:9: device: "),
    "alias bomb": (BOMB + BASE, "my.yaml:1:4: anchors and aliases"),
    "merge bomb": (MERGE_BOMB + BASE, "my.yaml:1:4: anchors and aliases"),
    "nested brackets": ("[" * 100_000, "my.yaml:1:33: nested more than 32 deep"),
    "timestamp": (BASE + "x: !!timestamp foo", "my.yaml:7:4: tags "),
    "python object": (BASE + 'x: !!python/object/apply:os.system ["touch pwned"]', "my.yaml:7:4: tags "),
    "too large": (instead("N", "1000000000000"), "my.yaml: 1000000000000 x 3 -> 4 -> 2 needs at least "),
    "NUL": (BASE + 'x: "\0"', "my.yaml:7:5: "),
    "a tab": ("N: 1\nD_in:\n\t- 1", "my.yaml:3:1: not YAML"),
}


@pytest.mark.sample(10)
@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_file_is_refused(config_file: Write, what: str) -> None:
    content, place = WRONG[what]
    folder = config_file(content).parent
    for command in ("train", "check"):
        assert_refused(without_torch(command, "my.yaml", cwd=folder), place)
    assert [path.name for path in folder.iterdir()] == ["my.yaml"]


def test_what_is_no_readable_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    with (tmp_path / "huge.yaml").open("wb") as file:
        file.truncate(2**30)
    for name in ("no.yaml", "folder.yaml", "huge.yaml", "/dev/zero"):
        assert_refused(without_torch("train", name, cwd=tmp_path), f"{name}: ")


@pytest.mark.parametrize(
    ("arguments", "start"),
    [
        (["--lr", "fast"], "--lr: must be a positive number, or auto, not 'fast'"),
        (["--epochs", "1.5"], "--epochs: must be"),
        (["--device", "gpu"], "--device: must be"),
        (["--set", "epoch=5"], "--set epoch=5: unknown key; did you mean epochs?"),
        (["--set", "epochs"], "--set epochs: must be KEY=VALUE"),
        (["--set", "data.weights=[1"], "--set data.weights=[1: not YAML"),
        (["--set", "data.noise=1"], "--set data.noise=1: requires source: linear"),
        (["--epoch", "5"], "No such option: --epoch; did you mean --epochs?\n"),
        (["--bogus"], "No such option: --bogus; see twolayer train --help\n"),
        (["--epochs"], "Option '--epochs' requires an argument\n"),
        (["--format", "xml"], "Invalid value for '--format': 'xml'"),
        (["one", "two"], "Got unexpected extra argument(s) (two); see twolayer train --help\n"),
    ],
)
def test_a_wrong_option_is_refused_by_its_name(arguments: list[str], start: str, tmp_path: Path) -> None:
    assert_refused(without_torch("train", *arguments, cwd=tmp_path), start)


def test_malformed_sets_are_told_with_all_the_rest(tmp_path: Path) -> None:
    done = without_torch("check", "--set", "foo", "--set", "=1", "--lr", "x", cwd=tmp_path)
    assert [line.split(": ")[:2] for line in done.stderr.splitlines()] == [
        ["error", place] for place in ("--lr", "--set foo", "--set =1")
    ]


def test_an_unknown_command_is_refused(tmp_path: Path) -> None:
    assert_refused(without_torch("trian", cwd=tmp_path), "No such command 'trian'")


MISSING = {
    "check": ["{}"],
    "compare": ["{}", "other"],
    "data": ["{}"],
    "eject": ["{}"],
    "evaluate": ["{}", "my.csv"],
    "export": ["{}", "-o", "m.json"],
    "inspect": ["{}"],
    "lr": ["{}"],
    "bench": ["{}"],
    "plot": ["{}", "-o", "x.svg"],
    "predict": ["{}", "my.csv"],
    "report": ["{}"],
    "runs": ["{}"],
    "show": ["{}"],
    "train": ["{}"],
    "train --resume": ["{}"],
    "data my.csv --run": ["{}"],
}


@pytest.mark.parametrize("command", MISSING)
def test_a_name_of_nothing_is_wrong_usage_in_every_command_and_one_line(command: str, tmp_path: Path) -> None:
    (tmp_path / "my.csv").write_text("a,b\n1,2\n3,4\n")
    for name in ("none", "none.yaml", "none.csv"):
        done = without_torch(*command.split(), *(word.format(name) for word in MISSING[command]), cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert re.fullmatch(rf"error: {name}: (no such|is no|.* no such).*\n", done.stderr), done.stderr


@pytest.mark.parametrize(
    ("command", "code", "line"),
    [
        ("trian", 2, "error: No such command"),
        ("train --epohcs 3", 2, "error: No such option: --epohcs; did you mean --epochs?"),
        ("train --epochs", 2, "error: Option '--epochs' requires an argument"),
        ("train --lr fast", 2, "error: --lr: must be"),
        ("train --set H=x", 2, "error: --set H=x: must be"),
        ("train --set nokey=1", 2, "error: --set nokey=1: unknown key"),
        ("train --sweep lr", 2, "error: --sweep lr: must be"),
        ("train --format xml", 2, "error: Invalid value for '--format'"),
        ("train my.csv", 2, "error: my.csv: no target is given"),
        ("train my.csv --target z", 1, "error: my.csv: data.target: there is no column z"),
        ("data my.csv --target z", 1, "error: my.csv: data.target: there is no column z"),
        ("data my.csv --target a --set data.exclude=z", 1, "error: my.csv: data.exclude: there is no column z"),
        ("data ragged.csv", 1, "error: ragged.csv: row 2 has 1 cell"),
        ("data empty.csv", 1, "error: empty.csv: "),
        ("train --device cuda:99", 1, "error: "),
        ("plot x", 2, "error: Missing option"),
        ("init my.csv", 2, "error: my.csv: already exists; --force overwrites it"),
    ],
)
def test_every_error_has_one_form_and_the_exit_code_of_its_kind(
    command: str, code: int, line: str, tmp_path: Path, twolayer: Run
) -> None:
    (tmp_path / "my.csv").write_text("a,b\n1,2\n3,4\n5,5\n")
    (tmp_path / "ragged.csv").write_text("a,b\n1,2\n3\n4,5\n")
    (tmp_path / "empty.csv").write_text("a,b\n")
    done = twolayer(*command.split())
    assert (done.returncode, done.stderr.count("error: "), done.stderr.count("\n")) == (code, 1, 1), done.stderr
    assert done.stderr.startswith(line)


@given(st.binary(max_size=300))
@examples(300)
def test_any_bytes_end_in_exit_0_or_2(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "fuzz.yaml"
    path.write_bytes(content)
    allowed = (0, 1, 2) if b"path" in content else (0, 2)  # 1: a table that does not exist
    assert run_silently("check", str(path)) in allowed


KEY = st.sampled_from([*KEYS, "epoch", "<<", "source", "weights", "noise", "1", ""]) | st.text(max_size=5)
VALUE = st.recursive(
    st.sampled_from(
        ["1", "0", "-1", "1e-4", "1e400", ".nan", "true", "cpu", "cuda:0", "*a", "&a 1", "!!str x", "~", "'"]
    )
    | st.sampled_from(
        [
            "float64",
            "linear",
            "mps",
            "9" * 5000,
            "0x" + "f" * 5000,
            "0o" + "7" * 6000,
            "010",
            "0x10",
            "|",
            "%",
            "@",
            "`",
            "? x",
            "-",
        ]
    ),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.dictionaries(KEY, inner, max_size=3).map(
            lambda m: "{" + ", ".join(f"{k}: {v}" for k, v in m.items()) + "}"
        )
    ),
    max_leaves=6,
)


@given(st.lists(st.tuples(KEY, VALUE), max_size=8), st.booleans())
@examples(300)
def test_any_structure_ends_in_exit_0_or_2(tmp_path: Path, items: list[tuple[str, str]], complete: bool) -> None:
    path = tmp_path / "fuzz.yaml"
    lines = [f"{key}: {value}" for key, value in items]
    path.write_text("\n".join([BASE, *lines] if complete else lines), encoding="utf-8", errors="surrogatepass")
    assert run_silently("check", str(path)) in (0, 2)


@given(st.lists(st.text(max_size=20), max_size=4))
@examples(200)
@example([".NPY"])
def test_any_arguments_of_check_end_in_exit_0_or_2_or_1_where_one_is_the_name_of_a_table(arguments: list[str]) -> None:
    allowed = (0, 1, 2) if any(map(is_table, arguments)) else (0, 2)
    assert run_silently("check", *arguments) in allowed


def run_silently(*arguments: str) -> int:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return main.run(arguments)


# --- Names and values of every kind, shown harmlessly

EVIL = {
    "markup": "[red]x[/x][link=file:///x]y",
    "unbalanced": "[/x]",
    "escape": "a\x1b[31mb",
    "osc 52": "a\x1b]52;c;aGk=\x07b",
    "c1": "a\x9b31mb",
    "bidi": "a\u202eb\u2066c",
    "line": "a\nb\rc\u2028d",
    "delete": "a\x7f\x08\x08b",
}


@pytest.mark.parametrize("evil", EVIL.values(), ids=EVIL)
def test_no_name_key_or_value_is_more_than_text(
    evil: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    name, quoted = evil.replace("/", "|"), json.dumps(evil)
    Path(f"{name}.yaml").write_text(BASE, encoding="utf-8")
    Path("key.yaml").write_text(BASE + f"{quoted}: 1\n", encoding="utf-8")
    Path("value.yaml").write_text(BASE + f"device: {quoted}\n", encoding="utf-8")
    Path("raw.yaml").write_text(BASE + f"device: {evil}\n", encoding="utf-8")
    commands = [
        ["check", f"{name}.yaml"],
        ["check", f"{name}.yaml", "--format", "csv"],
        ["check", f"{evil}.no"],
        ["check", "key.yaml"],
        ["check", "value.yaml"],
        ["check", "raw.yaml"],
        ["check", "--device", evil],
        ["check", "--set", f"{evil}=1"],
        ["check", "--set", evil],
        ["check", f"--{evil}"],
        ["check", "--format", evil],
        ["check", "--set", f"H=7 # {evil}"],
        ["init", f"no/{evil}"],
        [evil],
    ]
    harmless = evil if evil.isprintable() else ""
    for command in commands:
        # At a pipe: not one character that is not text.
        assert main.run(command) in (0, 1, 2)
        captured = capfd.readouterr()
        text = (captured.out + captured.err).replace("\n", "")
        assert text.isprintable(), command
        if command[1:] == [f"{evil}.no"]:
            assert text.startswith(f"error: {harmless}")
    for command in commands[0], commands[2], commands[3], commands[4]:
        # On a terminal: our own colours, and nothing else.
        code, written = in_terminal(command, tmp_path)
        text = re.sub(r"\x1b\[[0-9;]*m", "", written).replace("\r\n", "")
        assert code in (0, 2)
        assert text.isprintable(), command


def test_a_table_without_rows_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "head.csv").write_text("a,b\n")
    for command in ("train", "data"):
        done = without_torch(command, "head.csv", "--target", "b", cwd=tmp_path)
        assert done.returncode == 1
        assert done.stderr.endswith("has 0 rows; training needs 2 or more\n")
        assert len(done.stderr.splitlines()) == 1
