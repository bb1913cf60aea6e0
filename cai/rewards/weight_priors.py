"""Priors of weights, as Pyro's distributions of k numbers."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from cai import checks

_FAR = 30.0  # where a transform to a bounded set is flat: torch clamps its inverse at the boundary
_ADVICE = "for instance torch.distributions.Normal(0.0, 3.0)"


def of_weights(prior: Any, k: int, where: str = "prior") -> dist.TorchDistribution:
    """A prior of k weights: given for all of them, for each, or for one, whose copies they get.

    Args:
        prior: a distribution of Pyro or torch; None for a flat one.
        k: how many weights.
        where: of the argument, for the message.

    Raises:
        ValueError: if it is no distribution, or one of another number of weights.
    """
    if prior is None:
        return dist.ImproperUniform(constraints.real_vector, torch.Size(), torch.Size((k,)))
    if isinstance(prior, type) or not hasattr(prior, "log_prob"):
        checks.refuse(where, "a distribution of weights", repr(prior), _ADVICE)
    event, batch = (tuple(getattr(prior, x, ())) for x in ("event_shape", "batch_shape"))
    if event not in ((), (k,)) or batch not in ((), (1,), (k,)) or (event and batch):
        advice = "one number for each, or one for all, as Normal(0.0, 3.0) has"
        came = f"one of shape {[*batch, *event]}"
        checks.refuse(where, f"a distribution of {k} numbers", came, advice)
    if event:
        return prior if isinstance(prior, dist.TorchDistribution) else dist.Independent(prior, 0)
    return dist.Independent(prior.expand((k,)), 1)


def is_proper(prior: dist.TorchDistribution) -> bool:
    """Whether its density has a finite integral."""
    base = prior
    while isinstance(base, dist.Independent):
        base = base.base_dist
    return not isinstance(base, dist.ImproperUniform)


class Coordinates:
    """Unbounded numbers x (k,) for weights ψ = T(x), with the prior's density in x.

    Args:
        prior: of k weights, on all real numbers or on a part of them, such as half lines.

    Raises:
        ValueError: if its support is not that of k free numbers.
    """

    def __init__(self, prior: dist.TorchDistribution) -> None:
        self.prior = prior
        try:
            self._transform = torch.distributions.biject_to(prior.support)
            free = self._transform(torch.zeros(prior.event_shape, dtype=torch.float64))
        except (NotImplementedError, RuntimeError, ValueError) as error:
            came, advice = f"{type(prior).__name__} ({type(error).__name__})", _ADVICE
            checks.refuse("prior", "a density of free numbers", came, advice)
        if free.shape != prior.event_shape:
            came = f"one on {prior.support}, where weights depend on each other"
            checks.refuse("prior", "a density of free numbers", came, _ADVICE)
        near = torch.linspace(-1.0, 1.0, free.numel(), dtype=torch.float64)
        self.whole = torch.equal(self._transform(near), near)

    def weights(self, x: Tensor) -> Tensor:
        """ψ (…, k)."""
        return x if self.whole else self._transform(x)

    def back(self, weights: Tensor) -> Tensor | None:
        """x (k,) of some weights; None if the prior forbids them, or they lie on its boundary."""
        x: Tensor = weights if self.whole else self._transform.inv(weights)
        if self.whole:
            return x if x.isfinite().all() else None
        return x if (x.abs() < _FAR).all() else None

    def jacobian(self, x: Tensor) -> Tensor:
        """∂ψ/∂x, (k, k)."""
        if self.whole:
            return torch.eye(len(x), dtype=torch.float64)
        found: Tensor = torch.autograd.functional.jacobian(self._transform, x)
        return found

    def bend(self, x: Tensor, slope: Tensor) -> Tensor:
        """Σ_j slope_j ∂²ψ_j/∂x∂x', (k, k): what of a Hessian comes from the change of coordinates.

        Args:
            x: (k,).
            slope: (k,), the gradient in ψ.
        """
        if self.whole:
            return x.new_zeros(len(x), len(x))
        found: Tensor = torch.autograd.functional.hessian(lambda y: slope @ self._transform(y), x)
        return (found + found.T) / 2

    def log_prob(self, x: Tensor) -> Tensor:
        """(…), nats: the log-density of x (…, k), differentiable."""
        weights = self.weights(x)
        found: Tensor = self.prior.log_prob(weights)
        if not self.whole:
            stretched = self._transform.log_abs_det_jacobian(x, weights)
            found = found + (stretched.sum(-1) if stretched.dim() > found.dim() else stretched)
        return found
