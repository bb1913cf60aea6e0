"""Process noise of continuous dynamics: the next state is Gaussian around the motion's mean."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from cai import checks
from cai.numerics import arrays


def deviations(noise: Any, coordinates: tuple[str, ...], most: float = math.inf) -> Tensor | None:
    """The standard deviation of each coordinate of the next state; None where there is no noise.

    Args:
        noise: one number for all coordinates, or one for each.
        coordinates: their names, for the message.
        most: the largest that is allowed.

    Raises:
        ValueError: if they are neither all zero nor all above zero, or one is too large.
    """
    expected = f"one standard deviation, or {len(coordinates)}: of {', '.join(coordinates)}"
    sd = arrays.numbers("noise", noise, expected)
    if sd.shape not in ((), (1,), (len(coordinates),)):
        checks.refuse("noise", expected, repr(noise), "0 for none")
    sd = sd.expand(len(coordinates))
    if not (sd.isfinite() & (sd >= 0) & (sd <= most)).all():
        limit = "" if most == math.inf else f" and at most {most:g}"
        advice = "give standard deviations"
        checks.refuse("noise", f"finite numbers ≥ 0{limit}", repr(noise), advice)
    if not sd.any():
        return None
    if not sd.all():
        expected = "all deviations zero or all above zero, so that the next state has a density"
        advice = "give what is certain a small one, 1e-3 for instance"
        checks.refuse("noise", expected, repr(noise), advice)
    return sd


def around(mean: Tensor, sd: Tensor | None) -> TorchDistribution:
    """N(mean, diag(sd²)), reparameterised; a Delta at the mean, (..., n), if sd is None."""
    if sd is None:
        return dist.Delta(mean, event_dim=1, validate_args=False)
    # Not validated: the deviations were checked once, and this is the inner loop of training.
    return dist.Normal(mean, sd, validate_args=False).to_event(1)


def box(bound: float, size: int) -> TorchDistribution:
    """The uniform distribution on [-bound, bound]^size, the action prior of a bounded control."""
    high = torch.full((size,), float(bound), dtype=torch.float64)
    return dist.Uniform(-high, high).to_event(1)
