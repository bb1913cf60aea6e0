"""Trips on road networks: dense algebra, all routes one by one, differences, and messages."""

import dataclasses
import itertools

import networkx as nx
import pytest
import torch
from differences import numerically
from towns import NAMES, dense_values, simulated, town, trips_of, walks

import cai
from cai import inference, models
from cai.inference.inverse import _trip_task
from cai.inference.trips.trip_likelihoods import TripLikelihoods


@pytest.mark.parametrize("seed", range(3))
def test_values_scores_and_hessian(seed):
    streets = town(seed)
    trips = walks(streets, 40, seed)
    features = streets.features(NAMES)
    score = TripLikelihoods(streets, features, trips)
    weights = torch.tensor([-1.5, -0.3, -1.0], dtype=torch.float64)
    found = score(weights)
    expected = dense_values(streets, features @ weights, trips)
    torch.testing.assert_close(found.values, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(score.values(weights), expected, rtol=1e-10, atol=1e-10)
    values, slope = score.gradient(weights)
    torch.testing.assert_close(values, found.values)
    torch.testing.assert_close(slope, found.scores.sum(0))
    slopes, curvature = numerically(score, weights)
    torch.testing.assert_close(found.scores, slopes, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(found.information, -curvature, rtol=1e-6, atol=1e-6)


def test_routes_that_end_at_the_goal_are_all_there_is():
    """Three ways of the same cost, two of which share their first segment."""
    tails, heads = list("aabbcd"), list("bcdcdg")
    streets = models.streets_from_columns({"tail": ["o", *tails], "head": ["a", *heads]})
    streets = dataclasses.replace(
        streets, segment_features={"minutes": torch.ones(7, dtype=torch.float64)}
    )
    ends = [i for i, (_, v, _) in enumerate(streets.segment_names) if v == "g"]
    assert len(ends) == 1
    follows = {e: [] for e in range(7)}
    for one, other in streets.turns.tolist():
        follows[one].append(other)

    def onwards(path):
        if path[-1] == ends[0]:
            yield path
            return
        for after in follows[path[-1]]:
            yield from onwards([*path, after])

    routes = list(onwards([streets.segment("o", "a")]))
    trips = trips_of(streets, routes)
    score = TripLikelihoods(streets, streets.features(["minutes"]), trips)
    for weight in (-0.1, -1.0, -30.0):
        p = score(torch.tensor([weight], dtype=torch.float64)).values.exp()
        assert float(p.sum()) == pytest.approx(1.0, abs=1e-12)


def test_equal_routes_are_equally_probable_however_they_branch():
    """Ziebart's figure 2: a third each, where turn by turn it would be ½, ¼, ¼."""
    edges = ["oa", "ab", "ac", "bd", "ce", "cf", "dg", "eg", "fg", "gh"]
    streets = models.streets_from_columns(
        {"tail": [x[0] for x in edges], "head": [x[1] for x in edges]}
    )
    streets = dataclasses.replace(
        streets, segment_features={"minutes": torch.ones(len(edges), dtype=torch.float64)}
    )
    paths = [
        [streets.segment(x, y) for x, y in itertools.pairwise(nodes)]
        for nodes in ("oabdgh", "oacegh", "oacfgh")
    ]
    score = TripLikelihoods(streets, streets.features(["minutes"]), trips_of(streets, paths))
    for weight in (0.0, -1.0, 2.0):
        p = score(torch.tensor([weight], dtype=torch.float64)).values.exp()
        torch.testing.assert_close(p, torch.full((3,), 1 / 3, dtype=torch.float64))


def test_a_goal_can_be_feasible_where_the_network_is_not():
    """The only cycle that gains leads through the goal, where trips end."""
    streets = models.streets_from_columns({"tail": list("oab"), "head": list("aba")})
    streets = dataclasses.replace(
        streets, segment_features={"gain": torch.ones(3, dtype=torch.float64)}
    )
    trips = trips_of(streets, [[streets.segment("o", "a"), streets.segment("a", "b")]])
    score = TripLikelihoods(streets, streets.features(["gain"]), trips)
    found = score(torch.tensor([1.0], dtype=torch.float64))  # exp(1) > 1 on every turn
    torch.testing.assert_close(found.values, torch.zeros(1, dtype=torch.float64))
    other = models.streets_from_columns({"tail": list("oabb"), "head": list("abac")})
    other = dataclasses.replace(
        other, segment_features={"gain": torch.ones(4, dtype=torch.float64)}
    )
    trips = trips_of(other, [[other.segment(x, y) for x, y in ("oa", "ab", "bc")]])
    score = TripLikelihoods(other, other.features(["gain"]), trips)
    with pytest.raises(ValueError, match="expected those with a finite sum over routes"):
        score(torch.tensor([1.0], dtype=torch.float64))
    assert score(score.start()).values.isfinite().all()


def test_a_street_that_leads_back_to_where_it_began():
    streets = models.streets_from_columns({"tail": list("oaab"), "head": list("aabc")})
    streets = dataclasses.replace(
        streets, segment_features={"minutes": torch.ones(4, dtype=torch.float64)}
    )
    o, loop, on, end = (streets.segment(x, y) for x, y in ("oa", "aa", "ab", "bc"))
    paths = [[o, on, end], [o, loop, on, end], [o, loop, loop, on, end]]
    score = TripLikelihoods(streets, streets.features(["minutes"]), trips_of(streets, paths))
    weight = torch.tensor([-1.2], dtype=torch.float64)
    q = float(weight.exp())  # once more round, each time
    expected = torch.tensor([1 - q, (1 - q) * q, (1 - q) * q * q], dtype=torch.float64)
    torch.testing.assert_close(score(weight).values.exp(), expected)
    slopes, curvature = numerically(score, weight)
    torch.testing.assert_close(score(weight).scores, slopes, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(score(weight).information, -curvature, rtol=1e-6, atol=1e-6)


def test_far_goals_that_do_not_reach_each_other():
    """A thousand segments of one nat each, with a dead end at both ends of a fork."""
    n = 1000
    tails = [str(i) for i in range(n)] + [str(n), str(n)]
    heads = [str(i + 1) for i in range(n)] + ["left", "right"]
    streets = models.streets_from_columns({"tail": tails, "head": heads})
    streets = dataclasses.replace(
        streets, segment_features={"minutes": torch.ones(n + 2, dtype=torch.float64)}
    )
    road = [streets.segment(str(i), str(i + 1)) for i in range(n)]
    ways = [[*road, streets.segment(str(n), end)] for end in ("left", "right")]
    score = TripLikelihoods(streets, streets.features(["minutes"]), trips_of(streets, ways))
    found = score(torch.tensor([-2.0], dtype=torch.float64))  # -2000 nats
    torch.testing.assert_close(found.values, torch.zeros(2, dtype=torch.float64), atol=1e-9, rtol=0)


def test_weights_are_found_again_with_errors_that_cover_them():
    streets = town(1)
    truth = torch.tensor([-1.5, -0.5, -1.0], dtype=torch.float64)
    paths = simulated(streets, truth, 400, seed=2)
    trips = trips_of(streets, paths, groups=[i % 20 for i in range(400)])
    fitted = inference.fit_reward(streets, trips, NAMES)
    assert fitted.converged
    for name, value in zip(NAMES, truth.tolist(), strict=True):
        assert abs(fitted.weights[name] - value) < 4 * fitted.std_errors[name]
        assert fitted.std_errors[name] < 0.3
    torch.testing.assert_close(fitted.observed, fitted.expected, rtol=1e-5, atol=1e-5)
    again = inference.fit_reward(streets, trips, NAMES, start=[-6.0, -6.0, -6.0])
    assert again.weights == pytest.approx(fitted.weights, abs=1e-6)
    clustered = inference.fit_reward(streets, trips, NAMES, cluster="group")
    assert clustered.weights == fitted.weights
    for name in NAMES:  # of drivers that are alike
        assert 0.5 < clustered.std_errors[name] / fitted.std_errors[name] < 1.6
    with pytest.raises(ValueError, match="model: expected a model, which has a policy"):
        _ = fitted.policy


def test_trips_from_tables(tmp_path):
    streets = town()
    trips = walks(streets, 5)
    rows = [
        (f"t{i}", *streets.segment_names[e], f"d{i % 2}")
        for i in range(5)
        for e in trips.states[i, : trips.lengths[i] + 1].tolist()
    ]
    columns = dict(zip(("trip", "u", "v", "key", "driver"), zip(*rows, strict=True), strict=True))
    read = streets.demonstrations(columns, group="driver")
    assert torch.equal(read.states, trips.states)
    assert torch.equal(read.actions, trips.actions)
    assert read.groups == ("d0", "d1", "d0", "d1", "d0")
    assert torch.equal(read.goals, trips.goals)
    file = tmp_path / "trips.csv"
    lines = [",".join(columns), *(",".join(map(str, row)) for row in rows)]
    file.write_text("\n".join(lines), encoding="utf-8")
    assert torch.equal(streets.demonstrations(file).states, trips.states)
    # A row is left out in the middle of the first trip.
    gap = {name: (*x[:1], *x[2:]) for name, x in columns.items()}
    assert trips.lengths[0] > 2
    with pytest.raises(ValueError, match="trip t0, row 1: expected segments that a turn joins"):
        streets.demonstrations(gap)
    short = {name: (*x, x[0]) for name, x in columns.items()}
    short["trip"] = (*columns["trip"], "t9")
    with pytest.raises(ValueError, match="expected at least two segments in a trip, got one in t"):
        streets.demonstrations(short)


def test_trips_that_do_not_fit_are_named():
    streets = town()
    trips = walks(streets, 3)
    features = streets.features(NAMES)
    wrong = dataclasses.replace(trips, actions=(trips.actions + 1) % len(streets.turns))
    with pytest.raises(ValueError, match="trip 0, step 0: expected the turn between"):
        TripLikelihoods(streets, features, wrong)
    with pytest.raises(ValueError, match="trip 0, actions: expected integers in 0"):
        TripLikelihoods(streets, features, dataclasses.replace(trips, actions=trips.actions + 9999))
    turns = streets.turns.tolist()
    a, b = next(turn for turn in turns if turn[::-1] in turns)
    with pytest.raises(ValueError, match="trip 0: expected a goal that is entered last, got"):
        TripLikelihoods(streets, features, trips_of(streets, [[a, b, a, b]]))
    with pytest.raises(ValueError, match=r"trip 0: expected one that arrived, .* got 'cut'"):
        inference.fit_reward(streets, trips.prefix(0.9), NAMES)
    for names in ("minutes", cai.LinearReward({"s": lambda s, a: s})):
        with pytest.raises(ValueError, match="reward: expected a list of names of features, got"):
            inference.fit_reward(streets, trips, names)
    with pytest.raises(ValueError, match='rule: expected "soft" on a road network'):
        inference.fit_reward(streets, trips, NAMES, rule="boltzmann")
    with pytest.raises(ValueError, match="feature: expected the name of a feature, got 'tolls'"):
        inference.fit_reward(streets, trips, ["tolls"])


def test_a_start_from_some_goals_leads_to_the_same_weights(monkeypatch):
    streets = town(1)
    truth = torch.tensor([-1.5, -0.5, -1.0], dtype=torch.float64)
    trips = trips_of(streets, simulated(streets, truth, 200, seed=4))
    calls, real = [], TripLikelihoods.__call__

    def counted(self, weights):
        calls.append(len(self.taken))
        return real(self, weights)

    monkeypatch.setattr(TripLikelihoods, "__call__", counted)
    plain = inference.fit_reward(streets, trips, NAMES, start=[-2.0, 0.0, 0.0])
    assert calls == [200] * len(calls)
    assert plain.evaluations > len(calls)  # of gradients alone
    monkeypatch.setattr(_trip_task, "_EVERY", (4, 2))
    calls.clear()
    fitted = inference.fit_reward(streets, trips, NAMES)
    assert calls[-1] == 200
    assert sum(n == 200 for n in calls) == 1  # where it ends
    assert fitted.converged
    assert fitted.weights == pytest.approx(plain.weights, abs=1e-6)
    calls.clear()

    def interrupted(self, weights):
        calls.append(weights)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, weights)

    monkeypatch.setattr(TripLikelihoods, "__call__", interrupted)
    cut = inference.fit_reward(streets, trips, NAMES)
    assert len(calls) == 4  # the last one for the errors
    assert (cut.steps, cut.converged) == (0, False)
    assert "interrupted" in cut.reason


def two_way_road(n):
    """A road with a minute between neighbours, and the way from one end to the other."""
    ends = [str(i) for i in range(n)], [str(i + 1) for i in range(n)]
    columns = {"tail": ends[0] + ends[1], "head": ends[1] + ends[0]}
    streets = models.streets_from_columns(columns)
    streets = dataclasses.replace(
        streets, segment_features={"minutes": torch.ones(2 * n, dtype=torch.float64)}
    )
    return streets, [streets.segment(x, y) for x, y in zip(*ends, strict=True)]


def test_a_goal_far_beyond_the_nearest_one_does_not_underflow():
    """A thousand segments of two nats between the goals; alone, each is in range."""
    streets, road = two_way_road(1000)
    paths = [road[:3], road, road[:500], road[400:]]
    weight = torch.tensor([-2.0], dtype=torch.float64)

    def score(paths):
        trips = trips_of(streets, paths)
        return TripLikelihoods(streets, streets.features(["minutes"]), trips)

    together, alone = score(paths), [score([path]) for path in paths]
    found, apart = together(weight), [one(weight) for one in alone]
    for i, one in enumerate(apart):
        torch.testing.assert_close(found.values[i], one.values[0])
        torch.testing.assert_close(found.scores[i], one.scores[0])
    torch.testing.assert_close(found.information, sum(one.information for one in apart))
    torch.testing.assert_close(together.values(weight), found.values)
    torch.testing.assert_close(together.gradient(weight)[1], found.scores.sum(0))
    slopes, curvature = numerically(together, weight)
    torch.testing.assert_close(found.scores, slopes, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.information, -curvature, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cost", [1e3, 1e5])
def test_where_minutes_are_all_a_detour_costs_its_minutes(cost):
    streets = town(2)
    trips = walks(streets, 60, seed=3)
    score = TripLikelihoods(streets, streets.features(["minutes"]), trips)
    found = score.values(torch.tensor([-cost], dtype=torch.float64))
    minutes = streets.feature("minutes").tolist()  # of the segment that a turn enters
    graph = nx.DiGraph()
    turns = zip(streets.turns.tolist(), minutes, strict=True)
    graph.add_weighted_edges_from((a, b, x) for (a, b), x in turns)
    for i in range(len(trips)):
        driven = sum(minutes[turn] for turn in trips.actions[i, : trips.lengths[i]])
        least = nx.shortest_path_length(graph, trips[i].origin, trips[i].goal, "weight")
        assert float(found[i]) == pytest.approx(-cost * (driven - least), abs=1e-6 * cost)
