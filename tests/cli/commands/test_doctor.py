"""twolayer doctor: what it prints, what it finds wrong, and its exit codes."""

from __future__ import annotations

import csv
import getpass
import io
import json
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from jsonschema import Draft202012Validator

from tests.helpers.forking import Forked
from tests.helpers.processes import in_terminal, screen
from twolayer.cli import main, process
from twolayer.engines import selection
from twolayer.engines.batched import BatchedEngine
from twolayer.engines.dual import DualEngine
from twolayer.engines.manual import ManualEngine
from twolayer.engines.small_batches import SmallBatches
from twolayer.hardware import environment
from twolayer.training import benchmark, inspection
from twolayer.training.doctor import answers, book, determinism, endurance, examination, known_product, speed
from twolayer.training.doctor.finding import COLUMNS

PAGE = Path(__file__).parents[3] / "docs" / "doctor.md"
SCHEMA = PAGE.with_name("doctor.schema.json")

Doctor = Callable[..., tuple[int, str]]


PARTS: dict[Any, Sequence[str]] = {
    examination: ("determinism",),
    speed: ("speed",),
    answers: ("drawn", "products", "precision", "gradients", "losses", "against_numpy"),
}


@pytest.fixture
def doctor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Doctor:
    """Run `doctor` in this process, with fewer iterations and shorter measurements; its exit code and its stdout.

    `only` names the parts that are not left out; by default there are all.
    """
    first = book.published_losses()[:20]
    monkeypatch.setattr(book, "published_losses", lambda: first)
    monkeypatch.setattr(answers, "COMPARED", 20)
    monkeypatch.setattr(determinism, "ITERATIONS", 4)
    monkeypatch.setattr(determinism, "AT_ALL_THREADS", 1)
    monkeypatch.setattr(determinism, "BLOCKS", (1, 2, 1))
    monkeypatch.setattr(determinism, "SHARED", determinism.SHARED | {"N": 512})
    for module, name in ((benchmark, "ROUND_SECONDS"), (benchmark, "PRODUCT_SECONDS"), (speed, "TRAINED_SECONDS")):
        monkeypatch.setattr(module, name, 1e-3)
    monkeypatch.setattr(endurance, "SECONDS", 1e-3)
    monkeypatch.setattr(endurance, "SIZES", (64,))
    monkeypatch.setattr(speed, "COPIED_BYTES", 2**20)
    monkeypatch.setattr(speed, "ROWS", speed.ROWS | {"N": 2**12})
    monkeypatch.setattr(process, "start_computing", lambda: None)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, only: Sequence[str] = ()) -> tuple[int, str]:
        with monkeypatch.context() as context:
            for module, names in PARTS.items():
                for name in names:
                    if only and name not in only:
                        context.setattr(module, name, lambda *given: iter(()))
            code = main.run(["doctor", *arguments])
        return code, capfd.readouterr().out

    return run


def findings(text: str) -> list[dict[str, Any]]:
    """The lines of --format jsonl, each valid against the published schema."""
    validator = Draft202012Validator(json.loads(SCHEMA.read_text()))
    rows = [json.loads(line) for line in text.splitlines()]
    for row in rows:
        validator.validate(row)
    return rows


def labels(text: str) -> list[str]:
    """The start of each line, its numbers aside."""
    return [re.sub(r"\d+", "#", line[:13]) for line in text.splitlines() if not line.startswith(" ")]


def wrong(text: str) -> list[dict[str, Any]]:
    return [row for row in findings(text) if row["status"] == "wrong" and row["section"] != "verdict"]


def test_when_all_is_well_it_is_short_and_says_so_last(doctor: Doctor, tmp_path: Path) -> None:
    code, text = doctor()
    lines = text.splitlines()
    assert code == 0
    assert len(lines) < 25
    assert all(len(line) <= 80 for line in lines)
    assert re.fullmatch(r"All \d+ checks passed, in .*", lines[-1])
    for section in ("answers      passed: ", "determinism  passed: ", "speed        "):
        assert sum(line.startswith(section) for line in lines) == 1
    assert "by 8 engines" in text
    shown = re.search(r"\$ twolayer doctor\n(.*?)```", PAGE.read_text(), flags=re.S)
    assert shown is not None
    assert labels(shown[1]) == labels(text)
    assert list(tmp_path.iterdir()) == []


def test_every_line_of_jsonl_is_as_its_schema_says_and_csv_has_the_same(doctor: Doctor) -> None:
    code, text = doctor("--format", "jsonl", "--long", "1e-6")
    rows = findings(text)
    assert code == 0
    assert {row["section"] for row in rows} == {
        "environment", "device", "answers", "determinism", "speed", "long", "verdict",
    }  # fmt: skip
    assert not wrong(text)
    assert rows[-1]["section"] == "verdict"
    assert rows[-1]["got"] == 0
    names = {row["name"] for row in rows}
    assert {"product of whole numbers, 1 thread", "drawn x", "numpy's weights, float64", "at other addresses"} <= names
    engines = {row["engine"] for row in rows if row["name"] == "the book's losses"}
    assert engines == {row["engine"] for row in rows if row["name"] == "resumed"}
    assert len(engines) == 8
    code, text = doctor("--format", "csv", only=["gradients"])
    header, *cells = csv.reader(io.StringIO(text))
    assert code == 0
    assert tuple(header) == COLUMNS
    kept = {row["name"] for row in rows if row["section"] in ("environment", "verdict") or row["engine"] == "by hand"}
    assert {cell[1] for cell in cells} == kept | {"cpu"}


def test_what_can_be_pasted_names_no_user_no_machine_and_no_path(doctor: Doctor, tmp_path: Path) -> None:
    for form in ("table", "jsonl"):
        _, text = doctor("--format", form, only=["speed"])
        private = {socket.gethostname(), getpass.getuser(), str(tmp_path), str(Path.home()), sys.prefix}
        assert not [word for word in private - {"root", "localhost", "/"} if word in text]
        assert "/" not in text.replace("GFLOP/s", "").replace("GB/s", "")


def test_engines_that_are_wrong_by_a_thousandth_are_named_with_iteration_expected_and_got(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss, rate, nan = ManualEngine.advance, DualEngine.set_lr, BatchedEngine.advance
    monkeypatch.setattr(ManualEngine, "advance", lambda self, count: 1.001 * loss(self, count))
    monkeypatch.setattr(DualEngine, "set_lr", lambda self, lr: rate(self, 1.001 * lr))
    monkeypatch.setattr(BatchedEngine, "advance", lambda self, count: float("nan") * nan(self, count))
    small = SmallBatches.updates
    monkeypatch.setattr(SmallBatches, "updates", lambda self, rows, lr, out: small(self, rows, 1.001 * lr, out))
    code, text = doctor("--format", "jsonl", only=["losses", "against_numpy"])
    found = wrong(text)
    assert code == 1
    assert {row["engine"] for row in found} == {"manual", "fused (dual)", "fused (in parts)", "fused (batches)"}
    by_numpy = {row["engine"]: row for row in found if row["name"] == "numpy's losses, float64"}
    first = {engine: row["iteration"] for engine, row in by_numpy.items()}
    assert first == {"manual": 1, "fused (dual)": 2, "fused (in parts)": 1, "fused (batches)": 2}
    assert by_numpy["manual"]["got"] == pytest.approx(1.001 * by_numpy["manual"]["expected"], rel=1e-12)
    assert by_numpy["fused (in parts)"]["got"] is None
    code, text = doctor(only=["losses", "against_numpy"])
    assert code == 1
    for engine in ("manual", "fused (dual)"):
        line = rf"^  {re.escape(engine)}, .*, iteration \d+: expected \d+\.\d+, got \d+\.\d+$"
        assert re.search(line, text, flags=re.M)
    assert re.match(rf"{len(found)} of \d+ checks failed", text.splitlines()[-1])


def test_a_wrong_draw_is_named_with_its_place(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    right = torch.randn

    def drawn(*shape: int, **given: Any) -> torch.Tensor:
        tensor = right(*shape, **given)
        if shape == (64, 1000):
            tensor.view(-1)[40_001] += 2e-5
        return tensor

    monkeypatch.setattr(torch, "randn", drawn)
    code, text = doctor("--format", "jsonl", only=["drawn"])
    (found,) = wrong(text)
    assert code == 1
    assert found["name"] == "drawn x"
    assert found["note"] == "number 40,002 of 64,000"
    assert found["got"] - found["expected"] == pytest.approx(2e-5, rel=0.1)


def test_a_draw_without_a_record_or_with_other_last_bits_is_not_wrong(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book, "CHECKSUMS", {})
    code, text = doctor(only=["drawn"])
    assert code == 0
    assert "drawn bits: no record for PyTorch" in text
    monkeypatch.setattr(book, "CHECKSUMS", AnyKey())
    code, text = doctor(only=["drawn"])
    assert code == 0
    assert "drawn bits: other last bits than PyTorch" in text


class AnyKey(dict[Any, str]):
    def get(self, key: Any, default: Any = None) -> str:
        return "0" * 64


def test_another_bit_the_second_time_is_found(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    right, calls = ManualEngine.advance, iter(range(10**9))

    def advance(self: ManualEngine, iterations: int) -> torch.Tensor:
        losses = right(self, iterations)
        if self.x.shape == (64, 1000) and next(calls) % 2:
            losses[2:3] = torch.nextafter(losses[2:3], losses[2:3] + 1)
        return losses

    monkeypatch.setattr(ManualEngine, "advance", advance)
    code, text = doctor("--format", "jsonl", only=["determinism"])
    found = wrong(text)
    assert code == 1
    assert {(row["section"], row["engine"]) for row in found} == {("determinism", "manual")}
    assert all(row["iteration"] == 3 and row["expected"] != row["got"] for row in found)


def test_an_engine_that_fails_is_wrong_and_the_others_are_still_tried(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: Any, iterations: int) -> torch.Tensor:
        raise RuntimeError("no kernel image is available\nmore")

    monkeypatch.setattr(ManualEngine, "advance", fails)
    code, text = doctor(only=["losses"])
    assert code == 1
    assert "answers      FAILED: 1 of 8 checks\n" in text
    assert "  manual: runs: RuntimeError: no kernel image is available\n" in text
    assert "Traceback" not in text


def test_gradients_by_hand_that_are_not_autograds_are_found(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    right = inspection.gradient_at_output
    monkeypatch.setattr(inspection, "gradient_at_output", lambda *given: 1.001 * right(*given))
    code, text = doctor("--format", "jsonl", only=["gradients"])
    assert code == 1
    assert {row["name"] for row in wrong(text)} == {
        f"gradient of {name}, {dtype}" for name in inspection.NAMES for dtype in ("float32", "float64")
    }


def test_products_of_less_precision_than_asked_for_are_found(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    right = torch.Tensor.__matmul__

    def rough(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        if one.dtype == torch.float64:
            return right(one, other)
        return right(one.bfloat16(), other.bfloat16()).to(one.dtype)

    monkeypatch.setattr(torch.Tensor, "__matmul__", rough)
    code, text = doctor("--format", "jsonl", only=["precision"])
    assert code == 1
    assert [row["name"] for row in wrong(text)] == ["precision of float32 products"]


@pytest.mark.parametrize("device", ["cuda", "cuda:7", "mps"])
def test_a_device_that_cannot_be_used_is_exit_code_1(
    device: str, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    code, text = doctor("--device", device)
    assert code == 1
    assert f"device       FAILED: no device {device}" in text
    assert text.splitlines()[-1] == "The device cannot be used"
    assert text.startswith("twolayer")  # the environment is what an issue about it needs
    assert [row["section"] for row in wrong(doctor("--device", device, "--format", "jsonl")[1])] == ["device"]


def test_with_no_extra_installed_it_exits_with_0(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    extras = {package for packages in environment.EXTRAS.values() for package in packages}
    installed = environment.version
    monkeypatch.setattr(environment, "version", lambda name: None if name in extras else installed(name))
    monkeypatch.setattr(selection, "find_spec", lambda name: None)
    modules = {"PIL" if package == "pillow" else package.replace("-python", "").replace("-", "_") for package in extras}
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    code, text = doctor(only=["losses", "speed"])
    assert code == 0
    assert "extras       none; without data, excel, report, export, tensorboard, fast" in text
    assert "compiled is left out: needs numba: pip install 'twolayer[fast]'" in text
    assert "by 7 engines" in text


def test_the_speed_never_decides(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "BUSY", 1e9)  # whatever it had of its cores, it is too little
    code, text = doctor(only=["speed"])
    assert code == 0
    assert "the machine is busy" in text


def test_another_bit_after_many_products_ends_long_and_is_named(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, calls = known_product.KnownProduct.wrong, iter(range(10**9))

    def flips(self: known_product.KnownProduct) -> known_product.WrongElement | None:
        if self.size == 64 and next(calls) == 11:
            self.one[3, 5] += 1  # the factor itself, as a fault of the memory would
        return right(self)

    monkeypatch.setattr(known_product.KnownProduct, "wrong", flips)
    code, text = doctor("--long", "10", "--format", "jsonl", only=["precision"])
    (found,) = wrong(text)
    assert code == 1
    assert found["section"] == "long"
    assert found["iteration"] == 12
    assert found["note"] == "row 4, column 1 of product 12"
    assert found["expected"] != found["got"]


@pytest.mark.parametrize("form", ["table", "jsonl"])
def test_ctrl_c_ends_long_with_the_verdict_so_far(form: str, doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: endurance.Endurance, seconds: float) -> Iterator[float]:
        yield 0.1
        raise KeyboardInterrupt

    monkeypatch.setattr(endurance.Endurance, "run", interrupted)
    code, text = doctor("--long", "10", "--format", form, only=["precision"])
    assert code == 130
    if form == "table":
        assert re.search(r"^long +passed so far: ", text, flags=re.M)
        assert re.fullmatch(r"All \d+ checks passed, in .*", text.splitlines()[-1])
    else:
        assert [row["section"] for row in findings(text)[-2:]] == ["long", "verdict"]


def test_ctrl_c_in_a_terminal_leaves_it_clean_and_ends_with_the_verdict(tmp_path: Path) -> None:
    code, written = in_terminal(["doctor"], tmp_path, {"COLUMNS": "80"}, kill_at="answers  drawn")
    lines = screen(written)
    assert code == 130
    assert "interrupted" in lines
    assert not any("━" in line for line in lines)
    assert re.search(r"checks? passed", "\n".join(lines[-2:]))


def test_the_published_losses_stand_beside_ones_own(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    code, text = doctor("--published")
    header, first, *_, last = text.splitlines()
    assert code == 0
    assert header.split() == ["iteration", "published", "here", "difference"]
    assert first.split()[:3] == ["1", "628.284", "628.284"]
    assert last.startswith("All 20 agree to three significant digits; the largest difference is ")
    rows = findings(doctor("--published", "--format", "jsonl")[1])
    assert [row["published"] for row in rows] == list(book.published_losses())
    assert all(row["difference"] == pytest.approx(row["here"] / row["published"] - 1, abs=1e-12) for row in rows)
    monkeypatch.setattr(book, "published_losses", lambda: (600.0, 500.0, 400.0))
    code, text = doctor("--published")
    assert code == 1
    assert text.splitlines()[-1] == "FAILED: iteration 1 differs within its first three significant digits"


def test_options_that_make_no_sense_are_refused(doctor: Doctor) -> None:
    assert doctor("--published", "--long", "1")[0] == 2
    assert doctor("--long", "-1")[0] == 2
    assert doctor("--long", "nan")[0] == 2
    assert doctor("--device", "cudda")[0] == 2


def test_a_reader_that_wants_one_line_gets_it(tmp_path: Path) -> None:
    read, write = os.pipe()
    with Forked(["doctor"], tmp_path, stdout=write) as child:
        os.close(write)
        with os.fdopen(read) as file:
            assert file.readline().startswith("twolayer ")
        assert child.wait() == 0
        assert child.stderr.read() == ""


@pytest.mark.deep
def test_the_real_one_is_short_at_80_columns_and_writes_nothing(tmp_path: Path) -> None:
    code, written = in_terminal(["doctor"], tmp_path, {"COLUMNS": "80"})
    lines = [line for line in screen(written) if line.strip()]
    assert code == 0
    assert len(lines) < 25
    assert all(len(line) <= 80 for line in lines)
    assert list(tmp_path.iterdir()) == []
