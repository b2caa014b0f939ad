"""Signals, start-up, and the errors of importing torch or polars."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from types import FrameType
from typing import TYPE_CHECKING, NoReturn, Self

from twolayer.errors import DataError, DeviceError
from twolayer.system.console import SIGNALS

if TYPE_CHECKING:
    import socket


def start_computing() -> None:
    """After all imports: collect garbage again, and let signals end the process in order (see __main__)."""
    gc.freeze()
    gc.enable()
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)


def _stop(signum: int, frame: FrameType | None) -> NoReturn:
    """Raise an exception, so that what is open is closed; a second signal exits at once."""
    signal.signal(signum, lambda signum, frame: os._exit(exit_code(signum)))
    if signum == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(exit_code(signum))


def exit_code(signum: int) -> int:
    """130 for Ctrl-C, 143 for the others: closing a terminal is the same request as `kill`."""
    return 128 + (signal.SIGINT if signum == signal.SIGINT else signal.SIGTERM)


class Stop:
    """A context in which the first signal only sets `exit_code`, which is 0 before, and the second exits at once.

    The first one also calls `ask`, between two instructions of whatever the main thread does.
    """

    def __init__(self, ask: Callable[[], object] = lambda: None) -> None:
        self.exit_code, self.ask = 0, ask

    def __enter__(self) -> Self:
        self._before = {number: signal.getsignal(number) for number in SIGNALS}
        import socket

        # Python handles a signal only after the current call returns, and two as one. A socket gets each at once; of a
        # pipe, Windows may wait for the reader.
        read, self._socket = socket.socketpair()
        self._socket.setblocking(False)
        self._socket_before = signal.set_wakeup_fd(self._socket.fileno(), warn_on_full_buffer=False)
        Thread(target=_exit_at_the_second, args=(read,), daemon=True).start()
        for number, handler in self._before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, self._ask)
        return self

    def __exit__(self, *reason: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._socket_before)
        self._socket.close()

    def _ask(self, signum: int, frame: FrameType | None) -> None:
        self.exit_code = self.exit_code or exit_code(signum)
        self.ask()


def _exit_at_the_second(signals: socket.socket) -> None:
    """Read the numbers of signals until the other end is closed."""
    count = 0
    while number := signals.recv(1):
        count += number[0] in SIGNALS
        if count > 1:
            os._exit(exit_code(number[0]))
    signals.close()


@contextmanager
def computing(extra: str = "data") -> Iterator[None]:
    """A context for imports that need torch: raises TwolayerError if torch or polars is missing or cannot be loaded.

    `extra` is the one that brings all that reads the table.
    """
    try:
        yield
    except (ImportError, OSError) as error:
        if (getattr(error, "name", "") or "").partition(".")[0] == "polars":
            raise DataError(f"reading tables needs polars: pip install 'twolayer[{extra}]'") from None
        raise DeviceError(f"PyTorch cannot be imported: {error}") from None
