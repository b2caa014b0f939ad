"""The entry point: `twolayer` and `python -m twolayer`."""

from __future__ import annotations

import gc
import os
import signal
import sys
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType


def main() -> int:
    """Run the command line; the exit code."""
    # Until a training runs there is nothing to close and nothing to lose, and an exception inside an import can turn
    # into any other: Ctrl-C exits at once. (Ignored signals, as under nohup, stay ignored.)
    handled = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if handled:
        signal.signal(signal.SIGINT, _leave)

    from twolayer.system.load import is_busy

    gc.disable()  # imports make no garbage, and looking for it takes a tenth of their time
    # pydantic looks for plugins, of which we use none, in the metadata of every installed package.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    # PyTorch's threads wait for each other by spinning, for milliseconds unless this says how often. Beside other
    # programs that takes the cores from those that are waited for (docs/performance.md, "Threads").
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "0" if is_busy() else "1000")
    from twolayer.cli.main import run

    code = run()
    if handled:  # nothing is left to stop, and Python's exit would restore the default handler
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()  # else the interpreter's last collection goes through all of torch: 0.4 s
    return code


def _leave(signum: int, frame: FrameType | None) -> None:
    if sys.argv[1:2] == ["train"]:
        with suppress(OSError):  # stderr may be closed
            os.write(2, b"stopped before the training began: there is nothing to save\n")
    os._exit(128 + signum)


if __name__ == "__main__":
    raise SystemExit(main())
