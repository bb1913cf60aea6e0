"""The exact log-likelihood of demonstrations as one operation of torch's tape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cai.inference.scoring.task import Task


def log_likelihood(tasks: Sequence[Task | None], weights: Tensor) -> Tensor:
    """The log-likelihood of the demonstrations of each task at weights of its own.

    Its gradient takes one solution and one sweep back, however many weights there are; there is no
    second derivative. Where a demonstration is impossible, or there are no values, as where going
    round and round a network gains, it is -inf, with derivative zero: samplers reject such weights.

    Args:
        tasks: D of them; None for one without demonstrations.
        weights: (…, D, k), float64.

    Returns:
        (…, D), nats.
    """
    batch, (D, k) = weights.shape[:-2], weights.shape[-2:]
    rows = weights.reshape(-1, D, k)
    found = [_Exact.apply(row[d], tasks[d]) for row in rows for d in range(D)]
    return torch.stack(found).reshape(*batch, D)


def total(task: Task, weights: Tensor) -> Tensor:
    """(), nats: that of one task at some weights (k,), without a derivative."""
    try:
        found = task.total(weights)
    except ValueError:  # there are no values
        return weights.new_tensor(-torch.inf)
    return found if found.isfinite() else found.new_tensor(-torch.inf)


def gradient(task: Task, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The same, and its derivative (k,)."""
    nowhere = weights.new_tensor(-torch.inf), torch.zeros_like(weights)
    try:
        found, slope = task.gradient(weights)
    except ValueError:
        return nowhere
    return (found, slope) if found.isfinite() and slope.isfinite().all() else nowhere


class _Exact(torch.autograd.Function):
    """The value and the derivative from one solution."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, task: Task | None) -> Tensor:
        plain = weights.detach()
        slope = torch.zeros_like(plain)
        if task is None:
            found = plain.new_zeros(())
        elif ctx.needs_input_grad[0]:
            found, slope = gradient(task, plain)
        else:
            found = total(task, plain)
        ctx.save_for_backward(slope)
        return found

    @staticmethod
    def backward(ctx: Any, *on: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return on[0] * slope, None
