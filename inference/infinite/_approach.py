"""Value iteration towards stationary values, for cases where it beats Newton's method.

A sweep costs one product with a sparse matrix, Newton's step a linear system. If the chain mixes
quickly, as on a random graph, values soon change by the same amount everywhere, or by amounts that
shrink by a common factor: the remaining change then follows from the last two changes d, d', since
d + d' + … is about μ d with the μ of the smallest residual. At η = 0 with a discount that is the
middle of MacQueen's bounds (1966), up to the choice of norm.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cai.sweeps import sweeps
from cai.tables.table import Table

_FEW = 400  # states up to which Newton's steps are dense and fast
_AT_ONCE, _NUMBERS = 16, 2**22  # sweeps between two checks, and the numbers that they may keep
_PATIENCE = 200  # sweeps, which cost less than Newton's steps
_LINEAR_PATIENCE = 500  # at optimism 1 without a discount sweeps are plain products
_STILL = 1e-15  # a residual of rounding errors, relative to the largest value and ten


def approach(table: Table, eta: float) -> Tensor | None:
    """(S,), nats: the limit of value iteration from zero; None if it takes too long.

    Args:
        table: the problem; its horizon does not matter.
        eta: the optimism η.
    """
    S = table.num_states
    if S <= _FEW or not sweeps.by_products(table, eta):
        return None
    n = max(3, min(_AT_ONCE, _NUMBERS // S))
    most = _LINEAR_PATIENCE if eta == 1 and table.discount == 1 else _PATIENCE
    v, before = torch.zeros(S, dtype=torch.float64), math.inf
    for spent in range(n, most + n, n):
        v, left = _ahead(sweeps.backward_from(table, eta, v, n))
        settled = _STILL * (10 + v.abs().max().item())
        if left <= settled:
            return v
        if not left < before:  # NaN, too
            return None
        to_come = n * math.log(settled / left) / math.log(left / before) if spent > n else 0.0
        if spent + to_come > most:
            return None
        before = left
    return None


def _ahead(v: Tensor) -> tuple[Tensor, float]:
    """The limit extrapolated from the last three of some sweeps, and about its residual, nats."""
    first, second = v[1] - v[2], v[0] - v[1]
    change = first - second
    size = (change @ change).item()
    multiple = (first @ change).item() / size if size > 0 else 1.0
    residual = (first - multiple * change).abs().max().item()
    last = second.abs().max().item()
    if multiple > 0 and residual < last:
        return v[2] + multiple * first, residual
    return v[0], last
