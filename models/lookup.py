"""Functions of states and actions that look up arrays; they can be pickled, as closures cannot."""

from __future__ import annotations

from dataclasses import dataclass

import pyro.distributions as dist
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Entry:
    """(s, a, …) -> array[s, a, …].

    Attributes:
        array: (S, …), or (S, A, …).
    """

    array: Tensor

    def __call__(self, *indices: Tensor) -> Tensor:
        """The entries at these indices, in their batch shape."""
        return self.array[indices]


@dataclass(frozen=True, eq=False)
class Next:
    """(s, a) -> the state that follows for certain.

    Attributes:
        states: (S, A), integers.
    """

    states: Tensor

    def __call__(self, s: Tensor, a: Tensor) -> dist.Delta:
        """p(s'|s,a)."""
        return dist.Delta(self.states[s, a])


@dataclass(frozen=True, eq=False)
class Weighted:
    """s -> p(a|s), by weights.

    Attributes:
        weights: (S, A), at least 0.
    """

    weights: Tensor

    def __call__(self, s: Tensor) -> dist.Categorical:
        """p(a|s)."""
        return dist.Categorical(self.weights[s])


@dataclass(frozen=True, eq=False)
class Allowed:
    """s -> p(a|s), uniform over the actions that are allowed.

    Attributes:
        allowed: (S, A), boolean.
    """

    allowed: Tensor

    def __call__(self, s: Tensor) -> dist.Categorical:
        """p(a|s)."""
        return dist.Categorical(logits=torch.where(self.allowed[s], 0.0, -torch.inf).double())
