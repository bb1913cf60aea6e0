"""One step of p(τ, O) as a sparse linear map of z = exp(V/α), kept in logarithms."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.linalg import ArpackError, eigs

from cai.inference.infinite._transition_graph import TransitionGraph
from cai.numerics.exclusive import cached_property

_SMALL = 300  # states up to which all eigenvalues are computed
_STEPS = 2000
_LOST = 1e-12
_NAMED = 1e-5  # tolerance of a radius for messages


@dataclass(frozen=True, eq=False)
class System:
    """z = M z + b in logarithms.

    Attributes:
        log_on: (S, S), nats: log γ p(a|s) p(s'|s,a) exp((r + r⁺)/α) of the transitions to states
            that are not absorbing, one entry each.
        log_ends: (S,), nats: log b, absorbed or terminated after the next step; -inf for never.
    """

    log_on: csr_array
    log_ends: Any

    @classmethod
    def of(cls, graph: TransitionGraph, discount: float) -> System:
        """The system of the transitions of a table."""
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
        """The same transitions until a goal is reached, the only termination that counts."""
        on = self.log_on
        into = (on.indices == goal) & (self.tails != goal)
        ends = np.full(len(self.log_ends), -np.inf)
        np.logaddexp.at(ends, self.tails[into], on.data[into])
        others = np.arange(len(ends)) != goal
        return System(self.restricted(others).log_on, ends)

    def with_weights(self, weights: Any) -> csr_array:
        """A matrix (S, S) of other weights (E,) in the places of ``log_on``."""
        return csr_array(
            (weights, self.log_on.indices, self.log_on.indptr), shape=self.log_on.shape
        )

    def scaled(self, h: Any) -> Any:
        """log_on - h(s) + h(s'), (E,), for a potential (S,)."""
        return self.log_on.data + (h[self.log_on.indices] - h[self.tails])

    def restricted(self, states: Any) -> System:
        """The system restricted to transitions among these states (S,)."""
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


def negative_pivot(lu: Any) -> bool:
    """Whether I - M is not an M-matrix, so that the spectral radius of M is at least one.

    Then, and only then, a pivot is not positive. Entries that overflowed do not count.
    """
    pivots = lu.U.diagonal()
    bad = (pivots <= 0).any() or (lu.perm_r != lu.perm_c).any()
    return bool(bad and np.isfinite(pivots).all())


def log_spectral_radius(system: System, tolerance: float = 0.0) -> float:
    """The logarithm of the spectral radius of M.

    The largest eigenvalue in absolute value of a nonnegative matrix is real and nonnegative
    (Perron and Frobenius); it is found among those with the largest real part.

    Args:
        system: z = M z + b.
        tolerance: relative tolerance for many states; 0 is machine precision, and takes minutes for
            hundreds of thousands.
    """
    log_M = system.log_on
    S = log_M.shape[0]
    if not log_M.nnz:
        return -math.inf
    top = log_M.data.max()
    M = system.with_weights(np.exp(log_M.data - top))
    if S <= _SMALL:
        radius = np.abs(np.linalg.eigvals(M.toarray())).max()
    else:
        try:
            found = eigs(
                M, k=1, which="LR", v0=np.ones(S), tol=tolerance, return_eigenvectors=False
            )
            radius = abs(found[0])
        except ArpackError:  # it did not converge
            radius = _power(M)
    if radius < _LOST:  # the weights on the dominant cycle may have underflowed
        return _growth(system)
    return float(top + np.log(radius))


def _power(M: csr_array) -> float:
    """The spectral radius by powers of I + M, whose largest eigenvalue is strictly dominant."""
    x = np.ones(M.shape[0])
    growth = 1.0
    for _ in range(_STEPS):
        y = x + M @ x
        growth = y.sum() / x.sum()
        x = y / y.sum()
    return growth - 1


def _growth(system: System) -> float:
    """Its logarithm by powers of M in log space: coarser, but for weights of any size."""
    start = np.zeros(len(system.log_ends))
    nothing = np.full_like(start, -np.inf)
    v = start
    for _ in range(_STEPS):
        v = System(system.log_on, nothing).step(v)
    return float(v.max() / _STEPS)


def divergence(system: System) -> ValueError:
    """The error for a system without values, with the spectral radius of M."""
    log_radius = log_spectral_radius(system, _NAMED)
    radius = f"{math.exp(log_radius):.6g}" if log_radius < 700 else f"exp({log_radius:.6g})"
    if log_radius < -1e-4:
        return ValueError(
            "reward: the linear system of this infinite horizon leaves the range of float64, "
            f"though the spectral radius of M is {radius}, below 1; take another unit of reward, "
            "or look for rewards that are too large by orders of magnitude"
        )
    return ValueError(
        "reward: log p(O) of this infinite horizon is infinite, since the spectral radius of "
        "M = Σ_a p(a|s) γ p(s'|s,a) exp((r + r⁺)/α) over the states that are not absorbing is "
        f"{radius}, expected below 1: going on for ever gains more than it costs. Subtract more "
        f"than {max(log_radius, 0.0):.6g} times the temperature from every reward outside "
        "absorbing states, or divide the discount by more than the spectral radius"
    )
