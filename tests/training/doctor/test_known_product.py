"""The product of whole numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from twolayer.training.doctor.known_product import KnownProduct


@pytest.mark.parametrize("size", [1, 64, 257])
def test_the_right_product_is_that_of_whole_numbers(size: int) -> None:
    product = KnownProduct("cpu", size)
    one, other = (matrix.numpy().astype(np.int64) for matrix in product.matrices)
    assert (product.right.numpy() == one @ other).all()
    assert product.wrong() is None


@pytest.mark.parametrize("order", ["float64", "reversed", "bfloat16"])
def test_neither_the_order_of_addition_nor_rounded_factors_change_a_bit(order: str) -> None:
    product = KnownProduct("cpu", 300)
    one, other = product.matrices
    if order == "reversed":
        one, other = one.flip(1), other.flip(0)
    elif order == "float64":
        one, other = one.double(), other.double()
    else:
        one, other = one.bfloat16().float(), other.bfloat16().float()
    assert torch.equal((one @ other).float(), product.right)


def test_the_first_wrong_element_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    product, right = KnownProduct("cpu", 32), torch.mm

    def wrong(*matrices: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        right(*matrices, out=out)[3, 4] += 1
        return out

    monkeypatch.setattr(torch, "mm", wrong)
    found = product.wrong()
    assert found is not None
    assert found.place == "row 4, column 5"
    assert found.got == found.expected + 1


def test_a_size_that_could_need_rounding_is_refused() -> None:
    KnownProduct("cpu", 1).wrong()
    with pytest.raises(ValueError, match="could need rounding"):
        KnownProduct("cpu", 2**16)
