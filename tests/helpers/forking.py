"""Runs command lines in children of a process that has imported everything: real processes without a second of imports.

python tests/helpers/forking.py SOCKET torch|bare|windows
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import io
import json
import os
import resource
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from threading import Thread
from traceback import extract_tb
from typing import IO, Any, NoReturn, Self

# What the commands import, and what those modules import when they first work.
TABLES = ["tables.dataset", "tables.describe", "tables.for_run", "tables.writers"]
BARE = [
    "cli.main",
    "cli.commands.compare",
    "reporting.text_chart",
    "reporting.plot",
    "cli.run_view",
    "reporting.html.report",
    *TABLES,
]
TORCH = [
    "cli.main",
    "training.benchmark",
    "evaluation.predictor",
    "evaluation.table_scores",
    "training.recorder",
    "training.folds",
    "training.doctor.examination",
    "training.doctor.own_losses",
    "cli.training_session",
    "cli.folds_session",
    "cli.sweep_session",
    "cli.rank_process",
    "hardware.meeting",
    "training.together",
    "training.learning_rate",
    "runs.tensorboard",
    *TABLES,
    "exporters.eject",
]
LATER = {"bare": ["itables", "numpy.ma"], "torch": ["numpy.ctypeslib", "numpy.ma", "numpy.random"]}
LATER["torch"] += ["torch._dynamo"]  # which the first optimizer imports, in seconds
LATER["windows"] = LATER["torch"]

# Variables that are read when a command runs. All others may be read at the start or by an import.
READ_LATE = {"NO_COLOR", "FORCE_COLOR", "TERM", "COLUMNS", "LINES", "BROWSER", "PWD"}
READ_LATE |= {"HOME", "RUST_BACKTRACE"}  # the latter at the first panic
READ_LATE |= {"COMP_WORDS", "COMP_CWORD", "_TWOLAYER_COMPLETE", "_TYPER_COMPLETE_ARGS", "_TYPER_COMPLETE_FISH_ACTION"}

# After so many seconds something hangs: far more than anything takes, beside whatever else the machine may do.
HANGS = 600

Stream = int | IO[Any]


def clean_environment(**more: str) -> dict[str, str]:
    """The environment without what changes our output."""
    ours = {"NO_COLOR", "FORCE_COLOR", "TERM", "COLUMNS", "LINES", "LC_ALL", "LANG"}
    ours |= {"PYTHONWARNINGS", "PYTHONUNBUFFERED", "PYTHONIOENCODING", "PYTHONUTF8"}
    kept = {key: value for key, value in os.environ.items() if key not in ours and not key.startswith("TWOLAYER_")}
    return kept | {"LC_ALL": "C.UTF-8"} | more


def can_fork(environment: Mapping[str, str]) -> bool:
    """Whether a command reads all of these variables only when it runs."""
    return all(key in READ_LATE or key.startswith("TWOLAYER_") for key in environment)


class Forked:
    """A process that runs a command line, with the part of `subprocess.Popen` that the tests need, in text or bytes.

    A `bare` one has no torch, and writes "torch was imported" on stderr if it has in the end. `memory` limits the
    bytes that its address space may grow by, `file_size` those of each file that it writes; 0: no limit. With `python`
    the arguments are a program and its own, run as if nothing of twolayer had been imported. With `windows` it has what
    Windows has, see windows.py.
    """

    def __init__(
        self,
        arguments: Sequence[str | Path],
        cwd: Path,
        environment: Mapping[str, str] | None = None,
        *,
        stdin: Stream = subprocess.DEVNULL,
        stdout: Stream = subprocess.PIPE,
        stderr: Stream = subprocess.PIPE,
        text: bool = True,
        bare: bool = False,
        new_session: bool = False,
        memory: int = 0,
        python: bool = False,
        file_size: int = 0,
        windows: bool = False,
    ) -> None:
        self.returncode: int | None = None
        self.stdin: IO[Any] = io.BytesIO()  # where it is not a pipe
        self.stdout: IO[Any] = io.StringIO() if text else io.BytesIO()
        self.stderr: IO[Any] = io.StringIO() if text else io.BytesIO()
        theirs, closed = [], []
        for name, given in (("stdin", stdin), ("stdout", stdout), ("stderr", stderr)):
            if given == subprocess.PIPE:
                read, write = os.pipe()
                ours, their = (write, read) if name == "stdin" else (read, write)
                mode = "w" if name == "stdin" else "r"
                setattr(self, name, os.fdopen(ours, mode, encoding="utf-8") if text else os.fdopen(ours, f"{mode}b"))
                closed.append(their)
            elif given == subprocess.DEVNULL:
                their = os.open(os.devnull, os.O_RDWR)
                closed.append(their)
            else:
                their = given if isinstance(given, int) else given.fileno()
            theirs.append(their)
        status, end = os.pipe()
        request = {
            "arguments": [os.fspath(argument) for argument in arguments],
            "cwd": os.fspath(cwd),
            "environment": dict(clean_environment() if environment is None else environment),
            "new_session": new_session,
            "memory": memory,
            "python": python,
            "file_size": file_size,
        }
        kind = "windows" if windows else "bare" if bare else "torch"
        self._ask(kind, request, [*theirs, end])
        for number in (*closed, end):
            os.close(number)
        self._status = os.fdopen(status, "rb", 0)
        self.pid = self._number()

    def _ask(self, kind: str, request: Mapping[str, Any], streams: list[int]) -> None:
        _send(_server(kind), request, streams)

    def _number(self) -> int:
        """The next line of its status: first its pid, then its exit code."""
        line = self._status.readline()
        if not line.endswith(b"\n"):
            raise RuntimeError("the process that forks is gone")
        return int(line)

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float = HANGS) -> int:
        """The exit code, when it has ended."""
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("twolayer", timeout)
            self.returncode = self._number()
            self._status.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it, unless it has ended."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, given: Any = None, timeout: float = HANGS) -> tuple[Any, Any]:
        """Write its stdin and read the rest of its stdout and stderr."""
        read: dict[str, Any] = {}

        def write() -> None:
            with contextlib.suppress(BrokenPipeError):  # it may have enough
                if given is not None:
                    self.stdin.write(given)
                self.stdin.close()

        def reader(name: str) -> None:
            read[name] = getattr(self, name).read()

        threads = [Thread(target=write), *(Thread(target=reader, args=(name,)) for name in ("stdout", "stderr"))]
        for thread in threads:
            thread.start()
        try:
            self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        finally:
            for thread in threads:
                thread.join()
        return read["stdout"], read["stderr"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *more: object) -> None:
        if kind is not None:
            self.kill()
        for file in (self.stdin, self.stdout, self.stderr):
            with contextlib.suppress(BrokenPipeError):
                file.close()
        self.wait()


class Follower(Forked):
    """A rank that a forked training has started: forked as it was itself, which has no threads yet."""

    def __init__(self, errors: IO[bytes]) -> None:
        super().__init__(
            ["--follow"],
            Path.cwd(),
            os.environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            text=False,
            new_session=True,
        )

    def _ask(self, kind: str, request: Mapping[str, Any], streams: list[int]) -> None:
        socket.send_fds(ASKING, [json.dumps(request).encode()], streams)


# How a forked process asks for another one.
ASKED, ASKING = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)


def run(
    arguments: Sequence[str | Path],
    cwd: Path,
    environment: Mapping[str, str] | None = None,
    given: Any = None,
    **more: Any,
) -> subprocess.CompletedProcess[Any]:
    """Run a command line to its end; `given` is what it finds on stdin."""
    stdin = subprocess.DEVNULL if given is None else subprocess.PIPE
    with Forked(arguments, cwd, environment, stdin=stdin, **more) as process:
        stdout, stderr = process.communicate(given)
    return subprocess.CompletedProcess(["twolayer", *arguments], process.wait(), stdout, stderr)


# --- The process that forks: one of each kind for a process that runs tests


@cache
def _server(kind: str) -> socket.socket:
    ours, theirs = socket.socketpair()
    # In a session of its own, so that Ctrl-C ends the tests and not this.
    process = subprocess.Popen(
        [sys.executable, __file__, str(theirs.fileno()), kind],
        env=clean_environment(TORCH_CPP_LOG_LEVEL="FATAL"),  # which torch reads when it is imported
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()],
        start_new_session=True,
    )
    theirs.close()
    atexit.register(process.wait)
    atexit.register(ours.close)  # which ends it
    return ours


def _send(server: socket.socket, request: Mapping[str, Any], streams: list[int]) -> None:
    data = json.dumps(request).encode()
    socket.send_fds(server, [len(data).to_bytes(8)], streams)
    server.sendall(data)


def _receive(server: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """The next request and its streams. Raises SystemExit where there will be none."""
    head, streams, _, _ = socket.recv_fds(server, 8, 4)
    length, data = int.from_bytes(head), b""
    while len(data) < length:
        data += server.recv(length - len(data))
    if not data:
        raise SystemExit
    return json.loads(data), streams


def _receive_asked() -> tuple[dict[str, Any], list[int]]:
    data, streams, _, _ = socket.recv_fds(ASKED, 2**20, 4)
    return json.loads(data), streams


def _child(server: socket.socket) -> list[str]:
    """Fork for each request and report each child's pid and exit code; returns in the child that is to run."""
    running: dict[int, int] = {}  # where to report, by pid
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes)
    while True:
        ready = select.select([server.fileno(), ASKED.fileno(), woken], [], [])[0]
        if woken in ready:
            os.read(woken, 4096)
            _report_ends(running)
        if woken not in ready or len(ready) > 1:
            is_asked = server.fileno() not in ready
            request, (*streams, status) = _receive_asked() if is_asked else _receive(server)
            with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # of idle threads of libraries
                pid = os.fork()
            if not pid:
                break
            for number in streams:
                os.close(number)
            running[pid] = status
            os.write(status, b"%d\n" % pid)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    server.close()
    for number in (woken, wakes, status, *running.values()):
        os.close(number)
    _become(request, streams)
    return request["arguments"] if request["python"] else ["twolayer", *request["arguments"]]


def _report_ends(running: dict[int, int]) -> None:
    """Write the exit codes of the children that have ended."""
    with contextlib.suppress(ChildProcessError):
        while (end := os.waitpid(-1, os.WNOHANG))[0]:
            status = running.pop(end[0])
            with contextlib.suppress(BrokenPipeError):
                os.write(status, b"%d\n" % os.waitstatus_to_exitcode(end[1]))
            os.close(status)


def _become(request: Mapping[str, Any], streams: list[int]) -> None:
    """Take the streams, the environment and the limits of a request."""
    if request["new_session"]:
        os.setsid()
    if request["memory"]:
        pages = int(Path("/proc/self/statm").read_text().split()[0])  # those that the imports have mapped
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + request["memory"],) * 2)
    if request["file_size"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_size"],) * 2)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        old = getattr(sys, name)
        lines = 1 if number == 2 or os.isatty(number) else -1
        setattr(sys, name, os.fdopen(number, mode, lines, old.encoding, old.errors, closefd=False))
    os.environ.clear()
    os.environ.update(request["environment"])
    tempfile.tempdir = None  # that of this environment
    os.chdir(request["cwd"])


def _build_once() -> None:
    """Build once, and not in every child, what is the same in all: typer's commands, and the scripts of a page.

    And let numba and Pillow, which work with all the rest of their modules only when first used, import them.
    """
    import typer.main

    from twolayer.cli.main import app

    typer.main.get_command = cache(typer.main.get_command)
    typer.main.get_command(app)
    if "vl_convert" in sys.modules:
        import vl_convert

        vl_convert.javascript_bundle = _shared(vl_convert.javascript_bundle)
    if numba := sys.modules.get("numba"):
        numba.njit(_same)(1)  # not a chart, for which it would start threads
    if image := sys.modules.get("PIL.Image"):
        image.preinit()


def _same(number: int) -> int:
    return number


def _shared(function: Callable[..., str]) -> Callable[..., str]:
    """A function that only the first child computes, and leaves to the others; it starts threads, so none before."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the process)

    def shared(argument: str) -> str:
        length = int.from_bytes(os.pread(file.fileno(), 8, 0))
        key, _, result = os.pread(file.fileno(), length, 8).decode().partition("\0")
        if key != argument:
            result = function(argument)
            data = f"{argument}\0{result}".encode()
            os.pwrite(file.fileno(), data, 8)
            os.pwrite(file.fileno(), len(data).to_bytes(8), 0)  # now it is whole
        return result

    return shared


def _run(arguments: list[str]) -> int:
    """Run the command line, or a program without twolayer's modules; the exit code."""
    if arguments == ["twolayer", "--follow"]:
        from twolayer.cli import rank_process

        rank_process.main()
    if arguments[0] == "twolayer":
        from twolayer import __main__

        return __main__.main()
    for name in [name for name in sys.modules if name.partition(".")[0] == "twolayer"]:
        del sys.modules[name]
    runpy.run_path(arguments[0], run_name="__main__")
    return 0


def main(server: socket.socket, kind: str) -> NoReturn:
    """Import everything, and run command lines until the socket is closed."""
    names = [f"twolayer.{name}" for name in (BARE if kind == "bare" else TORCH)]
    for name in [*names, "twolayer.__main__", *LATER[kind]]:
        importlib.import_module(name)
    assert ("torch" in sys.modules) == (kind != "bare")
    if kind == "windows":  # the libraries are those of this system; only ours is as on Windows
        from tests.helpers.windows import as_on_windows

        for name in [name for name in sys.modules if name.partition(".")[0] == "twolayer"]:
            del sys.modules[name]
        with as_on_windows():
            for name in [*names, "twolayer.__main__"]:
                importlib.import_module(name)
    if kind == "torch":
        from twolayer.cli import ranks

        ranks._started = Follower  # type: ignore[assignment]
    _build_once()
    gc.collect()
    gc.freeze()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a child gets it when it has become the command
    sys.argv = _child(server)
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        with as_on_windows() if kind == "windows" else contextlib.nullcontext():
            code = _run(sys.argv)
    except SystemExit as end:
        code = int(end.code or 0)
    except KeyboardInterrupt as stopped:
        package = str(Path(__file__).parents[2] / "twolayer")
        if any(frame.filename.startswith(package) for frame in extract_tb(stopped.__traceback__)):
            raise
        code = 130  # before the command has begun: real processes have tests of their own
    if kind == "bare" and "torch" in sys.modules:
        sys.stderr.write("torch was imported")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # Python takes a quarter of a second to take torch down


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[2])  # and not this folder, which the command does not see
    main(socket.socket(fileno=int(sys.argv[1])), sys.argv[2])
