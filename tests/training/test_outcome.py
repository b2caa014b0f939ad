"""What `train` takes and gives: names and paths, one line of text, a small piece of HTML, predictions."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
import torch

from tests.helpers.processes import BASE
from twolayer.config.loading import load_config
from twolayer.errors import ConfigError, DataError
from twolayer.training.loop import fit, train
from twolayer.training.metrics import final_loss
from twolayer.training.setup import build_model, load_data, prepare


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "t.csv"
    path.write_text("a,b,y\n" + "".join(f"{i * 37 % 61},{i * 7 % 5},{3 * (i * 37 % 61) + 100}\n" for i in range(60)))
    return path


def test_a_name_a_path_and_a_config_train_the_same(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(BASE)
    wanted = train(load_config(path, epochs=3)).losses
    assert len(wanted) == 3
    assert train(path, epochs=3).losses == train(str(path), epochs=3).losses == wanted
    assert train("modules", epochs=4).losses == train(load_config("modules", epochs=4)).losses


def test_the_four_steps_take_a_name_too() -> None:
    config, data, model = prepare("modules")
    blocks = list(fit(model, data, "modules"))
    assert sum(len(block.losses) for block in blocks) == config.epochs
    assert final_loss(model, data, "modules") == train("modules").final_loss
    assert torch.equal(load_data("modules").x, data.x)
    assert build_model("modules")[0].weight.shape == model[0].weight.shape


def test_a_table_trains_without_a_yaml_file_and_predicts_in_raw_units(table: Path) -> None:
    result = train(table, data={"target": "y"}, epochs=300)
    new = pl.DataFrame({"b": [1, 4], "a": [8, 20]})
    (predicted,) = result.predict(new).get_columns()
    assert predicted.name == "y_predicted"
    assert predicted.to_list() == pytest.approx([124, 160], abs=8)
    assert list(result.history) == ["epoch", "loss", "val_loss", "lr"]
    assert {len(column) for column in result.history.values()} == {len(result.losses)}


def test_what_was_done_to_a_table_is_kept_and_shown(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("id,a,y\n" + "".join(f"{i},{i * 37 % 61},{i % 7}\n" for i in range(60)))
    result = train(path, data={"target": "y"}, epochs=2)
    (note,) = (note for note in result.data.notes if "left out" in note)
    assert "id" in note
    assert f"<div>{note}</div>" in result._repr_html_()


def test_what_cannot_be_done_is_told_in_pythons_words(table: Path) -> None:
    with pytest.raises(ConfigError, match=r'no target is given; add data=\{"target": "COLUMN"\}, one of: a, b, y'):
        train(table)
    with pytest.raises(ConfigError, match=r"^defualt: no such file; did you mean default\?$"):
        train("defualt")
    with pytest.raises(ConfigError, match=r"^epochs=: a Config has its values already"):
        train(load_config("default"), epochs=3)
    with pytest.raises(DataError, match="not on a table"):
        train("modules", epochs=1).predict(pl.DataFrame({"a": [1]}))


def test_a_training_is_one_line_of_text() -> None:
    result = train("default", epochs=20)
    line = f"<Training 64 x 1000 -> 100 -> 10: 20 iterations, loss {result.losses[0]:.4g} to {result.losses[-1]:.4g}, "
    assert repr(result).startswith(line + f"final loss {result.final_loss:.4g}, ")
    assert "\n" not in repr(result)


def test_a_notebook_shows_the_curve_and_the_parameters() -> None:
    result = train("default", epochs=20)
    html = result._repr_html_()
    assert len(html) < 10_000
    assert "<script" not in html
    assert html.count("<polyline") == 1
    w1 = next(result.model.parameters()).detach()
    row = html.partition(">0.weight<")[2].partition("</tr>")[0]
    for cell in (
        "100 x 1000",
        f"{float(w1.min()):.4g}",
        f"{float(w1.max()):.4g}",
        f"{float(w1.double().std(correction=0)):.4g}",
    ):
        assert cell in row


def test_the_curve_has_no_more_points_than_can_be_seen() -> None:
    assert len(train("modules", epochs=5000)._repr_html_()) < 12_000
