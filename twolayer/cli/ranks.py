"""`--ranks`, and training under torchrun and its like: starting the other processes, and ending with them."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from twolayer.config.schema import Config
from twolayer.config.validation import Resolved
from twolayer.errors import ConfigError, Origin, Problem, RankError
from twolayer.formatting import counted, duration, size
from twolayer.hardware import launchers, memory
from twolayer.hardware.launchers import Place
from twolayer.system.console import OWN_SESSION, SIGNALS

if TYPE_CHECKING:
    from twolayer.hardware.distributed import Ranks
    from twolayer.training.pace import Pace

PARTS = 12  # where the config says nothing: each of 1, 2, 3, 4 and 6 ranks gets as many as the others
ENDS = 3.0  # seconds in which a process ends that is to end
JOIN, EXCHANGE = 60, 300  # seconds that ranks wait for each other: to start, and in training

RanksOption = Annotated[
    int | None, typer.Option("--ranks", metavar="INT", help="Train in this number of processes on this machine.")
]
JoinOption = Annotated[
    float, typer.Option("--join-timeout", metavar="SECONDS", min=1, help="How long ranks wait for each other to start.")
]
ExchangeOption = Annotated[
    float,
    typer.Option(
        "--exchange-timeout", metavar="SECONDS", min=1, help="How long ranks wait for each other in training."
    ),
]


@dataclass
class Others:
    """The other processes of this training, and how this one meets them. `processes` has those that it has started."""

    place: Place
    join_seconds: float
    exchange_seconds: float
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    ranks: Ranks | None = None

    def check(self, resolved: Resolved, *, saved: bool, resumed: bool = False) -> Resolved:
        """The config with parts for the ranks. Raises ConfigError where they do not fit."""
        size, origin = self.place.size, Origin("--ranks" if self.place.meeting else "the launcher")
        if resolved.config.parts is None and resumed:
            message = f"{size} ranks, but the run has no parts; resume it with one process"
            raise ConfigError([Problem(origin, "ranks", message)])
        resolved = in_parts(resolved, size, origin)
        memory.check(resolved.config, resolved.name, saved=saved, ranks=size, here=self.place.local_size)
        return resolved

    def start(self) -> None:
        """Start the other processes, if that is not a launcher's: before torch is imported, which all do at once."""
        if not self.place.meeting:
            return
        with _room():
            Path(self.place.meeting).parent.mkdir(mode=0o700)
            Path(self.place.meeting).mkdir()
        for rank in range(1, self.place.size):
            place = replace(self.place, rank=rank, local_rank=rank)
            more = {"join": self.join_seconds, "exchange": self.exchange_seconds}
            with _errors(place).open("wb") as errors:
                process = _started(errors)
            self.processes.append(process)
            _write(process.stdin, json.dumps(place.__dict__ | more).encode() + b"\n")

    def meet(self) -> Ranks:
        """Meet the other processes; call it once torch may be imported. Raises RankError."""
        from twolayer.hardware.meeting import join

        self.ranks = join(self.place, self.join_seconds, self.exchange_seconds, self.gone)
        return self.ranks

    def start_and_meet(self) -> Ranks:
        """Both, where torch has been imported. Raises RankError."""
        self.start()
        return self.meet()

    def gone(self) -> list[str]:
        """Which processes have ended though the training has not, and how; not those that ended because of others."""
        ends = {rank: process.poll() for rank, process in enumerate(self.processes, 1)}
        codes = {rank: code for rank, code in ends.items() if code is not None}
        first = {rank: code for rank, code in codes.items() if code != launchers.UNANSWERED}
        return [f"rank {rank} {_end(code, self.place, rank)}" for rank, code in (first or codes).items()]

    @property
    def can_hear(self) -> bool:
        """Whether nothing has come between this process and the others."""
        return self.ranks is not None and not self.ranks.is_broken

    def signalled(self) -> int:
        """The exit code for a signal that has come to another process, else 0."""
        return self.ranks.signalled() if self.ranks is not None else 0

    def end(self) -> None:
        """End all that was started: a process leaves when the pipe from this one is closed."""
        before = {number: signal.signal(number, signal.SIG_IGN) for number in SIGNALS}  # for seconds; nothing is left
        try:
            self._end()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _end(self) -> None:
        if self.ranks is not None:
            self.ranks.close()
        for process in self.processes:
            if process.stdin is not None:
                with suppress(OSError):
                    process.stdin.close()
        for process in self.processes:
            try:
                process.wait(ENDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self.place.meeting:
            shutil.rmtree(Path(self.place.meeting).parent, ignore_errors=True)


def in_parts(resolved: Resolved, size: int, origin: Origin) -> Resolved:
    """The config with parts for `size` ranks. Raises ConfigError where it cannot have them."""
    config = resolved.config.model_copy(update={"parts": resolved.config.parts or PARTS})
    problems = [Problem(origin, key, what) for key, what in config.conflicts_of_parts()]
    if size > (config.parts or 0):
        hint = f"use at most {config.parts}, or --set parts={size}"
        problems.append(Problem(origin, "ranks", f"{size} ranks are more than {config.parts} parts", hint))
    if problems:
        raise ConfigError(problems)
    return replace(resolved, config=config)


def met(others: Others | None) -> Ranks | None:
    """The other processes, met; None without any."""
    return others.meet() if others is not None else None


def dismissed(others: Others | None) -> int:
    """Tell the processes that a launcher has started that there is nothing to do; the exit code."""
    if others is not None and not others.place.meeting:
        ranks = others.meet()
        ranks.publish("configs", "[false, []]")
        ranks.collected("dismissed")  # the store may end with this process
    return 0


def document(others: Others | None) -> dict[str, Any]:
    """What `run.json` keeps of the processes: nothing of one alone."""
    return others.ranks.document() if others is not None and others.ranks is not None else {}


@contextmanager
def together(context: typer.Context) -> Iterator[Others | None]:
    """A context for a training: with the other processes that it has, None without any. They end with it.

    Raises BadParameter where `--ranks` is wrong, or SystemExit in a launcher's process that is not the first: its
    work is done then.
    """
    given = context.params
    count: int | None = given["ranks"]
    timeouts = given["join_timeout"], given["exchange_timeout"]
    if count is not None and count < 1:
        raise typer.BadParameter(f"--ranks must be 1 or more, not {count}")
    place = launchers.place(os.environ)
    if place is not None and count is not None:
        raise typer.BadParameter(f"--ranks starts processes, and the launcher has started {place.size}; remove --ranks")
    if place is not None and place.rank:
        raise SystemExit(_follow_launched(place, *timeouts))
    with _ended(place, *timeouts) if place is not None else on_this_machine(count or 1, *timeouts) as others:
        yield others


@contextmanager
def on_this_machine(count: int, join: float = JOIN, exchange: float = EXCHANGE) -> Iterator[Others | None]:
    """A context for `count` processes on this machine, of which this is the first; None for one alone."""
    if count == 1:
        yield None
        return
    with _room():
        folder = Path(tempfile.gettempdir()) / f"twolayer-ranks-{secrets.token_hex(8)}"
    with _ended(Place(0, count, 0, count, str(folder / "meeting")), join, exchange) as others:
        yield others


@contextmanager
def _ended(place: Place, join: float, exchange: float) -> Iterator[Others]:
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # of lost connections we speak ourselves
    others = Others(place, join, exchange)
    try:
        yield others
    finally:
        others.end()


@contextmanager
def _room() -> Iterator[None]:
    """Turn the error of a disk that is full, or closed to this user, into one that says what it was for."""
    try:
        yield
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise RankError(f"the ranks cannot meet: {where}{error.strerror}") from None


def refuse(command: str | None) -> None:
    """Raise RankError for a command that does not know ranks, where a launcher has started several processes of it."""
    place = launchers.place(os.environ)
    if place is None or command in (None, "train"):
        return
    if place.rank:
        raise SystemExit(2)
    raise RankError(f"{command} is one process, and the launcher has started {place.size}; run it without it", 2)


def _follow_launched(place: Place, join: float, exchange: float) -> int:
    from twolayer.cli import rank_process

    return rank_process.follow(place, join, exchange, quiet=False)


def _started(errors: IO[bytes]) -> subprocess.Popen[bytes]:
    """A process that follows: what it is to do comes on its stdin, and it ends when that is closed.

    It has our own path of modules, whatever stands in its folder, and a session of its own: Ctrl-C is for the first.
    """
    program = f"import sys; sys.path[:] = {sys.path!r}; from twolayer.cli.rank_process import main; main()"
    command = [sys.executable, "-P", "-c", program]
    return subprocess.Popen(  # noqa: S603 (our own)
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=errors, **OWN_SESSION
    )


def _write(pipe: IO[bytes] | None, line: bytes) -> None:
    if pipe is not None:
        with suppress(BrokenPipeError):  # then `gone` says why
            pipe.write(line)
            pipe.flush()


def _errors(place: Place) -> Path:
    """Where a process writes what it does not say through the group."""
    return Path(place.meeting).with_name(f"rank-{place.rank}")


def _end(code: int, place: Place, rank: int) -> str:
    if code == launchers.UNANSWERED:
        return "has ended: another rank has not answered"
    if code < 0:
        name = next((one.name for one in signal.Signals if one == -code), "")
        return f"was killed by signal {-code} ({name})" if name else f"was killed by signal {-code}"
    last: Sequence[str] = ()
    with suppress(OSError):
        last = _errors(replace(place, rank=rank)).read_text(errors="replace").split("\n")
    said = [line.strip() for line in last if line.strip()][-1:]
    return f"has ended with exit code {code}" + (f": {said[0][:300]}" if said else "")


def pace_lines(others: Others | None, config: Config, pace: Pace | None) -> Iterator[str]:
    """How the training is shared out, how long an update takes, and whether one process would be faster."""
    if others is None or pace is None:
        return
    yield f"{others.place.size} ranks, {counted(config.parts or 1, 'part')} of {config.split}"
    exchanges = f"exchanges for {duration(pace.exchanges)}"
    if pace.computes is None:
        yield f"an update {exchanges}; there is too little memory to time more of it"
        return
    yield f"an update computes for {duration(pace.computes)} and {exchanges}"
    one = f"one process without parts, {counted(int(pace.one.threads), 'thread')}"
    if pace.alone is None:
        yield f"{one}, is not timed: it needs {size(memory.needed(pace.one))} of memory"
    elif pace.computes + pace.exchanges > pace.alone:
        yield f"{others.place.size} ranks make this slower: {one}, needs {duration(pace.alone)}"
