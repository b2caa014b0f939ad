"""Keeps the messages of polars' own failures (panics, in Rust) out of stderr."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_PANIC = re.compile(rb"\n?^thread '[^\n]*' (?:\([0-9]+\) )?panicked at ", re.MULTILINE)


@contextmanager
def without_panics() -> Iterator[None]:
    """Inside, messages of Rust's panics are kept out of stderr; polars raises an exception for each as well.

    Rust writes to the file descriptor itself, from any thread, so the descriptor is redirected. What was written before
    the first panic is shown at the end; the rest is dropped, because nothing marks the end of a panic's message.
    """
    try:
        sys.stderr.flush()
        kept = os.dup(2)
    except OSError:  # closed by the shell (2>&-)
        yield
        return
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            if text := _PANIC.split(file.read(), maxsplit=1)[0]:
                with open(2, "wb", closefd=False) as stream:
                    stream.write(text)
