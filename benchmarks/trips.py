"""The likelihood of trips on a generated town: our blocks of solves against SuperLU by hand.

The town has some 7 100 segments and 24 000 turns; 1 800 trips lead to 470 destinations. By hand:
one factorisation in SuperLU's default order, one solve of all columns and one transposed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array, eye_array
from scipy.sparse.csgraph import dijkstra
from scipy.sparse.linalg import splu

import cai
from benchmarks.timing import Race, check_close
from cai import inference, models
from cai.inference.trips.trip_likelihoods import TripLikelihoods

_NAMES = ["minutes", "left", "right", "u_turn"]
_WEIGHTS = torch.tensor([-9.0, -0.7, -0.4, -3.0], dtype=torch.float64)
_GOALS, _TRIPS = 470, 1800


def gradient() -> Race:
    """Values and the gradient of their sum."""
    return _race("trips, gradient / SuperLU", lambda ours: ours.gradient(_WEIGHTS), 3.0)


def hessian() -> Race:
    """Values, the score of each trip and the exact Hessian, against values and a gradient."""
    return _race("trips, Hessian / gradient", lambda ours: ours(_WEIGHTS), 1 / 1.4)


def fit() -> Race:
    """The whole fit with its errors, from no start at all, against one gradient."""

    def fitted(ours: TripLikelihoods) -> Any:
        return inference.fit_reward(*_town()[::2], _NAMES, progress=False)

    return _race("trips, whole fit / gradient", fitted, 1 / 8)


def _race(name: str, run: Callable[[TripLikelihoods], Any], target: float) -> Race:
    streets, paths, trips = _town()
    features = streets.features(_NAMES)
    ours = TripLikelihoods(streets, features, trips)
    theirs = _ByHand(streets, features.numpy(), paths, ours.taken)
    values, slope = theirs.gradient()
    found = ours(_WEIGHTS)
    check_close("values", found.values.numpy(), values, 1e-9)
    check_close("gradient", found.scores.sum(0).numpy(), slope, 1e-6)
    sizes = f"{len(streets.segments)} segments, {_GOALS} goals"
    return Race(
        name=name,
        sizes=sizes,
        reference="SuperLU, all columns at once",
        ours=lambda: run(ours),
        theirs=theirs.gradient,
        target=target,
    )


@functools.cache
def _town() -> tuple[cai.Streets, list[list[int]], cai.Demonstrations]:
    """Streets, paths, and the same as demonstrations."""
    streets = models.city(47, 47, seed=0)
    paths = _paths(streets, (streets.features(_NAMES) @ _WEIGHTS).numpy())
    return streets, paths, demonstrations(streets, paths)


def demonstrations(streets: cai.Streets, paths: list[Any]) -> cai.Demonstrations:
    """Paths of segments as demonstrations."""
    tensors = [torch.as_tensor(path) for path in paths]
    turns = [streets.locate_turns(path[:-1], path[1:]) for path in tensors]
    goals = [int(path[-1]) for path in tensors]
    return cai.Demonstrations.from_paths(tensors, turns, ends="absorbed", goals=goals)


def _paths(streets: cai.Streets, utility: Any) -> list[list[int]]:
    """Shortest paths under costs that were shaken a little."""
    rng, turns, E = np.random.default_rng(0), streets.turns.numpy(), len(streets.segments)
    paths: list[list[int]] = []
    for goal in rng.choice(E, _GOALS, replace=False).tolist():
        costs = np.maximum(0.3 * rng.gumbel(size=len(utility)) - utility, 1e-3)
        back = csr_array((costs, (turns[:, 1], turns[:, 0])), shape=(E, E))
        distance, after = dijkstra(back, indices=goal, return_predecessors=True)
        starts = np.flatnonzero(np.isfinite(distance) & (np.arange(E) != goal))
        for start in rng.choice(starts, 4, replace=False).tolist():
            path = [start]
            while path[-1] != goal:
                path.append(int(after[path[-1]]))
            paths.append(path)
    return paths[:_TRIPS]


class _ByHand:
    """As one would write it with SciPy."""

    def __init__(self, streets: cai.Streets, features: Any, paths: Any, taken: Any) -> None:
        self.features, self.taken = features, taken
        self.turns, self.size = streets.turns.numpy(), len(streets.segments)
        self.origins = np.array([path[0] for path in paths])
        self.goals, self.to = np.unique([path[-1] for path in paths], return_inverse=True)

    def gradient(self) -> tuple[Any, Any]:
        """log P of each trip, and the gradient of their sum."""
        weights, E = _WEIGHTS.numpy(), self.size
        moves = np.exp(self.features @ weights)
        M = csr_array((moves, (self.turns[:, 0], self.turns[:, 1])), shape=(E, E))
        lu = splu((eye_array(E) - M).tocsc())
        columns = np.arange(len(self.goals))
        right = np.zeros((E, len(self.goals)))
        right[self.goals, columns] = 1.0
        x = lu.solve(right)
        here, there = x[self.origins, self.to], x[self.goals, columns]
        values = self.taken @ weights - np.log(here / there[self.to])
        left = np.zeros_like(x)
        np.add.at(left, (self.origins, self.to), 1 / here)
        left[self.goals, columns] -= np.bincount(self.to) / there
        y = lu.solve(left, "T")
        visits = np.einsum("nj,nj->n", y[self.turns[:, 0]], x[self.turns[:, 1]]) * moves
        return values, self.taken.sum(0) - self.features.T @ visits
