"""The flat (improper) prior on actions."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from cai import one_line


class FlatPrior(dist.ImproperUniform):
    """The improper prior on actions: log p(a|s) = 0 everywhere, which cannot be sampled.

    Args:
        size: m, the dimension of an action.
        batch: the batch shape.

    >>> import torch, cai
    >>> cai.FlatPrior(2).log_prob(torch.tensor([1.0, -3.0]))
    tensor(0.)
    """

    def __init__(self, size: int, batch: Any = ()) -> None:
        support = torch.distributions.constraints.real_vector
        super().__init__(support, torch.Size(batch), torch.Size((size,)))

    def __repr__(self) -> str:
        return one_line.named("FlatPrior", f"size={self.event_shape[0]}")

    def expand(self, batch_shape: Any, _instance: Any = None) -> FlatPrior:
        """The same prior with a larger batch shape."""
        return FlatPrior(self.event_shape[0], torch.Size(batch_shape))

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Raises ValueError, always."""
        raise ValueError(
            "action_prior: the flat prior (None) cannot be sampled, so the program draws no "
            "actions from it, and with a discount below one none after termination either; give "
            "action_prior a dist.MultivariateNormal, or run model.rollout(policy), which takes "
            "the actions from a policy"
        )

    rsample = sample
