from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.processes import BASE
from twolayer.config.bundled import bundled
from twolayer.config.loading import MAX_BYTES, Override, load_config, resolve
from twolayer.config.schema import KEYS, Config
from twolayer.errors import ConfigError

Write = Callable[[str | bytes], Path]


def problems(path: Path | str, **values: Any) -> list[str]:
    with pytest.raises(ConfigError) as error:
        load_config(path, **values)
    return [str(problem).replace(os.fspath(path), "my.yaml", 1) for problem in error.value.problems]


def changed(key: str, value: str) -> str:
    lines = [line for line in BASE.splitlines() if not line.startswith(f"{key}:")]
    return "\n".join([*lines, f"{key}: {value}"])


def test_the_bundled_configs_load() -> None:
    assert list(bundled()) == ["default", "diabetes", "modules", "scratch"]
    for name in bundled():
        assert isinstance(load_config(name), Config)


def test_the_default_config_shows_every_key_there_is() -> None:
    text = bundled()["default"].read_text()
    assert set(resolve("default").origins) - {"data.source"} == set(KEYS) - {"data"}
    assert all(str(origin).startswith("default.yaml:") for origin in resolve("default").origins.values())
    assert all(f"\n{key}: " in text for key in KEYS)


def test_a_file_beats_the_default_the_environment_the_file_and_an_option_the_environment(config_file: Write) -> None:
    path = config_file(BASE + "threads: 2\nlog_every: 2\nseed: 1")
    environment = {"TWOLAYER_LOG_EVERY": "3", "TWOLAYER_SEED": "2"}
    resolved = resolve(path, environment=environment, overrides=[Override(("seed",), "3", "--seed")])
    config, origins = resolved.config, {key: str(origin) for key, origin in resolved.origins.items()}
    assert (config.engine, config.threads, config.log_every, config.seed) == ("auto", 2, 3, 3)
    assert origins["engine"] == "default"
    assert origins["threads"] == f"{path}:7"
    assert origins["log_every"] == "TWOLAYER_LOG_EVERY"
    assert origins["seed"] == "--seed"
    assert resolved.name == str(path)


def test_every_key_has_a_variable_of_the_environment() -> None:
    texts = {"D_IN": "3", "D_OUT": "1", "DATA": "{source: linear, weights: [1, 2, 3], noise: 0}", "LR": "1E-2"}
    config = load_config("default", environment={f"TWOLAYER_{key}": text for key, text in texts.items()})
    assert (config.D_in, config.D_out, config.lr) == (3, 1, 1e-2)
    assert config.data.model_dump() == {"source": "linear", "weights": [1, 2, 3], "noise": 0}


def test_keyword_arguments_come_over_everything() -> None:
    assert load_config("default", environment={"TWOLAYER_EPOCHS": "7"}, epochs=9).epochs == 9
    assert problems("default", epochs=1.5) == ["epochs=: must be a positive whole number, not 1.5"]


def test_a_dotted_key_reaches_into_data() -> None:
    overrides = [Override(("data", "noise"), "0.5", "--set data.noise=0.5")]
    resolved = resolve("scratch", overrides=overrides)
    assert resolved.config.data.model_dump() == {"source": "linear", "weights": [0.2, -1.3, -0.5], "noise": 0.5}
    assert str(resolved.origins["data.noise"]) == "--set data.noise=0.5"
    assert str(resolved.origins["data.source"]).startswith("scratch.yaml:")


def test_replacing_data_forgets_what_the_file_said_of_it() -> None:
    resolved = resolve("scratch", overrides=[Override(("data",), "{source: random}", "--set")])
    assert resolved.config.data.model_dump() == {"source": "random"}
    assert str(resolved.origins["data.source"]) == "--set"


def test_an_override_repairs_what_the_file_has_wrong(config_file: Write) -> None:
    path = config_file(BASE + "N: 9\n")
    assert problems(path) == ["my.yaml:7:1: N: given twice; the first is at " + f"{path}:1:1"]
    assert load_config(path, N=5).N == 5


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("lr", "-1", "must be a positive number, or auto, not -1"),
        ("lr", ".nan", "must be a positive number, or auto, not .nan"),
        ("lr", "1e999", "must be a positive number, or auto, not .inf"),
        ("lr", "fast", "must be a positive number, or auto, not 'fast'"),
        ("seed", "0x" + "f" * 5000, "a number of 5002 digits is too long"),
        ("lr", "9" * 5000, "a number of 5000 digits is too long"),
        ("N", "1.5", "must be a positive whole number, not 1.5"),
        ("N", "'8'", "must be a positive whole number, not '8'; remove the quotes"),
        ("N", "true", "must be a positive whole number, not true"),
        ("N", "0", "must be a positive whole number, not 0"),
        ("N", "-3", "must be a positive whole number, not -3"),
        ("N", "8" * 30, "must be a positive whole number, not a number of about 30 digits"),
        ("H", "", "must be a positive whole number, not null"),
        ("seed", "-1", "must be a whole number from 0 to 2^64 - 1, not -1"),
        ("seed", str(2**64), "must be a whole number from 0 to 2^64 - 1, not 18446744073709551616"),
        ("device", "gpu", "must be cpu, cuda, cuda:<n>, mps or auto, not 'gpu'"),
        ("device", '"cuda:0\\n"', "must be cpu, cuda, cuda:<n>, mps or auto, not 'cuda:0\\n'"),
        ("threads", "0", "must be auto, or a whole number from 1 to 1024, not 0"),
        ("data", "5", "must be a mapping with a source, such as {source: random}, not 5"),
        ("dtype", "!!str float32", "tags (tag:yaml.org,2002:str) are not supported; write only the value"),
    ],
)
def test_a_wrong_value_is_told_with_what_is_allowed_and_what_was_given(
    config_file: Write, key: str, value: str, message: str
) -> None:
    path = config_file(changed(key, value))
    last = len(path.read_text().splitlines())
    (problem,) = problems(path)
    column = len(key) + 3 if value else 1
    assert problem.startswith(f"my.yaml:{last}:{column}: ")
    assert problem.endswith(message)


def test_the_largest_seed_is_a_seed(config_file: Write) -> None:
    assert load_config(config_file(changed("seed", str(2**64 - 1)))).seed == 2**64 - 1


def test_every_problem_is_told_at_once_in_the_order_of_the_file(config_file: Write) -> None:
    path = config_file("N: 0\nD_in: 3\nH: x\nepoch: 9\nlr: 1\nD_in: 4\ndata: {source: linear, nois: 1}\n")
    assert problems(path, seed=-1) == [
        "my.yaml:1:4: N: must be a positive whole number, not 0",
        "my.yaml:3:4: H: must be a positive whole number, not 'x'",
        "my.yaml:4:1: epoch: unknown key; did you mean epochs?",
        f"my.yaml:6:1: D_in: given twice; the first is at {path}:2:1",
        "my.yaml:7:16: data.weights: is missing; it must be a list of numbers, or of such lists",
        "my.yaml:7:24: data.nois: unknown key; did you mean noise?",
        "seed=: must be a whole number from 0 to 2^64 - 1, not -1",
        "my.yaml: D_out: is missing; it must be a positive whole number",
    ]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        *(("epoch", "epochs"), ("n", "N"), ("d_in", "D_in"), ("learn", None), ("batchsize", "batch_size")),
        *(
            ("learning_rate", "lr"),
            ("learning-rate", "lr"),
            ("hidden_size", "H"),
            ("hidden", "H"),
            ("n_epochs", "epochs"),
        ),
        *(("max_iter", "epochs"), ("batch", "batch_size"), ("random_state", "seed"), ("missing", "data.missing")),
        *(("exclude", "data.exclude"), ("drop", "data.exclude"), ("sep", "data.separator"), ("label", "data.target")),
        *(("early_stopping", "patience"), ("fast", None), ("optimizer", None), ("age", None)),
    ],
)
def test_an_unknown_key_gets_the_nearest_known_name(config_file: Write, given: str, meant: str | None) -> None:
    (problem,) = problems(config_file(BASE + f"{given}: 1"))
    assert problem.startswith(f"my.yaml:7:1: {given}: unknown key; ")
    assert (f"did you mean {meant}?" if meant else "`twolayer check` shows all keys") in problem


def test_a_key_of_another_source_is_unknown(config_file: Write) -> None:
    (problem,) = problems(config_file(BASE + "data: {source: random, noise: 1}"))
    assert problem == "my.yaml:7:24: data.noise: requires source: linear, but the source is random"


@pytest.mark.parametrize("key", ["N.x", "data.source.x", "data..x", "data.", ".N", "data." + "x." * 20_000])
def test_a_dotted_key_that_leads_nowhere_is_unknown_and_nothing_else_is_blamed(key: str) -> None:
    with pytest.raises(ConfigError) as error:
        resolve("default", overrides=[Override(tuple(key.split(".")), "1", "--set x")])
    (problem,) = error.value.problems
    assert str(problem).startswith("--set x: ")
    assert "unknown key" in problem.message
    assert len(str(problem)) < 200


def test_a_number_beyond_printing_is_refused_from_python_too() -> None:
    assert "a number of about 5001 digits" in problems("default", seed=10**5000)[0]


def test_keys_that_disagree_are_told_at_the_place_of_the_one_to_mend(config_file: Write) -> None:
    path = config_file(BASE + "data:\n  source: linear\n  weights:\n    - [1, 2, 3]\n    - [1, 2]\n")
    (problem,) = problems(path, lr=1e39)[:1]
    assert problem == "my.yaml:10:5: data.weights: must be D_out x D_in = 2 x 3 numbers, not 2 x 2 or 3"


def test_an_unknown_variable_of_ours_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"TWOLAYER_EPOCH: is not the name of a key; did you mean TWOLAYER_EPOCHS\?"):
        load_config("default", environment={"TWOLAYER_EPOCH": "3"})
    with pytest.raises(ConfigError, match=r"TWOLAYER_lr: is not the name of a key; did you mean TWOLAYER_LR\?"):
        load_config("default", environment={"TWOLAYER_lr": "3"})


def test_an_empty_variable_counts_as_none() -> None:
    assert load_config("default", environment={"TWOLAYER_LR": ""}).lr == 1e-4


def test_a_wrong_variable_or_option_is_told_by_its_name() -> None:
    environment = {"TWOLAYER_LR": "fast", "TWOLAYER_H": "[1", "TWOLAYER_N": "&a 1"}
    overrides = [Override(("seed",), "-1", "--seed")]
    with pytest.raises(ConfigError) as error:
        resolve("default", environment=environment, overrides=overrides)
    texts = {problem.origin.place: str(problem) for problem in error.value.problems}
    assert texts["TWOLAYER_LR"] == "TWOLAYER_LR: lr: must be a positive number, or auto, not 'fast'"
    assert texts["TWOLAYER_H"].startswith("TWOLAYER_H: not YAML: ")
    assert texts["TWOLAYER_N"].startswith("TWOLAYER_N: anchors and aliases (&a)")
    assert texts["--seed"].startswith("--seed: must be a whole number")
    assert len(texts) == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", ": is empty"),
        (b"# nothing\n", ": is empty"),
        (b"- N: 1", ":1:1: must be a mapping (`key: value` lines), not [{N: 1}]"),
        (b"hello", ":1:1: must be a mapping (`key: value` lines), not 'hello'"),
        (b"N: 1\n# caf\xe9", ":2:6: is not UTF-8: byte 0xe9"),
        (b"\xef\xbb\xbf\xc3\xa9\xc3\xa9\xff\n", ":1:3: is not UTF-8: byte 0xff"),
        (BASE.encode("utf-16"), ":1:1: is not UTF-8: byte 0xff"),
        (b"x" * (MAX_BYTES + 1), ": is over 1 MiB"),
    ],
)
def test_what_is_no_config_at_all_is_one_problem(config_file: Write, content: bytes, message: str) -> None:
    (problem,) = problems(config_file(content))
    assert problem.startswith(f"my.yaml{message}")


def test_a_byte_order_mark_and_windows_line_ends_are_accepted(config_file: Write) -> None:
    assert load_config(config_file(b"\xef\xbb\xbf" + BASE.replace("\n", "\r\n").encode())).N == 8


def test_what_cannot_be_read_is_one_problem(tmp_path: Path) -> None:
    assert problems(tmp_path / "no.yaml") == [
        "my.yaml: no such file; bundled configs are default, diabetes, modules, scratch"
    ]
    assert problems("defualt") == ["my.yaml: no such file; did you mean default?"]
    assert problems(tmp_path) == ["my.yaml: is a folder, not a file"]
    assert problems("/dev/zero") == ["my.yaml: is over 1 MiB; a config is smaller"]
    assert problems("a\0b") == [r"a\x00b: cannot be read: the path has a null byte"]
    assert problems("x" * 300) == ["my.yaml: cannot be read: File name too long"]
    assert problems(tmp_path / "no.yaml" / "x") == [
        "my.yaml: no such file; bundled configs are default, diabetes, modules, scratch"
    ]


def test_a_bundled_name_is_the_bundled_config_and_a_path_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("scratch").write_text(BASE)
    assert load_config("scratch").N == 100
    assert load_config("./scratch").N == 8
    assert load_config(Path("scratch")).N == 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("".join(f"k{i}: 1\n" for i in range(60_000)), "my.yaml:1001:1: over 1000 keys; a config has fewer"),
        (BASE + f"data: {{source: random, {', '.join(f'a{i}: 1' for i in range(60_000))}}}", "my.yaml:7:"),
        (BASE + f"data: {{source: linear, weights: [{'a,' * 300_000}]}}", "my.yaml:7:"),
        (f"N: [{'1,' * 400_000}]", "my.yaml:1:"),
    ],
)
def test_a_config_of_absurd_size_is_refused_before_it_is_built(config_file: Write, text: str, message: str) -> None:
    (problem,) = problems(config_file(text))
    assert problem.startswith(message)
    assert problem.endswith("a config has fewer")


def test_a_long_list_of_problems_is_cut(config_file: Write) -> None:
    found = problems(config_file(BASE + "".join(f"k{i}: 1\n" for i in range(900))))
    assert len(found) == 21
    assert found[-1] == "my.yaml: and 880 more problems"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "t.csv"
    path.write_text("a,b,y\n" + "".join(f"{i * 7 % 41},{i * 7 % 5},{i * 3 % 11}\n" for i in range(40)))
    return path


def test_a_table_needs_no_file_of_yaml(table: Path) -> None:
    wanted = load_config(table, environment={}, data={"target": "y"})
    assert (wanted.D_in, wanted.D_out, wanted.epochs) == (2, 1, 200)
    for path in (str(table), table):
        assert load_config(data={"path": path, "target": "y"}, environment={}) == wanted
        assert load_config(data={"source": "file", "path": path, "target": "y"}, environment={}) == wanted
    with pytest.raises(ConfigError, match=r"^data=: data\.target: is missing"):
        load_config(data={"path": str(table)})


def test_a_data_without_source_and_path_changes_single_keys(table: Path) -> None:
    assert load_config("diabetes", data={"missing": "refuse"}).data.model_dump()["missing"] == "refuse"
    assert load_config("scratch", data={"noise": 2}).data.model_dump()["weights"] == [0.2, -1.3, -0.5]
    assert load_config("scratch", data={"source": "random"}).data.model_dump() == {"source": "random"}
    assert load_config(table, data={"target": "y", "exclude": ["b"]}).D_in == 1


def test_without_a_table_keywords_change_the_default_config() -> None:
    assert load_config(epochs=3) == load_config("default", epochs=3)
