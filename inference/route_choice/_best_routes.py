"""The best routes to a goal, by utilities of turns.

With h(s) the largest gain of any path from s, the costs h(s) - u - h(s') of turns are not negative,
and rank the routes from one segment to another as -u does (Johnson 1977), so that Dijkstra's method
serves networks with turns that gain, as long as no cycle does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from cai import checks
from cai.roads.network import Streets

_ROUNDING = 1e-12  # of the largest utility


class BestRoutes:
    """The routes of the largest sum of utilities.

    Args:
        streets: a network of E segments and N turns.
        utility: (N,), of each turn; -inf forbids it.

    Raises:
        ValueError: if a cycle gains.
    """

    def __init__(self, streets: Streets, utility: Any) -> None:
        self._size = len(streets.segments)
        tails, heads = streets.turns.numpy().T
        open_ = np.isfinite(utility)
        tails, heads, u = tails[open_], heads[open_], utility[open_]
        h = _gains(tails, heads, u, self._size)
        costs = np.maximum(h[tails] - u - h[heads], 1e-300)  # scipy takes a zero for no edge
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
    h = np.zeros(size)
    enough = _ROUNDING * np.abs(utility).max(initial=0.0)
    for _ in range(size + 1):
        better = h.copy()
        np.maximum.at(better, tails, utility + h[heads])
        if (better - h).max() <= enough:
            return h
        h = better
    advice = "the most probable route drives round for ever; add a cost such as a constant"
    checks.refuse("weights", "a cost of every cycle", "a cycle that gains", advice)
