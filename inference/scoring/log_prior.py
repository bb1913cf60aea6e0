"""The logarithm of a prior of weights, with two derivatives."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def log_prior(prior: Any, weights: Tensor) -> tuple[float, Tensor, Tensor]:
    """log p, its gradient, and minus its Hessian."""
    k = len(weights)
    if prior is None:
        return 0.0, torch.zeros_like(weights), weights.new_zeros(k, k)

    def log_p(x: Tensor) -> Tensor:
        found: Tensor = prior.log_prob(x).sum()
        return found

    try:
        with torch.enable_grad():
            x = weights.detach().requires_grad_()
            total = log_p(x)
            if not total.requires_grad:  # a flat density
                return float(total), torch.zeros_like(weights), weights.new_zeros(k, k)
            (slope,) = torch.autograd.grad(total, x)
            bend = torch.autograd.functional.hessian(log_p, weights)
    except ValueError:  # outside its support
        return -math.inf, torch.zeros_like(weights), weights.new_zeros(k, k)
    return float(total.detach()), slope, -bend


def with_log_prior(
    slope: Callable[[Tensor], tuple[Tensor, Tensor]], prior: Any
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """The objective and its gradient, the log prior included."""

    def found(weights: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = slope(weights)
        log_p, bent, _ = log_prior(prior, weights)
        return value + log_p, gradient + bent

    return found
