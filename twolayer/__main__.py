"""The way in: `twolayer` and `python -m twolayer`."""

from __future__ import annotations

import gc
import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType


def main() -> int:
    """Run the command line; the exit code."""
    # Until a training runs there is nothing to close and nothing to lose, and an exception raised inside an
    # import can surface as anything: Ctrl-C leaves at once. (Ignored signals, as under nohup, stay ignored.)
    heeded = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if heeded:
        signal.signal(signal.SIGINT, _leave)

    gc.disable()  # imports make no garbage, and looking for it costs a tenth of them
    # Looking for pydantic's plugins, of which we use none, reads the metadata of every package that is installed.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    from twolayer.cli.main import run

    code = run()
    if heeded:  # nothing is left to stop, and Python's exit would put the default back in a handler's place
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()  # else the interpreter's last collection walks all of torch: 0.4 s
    return code


def _leave(signum: int, frame: FrameType | None) -> None:
    os._exit(128 + signum)


if __name__ == "__main__":
    raise SystemExit(main())
