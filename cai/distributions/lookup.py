"""Functions of states and actions that look up arrays; unlike closures they can be pickled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from cai.distributions.sparse_categorical import SparseCategorical


class Lookup:
    """A function whose numbers are all in arrays, so that torch's default dtype does not matter."""


class ToldStep:
    """A function of states and actions whose last argument is the step t.

    As the action prior, dynamics, reward or arrival reward of a model it may say something else at
    each step. t is an int, or a tensor that broadcasts with the batch shape of the states.
    """


@dataclass(frozen=True, eq=False)
class Entry(Lookup):
    """(s, a, …) -> array[s, a, …].

    Attributes:
        array: (S, …), or (S, A, …).
    """

    array: Tensor

    def __call__(self, *indices: Tensor) -> Tensor:
        """The entries at these indices, in their batch shape."""
        return self.array[indices]


@dataclass(frozen=True, eq=False)
class EntryAt(Lookup, ToldStep):
    """(s, a, …, t) -> array[t, s, a, …].

    Attributes:
        array: (T, S, A, …).
    """

    array: Tensor

    def __call__(self, *indices: Any) -> Tensor:
        """The entries at these indices, in their batch shape."""
        *where, t = indices
        return self.array[(t, *where)]


@dataclass(frozen=True, eq=False)
class Next(Lookup):
    """(s, a) -> the state that follows for certain.

    Attributes:
        states: (S, A), integers.
    """

    states: Tensor

    def __call__(self, s: Tensor, a: Tensor) -> dist.Delta:
        """p(s'|s,a)."""
        return dist.Delta(self.states[s, a])


@dataclass(frozen=True, eq=False)
class Weighted(Lookup):
    """s -> p(a|s), by weights.

    Attributes:
        weights: (S, A), at least 0.
    """

    weights: Tensor

    def __call__(self, s: Tensor) -> dist.Categorical:
        """p(a|s)."""
        return dist.Categorical(self.weights[s])


@dataclass(frozen=True, eq=False)
class WeightedAt(Lookup, ToldStep):
    """(s, t) -> p(a|s) at step t, by weights.

    Attributes:
        weights: (T, S, A), at least 0.
    """

    weights: Tensor

    def __call__(self, s: Tensor, t: Any) -> dist.Categorical:
        """p(a|s) at step t."""
        return dist.Categorical(self.weights[t, s])


@dataclass(frozen=True, eq=False)
class Moves(Lookup):
    """(s, a) -> p(s'|s,a), looked up in an array.

    Attributes:
        log_p: (S, A, K), log-probabilities of the successors; -inf for impossible.
        successors: (S, A, K), which states they are; None for all, then K = S.
    """

    log_p: Tensor
    successors: Tensor | None

    def __call__(self, s: Tensor, a: Tensor) -> TorchDistribution:
        """p(s'|s,a), in the batch shape of s and a."""
        if self.successors is None:
            return dist.Categorical(logits=self.log_p[s, a])
        return SparseCategorical(self.log_p[s, a], self.successors[s, a], len(self.log_p))


@dataclass(frozen=True, eq=False)
class MovesAt(Lookup, ToldStep):
    """(s, a, t) -> p(s'|s,a) at step t, looked up in an array.

    Attributes:
        log_p: (T, S, A, K), log-probabilities of the successors; -inf for impossible.
        successors: (S, A, K), which states they are, at every step; None for all, then K = S.
    """

    log_p: Tensor
    successors: Tensor | None

    def __call__(self, s: Tensor, a: Tensor, t: Any) -> TorchDistribution:
        """p(s'|s,a) at step t, in the batch shape of s and a."""
        rows = self.log_p[t, s, a]
        if self.successors is None:
            return dist.Categorical(logits=rows)
        listed = self.successors[s, a].expand(rows.shape)
        return SparseCategorical(rows, listed, self.log_p.shape[1])
