"""Arrays as a file keeps them: whole, or in sums, and compared but for rounding errors."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor

Numbers: TypeAlias = dict[str, Tensor]

_NUMBERS = 4096  # up to here an array is kept as it is, beyond as so many weighted sums
_EACH, _OF_ALL = 1e-6, 1e-7  # what float32 on another processor may change, of a number and of all


def sketch(x: Tensor) -> Numbers:
    """An array, or weighted sums of it where it is large, and which of its numbers are infinite."""
    flat = x.detach().cpu().double().flatten()
    finite = flat.isfinite()
    sums, squares = _sums(torch.where(finite, flat, 0.0))
    signs = torch.where(finite, 0.0, torch.nan_to_num(flat, nan=2.0, posinf=1.0, neginf=-1.0))
    return {
        "shape": torch.tensor(x.shape),
        "sums": sums,
        "size": squares.sqrt(),
        "infinite": _sums(signs)[0],
    }


def _sums(x: Tensor) -> tuple[Tensor, Tensor]:
    """The numbers, or their sums over every 4096th with weights of either sign, and the squares."""
    if len(x) <= _NUMBERS:
        return x, x.square()
    i = torch.arange(len(x), dtype=torch.float64)
    # Fractional parts of multiples of irrational numbers: the same on all machines.
    weights = (0.5 + (i * 0.6180339887498949) % 1) * (((i * 0.4142135623730951) % 1) - 0.5).sign()
    bins = torch.arange(len(x)) % _NUMBERS
    empty = x.new_zeros(_NUMBERS)
    return empty.index_add(0, bins, weights * x), empty.index_add(0, bins, x.square())


def alike(one: Numbers | None, other: Numbers | None) -> bool:
    """Whether two sketches are of the same array, but for rounding errors."""
    if one is None or other is None or not torch.equal(one["shape"], other["shape"]):
        return False
    size = one["size"].max().item() if one["size"].numel() else 0.0
    allowed = _EACH * one["size"] + _OF_ALL * size
    return bool(
        ((one["sums"] - other["sums"]).abs() <= allowed).all()
        and torch.allclose(one["infinite"], other["infinite"])
    )
