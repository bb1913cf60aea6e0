"""Draws from many discrete distributions at once, by inverting their cumulative sums.

A draw never lands on what is impossible: sums that tie are passed over, and the last is exactly
one, above every uniform number.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor


def cumulative(p: Tensor) -> Tensor:
    """Cumulative sums that end at exactly one, over the last axis."""
    sums = p.cumsum(-1)
    return sums.div_(sums[..., -1:].clone())


def draw(sums: Any, uniform: Any) -> Any:
    """Which outcome each uniform number in [0, 1) falls on.

    Args:
        sums: (..., K), what :func:`cumulative` gives, as a tensor or in numpy.
        uniform: (..., 1), as the sums.

    Returns:
        (...), 0 … K-1.
    """
    return (sums <= uniform).sum(-1)


class Rows:
    """Many discrete distributions, one a row, of which a batch of rows is drawn from in one search.

    Row i has its cumulative sums in (2i, 2i + 1], so that all of them together are sorted. What is
    impossible ends where the outcome before it does, or below 2i, and is never found. With 10^6
    rows probabilities are exact to 5e-10, the distance of numbers of that size.

    Args:
        p: (N, K), probabilities that sum to one in each row.
    """

    def __init__(self, p: Tensor) -> None:
        sums = cumulative(p).double().numpy()
        sums = np.where(sums > 0, sums, -0.5)
        self._sums = (2.0 * np.arange(len(sums))[:, None] + sums).ravel()

    def draw(self, rows: Any, uniform: Any) -> Any:
        """The place i·K + k of an outcome k of each row i, (n,), for uniform numbers in [0, 1)."""
        return self._sums.searchsorted(2 * rows + uniform)
