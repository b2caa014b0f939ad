from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.processes import BASE, Run
from twolayer import errors
from twolayer.cli import terminal
from twolayer.config.loading import load_config
from twolayer.errors import ConfigError, DataError, Origin, OutputError, Problem, RunError, TwolayerError
from twolayer.formatting import safe
from twolayer.tables.describe import summary
from twolayer.tables.options import FileData

EVIL = ["a\x1b[31mb", "a\nb\rc\u2028d", "a\u202eb\u2066c", "a\udcffb", "a\x9b31mb\x7f", "C:\\a\\nb", "\u200b\ufeff"]


def made(text: str) -> list[TwolayerError]:
    """An error of each class, with the text wherever one may stand."""
    return [
        TwolayerError(text),
        RunError(text, path=Path(text), hint=text),
        errors.NotARunError(text),
        errors.NoRowsError(text, path=Path(text), hint=text),
        errors.TableError(text, [text, text]),
        DataError(f"t.csv: row 1, column {text}: {text!r} is not a number"),
        errors.MissingFileError(text),
        errors.ExtraError(text),
        errors.StateError(text),
        errors.DeviceError(text),
        OutputError(OSError(5, text)),
        errors.RankError(text),
        errors.DisagreementError([text, text]),
        errors.DivergedError(3, float("inf"), 0.1, unit=text),
        ConfigError([Problem(Origin(text, 2, 5), text, text, text), Problem(Origin("b"), "", text)]),
    ]


def test_every_class_of_errors_is_made_here() -> None:
    classes = {item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, TwolayerError)}
    assert {type(error) for error in made("x")} == classes


@given(st.text() | st.sampled_from(EVIL))
def test_the_text_of_an_error_is_printable_and_one_line_or_a_line_for_each_problem(text: str) -> None:
    for error in made(text):
        lines = str(error).split("\n")
        assert len(lines) == (2 if isinstance(error, ConfigError) else 3 if isinstance(error, errors.TableError) else 1)
        assert all(line.isprintable() for line in lines)
        if text.isprintable() and not isinstance(error, (errors.DivergedError, OutputError)):
            assert text in str(error)


@pytest.mark.parametrize("text", EVIL)
def test_the_console_prints_the_very_text_of_an_error(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    for error in made(text):
        terminal.error(error)
        lines = capsys.readouterr().err.removesuffix("\n").split("\n")
        assert sum(line.startswith("error: ") for line in lines) == (2 if isinstance(error, ConfigError) else 1)
        assert "\n".join(line.removeprefix("error: ") for line in lines) == str(error)


def test_paths_columns_and_values_are_text_from_python(tmp_path: Path) -> None:
    evil = "a\x1b[31m\nb\u202e"
    path = tmp_path / f"{evil}.csv"
    path.write_text(f'"{evil}",y\n{evil[:6]}x,1\n2,3\n', encoding="utf-8")
    config = tmp_path / f"{evil}.yaml"
    config.write_text(f"data: {{source: file, path: {json.dumps(path.name)}, target: y}}\n", encoding="utf-8")
    (tmp_path / "value.yaml").write_text(BASE + f"device: {json.dumps(evil)}\n", encoding="utf-8")
    for source in (config, tmp_path / "value.yaml", tmp_path / f"{evil}.no"):
        with pytest.raises(TwolayerError) as error:
            load_config(source)
        assert str(error.value).isprintable()
        assert r"\x1b[31m" in str(error.value)
    data = FileData(source="file", path=str(path), target=["z"], separator=",")
    (problem,) = summary(data, str(path), targets=["z"]).problems
    assert problem.text.startswith("data.target: there is no column z")


@pytest.mark.sample(2)
@pytest.mark.parametrize("evil", ["a\x1b[31mb", "a\nb", "a\u202eb", "a\udcffb", "a\\nb"])
def test_paths_columns_and_values_are_text_from_a_process(tmp_path: Path, twolayer: Run, evil: str) -> None:
    name = f"{evil}.csv"
    column = evil.replace("\udcff", "\ufeff")
    (tmp_path / name).write_text(f'x,"{column}"\n1,2\n"{column}",3\n3,4\n4,5\n', encoding="utf-8")
    for done in (
        twolayer("check", name, "--target", "x"),
        twolayer("check", name),
        twolayer("train", name, "--target", column, "--no-save"),
        twolayer("train", f"{evil}.no"),
    ):
        assert done.returncode in (1, 2)
        line, *command = done.stderr.removesuffix("\n").split("\n")
        assert "".join([line, *command]).isprintable()
        assert safe(evil) in line
        assert all(more.startswith("this works: ") for more in command)
