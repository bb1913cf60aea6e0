"""The best routes to a goal, by utilities of turns.

With h(s) the largest gain of any path from s, the costs h(s) - u - h(s') of turns are not negative,
and rank the routes from one segment to another as -u does (Johnson 1977), so that Dijkstra's method
serves networks with turns that gain, as long as no cycle does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, dijkstra

from cai import checks
from cai.roads.network import Streets

_ROUNDING = 1e-12  # of the largest utility
LEFT = 1e-9  # of the largest utility: what a quadratic program leaves of a cycle
_BETWEEN = 64  # sweeps after which a cycle is looked for


class GainingCycle(ValueError):
    """A cycle gains.

    Args:
        message: what to do about it.
        segments: of the cycle, in the order in which they are driven.
    """

    def __init__(self, message: str, segments: list[int]) -> None:
        super().__init__(message)
        self.segments = segments

    def __reduce__(self) -> Any:
        return type(self), (str(self), self.segments)


class BestRoutes:
    """The routes of the largest sum of utilities.

    Args:
        streets: a network of E segments and N turns.
        utility: (N,), of each turn; -inf forbids it.
        least: what every turn costs besides, as a share of the largest utility, so that a cycle
            that gains nothing but what an optimiser left of it does not count.

    Attributes:
        costs: (N,), nonnegative costs of turns that rank routes as utilities do; inf if forbidden.

    Raises:
        GainingCycle: if a cycle gains.
    """

    def __init__(self, streets: Streets, utility: Any, least: float = 0.0) -> None:
        self._size = len(streets.segments)
        tails, heads = streets.turns.numpy().T
        open_ = np.isfinite(utility)
        utility = utility - least * np.abs(utility[open_]).max(initial=0.0)
        self.costs: Any = np.full(len(utility), np.inf)
        tails, heads, u = tails[open_], heads[open_], utility[open_]
        h = _gains(tails, heads, u, self._size)
        # scipy takes a zero for no edge
        self.costs[open_] = costs = np.maximum(h[tails] - u - h[heads], 1e-300)
        self._back = csr_array((costs, (heads, tails)), shape=(self._size, self._size))

    def after(self, goal: int) -> Any:
        """(E,), the segment that follows each on its best route to a goal, negative for none."""
        return dijkstra(self._back, indices=goal, return_predecessors=True)[1]


def route(after: Any, origin: int, goal: int) -> list[int]:
    """The segments from an origin to a goal, where ``after`` leads from each."""
    path = [origin]
    while path[-1] != goal:
        path.append(int(after[path[-1]]))
    return path


def _gains(tails: Any, heads: Any, utility: Any, size: int) -> Any:
    """(E,), the largest gain of any path from each segment, 0 for staying; by sweeps."""
    h, ahead = np.zeros(size), np.full(size, -1)
    enough = _ROUNDING * np.abs(utility).max(initial=0.0)
    for sweep in range(1, size + 2):
        better = h.copy()
        np.maximum.at(better, tails, utility + h[heads])
        gains = better - h > enough
        if not gains.any():
            return h
        chosen = (utility + h[heads] == better[tails]) & gains[tails]
        ahead[tails[chosen]] = heads[chosen]
        h = np.where(gains, better, h)
        if (sweep % _BETWEEN == 0 or sweep > size) and (around := _round(ahead)):
            break
    advice = "the most probable route drives round for ever; add a cost such as a constant"
    try:
        checks.refuse("weights", "a cost of every cycle", "a cycle that gains", advice)
    except ValueError as error:
        raise GainingCycle(str(error), around) from None


def _round(ahead: Any) -> list[int]:
    """A cycle among the best turns so far, which gains; empty if there is none."""
    on = np.flatnonzero(ahead >= 0)
    graph = csr_array((np.ones(len(on)), (on, ahead[on])), shape=(len(ahead), len(ahead)))
    part = connected_components(graph, connection="strong")[1]
    several = np.bincount(part)[part] > 1
    itself = np.flatnonzero(ahead == np.arange(len(ahead)))
    if len(itself):
        return [int(itself[0])]
    if not several.any():
        return []
    path = [int(np.flatnonzero(several)[0])]
    while (following := int(ahead[path[-1]])) != path[0]:
        path.append(following)
    return path
