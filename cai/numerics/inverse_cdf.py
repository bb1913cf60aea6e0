"""Draws from many discrete distributions at once, by inverting their cumulative sums.

A draw never yields an impossible outcome: tied sums are skipped, and the last sum is exactly one,
above every uniform number.
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
    """The outcome that each uniform number in [0, 1) selects.

    Args:
        sums: (..., K), from :func:`cumulative`, a tensor or a NumPy array.
        uniform: (..., 1), of the same kind.

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
