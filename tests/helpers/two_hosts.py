"""Two hosts on one machine: network namespaces, each with a name and an address of its own, joined by a cable."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ADDRESSES = ("10.77.0.1", "10.77.0.2")


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no network namespaces here: ip {' '.join(words)}: {done.stderr.strip()}")


@contextmanager
def two_hosts() -> Iterator[list[list[str]]]:
    """For each host the words before a command that is to run on it; skips where there can be none."""
    names = [f"tl{os.getpid()}{letter}" for letter in "ab"]
    made: list[str] = []
    try:
        for name in names:
            _ip("netns", "add", name)
            made.append(name)
        _ip("link", "add", names[0], "netns", names[0], "type", "veth", "peer", "name", names[1], "netns", names[1])
        for name, address in zip(names, ADDRESSES, strict=True):
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", name)
            _ip("-n", name, "link", "set", name, "up")
            _ip("-n", name, "link", "set", "lo", "up")
            folder = Path("/etc/netns") / name
            folder.mkdir(parents=True)
            own = f"127.0.0.1 localhost\n127.0.1.1 {name}\n"  # as Debian has it
            (folder / "hosts").write_text(own)
        yield [_on(name) for name in names]
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "del", name], check=False)
            folder = Path("/etc/netns") / name
            (folder / "hosts").unlink(missing_ok=True)
            if folder.exists():
                folder.rmdir()


def _on(name: str) -> list[str]:
    script = f'hostname {name}; exec "$@"'
    return ["ip", "netns", "exec", name, "unshare", "--uts", "sh", "-c", script, "sh"]


def pids(before: list[str]) -> list[int]:
    """The processes on the host of these words."""
    done = subprocess.run(["ip", "netns", "pids", before[3]], capture_output=True, text=True, check=True)
    return [int(pid) for pid in done.stdout.split()]
