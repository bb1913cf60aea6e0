"""States and actions of a model as elements of Gymnasium's spaces, and the reverse."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor
from torch.distributions import constraints

from cai import checks
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
        self._size = event.numel()
        size = self._size + (T is not None)
        low, high = np.full(size, -np.inf, np.float32), np.full(size, np.inf, np.float32)
        if T is not None:
            low[-1], high[-1] = 0, 1
        self.space = spaces.Box(low, high)

    def __call__(self, s: Tensor, t: Tensor) -> Any:
        """Observations of n copies, as a batch of the space."""
        T = self._horizon
        if self._states is not None:
            return s.numpy() if T is None else np.stack([s.numpy(), t.numpy()], 1)
        n, size = len(s), self._size
        if T is None:
            return s.reshape(n, size).numpy().astype(np.float32)
        seen = np.empty((n, size + 1), np.float32)
        seen[:, :size] = s.reshape(n, size).numpy()
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


def checked_actions(actions: Any, space: spaces.Space[Any], num_envs: int) -> Tensor:
    """The actions of all copies as a tensor.

    Args:
        actions: what a learner passes to ``step``.
        space: of one copy, see :func:`action_space`.
        num_envs: how many copies there are.

    Raises:
        ValueError: if there is not one for each copy, or one is not in the space; beyond the bounds
            of a box it is, as there the dynamics say what happens.
    """
    a = np.asarray(actions)
    shape = (num_envs, *(space.shape or ()))
    if a.shape != shape:
        expected = f"one for each copy, shape {list(shape)}"
        checks.refuse("actions", expected, f"shape {list(a.shape)}", "see envs.action_space")
    if isinstance(space, spaces.Discrete):
        expected, advice = f"whole numbers 0 … {space.n - 1}", "see envs.single_action_space"
        if a.dtype.kind not in "iu":
            checks.refuse("actions", expected, str(a.dtype), advice)
        if a.min() < 0 or a.max() >= space.n:
            came = str(a[(a < 0) | (a >= space.n)][0])
            checks.refuse("actions", expected, came, advice)
    elif not np.isfinite(a).all():
        came = str(a[~np.isfinite(a)][0])
        checks.refuse("actions", "finite numbers", came, "look for NaN in what the policy computes")
    return torch.from_numpy(a)
