"""Keeps from stderr what polars, which is Rust, writes there when it fails."""

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
    """Inside, keep from stderr what Rust writes there about its own failures: they come as exceptions, too.

    Rust writes to the descriptor itself, from any thread, and leaves no other way. All that is written before a panic
    is shown in the end; where the text of a panic ends, nothing tells.
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
