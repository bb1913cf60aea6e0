"""What every estimator of the ELBO's gradient is, and what each of them checks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

Estimator: TypeAlias = Callable[[], float]
"""Adds the gradient of -ELBO to the parameters, and returns -ELBO in nats, or an estimate."""


def checked(elbo: float) -> None:
    """Raises ValueError where the ELBO is not finite, since its gradient is not either."""
    if not math.isfinite(elbo):
        raise ValueError(
            f"fit: the ELBO is {elbo:g}: the policy can reach a reward of -inf, where it has no "
            "gradient; forbid the actions that lead there, by probability zero in action_prior, "
            "or make the reward finite"
        )
