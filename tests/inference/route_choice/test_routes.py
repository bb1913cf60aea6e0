"""Predictions on road networks: all routes one by one, simulations, and messages."""

import dataclasses
import itertools

import networkx as nx
import pytest
import torch
from towns import NAMES, simulated, town, trips_of, walks

import cai
from cai import inference, models

WEIGHTS = torch.tensor([-1.5, -0.5, -1.0], dtype=torch.float64)


def predicted(streets, goals):
    return inference.Routes(streets, tuple(NAMES), WEIGHTS, torch.tensor(sorted(goals)))


def pairs(streets, n):
    trips = walks(streets, n, seed=5)
    return [(trips[i].origin, trips[i].goal) for i in range(n) if trips[i].origin != trips[i].goal]


def dense(streets, goal):
    """The chain on the way to a goal: P (E, E), the goal absorbing, and z (E,)."""
    E = len(streets.segments)
    M = torch.zeros(E, E, dtype=torch.float64)
    utility = streets.features(NAMES) @ WEIGHTS
    M[streets.turns[:, 0], streets.turns[:, 1]] = utility.exp()
    others = torch.arange(E) != goal
    z = torch.ones(E, dtype=torch.float64)
    A = torch.eye(E - 1, dtype=torch.float64) - M[others][:, others]
    z[others] = torch.linalg.solve(A, M[others, goal])
    P = M * z / z.unsqueeze(1)
    P[goal] = 0
    return P, z


def test_traversals_and_use_by_dense_algebra():
    streets = town(2)
    for o, d in pairs(streets, 6):
        routes = predicted(streets, [d])
        P, _ = dense(streets, d)
        eye = torch.eye(len(P), dtype=torch.float64)
        G = torch.linalg.inv(eye - P)
        torch.testing.assert_close(routes.traversals(o, d), G[o], rtol=1e-9, atol=1e-12)
        # First passage: the probability of ever entering s is G(o,s)/G(s,s).
        expected = G[o] / G.diagonal()
        expected[o] = 1.0
        torch.testing.assert_close(routes.use(o, d), expected, rtol=1e-9, atol=1e-12)
        assert (routes.use(o, d) <= routes.traversals(o, d) + 1e-12).all()


def test_routes_that_are_drawn_have_the_probabilities_that_are_said():
    streets = town(2)
    o, d = pairs(streets, 6)[0]
    routes, n = predicted(streets, [d]), 4000
    drawn = [tuple(path.tolist()) for path in routes.sample(o, d, n, seed=3)]
    assert drawn == [tuple(path.tolist()) for path in routes.sample(o, d, n, seed=3)]
    kinds = sorted(set(drawn), key=drawn.count)[-8:]
    p = routes.log_probability(trips_of(streets, [list(kind) for kind in kinds])).exp()
    for kind, share in zip(kinds, p.tolist(), strict=True):
        error = (share * (1 - share) / n) ** 0.5
        assert abs(drawn.count(kind) / n - share) < 5 * error
    best = tuple(routes.likely(o, d).tolist())
    assert best == kinds[-1] or p[-1] - p[kinds.index(best)] < 1e-12
    used = routes.use(o, d)
    for e in range(len(streets.segments)):
        share = float(used[e])
        seen = sum(e in path for path in drawn) / n
        assert abs(seen - share) < 5 * (share * (1 - share) / n) ** 0.5 + 4 / n


def test_where_somebody_goes_by_the_probability_of_each_beginning():
    """p(g | beginning) ∝ p(g) Σ over routes to g with that beginning."""
    streets = town(1)
    trips = trips_of(streets, simulated(streets, WEIGHTS, 12, seed=4))
    routes = predicted(streets, set(trips.goals.tolist()))
    prior = torch.arange(1.0, len(routes.goals) + 1, dtype=torch.float64)
    for i in range(len(trips)):
        prefix = trips[i].prefix(0.6)
        path = prefix.states[0].tolist()
        expected = []
        for g in routes.goals.tolist():
            P, _ = dense(streets, g)
            chance = 1.0
            for one, other in itertools.pairwise(path):
                chance = chance * P[one, other]
            expected.append(torch.as_tensor(chance, dtype=torch.float64))
        expected = prior * torch.stack(expected)
        if path[0] in routes.goals.tolist():  # it began there, and did not stay
            assert routes.goal_posterior(prefix, prior)[routes.goals == path[0]] == 0
            continue
        found = routes.goal_posterior(prefix, prior)
        torch.testing.assert_close(found, expected / expected.sum(), rtol=1e-8, atol=1e-12)
        by_segment = dict(zip(routes.goals.tolist(), prior.tolist(), strict=True))
        torch.testing.assert_close(routes.goal_posterior(prefix, by_segment), found)
    whole = trips[0].prefix(1.0)
    assert trips[0].goal == int(routes.goals[routes.goal_posterior(whole).argmax()])


def test_the_fit_is_what_predicts():
    streets = town(1)
    trips = trips_of(streets, simulated(streets, WEIGHTS, 60, seed=2))
    fitted = inference.fit_reward(streets, trips, NAMES)
    routes = inference.routes(fitted, trips.goals)
    assert float(routes.log_probability(trips).sum()) == pytest.approx(fitted.log_likelihood)
    assert routes.goals.tolist() == sorted(set(trips.goals.tolist()))
    assert routes.names == tuple(NAMES)


@pytest.mark.parametrize(
    ("names", "weights", "goals", "message"),
    [
        (["minutes"], [-1.0, 2.0], [3], r"weights: expected 1 finite numbers, got shape \[2\]"),
        (["minutes"], [float("nan")], [3], "weights: expected 1 finite numbers, .* not finite"),
        (["hours"], [-9.0], [3], "feature: expected the name of a feature, got 'hours'"),
        (["minutes"], [-9.0], torch.empty(0).long(), "goals: expected segments 0 … .*, got none"),
        (["minutes"], [-9.0], [3, 999], "goals: expected segments 0 … .*, got 3 … 999"),
        (["minutes"], [-9.0], [-1], "goals: expected segments 0 … .*, got -1 … -1"),
        (["minutes"], [-9.0], [[3]], r"goals: expected segments 0 … .*, got shape \[1, 1\]"),
        (["minutes"], [-9.0], [3, 3], "goals: expected each segment once"),
        (["minutes"], [-9.0], [3.0], "goals: expected integers"),
    ],
)
def test_routes_of_what_is_not_there_are_refused(names, weights, goals, message):
    with pytest.raises(ValueError, match=message):
        inference.Routes(town(1), tuple(names), torch.tensor(weights), goals)


def test_what_does_not_fit_is_refused():
    streets = town(1)
    trips = walks(streets, 5)
    routes = predicted(streets, set(trips.goals.tolist()))
    with pytest.raises(ValueError, match="origin: expected a segment 0"):
        routes.use(-1, 0)
    with pytest.raises(ValueError, match=r"origin: expected a segment 0 … .* got 'a'"):
        routes.use("a", 0)
    with pytest.raises(ValueError, match="goal: expected another segment than the origin"):
        routes.use(3, 3)
    with pytest.raises(ValueError, match="prefix: expected the beginning of one trip"):
        routes.goal_posterior(trips)
    with pytest.raises(ValueError, match="prior: expected shape"):
        routes.goal_posterior(trips[0].prefix(0.5), [1.0])
    with pytest.raises(ValueError, match="fitted: expected a RewardFit"):
        inference.routes(routes, [0])
    ledge = models.ledge()
    seen = cai.Demonstrations.from_trajectories(ledge.simulate(ledge.prior, 20, seed=0))
    other = inference.fit_reward(ledge, seen, cai.LinearReward({"s": lambda s, a: s}))
    with pytest.raises(ValueError, match="fitted: expected a fit on a road network"):
        inference.routes(other, [0])
    fork = models.streets_from_columns({"tail": list("oaa"), "head": list("abc")})
    fork = cai.Streets(
        segments=fork.segments,
        turns=fork.turns,
        segment_features={name: torch.ones(3).double() for name in NAMES},
        segment_names=fork.segment_names,
        node_names=fork.node_names,
    )
    ends = predicted(fork, [1, 2])
    with pytest.raises(ValueError, match=r"goal: expected one that .* reaches"):
        ends.use(1, 2)
    gains = inference.Routes(streets, tuple(NAMES), -WEIGHTS, torch.tensor([1]))
    with pytest.raises(ValueError, match="weights: expected a cost of every cycle"):
        gains.likely(0, 1)


def test_the_most_probable_route_where_some_turns_gain():
    """Against Bellman and Ford's method of networkx, on potentials that no cycle gains by."""
    streets = town(3)
    E = len(streets.segments)
    rng = torch.Generator().manual_seed(3)
    height = 3 * torch.rand(E, generator=rng, dtype=torch.float64)
    cost = streets.feature("minutes") + height[streets.turns[:, 0]] - height[streets.turns[:, 1]]
    assert (cost < 0).any()
    hilly = dataclasses.replace(streets, turn_features={"cost": cost})
    routes = inference.Routes(hilly, ("cost",), torch.tensor([-1.0]), torch.tensor([0]))
    graph = nx.DiGraph()
    pairs = [tuple(pair) for pair in streets.turns.tolist()]
    graph.add_weighted_edges_from((*pair, x) for pair, x in zip(pairs, cost.tolist(), strict=True))
    for o in range(1, E, 3):
        expected = nx.bellman_ford_path_length(graph, o, 0)
        assert nx.path_weight(graph, routes.likely(o, 0).tolist(), "weight") == pytest.approx(
            expected, abs=1e-9
        )


def test_goals_that_are_far_apart_are_all_in_range():
    """Half way along a thousand segments the goal behind is out, and the one ahead certain."""
    n = 1000
    ends = [str(i) for i in range(n)], [str(i + 1) for i in range(n)]
    streets = models.streets_from_columns({"tail": ends[0] + ends[1], "head": ends[1] + ends[0]})
    streets = dataclasses.replace(
        streets, segment_features={"minutes": torch.ones(2 * n, dtype=torch.float64)}
    )
    road = [streets.segment(x, y) for x, y in zip(*ends, strict=True)]
    goals, weight = torch.tensor(sorted((road[2], road[-1]))), torch.tensor([-2.0])
    both = inference.Routes(streets, ("minutes",), weight, goals)
    alone = inference.Routes(streets, ("minutes",), weight, torch.tensor([road[-1]]))
    trip = trips_of(streets, [road])
    torch.testing.assert_close(both.log_probability(trip), alone.log_probability(trip))
    for name in ("use", "traversals"):
        found, expected = (getattr(x, name)(road[0], road[-1]) for x in (both, alone))
        torch.testing.assert_close(found, expected)
    assert float(both.use(road[0], road[-1])[road[500]]) == pytest.approx(1)
    assert both.sample(road[0], road[-1], 1, seed=0)[0][-1] == road[-1]
    at_start = both.goal_posterior(trip.prefix(0.001))
    torch.testing.assert_close(at_start, torch.tensor([0.5, 0.5]).double(), atol=0.1, rtol=0)
    half_way = both.goal_posterior(trip.prefix(0.5))
    assert float(half_way[goals == road[-1]]) == 1
