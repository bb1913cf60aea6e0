"""The interface of estimators of the ELBO's gradient, and their common checks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

from torch import Tensor, nn

from cai.tables.table import Table

Estimator: TypeAlias = Callable[[], float]
"""Adds the gradient of -ELBO to the parameters, and returns -ELBO in nats, or an estimate.

An estimator with something to learn, such as a critic, has it as an attribute ``module``, a torch
module, whose ``state_dict`` is kept in checkpoints beside the policy's.
"""

EstimatorFactory: TypeAlias = Callable[[Any, nn.Module, int], Estimator]
"""(model, policy, samples) -> the estimator; the model or its table."""


def checked(elbo: float) -> None:
    """Raises an error if the ELBO is not finite, since its gradient is not either.

    Raises:
        ValueError: if it is -inf, because of a reward of -inf.
        FloatingPointError: if it is NaN or +inf, because of numerical errors.
    """
    if elbo == -math.inf:
        raise ValueError(
            f"fit: the ELBO is {elbo:g}: the policy can reach a reward of -inf, where it has no "
            "gradient; forbid the actions that lead there, by probability zero in action_prior, "
            "or make the reward finite"
        )
    if not math.isfinite(elbo):
        raise FloatingPointError(f"the loss is {-elbo:g}")


def gains(table: Table) -> Tensor:
    """log p(a|s) + (r + E[r⁺|s,a])/α, ([T,] S, A), nats: a step's terms without -log q(a|s)."""
    return table.log_prior + table.expected_reward / table.temperature


def not_too_far(elbo: float, after: Callable[[float], float], step: float) -> float:
    """The largest of step, step/2, … that does not lower the ELBO; zero if there is none."""
    lowest = elbo - 1e-13 * max(1.0, abs(elbo))
    for halvings in range(40):
        if after(step / 2**halvings) >= lowest:
            return step / 2**halvings
    return 0.0
