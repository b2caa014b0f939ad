"""Where the ranks of one machine leave what the others need: a folder with a file for each key."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote


class FolderStore:
    """Keys and values that the processes of one machine share, with the methods of PyTorch's stores that we use.

    `prefix` stands before all keys. A value is there whole or not at all. (PyTorch's FileStore writes one file, and
    where a full disk has cut off its end, all who read it wait for ever, deaf to signals and timeouts.)
    """

    def __init__(self, folder: Path, prefix: str = "") -> None:
        self.folder, self.prefix = folder, prefix

    def set(self, key: str, value: bytes | str) -> None:
        """Write a value. Raises OSError."""
        self._write(self._path(key), value if isinstance(value, bytes) else value.encode())

    def get(self, key: str) -> bytes:
        """The value of a key that is there. Raises OSError."""
        return self._path(key).read_bytes()

    def check(self, keys: Sequence[str]) -> bool:
        """Whether all keys are there."""
        return all(self._path(key).exists() for key in keys)

    def add(self, key: str, amount: int) -> int:
        """Add to a number that all share, from 0 on; the sum. Raises OSError."""
        path = self._path(key)
        if amount:
            self._write(path.with_name(f"{path.name}+{secrets.token_hex(8)}"), str(amount).encode())
        return sum(int(summand.read_bytes()) for summand in self.folder.glob(f"{path.name}+*"))

    def _path(self, key: str) -> Path:
        return self.folder / quote(f"{self.prefix}/{key}", safe="")

    def _write(self, path: Path, value: bytes) -> None:
        new = self.folder / f"new-{secrets.token_hex(8)}"
        try:
            new.write_bytes(value)
            new.replace(path)
        except OSError:
            new.unlink(missing_ok=True)
            raise
