"""A product of two matrices of whole numbers, every bit of which is known before it is computed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class WrongElement:
    """The first element of a product that is not what it must be."""

    row: int  # from 0
    column: int
    expected: float
    got: float

    @property
    def place(self) -> str:
        """Its place in words, counted from 1."""
        return f"row {self.row + 1}, column {self.column + 1}"


class KnownProduct:
    """A B of shape (size, size), in float32, with A[i, k] = a[i] + b[k] and B[k, j] = c[k] + d[j].

    a, b, c and d are whole numbers from -8 to 8. So every sum is a whole number below 2^24, exact in float32 in any
    order of addition, with TF32 as well: no rounding, and one right answer for all devices and numbers of threads.
    """

    def __init__(self, device: str, size: int) -> None:
        if size * 16 * 16 >= 2**24:
            raise ValueError(f"a size of {size} could need rounding")
        self.size, numbers = size, torch.arange(size, dtype=torch.int64)
        a, b, c, d = ((numbers * numbers * step + numbers) % 17 - 8 for step in (3, 5, 6, 7))
        right = (
            a[:, None] * c.sum() + (b * c).sum() + size * a[:, None] * d[None, :] + b.sum() * d[None, :]
        )  # of int64, and no product of matrices
        self.one = (a[:, None] + b[None, :]).to(device, torch.float32)
        self.other = (c[:, None] + d[None, :]).to(device, torch.float32)
        self.right = right.to(device, torch.float32)
        self.out = torch.empty_like(self.right)

    def wrong(self) -> WrongElement | None:
        """Compute the product; its first element with another bit than it must have, or None."""
        torch.mm(self.one, self.other, out=self.out)
        if torch.equal(self.out, self.right):
            return None
        row, column = map(int, torch.nonzero(self.out != self.right)[0].tolist())
        return WrongElement(row, column, float(self.right[row, column]), float(self.out[row, column]))

    @property
    def operations(self) -> int:
        """The floating point operations of one product."""
        return 2 * self.size**3

    @property
    def matrices(self) -> tuple[Tensor, Tensor]:
        """The two factors."""
        return self.one, self.other
