"""Standard deviations and intervals of estimates that are nearly normal, by name."""

from __future__ import annotations

import torch
from torch import Tensor

from cai import checks


def standard_deviations(names: tuple[str, ...], covariance: Tensor) -> dict[str, float]:
    """Name -> the root of the entry on the diagonal."""
    return dict(zip(names, covariance.diagonal().sqrt().tolist(), strict=True))


def normal_intervals(
    weights: dict[str, float], errors: dict[str, float], level: float
) -> dict[str, tuple[float, float]]:
    """Name -> the ends of a normal interval.

    Args:
        weights: name -> its middle.
        errors: name -> standard deviation.
        level: its probability.

    Raises:
        ValueError: if the level is not between 0 and 1.
    """
    checks.check_real("level", level, lambda x: 0 < x < 1, "between 0 and 1", "such as 0.95")
    q = float(torch.special.ndtri(torch.tensor((1 + level) / 2, dtype=torch.float64)))
    return {name: (x - q * errors[name], x + q * errors[name]) for name, x in weights.items()}
