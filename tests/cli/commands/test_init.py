"""twolayer init: a config to begin with, and its schema."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.processes import Run, without_torch


def test_init_writes_a_config_that_trains_and_never_overwrites_unasked(tmp_path: Path, twolayer: Run) -> None:
    done = without_torch("init", cwd=tmp_path)
    written = "wrote twolayer.yaml and twolayer.schema.json; train it with: twolayer train twolayer.yaml\n"
    assert (done.returncode, done.stderr) == (0, written)
    assert twolayer("train", "twolayer.yaml", "--quiet", "--epochs", "2").returncode == 0
    again = without_torch("init", cwd=tmp_path)
    assert (again.returncode, again.stderr) == (2, "error: twolayer.yaml: already exists; --force overwrites it\n")
    done = without_torch("init", "--force", cwd=tmp_path)
    written = "wrote twolayer.yaml (its schema is twolayer.schema.json); train it with: twolayer train twolayer.yaml\n"
    assert (done.returncode, done.stderr) == (0, written)
    (tmp_path / "twolayer.schema.json").write_text("mine")
    done = without_torch("init", "--force", cwd=tmp_path)
    assert done.stderr == (
        "twolayer.schema.json is not a schema of twolayer and was not changed: editors cannot check twolayer.yaml\n"
        "wrote twolayer.yaml; train it with: twolayer train twolayer.yaml\n"
    )


def test_the_hint_of_init_can_be_pasted(tmp_path: Path) -> None:
    for name, hint in (("default", "./default"), ("a b.yaml", "'a b.yaml'")):
        done = without_torch("init", name, cwd=tmp_path)
        assert done.stderr.endswith(f"; train it with: twolayer train {hint}\n")
    assert without_torch("init", ".", cwd=tmp_path).stderr == "error: .: is a folder; name a file\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a b.yaml", "default", "twolayer.schema.json"]
