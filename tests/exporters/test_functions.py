"""`twolayer.eject` and `twolayer.export`: what the commands write, from Python."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.forking import run
from tests.helpers.tablerun import make_run
from twolayer.config.loading import load_config
from twolayer.errors import DataError, RunError
from twolayer.exporters.functions import eject, export
from twolayer.training.inspecting import inspect
from twolayer.training.loop import train


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def losses_of(source: str, capsys: pytest.CaptureFixture[str]) -> list[float]:
    """The losses that a script prints."""
    exec(compile(source, "script", "exec"), {"__name__": "__main__"})
    return [float(line.split(",")[1]) for line in capsys.readouterr().out.splitlines()[1:]]


def test_a_script_is_the_one_that_the_command_writes(tmp_path: Path) -> None:
    text = eject("modules", "mine.py", style="optim")
    assert Path("mine.py").read_text() == text
    done = run(["eject", "modules", "--style", "optim", "-o", "-"], tmp_path)
    assert done.stdout == text


def test_a_script_of_a_config_prints_its_losses(capsys: pytest.CaptureFixture[str]) -> None:
    wanted = train("modules", epochs=5, engine="autograd", threads=1).losses
    for text in (
        eject("modules", epochs=5, threads=1),
        eject(load_config("modules", epochs=5, threads=1), style="optim"),
    ):
        assert losses_of(text, capsys) == list(wanted)
        assert "twolayer train" not in text  # no command line gives these values


def test_a_table_needs_no_config_of_its_own() -> None:
    Path("my.csv").write_text("a,b,y\n" + "".join(f"{i * i % 13},{i % 5},{i * i % 7}\n" for i in range(30)))
    data = {"path": "my.csv", "target": "y"}
    assert train(data=data, lr=0.1, epochs=1).config.D_in == 2
    assert inspect(data=data, lr=0.1, epochs=1).config.D_in == 2
    assert eject(data=data, lr=0.1, epochs=1).startswith('"""The network of the config my, ')
    assert eject(epochs=2).startswith('"""The network of the config default, ')


def test_a_script_replaces_a_file_only_by_force() -> None:
    Path("mine.py").write_text("mine")
    with pytest.raises(RunError, match=r"mine\.py: already exists; force=True overwrites it"):
        eject("modules", "mine.py")
    assert Path("mine.py").read_text() == "mine"
    eject("modules", Path("mine.py"), force=True)
    assert "import torch" in Path("mine.py").read_text()


def test_what_has_no_script_is_told_in_pythons_words() -> None:
    with pytest.raises(RunError, match="style: must be one of loop, optim, manual, scratch, dual, not 'fast'"):
        eject("modules", style="fast")  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"train it and eject the run, or add lr=0\.0001"):
        eject("modules", lr="auto")
    with pytest.raises(RunError, match=r"must end in \.py"):
        eject("modules", "mine.txt")


def test_a_model_is_exported_by_the_runs_name_or_path(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    made = export("run", "model.json")
    assert made.size == Path("model.json").stat().st_size
    assert made.difference < 1e-5
    export(tmp_path / "run" / "model.safetensors", Path("again.json"))
    assert Path("again.json").read_bytes() == Path("model.json").read_bytes()
    with pytest.raises(RunError, match=r"model\.json: already exists; force=True overwrites it"):
        export("run", "model.json")
