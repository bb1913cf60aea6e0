"""Draws from many discrete distributions at once, by inverting their cumulative sums.

A draw never lands on what is impossible: sums that tie are passed over, and the last is exactly
one, above every uniform number.
"""

from __future__ import annotations

from typing import Any

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
