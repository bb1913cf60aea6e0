"""The binary optimality variable of a step, scored without leaving log space."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor


class Optimality(TorchDistribution):
    """The binary O_t with p(O_t=1) = exp(log_p).

    Args:
        log_p: log-probabilities ≤ 0 in nats, any batch shape; -inf for never optimal.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = torch.distributions.constraints.boolean

    def __init__(self, log_p: Tensor) -> None:
        self.log_p = log_p
        super().__init__(log_p.shape, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Optimality:
        """The same distribution with a larger batch shape."""
        return Optimality(self.log_p.expand(batch_shape))

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Zeros and ones, shape sample_shape + batch_shape."""
        return torch.bernoulli(self.log_p.exp().expand(self._extended_shape(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """log_p where the value is one, log(1 - exp(log_p)) where it is zero."""
        return torch.where(value > 0.5, self.log_p, torch.log(-torch.expm1(self.log_p)))
