"""States and actions of a model as elements of Gymnasium's spaces, and the reverse."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor
from torch.distributions import constraints

from cai.distributions.exact_scores import support_size
from cai.program.trajectory import TrajectoryModel


class Observations:
    """States as observations in NumPy; with the time if there is a horizon.

    Attributes:
        space: the space of the observations of one copy.
    """

    def __init__(self, model: TrajectoryModel, time: bool) -> None:
        self._horizon = model.horizon if time else None
        self._states = support_size(model.initial)
        T, event = self._horizon, model.initial.event_shape
        self.space: spaces.Space[Any]
        if self._states is not None:
            S = self._states
            self.space = spaces.Discrete(S) if T is None else spaces.MultiDiscrete([S, T + 1])
            return
        size = event.numel() + (T is not None)
        low, high = np.full(size, -np.inf, np.float32), np.full(size, np.inf, np.float32)
        if T is not None:
            low[-1], high[-1] = 0, 1
        self.space = spaces.Box(low, high)

    def __call__(self, s: Tensor, t: Tensor) -> Any:
        """Observations of n copies, as a batch of the space."""
        T = self._horizon
        if self._states is not None:
            return s.numpy() if T is None else np.stack([s.numpy(), t.numpy()], 1)
        seen = np.empty((len(s), *self.space.shape), np.float32)  # type: ignore[misc]
        size = s[0].numel()
        seen[:, :size] = s.reshape(len(s), -1).numpy()
        if T is not None:
            seen[:, size] = t.numpy() / T
        return seen


def action_space(model: TrajectoryModel) -> spaces.Space[Any]:
    """The Gymnasium space of the actions of a model's prior."""
    prior = model.prior(model.initial.sample(), 0)
    A = support_size(prior)
    if A is not None:
        return spaces.Discrete(A)
    support: Any = prior.support
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    shape = tuple(prior.event_shape)
    low = getattr(support, "lower_bound", -torch.inf)
    high = getattr(support, "upper_bound", torch.inf)
    low, high = (np.broadcast_to(np.asarray(x, np.float32), shape).copy() for x in (low, high))
    return spaces.Box(low, high, shape)
