"""What is fuzzed: readers of files from anybody. A target takes bytes, and raises where a promise is broken.

The promises are about the result, not only about crashes: two ways to read the same bytes must agree.
"""

from __future__ import annotations

import csv
import io
import json
import math
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from twolayer.config import yaml12
from twolayer.errors import ConfigError, RunError
from twolayer.runs import checksum
from twolayer.runs.history import Reader, scan
from twolayer.runs.run_files import check_info, read_info
from twolayer.tables.row_errors import check_csv


def yaml(data: bytes) -> None:
    """A text is a document or a ConfigError that names a place; what is read comes back from its own dump."""
    text = data.decode("utf-8", errors="replace")
    try:
        document = yaml12.parse(text, "fuzzed.yaml")
    except ConfigError as error:
        assert error.problems
        assert all(problem.message and problem.origin.name for problem in error.problems)
        return
    assert set(document.key_origins) <= set(document.origins) | {path for path, _ in document.problems}
    if not document.problems and not _has_long_number(document.value):
        again = yaml12.parse(yaml12.dump(document.value).replace("NaN", ".nan").replace("Infinity", ".inf"), "dumped")
        assert _same(document.value, again.value), (document.value, again.value)


def _has_long_number(value: object) -> bool:
    """Whether a number is longer than Python writes in decimal digits: one in hexadecimal may be."""
    if isinstance(value, dict):
        return any(map(_has_long_number, value.values()))
    if isinstance(value, list):
        return any(map(_has_long_number, value))
    return isinstance(value, int) and value.bit_length() > 14_000


def _same(one: object, other: object) -> bool:
    """Equality with types, in which nan equals nan."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return type(one) is type(other) and one == other


def rows(data: bytes) -> None:
    """The first byte chooses separator and width; the rows of a CSV without a problem all have that width."""
    if not data:
        return
    separator, width = ",;\t|"[data[0] % 4], data[0] // 4 % 4 + 1
    body = data[1:]
    names = [f"c{number}" for number in range(width)]
    problem, blank = check_csv(body, separator, names, has_header=False)
    lines = body.count(b"\n") + 1
    assert blank == sorted(set(blank))
    assert all(0 <= number < lines for number in blank)
    assert "\n" not in problem
    if not problem:
        text = body.removeprefix(b"\xef\xbb\xbf").decode(errors="surrogateescape")
        found = list(csv.reader(io.StringIO(text, newline="\n"), delimiter=separator, strict=True))
        is_blank = [width > 1 and (not row or (len(row) == 1 and not row[0].strip())) for row in found]
        assert sum(is_blank) == len(blank)
        assert all(len(row) in (0, width) for row, nothing in zip(found, is_blank, strict=True) if not nothing)
        assert not any("\udc80" <= letter <= "\udcff" for row in found for cell in row for letter in cell)


def history(data: bytes) -> None:
    """A history that is read while it grows has the rows of one that is read at once, and these are the file's."""
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        path = Path(folder) / "history.csv"
        growing, half = Reader(path), len(data) // 2
        path.write_bytes(data[:half])
        growing.read()
        with path.open("ab") as file:
            file.write(data[half:])
        growing.read()
        whole = Reader(path)
        whole.read()
        assert growing.problem == whole.problem
        assert _same([list(column) for column in growing.columns.values()], [list(c) for c in whole.columns.values()])
        assert len({len(column) for column in whole.columns.values()}) == 1
        lines = data.split(b"\n")[1:-1]
        if not whole.problem and len(whole):
            assert len(whole) == len(lines)
            losses = [float(line.split(b",")[1]) for line in lines]
            assert _same(losses, list(whole.columns["loss"]))
            with path.open("rb") as file:
                figures = scan(file)
            assert (figures.count, figures.best) == (len(whole), whole.figures().best)


def safetensors(data: bytes) -> None:
    """A header is believed only if the file is as long as it says, and metadata only if their checksum is right."""
    with tempfile.TemporaryFile(dir=_memory()) as file:
        file.write(data)
        file.seek(0)
        with suppress(ValueError):
            metadata, size = checksum.header(file)
            assert size == len(data)
            json.dumps(metadata)
    with suppress(ValueError):
        metadata = checksum.unseal(data)
        found = metadata["sha256"]
        head, _, tail = data.rpartition(found.encode())
        assert checksum.digest(head + checksum.BLANK.encode() + tail) == found
        if len(data) > 8:  # one that is right is not right with another last byte
            try:
                checksum.unseal(data[:-1] + bytes([data[-1] ^ 1]))
            except ValueError:
                return
            raise AssertionError("a changed file has the checksum of the first one")


def run_json(data: bytes) -> None:
    """A run.json is read, or is damaged in one line; one whose checksum is right is written again as it was."""
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        (Path(folder) / "run.json").write_bytes(data)
        try:
            info = read_info(Path(folder))
            check_info(info, Path("run.json"))
        except RunError as error:
            assert str(error)
            assert "\n" not in str(error)
            return
    assert json.loads(checksum.seal_json(info))["format"] == info["format"]


def _memory() -> str | None:
    """A folder in memory where there is one."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (yaml, rows, history, safetensors, run_json)
}
