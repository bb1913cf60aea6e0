"""Models of trips turn by turn: by how often turns were taken, and by the best ways from there on.

The second is the action model of Ramachandran and Amir (2007) and Neu and Szepesvári (2007): on
the way to d the probability of a turn from s to s' is ∝ exp Q*_d, Q*_d = u + V*_d(s'), where V*_d
is the largest sum of utilities on any way to d. Its derivative is that of the best way, so that the
likelihood has kinks, and it is not concave.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from cai.demonstrations.demonstrations import Demonstrations
from cai.inference.trips.best_routes import BestRoutes
from cai.roads.network import Streets

_NONE = 1e-9  # of the largest eigenvalue: what the data say nothing about
_ENOUGH = 1e-3  # nats of all trips: what a step gains, which at a kink it approaches slowly
_SUFFICIENT = 1e-4  # of the gain that a linear function would bring (Armijo)
_STEPS, _HALVINGS = 100, 15


def log_shares(streets: Streets, trips: Demonstrations, smoothing: float) -> Any:
    """(N,), the logarithm of the share of each turn among those from its segment.

    Args:
        streets: the network.
        trips: in which turns are counted.
        smoothing: added to each count.
    """
    taken = trips.actions[trips.taken].numpy()
    counts = np.bincount(taken, minlength=len(streets.turns)) + smoothing
    tails = streets.turns[:, 0].numpy()
    total = np.bincount(tails, counts, len(streets.segments))
    return np.log(counts) - np.log(total[tails])


class ScoredChoices(NamedTuple):
    """Trips at some weights.

    Attributes:
        values: (n,), nats: log P of each trip.
        slope: (k,), the gradient of their sum, where it has one.
        information: (k, k), Σ Cov(∂Q) over all choices.
    """

    values: Any
    slope: Any
    information: Any


class PlannedChoices:
    """The turns of trips as choices by Q*.

    Args:
        streets: the network.
        features: (N, k), of its turns.
        trips: states are segments and actions are turns, the last state is the goal.
    """

    def __init__(self, streets: Streets, features: Tensor, trips: Demonstrations) -> None:
        self._streets, self._f = streets, features.numpy()
        self._heads = streets.turns[:, 1].numpy()
        trip, step = (x.numpy() for x in trips.taken.nonzero(as_tuple=True))
        goals = trips.states.gather(1, trips.lengths.unsqueeze(1)).squeeze(1).numpy()
        order = np.argsort(goals[trip], kind="stable")
        self._n, self._trip = len(trips), trip[order]
        taken = trips.actions.numpy()[trip, step][order]
        tails, offsets = streets.turns[taken, 0].numpy(), streets.offsets.numpy()
        sizes = offsets[tails + 1] - offsets[tails]
        self._rows = np.repeat(np.arange(len(taken)), sizes)  # the choice of each alternative
        self._starts = np.r_[0, sizes.cumsum()[:-1]]
        self._turns = np.arange(len(self._rows)) + (offsets[tails] - self._starts)[self._rows]
        self._chosen = self._starts + taken - offsets[tails]
        self._goals, first = np.unique(goals[trip][order], return_index=True)
        self._ends = [*self._starts[first].tolist(), len(self._rows)]

    def __call__(self, weights: Any) -> ScoredChoices:
        """At some weights (k,); raises ValueError if a cycle gains."""
        best = BestRoutes(self._streets, self._f @ weights)
        k = self._f.shape[1]
        ahead = np.empty((len(self._turns), k))
        reached = np.empty(len(self._turns), dtype=bool)
        for i, goal in enumerate(self._goals.tolist()):
            inside = slice(self._ends[i], self._ends[i + 1])
            heads = self._heads[self._turns[inside]]
            found, reaches = features_ahead(self._streets, self._f, best, goal)
            ahead[inside], reached[inside] = found[heads], reaches[heads]
        ahead += self._f[self._turns]
        q = np.where(reached, ahead @ weights, -np.inf)
        log_p = q - _log_sums(q, self._starts)[self._rows]
        p = np.exp(log_p)
        mean = np.add.reduceat(p[:, None] * ahead, self._starts)
        values = np.bincount(self._trip, log_p[self._chosen], self._n)
        slope = (ahead[self._chosen] - mean).sum(0)
        information = ahead.T @ (p[:, None] * ahead) - mean.T @ mean
        return ScoredChoices(values, slope, information)


def maximised(choices: PlannedChoices, start: Any, scale: Any) -> Any:
    """The weights (k,) where Fisher scoring ends: where a step gains less than 1e-3 nats.

    Args:
        choices: the trips.
        start: (k,), where no cycle gains.
        scale: (k,), the spread of each feature, in which directions are compared.

    Raises:
        ValueError: if a cycle gains at the start.
    """
    weights, at = start, choices(start)
    for _ in range(_STEPS):
        inverse = np.linalg.pinv(at.information / np.outer(scale, scale), _NONE, hermitian=True)
        direction = inverse @ (at.slope / scale) / scale
        gain = float(direction @ at.slope)
        for halving in range(_HALVINGS):
            step = direction / 2**halving
            found = _tried(choices, weights + step)
            more = -np.inf if found is None else float(found.values.sum() - at.values.sum())
            if found is not None and more >= _SUFFICIENT * gain / 2**halving:
                weights, at = weights + step, found
                break
        if more < _ENOUGH:
            break
    return weights


def _tried(choices: PlannedChoices, weights: Any) -> ScoredChoices | None:
    """None where a cycle gains."""
    try:
        return choices(weights)
    except ValueError:
        return None


def features_ahead(streets: Streets, f: Any, best: BestRoutes, goal: int) -> tuple[Any, Any]:
    """(E, k), the features of turns along the best route to a goal, and whether there is one, (E,).

    By doubling: the sum over 2^i turns, then over twice as many.
    """
    after = best.after(goal)
    E = len(after)
    on = np.flatnonzero(after >= 0)
    following = np.arange(E)
    following[on] = after[on]
    codes = streets.turns[:, 0].numpy() * E + streets.turns[:, 1].numpy()
    total = np.zeros((E, f.shape[1]))
    total[on] = f[np.searchsorted(codes, on * E + after[on])]
    while True:
        further = following[following]
        total = total + total[following]
        if (further == following).all():
            break
        following = further
    reaches = following == goal
    return total, reaches


def planned_log_shares(streets: Streets, f: Any, best: BestRoutes, weights: Any, goal: int) -> Any:
    """(N,), the log-probability of each turn on the way to a goal; -inf if it does not lead there.

    Args:
        streets: the network.
        f: (N, k), features of its turns.
        best: the best routes at these weights.
        weights: (k,).
        goal: a segment.
    """
    ahead, reaches = features_ahead(streets, f, best, goal)
    tails, heads = streets.turns.numpy().T
    q = np.where(reaches[heads], f @ weights + ahead[heads] @ weights, -np.inf)
    first = np.flatnonzero(np.r_[True, np.diff(tails) > 0])
    sums = np.full(len(reaches), -np.inf)
    sums[tails[first]] = _log_sums(q, first)
    with np.errstate(invalid="ignore"):
        found = q - sums[tails]
    return np.where(np.isnan(found), -np.inf, found)


def _log_sums(q: Any, starts: Any) -> Any:
    """log Σ exp of blocks that begin at ``starts``; -inf where all are."""
    top = np.maximum.reduceat(q, starts)
    rows = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(q)]))
    level = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return level + np.log(np.add.reduceat(np.exp(q - level[rows]), starts))
