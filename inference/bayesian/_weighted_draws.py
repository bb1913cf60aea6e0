"""Draws of Student's distribution in Laplace's coordinates, with importance weights.

Its tails are longer than those of a normal distribution, so that weights stay bounded where the
posterior is normal: then 2% of the effective size are lost with three weights, 13% with any number.
"""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from cai.inference.bayesian._laplace import Laplace

_FREEDOM = 10.0  # degrees of freedom
_AT_ONCE = 50  # draws, between which an interrupt is heard


class WeightedDraws:
    """Draws of z = mean + root t, with weights p(demonstrations, z)/q(z), a few at a time.

    t (k,) has Student's distribution with ten degrees of freedom.

    Args:
        laplace: the posterior in its coordinates.
        samples: n.
        mean: (k,), of the proposal; None for Laplace's own, zero.
        root: (k, k), of the proposal; None for Laplace's own, one.

    Attributes:
        done: how many have a weight.
        total: n.
    """

    verb, outcome, restarts, policy = "reward_posterior", "the draws", "", None

    def __init__(
        self, laplace: Laplace, samples: int, mean: Tensor | None = None, root: Tensor | None = None
    ) -> None:
        k = len(laplace.mode)
        self._laplace, self.total, self.done = laplace, samples, 0
        self._mean = torch.zeros(k, dtype=torch.float64) if mean is None else mean
        self._root = torch.eye(k, dtype=torch.float64) if root is None else root
        freedom = torch.tensor(_FREEDOM, dtype=torch.float64)
        one = torch.eye(k, dtype=torch.float64)
        self._student = dist.MultivariateStudentT(freedom, one[0] * 0, one)
        self._standard = self._student.sample((samples,))
        self._density = torch.zeros(samples, dtype=torch.float64)

    @property
    def z(self) -> Tensor:
        """(done, k)."""
        return self._mean + self._standard[: self.done] @ self._root.T

    @property
    def log_weights(self) -> Tensor:
        """(done,), nats."""
        own = self._student.log_prob(self._standard[: self.done])
        return self._density[: self.done] - own + torch.linalg.slogdet(self._root).logabsdet

    def over(self) -> bool:
        """Whether all have a weight."""
        return self.done >= self.total

    def step(self) -> None:
        """Weighs a few more."""
        first, last = self.done, min(self.done + _AT_ONCE, self.total)
        at = self._mean + self._standard[first:last] @ self._root.T
        self._density[first:last] = self._laplace.log_densities(at)
        self.done = last

    def shown(self) -> str:
        """Nothing more than how many."""
        return ""

    def differs(self, kept: dict[str, Any]) -> str:
        """Nothing: the settings say all."""
        return ""

    def state_dict(self) -> dict[str, Any]:
        """The draws and the densities so far."""
        return {"done": self.done, "standard": self._standard, "density": self._density}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there."""
        self.done = state["done"]
        self._standard, self._density = state["standard"], state["density"]
