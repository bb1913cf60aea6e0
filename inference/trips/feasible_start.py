"""Weights at which sums over routes are finite, by the spectral radius of the weights of turns.

M holds exp(ψ·f) of each turn. Sums over routes are finite where its spectral radius ρ is below one,
and log ρ is convex in ψ (Kingman 1961), with the gradient Σ_e left M_e right f_e / (ρ left·right),
left and right the eigenvectors of ρ. So its minimum is a start, or there is none.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import brentq, minimize
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import eigs

_SMALL = 50  # segments of a network whose eigenvalues are computed densely
_ENOUGH = -1.0  # log ρ at which the search may stop
_TARGET = -0.5  # log ρ of a start: where routes cost something, but not so much as to underflow
_STEPS = 100
_PRECISE = 1e-6
_NEAR = 0.1  # relative error of the way to the target,
_ROUGHLY = 1e-3  # and of ρ on that way
_TINY = np.finfo(float).tiny  # in place of what underflows
_EIGEN = 1e-10  # relative error of eigenvalues


class Start(NamedTuple):
    """Where a search ended.

    Attributes:
        weights: (k,).
        log_radius: log ρ there; -inf without a cycle.
    """

    weights: Any
    log_radius: float


def feasible_start(turns: Any, size: int, features: Any) -> Start:
    """Weights with log ρ near -0.5, or those with the least ρ where there are none.

    Args:
        turns: (N, 2), those that can be part of a route.
        size: E, how many segments there are.
        features: (N, k), of these turns.
    """
    cycles = Cycles(turns, size)
    f, k = features[cycles.inside], features.shape[1]
    if not len(f):
        return Start(np.zeros(k), -math.inf)
    unit = f.std(0)
    unit = np.where(unit > 0, unit, np.maximum(np.abs(f).max(0), _TINY))
    f = f / unit
    best = np.zeros(k), math.inf

    def objective(weights: Any) -> tuple[float, Any]:
        nonlocal best
        log_radius, share = cycles.radius(f @ weights)
        best = min(best, (weights.copy(), log_radius), key=lambda found: found[1])
        return log_radius, share @ f

    def stops(_: Any) -> None:
        if best[1] < _ENOUGH:
            raise StopIteration

    options = {"maxiter": _STEPS, "gtol": _PRECISE}
    minimize(objective, np.zeros(k), jac=True, method="BFGS", callback=stops, options=options)
    weights, log_radius = best

    @functools.cache
    def above(share: float) -> float:
        return cycles.log_radius(f @ (share * weights), _ROUGHLY) - _TARGET

    if log_radius < _TARGET and above(0.0) > 0:  # on the way it falls, once
        share = brentq(above, 0.0, 1.0, xtol=_TINY, rtol=_NEAR)  # it may have gone far
        weights = share * weights
        log_radius = cycles.log_radius(f @ weights)
    return Start(weights / unit, log_radius)


class Cycles:
    """The turns of a network that are part of a cycle.

    Args:
        turns: (N, 2), from segment to segment.
        size: how many segments there are.

    Attributes:
        inside: (N,), whether a turn is part of a cycle.
    """

    def __init__(self, turns: Any, size: int) -> None:
        graph = csr_array((np.ones(len(turns)), (turns[:, 0], turns[:, 1])), shape=(size, size))
        part = connected_components(graph, connection="strong")[1]
        self.inside = part[turns[:, 0]] == part[turns[:, 1]]
        self._segments, places = np.unique(turns[self.inside], return_inverse=True)
        self._turns = places.reshape(-1, 2)

    def log_radius(self, utility: Any, precision: float = _EIGEN) -> float:
        """log ρ.

        Args:
            utility: (n,), nats, of the turns inside.
            precision: relative error of ρ.
        """
        return self._log(_leading(self._matrix(utility), precision)[0], utility)

    def radius(self, utility: Any) -> tuple[float, Any]:
        """log ρ, and its derivative in the utility of each turn, which add up to one."""
        M, (tails, heads) = self._matrix(utility), self._turns.T
        (rho, right), (_, left) = _leading(M), _leading(M.T.tocsr())
        share = left[tails] * M[tails, heads] * right[heads] + _TINY
        return self._log(rho, utility), share / share.sum()

    def _log(self, rho: float, utility: Any) -> float:
        """log ρ of M from that of M over its largest entry."""
        return math.log(max(rho, _TINY)) + float(utility.max())

    def _matrix(self, utility: Any) -> csr_array:
        """M over its largest entry."""
        size = len(self._segments)
        weights = np.exp(utility - utility.max())
        return csr_array((weights, (self._turns[:, 0], self._turns[:, 1])), shape=(size, size))

    def likely(self, utility: Any) -> list[int]:
        """Segments of a cycle: from the turn that counts most, along those that count most."""
        share, ahead = self.radius(utility)[1], {}
        for turn in np.argsort(share):  # later ones replace earlier ones
            ahead[int(self._turns[turn, 0])] = int(self._turns[turn, 1])
        path = [int(self._turns[share.argmax(), 0])]
        while ahead[path[-1]] not in path:
            path.append(ahead[path[-1]])
        return self._segments[path[path.index(ahead[path[-1]]) :]].tolist()


def _leading(M: csr_array, precision: float = _EIGEN) -> tuple[float, Any]:
    """The spectral radius of M ≥ 0, and its eigenvector, not negative."""
    if M.shape[0] <= _SMALL:
        values, vectors = np.linalg.eig(M.toarray())
        place = int(values.real.argmax())
        return float(values[place].real), np.abs(vectors[:, place].real)
    values, vectors = eigs(M, k=1, which="LR", v0=np.ones(M.shape[0]), tol=precision)
    return float(values[0].real), np.abs(vectors[:, 0].real)
