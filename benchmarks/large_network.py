"""The likelihood of trips and its gradient on a network of 300 000 segments.

Run ``python -m benchmarks.large_network`` from the root of the repository. It takes a few minutes
and prints, in seconds of processor time on one thread:

* one destination: values and their gradient, against one factorisation by SuperLU in the order that
  suits planar networks, one solve and one transposed solve, with everything else by hand;
* the same again, where the order of the unknowns is known;
* what each further destination takes;
* 400 destinations of 500 trips, and the most memory that the process ever held.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array, eye_array
from scipy.sparse.csgraph import dijkstra
from scipy.sparse.linalg import splu

import cai
from benchmarks.trips import demonstrations
from cai import models
from cai.inference.trips.trip_likelihoods import TripLikelihoods

_NAMES = ["minutes", "left", "right", "u_turn"]
_WEIGHTS = torch.tensor([-9.0, -0.7, -0.4, -3.0], dtype=torch.float64)
_ROUNDS = 5


def main() -> None:
    """Prints the table."""
    torch.set_num_threads(1)
    streets = models.city(300, 300, seed=0)
    print(f"{len(streets.segments)} segments, {len(streets.turns)} turns")
    features = streets.features(_NAMES)
    costs = -(features @ _WEIGHTS).numpy()
    paths = _trips(streets, costs, goals=400, trips=500)
    one = demonstrations(streets, paths[:1])
    first = _seconds(lambda: TripLikelihoods(streets, features, one).gradient(_WEIGHTS), 3)
    ours = TripLikelihoods(streets, features, one)
    hand = _seconds(lambda: _by_hand(streets, features.numpy(), paths[0]), 3)
    again = _seconds(lambda: ours.gradient(_WEIGHTS), _ROUNDS)
    (value, slope), (expected, other) = (
        ours.gradient(_WEIGHTS),
        _by_hand(streets, features.numpy(), paths[0]),
    )
    np.testing.assert_allclose(value.numpy(), expected, rtol=1e-8)
    np.testing.assert_allclose(slope.numpy(), other, rtol=1e-5, atol=1e-5)
    print(f"one destination by hand            {hand:8.2f} s")
    print(f"one destination, the first time    {first:8.2f} s  {first / hand:5.2f} [1.15]")
    print(f"one destination, again             {again:8.2f} s  {again / hand:5.2f} [0.85]")
    near = demonstrations(streets, paths[:60])
    several = TripLikelihoods(streets, features, near)
    goals = len({path[-1] for path in paths[:60]})
    more = _seconds(lambda: several.gradient(_WEIGHTS), 1)
    print(f"each further destination           {(more - again) / (goals - 1):8.3f} s  [0.1]")
    everything = TripLikelihoods(streets, features, demonstrations(streets, paths))
    seconds = _seconds(lambda: everything.gradient(_WEIGHTS), 1)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"400 destinations of 500 trips      {seconds:8.1f} s  [60]")
    print(f"most memory                        {most:8.2f} GiB  [2]")


def _seconds(run: Callable[[], Any], rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        start = time.process_time()
        run()
        taken.append(time.process_time() - start)
    return sorted(taken)[len(taken) // 2]


def _trips(streets: cai.Streets, costs: Any, goals: int, trips: int) -> list[list[int]]:
    """Cheapest routes from a few kilometres around each goal."""
    rng, turns, E = np.random.default_rng(0), streets.turns.numpy(), len(streets.segments)
    back = csr_array((np.maximum(costs, 1e-3), (turns[:, 1], turns[:, 0])), shape=(E, E))
    paths: list[list[int]] = []
    for i, goal in enumerate(rng.choice(E, goals, replace=False).tolist()):
        distance, after = dijkstra(back, indices=goal, return_predecessors=True, limit=40.0)
        starts = np.flatnonzero(np.isfinite(distance) & (np.arange(E) != goal))
        for start in rng.choice(starts, 1 + (i < trips - goals), replace=False).tolist():
            path = [start]
            while path[-1] != goal:
                path.append(int(after[path[-1]]))
            paths.append(path)
    return paths


def _by_hand(streets: cai.Streets, features: Any, path: list[int]) -> tuple[Any, Any]:
    """log P of a trip and its gradient, as one would write it with SciPy."""
    tails, heads = streets.turns.numpy().T
    E, weights = len(streets.segments), _WEIGHTS.numpy()
    moves = np.exp(features @ weights)
    M = csr_array((moves, (tails, heads)), shape=(E, E))
    lu = splu(
        (eye_array(E) - M).tocsc(),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )
    right = np.zeros(E)
    right[path[-1]] = 1.0
    x = lu.solve(right)
    pull = np.zeros(E)
    pull[path[0]], pull[path[-1]] = 1 / x[path[0]], -1 / x[path[-1]]
    y = lu.solve(pull, "T")
    turns = streets.locate_turns(torch.tensor(path[:-1]), torch.tensor(path[1:])).numpy()
    taken = features[turns].sum(0)
    value = taken @ weights - np.log(x[path[0]] / x[path[-1]])
    return np.array([value]), taken - features.T @ (y[tails] * moves * x[heads])


if __name__ == "__main__":
    main()
