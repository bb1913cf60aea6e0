"""Models of routes on held-out trips: all routes one by one, closed forms, and messages."""

import dataclasses
import itertools
import json
import math

import networkx as nx
import numpy as np
import pytest
import torch
from towns import town, trips_of, walks

import cai
from cai import inference, models
from cai.inference.route_choice._turn_choices import planned_log_shares
from cai.inference.trips.best_routes import BestRoutes

ROWS = ["shortest", "action", "action's costs", "MaxEnt"]
FEATURES = ["minutes", "scenic"]


def one_way_grid(size=4, seed=0):
    """Crossings in a square, driven to the east and to the north, so that routes are few."""
    rng = np.random.default_rng(seed)
    ends = []
    for i in range(size):
        for j in range(size):
            ends += [((i, j), (i + 1, j))] if i + 1 < size else []
            ends += [((i, j), (i, j + 1))] if j + 1 < size else []
    tail, head = ([f"{i}-{j}" for i, j in column] for column in zip(*ends, strict=True))
    columns = {"tail": ["in", *tail], "head": ["0-0", *head]}
    numbers = {name: rng.uniform(0.5, 2.0, len(tail) + 1) for name in ("minutes", "length")}
    scenic = (rng.random(len(tail) + 1) < 0.4).astype(float)
    return models.streets_from_columns(columns | numbers | {"scenic": scenic})


def graph_of(streets):
    graph = nx.DiGraph()
    graph.add_edges_from(streets.turns.tolist())
    return graph


def drawn(streets, n, seed):
    """Trips of a driver with weights (-2, 1), from any of the first segments to any that follow."""
    rng, graph = np.random.default_rng(seed), graph_of(streets)
    f = streets.features(FEATURES).numpy()
    utility = dict(zip(map(tuple, streets.turns.tolist()), f @ [-2.0, 1.0], strict=True))
    paths = []
    while len(paths) < n:
        o, d = (int(x) for x in rng.choice(len(streets.segments), 2, replace=False))
        every = list(nx.all_simple_paths(graph, o, d)) if o in graph and d in graph else []
        if every:
            p = np.exp([sum(utility[pair] for pair in itertools.pairwise(x)) for x in every])
            paths.append(every[rng.choice(len(every), p=p / p.sum())])
    return trips_of(streets, paths)


@pytest.fixture(scope="module")
def compared():
    streets = one_way_grid()
    train, test = drawn(streets, 60, 1), drawn(streets, 25, 2)
    return streets, train, test, inference.route_table(streets, train, test, FEATURES)


def by_enumeration(streets, train, table, o, d):
    """Of each row: all routes from o to d, and their scores: costs, or log-probabilities."""
    graph = graph_of(streets)
    index = {tuple(pair): n for n, pair in enumerate(streets.turns.tolist())}
    f = streets.features(FEATURES).numpy()
    every = list(nx.all_simple_paths(graph, o, d))
    turns = [[index[pair] for pair in itertools.pairwise(path)] for path in every]
    counts = np.ones(len(index))  # smoothing
    np.add.at(counts, train.actions[train.taken].numpy(), 1)
    total = [sum(counts[index[tail, x]] for x in graph[tail]) for tail, _ in index]
    share = np.log(counts / total)
    planned, maxent = (f @ [*table.weights[name].values()] for name in ROWS[2:])

    def worth(s):
        """The best sum of utilities from s to d, by all routes."""
        paths = [[s]] if s == d else nx.all_simple_paths(graph, s, d)
        sums = [sum(planned[index[y]] for y in itertools.pairwise(x)) for x in paths]
        return max(sums, default=-math.inf)

    def log_choice(n):
        tail = streets.turns.tolist()[n][0]
        q = {x: planned[index[tail, x]] + worth(x) for x in graph[tail]}
        return q[streets.turns.tolist()[n][1]] - np.logaddexp.reduce([*q.values()])

    paid = np.array([maxent[x].sum() for x in turns])
    minutes = streets.feature("minutes").numpy()
    return every, {
        "shortest": np.array([-minutes[x].sum() for x in turns]),
        "action": np.array([share[x].sum() for x in turns]),
        "action's costs": np.array([sum(map(log_choice, x)) for x in turns]),
        "MaxEnt": paid - np.logaddexp.reduce(paid),
    }


def test_every_row_by_all_routes_one_by_one(compared):
    streets, train, test, table = compared
    assert list(table.shares) == ROWS
    lengths = streets.segment_features["length"]
    for i in range(len(test)):
        path = test.states[i, : test.lengths[i] + 1].tolist()
        every, scores = by_enumeration(streets, train, table, path[0], path[-1])
        for name, each in scores.items():
            best = [x for x, y in zip(every, each, strict=True) if y > each.max() - 1e-9]
            assert len(best) == 1 or name == "action"  # equal counts
            on = [torch.tensor([e in x for e in path]) for x in best]
            shares = torch.stack([lengths[path][x].sum() / lengths[path].sum() for x in on])
            assert (table.shares[name][i] - shares).abs().min() < 1e-12, name
            if name == "shortest":
                continue
            log_p = float(table.log_probabilities[name][i])
            assert log_p == pytest.approx(each[every.index(path)], abs=1e-9), name
        for name in ROWS[2:]:
            assert np.logaddexp.reduce(scores[name]) == pytest.approx(0, abs=1e-9)
        assert np.logaddexp.reduce(scores["action"]) < 1e-9


def test_the_weights_of_planning_make_the_trips_most_probable(compared):
    """Central differences of log-likelihoods by all routes: no change of the weights gains."""
    streets, train, _, table = compared
    psi = np.array([*table.weights["action's costs"].values()])

    def likelihood(weights):
        changed = dict(table.weights) | {
            "action's costs": dict(zip(FEATURES, weights, strict=True))
        }
        other = dataclasses.replace(table, weights=changed)
        found = 0.0
        for i in range(len(train)):
            path = train.states[i, : train.lengths[i] + 1].tolist()
            every, scores = by_enumeration(streets, train, other, path[0], path[-1])
            found += scores["action's costs"][every.index(path)]
        return found

    at = likelihood(psi)
    for k in range(len(psi)):
        for step in (-0.05, 0.05):
            assert likelihood(psi + step * np.eye(len(psi))[k]) < at


def test_the_row_of_the_largest_margin(compared):
    """All routes one by one: the one of the largest utility is shared with the trip."""
    pytest.importorskip("clarabel")
    streets, train, test, table = compared
    margin = inference.max_margin(streets, train, FEATURES, progress=False)
    found = inference.route_table(streets, train, test, fitted=table.fitted, margin=margin)
    assert list(found.shares) == ["shortest", "max margin", *ROWS[1:]]
    assert found.weights["max margin"] == margin.weights
    assert found.log_probability["max margin"] is None
    lengths, graph = streets.segment_features["length"], graph_of(streets)
    utility = streets.features(FEATURES).numpy() @ [*margin.weights.values()]
    worth = dict(zip(map(tuple, streets.turns.tolist()), utility, strict=True))
    for i in range(len(test)):
        path = test.states[i, : test.lengths[i] + 1].tolist()
        every = nx.all_simple_paths(graph, path[0], path[-1])
        best = max(every, key=lambda x: sum(worth[pair] for pair in itertools.pairwise(x)))
        on = torch.tensor([e in best for e in path])
        share = float(lengths[path][on].sum() / lengths[path].sum())
        assert float(found.shares["max margin"][i]) == pytest.approx(share, abs=1e-12)
    for name in ROWS:
        torch.testing.assert_close(found.shares[name], table.shares[name])
    assert "max margin: largest utility" in str(found)
    assert "max margin" not in str(table)
    with pytest.raises(ValueError, match="margin: expected a MaxMargin"):
        inference.route_table(streets, train, test, margin=3)
    other = dataclasses.replace(margin, model=town())
    with pytest.raises(ValueError, match="margin: expected one on the same network"):
        inference.route_table(streets, train, test, margin=other)


def test_somebody_who_plans_is_found_and_is_better_predicted_by_planning():
    streets = town(2)
    names, truth = ["minutes", "left"], np.array([-3.0, -1.0])
    f, rng = streets.features(names).numpy(), np.random.default_rng(0)
    best, E = BestRoutes(streets, f @ truth), len(streets.segments)
    chances = [np.exp(planned_log_shares(streets, f, best, truth, d)) for d in range(E)]
    tails, heads = streets.turns.numpy().T
    paths = []
    for _ in range(1000):
        o, d = (int(x) for x in rng.choice(E, 2, replace=False))
        path = [o]
        while path[-1] != d:
            inside = np.flatnonzero(tails == path[-1])
            path.append(int(heads[rng.choice(inside, p=chances[d][inside])]))
        paths.append(path)
    train, test = trips_of(streets, paths).split(0.8)
    table = inference.route_table(streets, train, test, names)
    found = [*table.weights["action's costs"].values()]
    assert np.abs(np.array(found) - truth).max() < 0.35  # standard errors are 0.10 and 0.07
    assert table.log_probability["action's costs"] > table.log_probability["MaxEnt"]


def test_the_share_of_turns_in_closed_form():
    """Of three trips two go over b; with one added to each, b has 3 of 5 and a 2 of 5."""
    fork = models.streets_from_columns(
        {"tail": list("osabsc"), "head": list("saccbd"), "minutes": [1.0, 1, 2, 1, 1, 1]}
    )
    trips = trips_of(fork, [[0, 1, 2, 5], [0, 4, 3, 5], [0, 4, 3, 5]])
    table = inference.route_table(fork, trips, trips[:2])
    expected = torch.tensor([2 / 5, 3 / 5], dtype=torch.float64).log()
    torch.testing.assert_close(table.log_probabilities["action"], expected)
    few = inference.route_table(fork, trips, trips[:2], smoothing=1e-9)
    expected = torch.tensor([1 / 3, 2 / 3], dtype=torch.float64).log()
    torch.testing.assert_close(few.log_probabilities["action"], expected)
    assert table.measured == "number of segments"
    assert table.shares["action"].tolist() == [1 / 2, 1.0]


def test_the_table_says_what_it_is(compared):
    streets, train, test, table = compared
    assert (table.cost, table.measured, table.train, table.test) == ("minutes", "length", 60, 25)
    text = str(table)
    assert text.startswith("Predicted routes of 25 trips, by models of 60 others\n")
    assert "least minutes" in text
    row = next(line for line in text.splitlines() if line.startswith("shortest "))
    shown = (table.matched["shortest"], table.matched_90["shortest"])
    assert row.split()[1:] == [*(f"{x:.1%}" for x in shown), "–"]
    few = dataclasses.replace(table, shares={"a": torch.tensor([0.3 + 0.6, 0.899, 1.0, 0.2])})
    assert few.matched_90 == {"a": 0.5}
    assert len(table.to_markdown().splitlines()) == 2 + len(ROWS)
    assert table._repr_html_().count("<tr>") == 1 + len(ROWS)
    found = json.loads(table.to_json())
    assert found["rows"]["shortest"]["log_probability"] is None
    assert found["rows"]["MaxEnt"]["log_probability"] == pytest.approx(
        float(table.log_probabilities["MaxEnt"].mean())
    )
    assert "+/-" not in table.to_text("ascii")
    assert table.to_text("ascii").isascii()
    again = inference.route_table(streets, train, test, fitted=table.fitted, cost="length")
    assert again.cost == "length"
    assert again.weights["MaxEnt"] == table.weights["MaxEnt"]
    every = inference.route_table(streets, train, test)
    assert list(every.weights["MaxEnt"]) == ["minutes", "length", "scenic"]


def test_what_does_not_fit_is_refused(compared):
    streets, train, test, table = compared

    def refused(match, *arguments, **options):
        with pytest.raises(ValueError, match=match):
            inference.route_table(*arguments, **options)

    refused("streets: expected a cai.Streets", 3, train, test)
    refused("test: expected cai.Demonstrations", streets, train, [1])
    refused("train, trip 0: expected one that arrived", streets, train.prefix(0.5), test)
    refused(r"test, trip \d+", streets, train, walks(town(1), 5), FEATURES)
    refused("feature: expected the name of a feature, got 'x'", streets, train, test, cost="x")
    changed = dataclasses.replace(
        streets, turn_features={"gain": -torch.ones(len(streets.turns)).double()}
    )
    refused("cost: expected a feature that is never negative", changed, train, test, cost="gain")
    refused("cost: .* got none among gain", changed, train, test, ["gain"])
    refused("fitted: expected a RewardFit", streets, train, test, fitted=3)
    refused("fitted: expected a fit on the same network", changed, train, test, fitted=table.fitted)
    refused("features: expected none", streets, train, test, FEATURES, fitted=table.fitted)
    refused("smoothing", streets, train, test, smoothing=0.0)
    assert isinstance(train, cai.Demonstrations)
