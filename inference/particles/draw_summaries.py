"""Quantiles of weighted draws, and whether chains agree."""

from __future__ import annotations

import math

import torch
from pyro.ops import stats
from torch import Tensor


def weighted_quantiles(draws: Tensor, shares: Tensor, probability: float) -> Tensor:
    """(k,): below each lies a share of the weight of n draws (n, k).

    Half the weight of a draw lies below it; between draws it is interpolated.

    Args:
        draws: (n, k).
        shares: (n,), weights that sum to one.
        probability: the share below.
    """
    values, order = draws.sort(0)
    weight = shares[order]
    below = weight.cumsum(0) - weight / 2
    n, k = draws.shape
    asked = torch.full((k, 1), probability, dtype=torch.float64)
    high = torch.searchsorted(below.T.contiguous(), asked).squeeze(1).clamp(min(1, n - 1), n - 1)
    low, column = (high - 1).clamp(min=0), torch.arange(k)
    first, second = below[low, column], below[high, column]
    on = ((probability - first) / (second - first).clamp(min=1e-300)).clamp(0, 1)
    return values[low, column] + on * (values[high, column] - values[low, column])


def chain_sizes(draws: Tensor) -> Tensor:
    """(k,), the effective sample sizes for the means of draws (chains, m, k)."""
    found = stats.effective_sample_size(draws)
    return torch.where(_stuck(draws), float(len(draws)), found)


def split_r_hat(draws: Tensor) -> Tensor:
    """(k,), split R̂ of draws (chains, m, k); infinite where no chain has moved."""
    return torch.where(_stuck(draws), math.inf, stats.split_gelman_rubin(draws))


def _stuck(draws: Tensor) -> Tensor:
    """(k,), whether no chain has moved, which would give 0/0."""
    return (draws == draws[:, :1]).all(1).all(0)
