from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from twolayer.config import schema as module
from twolayer.config import yaml12
from twolayer.config.bundled import bundled, write_starter
from twolayer.config.loading import load_config, resolve
from twolayer.config.schema import KEYS, Config, LinearData, document, flat, schema, settled
from twolayer.config.validation import ALLOWED, show
from twolayer.errors import ConfigError

BOOK: dict[str, Any] = {"N": 64, "D_in": 1000, "H": 100, "D_out": 10, "lr": 1e-4, "epochs": 500}


def test_the_defaults_are_the_books() -> None:
    config = Config(**BOOK)
    assert (config.seed, config.device, config.data.source, config.init) == (0, "cpu", "random", "default")
    assert (config.loss, config.reduction, config.dtype, config.log_every) == ("mse", "sum", "float32", "auto")
    assert (config.engine, config.threads) == ("auto", "auto")


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Config(**BOOK).lr = 1.0  # type: ignore[misc, unused-ignore]


@pytest.mark.parametrize("key", ["N", "D_in", "H", "D_out", "lr", "epochs"])
def test_the_keys_of_the_book_are_required(key: str) -> None:
    with pytest.raises(ValidationError, match="Field required"):
        Config(**{k: v for k, v in BOOK.items() if k != key})


@pytest.mark.parametrize("weights", [[1.0, 2.0, 3.0], [[1.0, 2.0, 3.0]]])
def test_the_weights_of_one_output_are_one_list_or_a_list_of_one(weights: Any) -> None:
    data = LinearData(source="linear", weights=weights)
    assert data.rows == [[1.0, 2.0, 3.0]]
    assert Config(**BOOK | {"D_in": 3, "D_out": 1, "data": data}).data == data


@pytest.mark.parametrize("weights", [[], [[]], [1.0], [1.0] * 4, [[1.0] * 3] * 2])
def test_weights_of_another_shape_are_refused(weights: Any) -> None:
    with pytest.raises(ValidationError, match=r"data\.weights: must be D_out x D_in = 1 x 3 numbers"):
        Config(**BOOK | {"D_in": 3, "D_out": 1, "data": LinearData(source="linear", weights=weights)})


def test_a_form_goes_with_the_fused_engine_only() -> None:
    assert Config(**BOOK | {"form": "dual"}).form == Config(**BOOK | {"engine": "fused", "form": "dual"}).form
    with pytest.raises(ValidationError, match="form: dual requires the fused engine, but the engine is manual"):
        Config(**BOOK | {"engine": "manual", "form": "dual"})
    with pytest.raises(ValidationError, match="form: dual requires the fused engine, which is not available on MPS"):
        Config(**BOOK | {"form": "dual", "device": "mps"})
    with pytest.raises(ValidationError, match="engine: fused is not available on MPS"):
        Config(**BOOK | {"engine": "fused", "device": "mps"})


def test_the_compiled_engine_goes_with_the_cpu_only() -> None:
    assert Config(**BOOK | {"engine": "compiled", "device": "auto"}).engine == "compiled"
    for device in ("cuda", "cuda:1", "mps"):
        with pytest.raises(ValidationError, match=f"engine: compiled is for the CPU, but the device is {device}"):
            Config(**BOOK | {"engine": "compiled", "device": device})
    with pytest.raises(ValidationError, match="form: primal requires the fused engine, but the engine is compiled"):
        Config(**BOOK | {"engine": "compiled", "form": "primal"})


def test_every_conflict_is_told_at_once() -> None:
    with pytest.raises(ValidationError) as error:
        Config(**BOOK | {"dtype": "float64", "device": "mps", "data": LinearData(source="linear", weights=[1.0])})
    assert "data.weights: must be" in str(error.value)
    assert "dtype: float64 is not available on MPS" in str(error.value)


@pytest.mark.parametrize(
    ("lr", "dtype", "holds"), [(1e39, "float32", False), (1e-46, "float32", False), (1e39, "float64", True)]
)
def test_the_step_must_be_a_number_of_the_dtype(lr: float, dtype: str, holds: bool) -> None:
    if holds:
        assert Config(**BOOK | {"lr": lr, "dtype": dtype}).lr == lr
    else:
        with pytest.raises(ValidationError, match="is outside the range of float32"):
            Config(**BOOK | {"lr": lr, "dtype": dtype})


def test_every_key_says_what_it_means_and_what_it_may_be() -> None:
    assert all(Config.model_fields[key].description for key in KEYS)
    inside = {f"data.{key}" for source in module.SOURCES.values() for key in source.model_fields}
    assert set(ALLOWED) == set(KEYS) | inside


def test_flat_gives_every_key_once_and_data_by_dotted_names() -> None:
    data = LinearData(source="linear", weights=[1.0])
    keys = [key for key, _ in flat(Config(**BOOK | {"D_in": 1, "D_out": 1, "data": data}))]
    assert keys[8:11] == ["data.source", "data.weights", "data.noise"]
    assert [key for key in keys if "." not in key] == [key for key in KEYS if key != "data"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (float("nan"), ".nan"),
        (float("-inf"), "-.inf"),
        (10**30, "a number of about 31 digits"),
        ("a\x1b[31m\u202e", r"'a\x1b[31m\u202e'"),
        ([1, "a", {"b": None}], "[1, 'a', {b: null}]"),
        ([[[[1]]]], "[[[...]]]"),
    ],
)
def test_show_writes_a_value_as_yaml_does_on_one_line(value: object, text: str) -> None:
    assert show(value) == text


def test_show_cuts_what_is_long() -> None:
    assert len(show("x" * 10**6)) == len(show(list(range(10**5)))) == 60


def test_the_schema_accepts_what_a_config_accepts_and_refuses_what_it_refuses() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    validate = jsonschema.Draft202012Validator(schema()).is_valid
    linear = {"source": "linear", "weights": [1, 2]}
    good: list[dict[str, Any]] = [
        {},
        {"N": 8.0, "threads": 2.0, "epochs": 1e4},
        {"seed": 2**64 - 1},
        {"device": "cuda:1"},
        {"data": linear},
        {"threads": "auto"},
    ]
    bad: list[dict[str, Any]] = [{"N": 0}, {"lr": -1}, {"lr": "fast"}, {"device": "gpu"}, {"epoch": 1}]
    bad += [
        {"data": {}},
        {"data": {"source": "linear"}},
        {"data": {"source": "random", "noise": 1}},
        {"threads": 0},
        {"seed": -1},
    ]
    assert all(load_config("default", environment={}, **values) for values in good if "data" not in values)
    assert [validate(BOOK | values) for values in good] == [True] * len(good)
    assert [validate(BOOK | values) for values in bad] == [False] * len(bad)
    assert not validate({})


def test_the_weights_of_linear_data_are_so_few_that_a_runs_config_can_be_read_again(tmp_path: Path) -> None:
    def config(D_in: int) -> Config:
        data = LinearData(source="linear", weights=[1.0] * D_in)
        return Config(**BOOK | {"D_in": D_in, "D_out": 1, "data": data})

    path = tmp_path / "config.yaml"
    path.write_text(document(config(18_999)))
    assert load_config(path, environment={}) == config(18_999)
    with pytest.raises(ValidationError, match=r"data\.weights: must be at most 19000 numbers and lists"):
        config(19_000)


def _documents(folder: Path) -> Iterator[tuple[str, Any]]:
    """Every config that comes with twolayer, is shown in the docs, or is written by it."""
    for name, path in bundled().items():
        yield name, path.read_text()
        write_starter(folder / f"{name}.yaml", name, force=True)
        yield f"init --from {name}", (folder / f"{name}.yaml").read_text()
        yield f"config.yaml of {name}", document(settled(load_config(name, environment={})))
    root = Path(__file__).parents[2]
    for page in (root / "README.md", *sorted((root / "docs").glob("*.md"))):
        for block in re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
            if not block.startswith("apiVersion:"):  # what Kubernetes takes
                yield f"{page.name}: {block[:40]}", block


def test_every_config_that_is_bundled_documented_or_written_is_valid_by_the_schema(tmp_path: Path) -> None:
    validator = jsonschema.Draft202012Validator(schema())
    found = [(name, yaml12.parse(text, name).value) for name, text in _documents(tmp_path)]
    checked = [name for name, value in found if value is not None]  # a block may be a comment alone
    assert len(checked) >= 13
    wrong = {
        name: [error.message for error in validator.iter_errors(value)] for name, value in found if value is not None
    }
    assert {name: errors for name, errors in wrong.items() if errors} == {}


@pytest.mark.parametrize(
    ("data", "valid"),
    [
        ({"source": "file", "path": "t.csv", "target": "y"}, True),
        ({"source": "file", "path": "t.csv", "target": ["y", "z"], "exclude": "a", "inputs": "b"}, True),
        ({"path": "t.csv", "target": "y"}, True),
        ({"path": "t.csv", "target": "y", "inputs": None, "exclude": []}, True),
        ({"path": "t.csv", "target": []}, False),
        ({"path": "t.csv", "target": ""}, False),
        ({"path": "", "target": "y"}, False),
        ({"path": "t.csv", "target": 3}, False),
        ({"path": "t.csv"}, False),
    ],
)
def test_the_schema_and_the_program_agree_about_tables(tmp_path: Path, data: dict[str, Any], valid: bool) -> None:
    assert jsonschema.Draft202012Validator(schema()).is_valid({"data": data}) == valid
    (tmp_path / "c.yaml").write_text(yaml12.dump({"data": data}))
    if valid:
        assert resolve(tmp_path / "c.yaml", environment={}, read=False).config.data.source == "file"
    else:
        with pytest.raises(ConfigError):
            resolve(tmp_path / "c.yaml", environment={}, read=False)
