"""Solutions for many goals: one factorisation for those near each other, others for those far off.

With the potential h of some goals, x = G e_d of another goal is exp(-c) of its scale in a segment
from where the way to d is by c nats longer than that to the nearest of them. Where that underflows,
d gets a factorisation with a potential of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from cai.inference.trips.goal_solver import GoalSolver

_BLOCK = 8  # right-hand sides at a time, which stay in the cache
LOST = 1e-200  # x of an origin over that of its goal: below it, digits may be lost
_ENDLESS = (
    "weights: expected those with a finite sum over routes, got cycles that cost too little; "
    "make segments cost more"
)


class Factorised(NamedTuple):
    """I - M for the weights of turns, scaled by a potential.

    Attributes:
        solver: of the network; all numbers of segments are its places.
        h: (E,), nats: the potential.
        moves: (N,), exp(utility + h(head) - h(tail)).
        lu: SuperLU's factors of I - M.
    """

    solver: GoalSolver
    h: Any
    moves: Any
    lu: Any

    def columns(self, goals: Any) -> Any:
        """x = G e_d of some goals, (E, b).

        Raises:
            ValueError: if a sum over routes to one of them is infinite.
        """
        x = self.unit_columns(goals)
        low, high = x.min(0), x.max(0)
        # z_d = x / x(d) must be a sum of positive terms.
        if not np.isfinite(high).all() or ((low < 0) & (high > 0)).any():
            raise ValueError(_ENDLESS)
        return x

    def unit_columns(self, places: Any) -> Any:
        """(E, b), columns of G, unchecked."""
        right = np.zeros((self.solver.size, len(places)), order="F")
        right[places, np.arange(len(places))] = 1.0
        return self.lu.solve(right)

    def transposed(self) -> Any:
        """SuperLU's factors of the transpose."""
        return self.solver.factors(self.moves, True)


def factorised(solver: GoalSolver, utility: Any, used: Any, goals: Any) -> Factorised:
    """The factorisation for the potential of some goals, without turns that lead to none of them.

    Args:
        solver: of the network.
        utility: (N,), nats.
        used: (N,), boolean: the turns that are open.
        goals: (D,).

    Raises:
        ValueError: if the matrix is singular.
    """
    h = solver.potential(utility, goals)
    leads = used & np.isfinite(h[solver.heads])
    h = np.where(np.isfinite(h), h, 0.0)
    moves = np.where(leads, np.exp(utility + h[solver.heads] - h[solver.tails]), 0.0)
    try:
        return Factorised(solver, h, moves, solver.factors(moves))
    except RuntimeError:
        raise ValueError(_ENDLESS) from None


def solved(
    first: Factorised, utility: Any, used: Any, goals: Any, seen_from: Callable[[Any, Any], Any]
) -> Iterator[tuple[Factorised, Iterator[tuple[Any, Any]]]]:
    """As many factorisations as goals need, each with those that are in range of it.

    Args:
        first: the factorisation for the potential of all of them.
        utility: (N,), nats.
        used: (N,), boolean: the turns that are open.
        goals: (D,), places.
        seen_from: which of the goals (b,), and x (E, b) -> (b,), the smallest x that is needed.

    Yields:
        The factorisation, and pairs of which goals (b,) and x (E, b), all of which must be taken.

    Raises:
        ValueError: if a sum over routes is infinite.
    """
    here, left, far = first, np.arange(len(goals)), []

    def in_range(own: int | None) -> Iterator[tuple[Any, Any]]:
        for some in np.split(left, range(_BLOCK, len(left), _BLOCK)):
            x = here.columns(goals[some])
            there = x[goals[some], np.arange(len(some))]
            near = (seen_from(some, x) >= LOST * there) | (some == own)
            far.append(some[~near])
            if near.any():
                yield some[near], x if near.all() else np.asfortranarray(x[:, near])

    yield here, in_range(None)
    while len(left := np.concatenate(far)):
        far = []
        here = factorised(first.solver, utility, used, goals[left[:1]])
        yield here, in_range(left[0])  # whose own potential is exact
