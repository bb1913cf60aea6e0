"""The best routes of a network with turns that gain, and cycles that gain."""

import itertools

import networkx as nx
import numpy as np
import pytest
import torch
from towns import town

from cai.inference.trips.best_routes import BestRoutes, GainingCycle, route


def utilities(streets, seed, mean):
    rng = np.random.default_rng(seed)
    return rng.normal(mean, 1.0, len(streets.turns))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("mean", [-4.0, -1.5, -0.8])
def test_routes_and_cycles_are_those_of_networkx(seed, mean):
    """By Bellman and Ford's method: either routes as good as its own, or a cycle that gains."""
    streets = town(seed)
    u = utilities(streets, seed, mean)
    graph = nx.DiGraph()
    for (s, after), x in zip(streets.turns.tolist(), u, strict=True):
        graph.add_edge(s, after, weight=-x)
    worth = {tuple(pair): x for pair, x in zip(streets.turns.tolist(), u, strict=True)}
    if nx.negative_edge_cycle(graph):
        with pytest.raises(GainingCycle) as caught:
            BestRoutes(streets, u)
        around = [*caught.value.segments, caught.value.segments[0]]
        assert sum(worth[pair] for pair in itertools.pairwise(around)) > 0
        return
    best = BestRoutes(streets, u)
    assert best.costs.min() >= 0
    for goal in (0, len(streets.segments) - 1):
        after = best.after(goal)
        for origin in range(1, len(streets.segments) - 1, 5):
            path = route(after, origin, goal)
            gained = sum(worth[pair] for pair in itertools.pairwise(path))
            expected = -nx.bellman_ford_path_length(graph, origin, goal)
            assert gained == pytest.approx(expected, abs=1e-9)


def test_a_cycle_that_gains_next_to_nothing_is_forgiven():
    streets = town(1)
    u = -np.ones(len(streets.turns))
    s, after = streets.turns[0].tolist()
    back = nx.shortest_path(nx.DiGraph(streets.turns.tolist()), after, s)
    around = [s, *back]
    turns = streets.locate_turns(torch.tensor(around[:-1]), torch.tensor(around[1:])).numpy()
    u[turns[0]] = len(turns) - 1 + 1e-10
    with pytest.raises(GainingCycle):
        BestRoutes(streets, u)
    assert BestRoutes(streets, u, 1e-9).costs.min() >= 0
