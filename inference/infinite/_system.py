"""One step of p(τ, O) as a sparse linear map of z = exp(V/α), kept in logarithms."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.sparse import csr_array, eye_array
from scipy.sparse.linalg import splu

from cai.inference.infinite._transition_graph import TransitionGraph


@dataclass(frozen=True, eq=False)
class System:
    """z = M z + b in logarithms.

    Attributes:
        log_on: (S, S), nats: log γ p(a|s) p(s'|s,a) exp((r + r⁺)/α) of the moves that go on to a
            state that is not absorbing, one entry a move.
        log_ends: (S,), nats: log b, absorbed or dead after the next step; -inf for never.
    """

    log_on: csr_array
    log_ends: Any

    @classmethod
    def of(cls, graph: TransitionGraph, discount: float) -> System:
        """The system of the moves of a table."""
        last = graph.absorbing[graph.heads]
        weights = graph.log_weights
        on = graph.matrix(weights if discount == 1 else weights + math.log(discount), ~last)
        if discount < 1:
            weights = np.where(last, weights, weights + math.log1p(-discount))
            last = np.ones_like(last)
        ends = csr_array(graph.matrix(weights, last))
        return cls(on, row_logsumexp(ends, np.full(graph.num_states, -np.inf)))

    @cached_property
    def tails(self) -> Any:
        """(E,), the states that the entries of ``log_on`` lead from."""
        return np.repeat(np.arange(len(self.log_ends)), np.diff(self.log_on.indptr))

    def step(self, v: Any) -> Any:
        """T v = log(M exp(v) + b) in log space, (S,) -> (S,), nats."""
        x = self.with_weights(self.log_on.data + v[self.log_on.indices])
        return row_logsumexp(x, self.log_ends)

    def towards(self, goal: int) -> System:
        """The same moves until a goal is reached, the only end that counts."""
        on = self.log_on
        into = (on.indices == goal) & (self.tails != goal)
        ends = np.full(len(self.log_ends), -np.inf)
        np.logaddexp.at(ends, self.tails[into], on.data[into])
        others = np.arange(len(ends)) != goal
        return System(self.restricted(others).log_on, ends)

    def with_weights(self, weights: Any) -> csr_array:
        """Other weights (E,) of the moves that go on, (S, S)."""
        return csr_array(
            (weights, self.log_on.indices, self.log_on.indptr), shape=self.log_on.shape
        )

    def scaled(self, h: Any) -> Any:
        """log_on - h(s) + h(s'), (E,), for a potential (S,)."""
        return self.log_on.data + (h[self.log_on.indices] - h[self.tails])

    def restricted(self, states: Any) -> System:
        """The system without the moves from and to states that are not among these (S,)."""
        on = self.log_on
        keep = states[self.tails] & states[on.indices]
        if keep.all():
            return self
        starts = np.append(0, np.cumsum(keep))[on.indptr].astype(np.int32)
        on = csr_array((on.data[keep], on.indices[keep], starts), shape=on.shape)
        return System(on, self.log_ends)


def row_logsumexp(x: csr_array, also: Any) -> Any:
    """log Σ exp over the stored entries of each row and one more number of each, (S,), nats."""
    counts = np.diff(x.indptr)
    rows = np.flatnonzero(counts)
    if not len(rows):
        return also
    top = also.copy()
    top[rows] = np.maximum(also[rows], np.maximum.reduceat(x.data, x.indptr[rows]))
    shift = np.where(np.isfinite(top), top, 0.0)
    total = np.exp(also - shift)
    total[rows] += np.add.reduceat(np.exp(x.data - np.repeat(shift, counts)), x.indptr[rows])
    with np.errstate(divide="ignore"):
        return shift + np.log(total)


def factorise(weights: csr_array) -> Any:
    """SuperLU of I - weights, which needs no pivoting, as the diagonal dominates.

    Raises:
        RuntimeError: where it is singular. A state that is never left is told here, for SuperLU may
            crash where a pivot is not stored.
    """
    matrix = eye_array(weights.shape[0], format="csc") - weights.tocsc()
    if not matrix.diagonal().all():
        raise RuntimeError("singular: a state is never left")
    return splu(
        matrix,
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        relax=1,
        panel_size=1,
        options={"SymmetricMode": True},
    )


def negative_pivot(lu: Any) -> bool:
    """Whether I - M is no M-matrix, and so the spectral radius of M at least one.

    Then, and only then, a pivot is not positive. What overflowed says nothing either way.
    """
    pivots = lu.U.diagonal()
    bad = (pivots <= 0).any() or (lu.perm_r != lu.perm_c).any()
    return bool(bad and np.isfinite(pivots).all())
