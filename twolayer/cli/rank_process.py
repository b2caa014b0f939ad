"""A process that trains with others and is not the first: it prints nothing, and does what the first tells it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from threading import Thread
from types import FrameType
from typing import NoReturn

from twolayer.cli import process, terminal
from twolayer.cli.process import computing
from twolayer.errors import RankError, TwolayerError
from twolayer.hardware.launchers import UNANSWERED, Place
from twolayer.system.console import SIGNALS


def main() -> NoReturn:
    """Read on stdin what to do, and do it; end at once when stdin is closed: then the first process is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    line = sys.stdin.buffer.readline()
    if not line:
        os._exit(1)
    given = json.loads(line)
    join, exchange = given.pop("join"), given.pop("exchange")
    place = Place(**given | {"address": tuple(given["address"])})
    Thread(target=_end_with_the_first, args=(place,), daemon=True).start()
    code = follow(place, join, exchange, quiet=True)
    if not code:  # then nobody reads there any more, and the first may be killed before it has removed it
        _remove(place)
    os._exit(code)


def _end_with_the_first(place: Place) -> None:
    while sys.stdin.buffer.readline():
        pass
    _remove(place)
    os._exit(1)


def _remove(place: Place) -> None:
    """Remove the folder where the processes have met."""
    shutil.rmtree(Path(place.meeting).parent, ignore_errors=True)


def follow(place: Place, join_seconds: float, exchange_seconds: float, *, quiet: bool) -> int:
    """Join the group, and train as the first process tells; the exit code.

    An error is the first's to print; unless `quiet`, one that it cannot hear of is printed here.
    """
    signals = _Signals()
    try:
        return _followed(signals, place, join_seconds, exchange_seconds, quiet=quiet)
    finally:
        signals.raises = False  # a launcher sends one to all when the first of them has ended


def _followed(signals: _Signals, place: Place, join_seconds: float, exchange_seconds: float, *, quiet: bool) -> int:
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
    with computing():
        from twolayer.hardware.meeting import join
        from twolayer.training.together import work
    process.start_computing()
    signals.handle()
    try:
        ranks = join(place, join_seconds, exchange_seconds)
    except SystemExit:
        return signals.code
    except TwolayerError as error:
        if quiet:
            sys.stderr.write(f"{error}\n")
        else:
            terminal.error(error)
        return error.exit_code
    try:
        work(ranks, signals.first)
    except SystemExit:
        ranks.fail("ended by a signal", signals.code)
        return signals.code
    except RankError as error:  # of another rank: the first says it
        return UNANSWERED if quiet else error.exit_code
    except TwolayerError as error:
        ranks.fail(str(error), error.exit_code)
        return error.exit_code
    except Exception as error:  # noqa: BLE001 whatever it is, the first says it
        ranks.fail(f"{type(error).__name__}: {error}", 1)
        return 1
    ranks.close()
    return 0


class _Signals:
    """The first signal ends what is no training yet; of a training the first process decides what becomes of it."""

    def __init__(self) -> None:
        self.code, self.raises = 0, True

    def handle(self) -> None:
        """Heed those signals that are not ignored."""
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._note)

    def first(self) -> int:
        """The exit code of the first signal, else 0; asked for in a training."""
        self.raises = False
        return self.code

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.code = self.code or process.exit_code(number)
        if self.raises:
            raise SystemExit(self.code)
