"""Tables that would harm: damaged, larger than the memory once they are read, and links to what is no table."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import safetensors.numpy

from tests.helpers.forking import HANGS, clean_environment
from tests.helpers.processes import Run
from tests.helpers.published import REFERENCE
from tests.helpers.tablerun import make_run
from twolayer.cli import main
from twolayer.errors import DataError, TwolayerError
from twolayer.system import available_memory
from twolayer.tables import unpacked_size
from twolayer.tables.panics import without_panics
from twolayer.tables.readers import collect
from twolayer.tables.sources import open_table


def read(path: Path) -> pl.DataFrame:
    source = open_table(path, path.name)
    return collect(source, list(source.names))


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as error:
        read(path)
    return str(error.value)


# --- damage


def test_a_header_of_an_array_that_is_damaged_anywhere_is_one_line_or_no_matter(tmp_path: Path) -> None:
    file, choose = io.BytesIO(), random.Random(3)
    np.save(file, np.arange(12.0).reshape(6, 2))
    signs = b"'\"(){}[],:\\\n\r\x00 <>|fiuOSUV0123456789dTruFalsenx#\xff\x80"
    refused = []
    for _ in range(1000):
        content = bytearray(file.getvalue())
        for _ in range(choose.choice([1, 1, 2, 3, 8])):
            content[choose.randrange(128)] = choose.choice(signs)
        (tmp_path / "t.npy").write_bytes(content)
        with zipfile.ZipFile(tmp_path / "t.npz", "w") as archive:
            archive.writestr("x.npy", content)
        for name in ("t.npy", "t.npz"):
            try:
                read(tmp_path / name)
            except DataError as error:
                refused.append(str(error))
                assert "\n" not in str(error.args[0])
    assert "t.npy: cannot be read: its header is damaged" in refused
    assert "t.npz: cannot be read: its header is damaged" in refused


def test_an_odd_header_of_an_array_brings_no_warning(tmp_path: Path, twolayer: Run) -> None:
    for number, shape in enumerate((b"(6L, )", b"(6, ), '\\d': 1")):
        header = (b"{'descr': '<f8', 'fortran_order': False, 'shape': " + shape + b", }").ljust(117) + b"\n"
        content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + np.arange(6.0).tobytes()
        (tmp_path / "t.npy").write_bytes(content)
        done = twolayer("data", "t.npy")
        assert done.stderr == ("error: t.npy: cannot be read: its header is damaged\n" if number else "")


def test_an_encrypted_archive_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", x=np.zeros(3))
    content = bytearray((tmp_path / "t.npz").read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "t.npz").write_bytes(content)
    assert refusal(tmp_path / "t.npz") == "t.npz: cannot be read: x.npy is encrypted"


@pytest.mark.sample(1)
@pytest.mark.parametrize("name", ["panic-open.parquet", "panic-collect.parquet", "panic-collect.arrow"])
def test_a_failure_inside_of_polars_is_one_line_in_a_process(tmp_path: Path, name: str, twolayer: Run) -> None:
    shutil.copy(REFERENCE / name, tmp_path)
    make_run(tmp_path / "run", "x,c,y\n1,a,1\n2,b,5\n3,a,4\n4,b,1\n", target="y", exclude=[])
    (tmp_path / "c.yaml").write_text(f"data: {{source: file, path: {name}, target: y}}\n")
    for command in (
        ["data", name],
        ["data", "c.yaml"],
        ["check", "c.yaml"],
        ["train", "c.yaml", "--no-save"],
        ["predict", "run", name],
        ["evaluate", "run", name],
    ):
        done = twolayer(*command, RUST_BACKTRACE="1")
        assert done.returncode == 1
        assert done.stderr.startswith(f"error: {name}: is damaged: "), done.stderr
        assert done.stderr.count("\n") == 1


def test_only_the_text_of_a_panic_is_kept_from_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    with without_panics():
        os.write(2, b"first\nthread of thought\n")
    assert capfd.readouterr().err == "first\nthread of thought\n"
    with pytest.raises(ZeroDivisionError), without_panics():  # noqa: PT012 (both stand in it)
        os.write(2, b"first\n\nthread '<unnamed>' (12) panicked at crates/a.rs:1:2:\nmessage\nnote: run with\n")
        raise ZeroDivisionError
    assert capfd.readouterr().err == "first\n"
    with without_panics():
        os.write(2, b"thread 'main' panicked at 'message', a.rs:1:2\n")
    assert capfd.readouterr().err == ""


# --- size


def bomb_npz(path: Path, size: int, kind: int = zipfile.ZIP_DEFLATED) -> None:
    header = io.BytesIO()
    shape = (size // 16, 2)
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w", kind) as archive, archive.open("x.npy", "w", force_zip64=True) as file:
        file.write(header.getvalue())
        for _ in range(size // 2**20):
            file.write(bytes(2**20))


def bomb_gz(path: Path, size: int) -> None:
    path.write_bytes(gzip.compress(b"a,b\n") + gzip.compress(b"1,2\n" * 2**20) * (size // 2**22))


def bomb_ndjson(path: Path, size: int) -> None:
    width, rows = 1000, size // 8000
    path.write_text(json.dumps({f"c{j}": j for j in range(width)}) + "\n" + "{}\n" * rows)


def bomb_csv(path: Path, size: int) -> None:
    path.write_text(",".join(f"c{j}" for j in range(1000)) + "\n" + "1\n" * (size // 8000))


def bomb_parquet(path: Path, size: int) -> None:
    pl.select(a=pl.repeat(1.0, size // 8), b=1).write_parquet(path)


def bomb_arrow(path: Path, size: int) -> None:
    pl.select(a=pl.repeat("x", size // 16)).write_ipc(path, compression="zstd")


def bomb_npy(path: Path, size: int) -> None:
    with path.open("wb") as file:
        shape = (size // 8,)
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
        file.truncate(file.tell() + shape[0] * 8)  # a hole, which takes no disk


def bomb_safetensors(path: Path, size: int) -> None:
    safetensors.numpy.save_file({"x": np.zeros(size // 8)}, path)


BOMBS: dict[str, Callable[[Path, int], None]] = {
    "t.npz": bomb_npz,
    "t.csv.gz": bomb_gz,
    "t.ndjson": bomb_ndjson,
    "t.csv": bomb_csv,
    "t.parquet": bomb_parquet,
    "t.arrow": bomb_arrow,
    "t.npy": bomb_npy,
    "t.safetensors": bomb_safetensors,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_table_that_needs_more_memory_than_there_is_is_refused_with_both_sizes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    BOMBS[name](tmp_path / name, 2**24)
    monkeypatch.setattr(available_memory, "available", lambda: 2**24 - 2**17)
    told = refusal(tmp_path / name)
    assert told.startswith(f"{name}: needs at least ")
    assert told.endswith(" of memory, and 15.9 MiB is available")
    monkeypatch.setattr(available_memory, "available", lambda: None)
    if name not in ("t.ndjson", "t.csv"):  # which take long, or are refused for their short rows
        assert read(tmp_path / name).height > 2


def test_stdin_is_read_no_further_than_there_is_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Endless:
        given = 0

        def read(self, count: int) -> bytes:
            self.given += count
            return b"1,2\n" * (count // 4)

    endless = Endless()
    monkeypatch.setattr(sys, "stdin", type("Stdin", (), {"buffer": endless}))
    monkeypatch.setattr(available_memory, "available", lambda: 2**23)
    with pytest.raises(DataError, match=r"^stdin: needs at least .* of memory, and 8 MiB is available$"):
        open_table("-", "stdin")
    assert endless.given < 2**23


def test_a_table_that_fits_is_not_refused_for_line_ends_in_its_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.csv"
    text = '"' + "a\n" * 2**15 + '"'
    path.write_text(",".join(f"c{j}" for j in range(100)) + "\n" + ",".join(["1"] * 99 + [text]) + "\n")
    assert unpacked_size.csv_bytes(path, 100, 0) == 8 * 100
    monkeypatch.setattr(available_memory, "available", lambda: 2**20)
    assert read(path).height == 1


def test_rows_are_counted_across_the_parts_that_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = b'a,b\n"x\n\n","y ""q""\n"\n1,2\n"","\n"\n' * 3
    (tmp_path / "t.csv").write_bytes(text)
    for part in range(1, len(text) + 1):
        monkeypatch.setattr(unpacked_size, "_PART", part)
        assert unpacked_size.csv_bytes(tmp_path / "t.csv", 2, 1000) == 11 * 2 * 8
        assert unpacked_size.csv_bytes(text, 2, 1000) == 11 * 2 * 8


def test_text_that_is_compressed_under_a_plain_name_is_read(tmp_path: Path) -> None:
    (tmp_path / "t.ndjson").write_bytes(gzip.compress(b'{"a": 1}\n{"a": 2}\n'))
    (tmp_path / "t.csv").write_bytes(gzip.compress(b"a\n1\n2\n"))
    for name in ("t.ndjson", "t.csv"):
        assert read(tmp_path / name).to_dict(as_series=False) == {"a": [1, 2]}


@pytest.mark.sample(1)
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc here")
@pytest.mark.parametrize("name", ["t.npz", "t.csv.gz", "t.parquet"])
def test_a_process_with_little_memory_refuses_a_table_of_more_and_takes_none(
    name: str, plain_size: int, tmp_path: Path
) -> None:
    size = 2**30
    BOMBS[name](tmp_path / name, size)
    assert (tmp_path / name).stat().st_size < 2**21 * 2
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv.pop(1)),) * 2);"
        "import re; from twolayer.__main__ import main; code = main();"
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]); sys.exit(code)"
    )
    limit = plain_size + 2**29
    environment = clean_environment(POLARS_MAX_THREADS="2")
    done = subprocess.run(
        [sys.executable, "-c", program, str(limit), "data", name],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=HANGS,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {name}: needs at least "), done.stderr
    assert done.stderr.count("\n") == 1
    assert int(done.stdout) * 1024 < size // 3


@pytest.fixture(scope="module")
def plain_size(tmp_path_factory: pytest.TempPathFactory) -> int:
    """The address space that the command takes for a small table."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "small.csv").write_text("a,b\n1,2\n2,3\n")
    program = (
        "import re; from twolayer.__main__ import main; main();"
        "print(re.search(r'VmPeak:\\s+(\\d+)', open('/proc/self/status').read())[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "data", "small.csv"],
        cwd=folder,
        env=clean_environment(POLARS_MAX_THREADS="2"),
        capture_output=True,
        encoding="utf-8",
        timeout=HANGS,
        check=False,
    )
    return int(done.stdout.split()[-1]) * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def bomb(name: str, path: Path) -> None:
    """A small file, or a sparse one, that has one line or one header of gigabytes."""
    if name.startswith("sparse"):
        with path.open("wb") as file:
            file.write(b"a,b\n1,2\n" if name == "sparse.csv" else b'{"a": 1}\n')
            file.truncate(20 * 2**30)
    elif name.endswith(".csv.gz"):
        start = b"a,b\n1,2\n3," if name == "second.csv.gz" else b"a,b"
        packed = gzip.compress(b"x" * 2**24, 1)
        path.write_bytes(gzip.compress(start) + packed * 250)
    elif name == "header.npy":
        with path.open("wb") as file:
            file.write(b"\x93NUMPY\x02\x00\xf0\xff\xff\xff")
            file.truncate(5 * 2**30)
    else:
        head = b"\x93NUMPY\x03\x00" + (2**31).to_bytes(4, "little")
        with (
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
            archive.open("x.npy", "w", force_zip64=True) as member,
        ):
            member.write(head)
            for _ in range(128):
                member.write(b" " * 2**24)


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    "name", ["first.csv.gz", "second.csv.gz", "sparse.csv", "sparse.ndjson", "header.npy", "header.npz"]
)
def test_one_line_or_header_of_gigabytes_is_refused_before_it_is_read(name: str, tmp_path: Path) -> None:
    bomb(name, tmp_path / name)
    program = "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (2 * 2**30,) * 2); "
    program += "from twolayer.__main__ import main; code = main(); "
    program += "print(*[line.split()[1] for line in open('/proc/self/status') if 'VmHWM' in line]); sys.exit(code)"
    done = subprocess.run(
        [sys.executable, "-c", program, "data", name],
        cwd=tmp_path, env=clean_environment(POLARS_MAX_THREADS="1"), capture_output=True, encoding="utf-8",
        timeout=HANGS, check=False,
    )  # fmt: skip
    line = 1 if name == "first.csv.gz" else 3 if "csv" in name else 2
    what = f"line {line} is longer than 64 MiB" if "header" not in name else "cannot be read: its header is damaged"
    if name.endswith(".gz"):  # all of it is unpacked, or nothing
        what = "needs at least "
    assert done.stderr.startswith(f"error: {name}: {what}")
    assert done.stderr.count("\n") == 1
    assert done.returncode == 1
    assert int(done.stdout) < 500_000  # KiB


def test_the_limit_of_the_process_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (2**40, 2**40))
    left = available_memory._process()
    assert left is not None
    assert 2**38 < left < 2**40
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (2**20, 2**20))
    assert available_memory._process() == 0
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (resource.RLIM_INFINITY,) * 2)
    assert available_memory._process() is None


def test_no_memory_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("twolayer.config.loading.resolve", fail)
    assert main.run(["check"]) == 1
    assert capsys.readouterr().err == "error: out of memory: this needs more than is available\n"


# --- links

SECRETS = {
    "key": "-----BEGIN SECRET KEY-----\nSECRETb3BlbnNz\nSECRETaC1rZXk\n-----END SECRET KEY-----\n",
    "shadow": "root:$6$SECRET:19000:0:99999:7:::\nuser,SECRET,SECRET:*:19000\n",
    "commas": "SECRET,is,SECRET,SECRET\nSECRET,1,2,SECRET\n",
    "quotes": 'SECRET"a"SECRET,"b"SECRET\nSECRET\n',
    "json": '{"SECRET": {"SECRET": 1}}\n{"SECRET": "SECRET"}\n',
    "latin": "SECRET\udce9,SECRET\n1,2\n",
    "long": "SECRET" * 50_000,
}


@pytest.mark.sample(4)
@pytest.mark.parametrize("kind", SECRETS)
def test_no_command_tells_what_is_in_a_file_that_a_link_leads_to_and_that_is_no_table(
    kind: str, tmp_path: Path, twolayer: Run
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "id").write_text(SECRETS[kind], errors="surrogateescape")
    make_run(tmp_path / "run", "a,b,price\n1,2,1\n2,1,5\n3,3,4\n4,0,1\n", exclude=[])
    (tmp_path / "real.csv").write_text("a,b,price\n1,2,1\n2,1,5\n3,3,4\n4,0,1\n")
    names = ["x.csv", "x.ndjson", "x.parquet", "x.arrow", "x.npy", "x.npz", "x.safetensors", "x.csv.gz"]
    commands = []
    for name in names if kind in ("key", "json") else names[:2]:
        (tmp_path / name).symlink_to("home/id")
        (tmp_path / f"{name}.yaml").write_text(f"data: {{source: file, path: {name}, target: price}}\n")
        (tmp_path / f"{name}-2.yaml").write_text(
            f"data: {{source: file, path: real.csv, target: price}}\nvalidation: {name}\n"
        )
        commands += [["check", f"{name}.yaml"], ["data", name], ["check", f"{name}-2.yaml"]]
    commands += [
        ["data", "x.csv.yaml"],
        ["data", "x.csv", "--target", "price"],
        ["check", "x.csv"],
        ["train", "x.csv"],
        ["train", "x.csv.yaml", "--no-save"],
        ["bench", "x.csv.yaml"],
        ["lr", "x.csv.yaml"],
        ["evaluate", "run", "x.csv"],
        ["predict", "run", "x.csv"],
        ["predict", "run", "x.csv", "-o", "out.csv"],
    ]
    if kind == "key":  # whose first line anybody knows
        first = SECRETS["key"].split("\n")[0]
        (tmp_path / "known.yaml").write_text(f"data: {{source: file, path: x.csv, target: '{first}'}}\n")
        commands += [["data", "known.yaml"]]
    for command in commands:
        done = twolayer(*command)
        shown = (done.stdout + done.stderr).replace("BEGIN SECRET KEY", "")
        assert done.returncode in (1, 2), command
        assert "SECRET" not in shown, (command, shown)
        assert done.stderr.count("\n") == 1, (command, done.stderr)
        assert "is a link, and " in done.stderr, (command, done.stderr)
    assert not (tmp_path / "out.csv").exists()


def test_a_folder_that_is_a_link_counts_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "notes.txt").write_text("SECRET,SECRET 2\n1,2\n2,4\n")
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository" / "data").symlink_to("../home")
    monkeypatch.chdir(tmp_path / "repository")
    with pytest.raises(TwolayerError) as error:
        open_table("data/notes.txt", "data/notes.txt", named=["price"])
    told = "has none of the columns that are named; to see its columns, name the file itself"
    assert str(error.value) == f"data/notes.txt: is a link, and its file {told}"


def test_a_link_to_a_table_is_that_table(tmp_path: Path, twolayer: Run) -> None:
    (tmp_path / "real.csv").write_text("a,b,price\n1,2,1\n2,1,5\n3,3,4\n4,0,1\n")
    (tmp_path / "x.csv").symlink_to("real.csv")
    (tmp_path / "c.yaml").write_text("data: {source: file, path: x.csv, target: price}\nepochs: 2\nvalidation: null\n")
    assert twolayer("train", "c.yaml", "--no-save").returncode == 0
    done = twolayer("check", "c.yaml", "--set", "data.target=prise", "--set", "data.exclude=a")
    assert done.stderr == "error: x.csv: data.target: there is no column prise; did you mean price?\n"
    assert "price" in twolayer("data", "x.csv", "--target", "price").stdout
    done = twolayer("check", "c.yaml", "--set", "data.target=prise")
    told = "has none of the columns that are named; to see its columns, name the file itself"
    assert done.stderr == f"error: x.csv: is a link, and its file {told}\n"
