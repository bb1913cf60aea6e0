"""Road networks: edges as actions, and bad input."""

import dataclasses
import math

import networkx as nx
import numpy as np
import pytest
import torch

import cai
from cai import inference, models

EDGES = [2, 0, 1, 0, 0], [3, 1, 3, 2, 1], [-1.0, -2.0, -3.0, -4.0, -5.0]


def network(**changes):
    return models.road_network(*EDGES, **({"goals": 3} | changes))


def test_action_k_is_the_kth_edge():
    table = cai.tabulate(network())
    assert table.horizon is None
    assert table.successors[..., 0].tolist() == [[1, 2, 1], [3, 1, 1], [3, 2, 2], [3, 3, 3]]
    assert table.reward[0].tolist() == [-2, -4, -5]
    assert [table.reward[1, 0], table.reward[2, 0], table.reward[3, 0]] == [-3, -1, 0]
    assert table.log_prior[0].exp().tolist() == pytest.approx([1 / 3] * 3)
    assert table.log_prior[1:].exp().tolist() == [[1, 0, 0]] * 3
    assert table.log_initial.exp().tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])


def test_three_paths_by_hand():
    weights = [math.exp(x / 0.7) for x in (-5, -5, -8)]
    plain = inference.linear_system(network(temperature=0.7)).log_values
    logit = inference.linear_system(network(temperature=0.7, recursive_logit=True)).log_values
    assert logit[0].item() == pytest.approx(math.log(sum(weights)), abs=1e-13)
    assert plain[0].item() == pytest.approx(math.log(sum(weights) / 3), abs=1e-13)
    assert logit[1:].tolist() == pytest.approx([-3 / 0.7, -1 / 0.7, 0])


def test_the_program_runs_and_agrees_at_a_finite_horizon():
    model = network(horizon=4, initial=0)
    assert (model.simulate(lambda t, s: model.prior(s), 20).states[:, -1] == 3).all()
    posterior = inference.posterior(model)
    forever = inference.linear_system(dataclasses.replace(model, horizon=None))
    assert posterior.log_evidence == pytest.approx(forever.log_values[0].item(), abs=1e-13)
    counted = posterior.state_actions.sum(0)[:3]
    start = torch.tensor([1.0, 0, 0, 0])
    assert torch.allclose(forever.expected_transitions(start).sum(-1)[:3], counted, atol=1e-13)


def test_edges_of_a_networkx_graph():
    graph = nx.DiGraph()
    graph.add_weighted_edges_from([(0, 1, 1.5), (1, 2, 2.5)], weight="length")
    tails, heads, lengths = zip(*graph.edges(data="length"), strict=True)
    model = models.road_network(tails, heads, -np.array(lengths), goals=[2])
    assert inference.linear_system(model).log_values.tolist() == pytest.approx([-4, -2.5, 0])


def test_weights_of_the_start():
    table = cai.tabulate(network(initial=[0, 3, 1, 0]))
    assert table.log_initial.exp().tolist() == pytest.approx([0, 0.75, 0.25, 0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": [1, 2]}, r"tails, heads, reward: .* got shapes \[5\], \[2\] and \[5\]"),
        ({"tails": [0.5, 0, 1, 0, 0]}, "tails: expected integers, got an array of float64"),
        ({"tails": [-1, 0, 1, 0, 0]}, "tails, heads: expected states 0 … 3, got -1 … 3"),
        ({"num_states": 3}, "tails, heads: expected states 0 … 2, got 0 … 3"),
        ({"num_states": 0}, "num_states: expected a whole number of at least 1"),
        ({"reward": [math.nan] * 5}, r"reward: expected numbers below \+inf"),
        ({"goals": []}, r"goals: expected at least one state of 0 … 3, got \[\]"),
        ({"goals": 4}, "goals: expected at least one state of 0 … 3"),
        ({"initial": 9}, "initial: expected a state of 0 … 3, got 9"),
        ({"initial": [1.0, 2.0]}, r"initial: expected shape \[4\], got \[2\]"),
        ({"initial": [0, 0, 0, 0]}, "initial: expected finite weights"),
        ({"temperature": 0}, "temperature: expected a finite number above 0"),
    ],
)
def test_bad_input(changes, message):
    arguments = dict(zip(("tails", "heads", "reward"), EDGES, strict=True)) | {"goals": 3}
    with pytest.raises(ValueError, match=message):
        models.road_network(**(arguments | changes))


def named(names, tails=EDGES[0], heads=EDGES[1], as_list=lambda x: x, **options):
    t, h = ([names[k] for k in ends] for ends in (tails, heads))
    return models.road_network(
        as_list(t), as_list(h), EDGES[2], goals=names[3], initial=names[0], **options
    )


HUGE = [-(2**70), 5, 2**63, 2**64 + 1]


@pytest.mark.parametrize("as_list", [lambda x: x, np.array, torch.tensor])
@pytest.mark.parametrize("names", [[1, 2, 3, 4], [42, 7, 5_366_821_103_000, 10], [3, 2, 1, 0]])
def test_nodes_of_any_numbers(names, as_list):
    """The values by name are those of the same network whose nodes are 0 … 3."""
    plain = inference.soft_values(models.road_network(*EDGES, goals=3, initial=0))
    model = named(names, as_list=as_list)
    found = inference.soft_values(model)
    of = model.layout.states if model.layout is not None else ["0", "1", "2", "3"]
    by_name = dict(zip(of, found.V.tolist(), strict=True))
    for k, name in enumerate(names):
        assert by_name[str(name)] == pytest.approx(plain.V[k].item(), abs=1e-13)
    assert found.bound == pytest.approx(plain.bound, abs=1e-13)


@pytest.mark.parametrize("names", [HUGE, ["home", "A1", "B", "work"], [2**64 - 1, 0, 1, 2**63]])
def test_nodes_that_no_integer_of_64_bits_holds(names):
    model = named(names)
    found = inference.soft_values(model)
    by_name = dict(zip(model.layout.states, found.V.tolist(), strict=True))
    plain = inference.soft_values(models.road_network(*EDGES, goals=3))
    assert [by_name[str(name)] for name in names] == pytest.approx(plain.V.tolist(), abs=1e-13)
    assert list(model.layout.states) == [str(name) for name in sorted(names)]
    objects = named(names, as_list=lambda x: np.array(x, dtype=object))
    assert objects.layout == model.layout


def test_a_network_that_is_numbered_from_one_starts_nowhere_else():
    """A state that no edge names would take its share of p(s_0), and there is no way out of it."""
    model = models.road_network([1, 2], [2, 3], -1.0, goals=3, horizon=2)
    assert model.layout.states == ("1", "2", "3")
    assert cai.tabulate(model).log_initial.exp().tolist() == [0.5, 0.5, 0]
    expected = math.log((math.exp(-2) + math.exp(-1)) / 2)
    assert inference.posterior(model).bound == pytest.approx(expected, abs=1e-13)
    counted = models.road_network([1, 2], [2, 3], -1.0, goals=3, num_states=4, horizon=2)
    assert counted.layout is None
    assert inference.posterior(counted).bound == pytest.approx(
        math.log((math.exp(-2) + math.exp(-1)) / 3), abs=1e-13
    )


def test_nodes_of_a_graph_by_their_names():
    graph = nx.DiGraph()
    graph.add_weighted_edges_from([("a", "b", 1.5), ("b", "c", 2.5)], weight="length")
    tails, heads, lengths = zip(*graph.edges(data="length"), strict=True)
    model = models.road_network(tails, heads, -np.array(lengths), goals="c", initial="a")
    assert inference.soft_values(model).V.tolist() == pytest.approx([-4, -2.5, 0])
    assert cai.tabulate(model).log_initial.exp().tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tails": ["a", "b"], "heads": [1, 2]}, "tails, heads: expected names of one type"),
        ({"tails": ["a", 1], "heads": ["b", "c"], "goals": "c"}, "expected names of one type"),
        ({"tails": [None, 0]}, "tails: expected integers, got an array of object; or name"),
        ({"tails": [True, False]}, "tails: expected integers, got an array of bool"),
        ({"tails": [(0, 0), (0, 1)]}, r"three arrays of shape \(E,\), got shapes \[2, 2\]"),
        ({"tails": 0, "heads": 1, "reward": -1.0}, r"three arrays of shape \(E,\)"),
        ({"tails": [10, 20], "heads": [20, 30]}, "goals: .* of 10 … 30, those that edges join"),
        ({"tails": [10, 20], "heads": [20, 30], "goals": 30, "initial": 11}, "initial: .* got 11"),
        (
            {"tails": [10, 20], "heads": [20, 30], "goals": 99},
            r"goals: .* of 10 … 30, .* got \[99\]",
        ),
        ({"goals": "2"}, r"goals: expected at least one state of 0 … 2, got \['2'\]"),
        ({"goals": 2**65}, "goals: expected at least one state of 0 … 2"),
        ({"tails": ["a", "b"], "heads": ["b", "c"], "goals": "c", "num_states": 3}, "states 0 … 2"),
        ({"tails": [], "heads": [], "reward": []}, "tails, heads: expected at least one edge"),
        ({"num_states": 10**15}, "num_states: expected arrays of S states .* in memory"),
        ({"recursive_logit": "no"}, "recursive_logit: expected True or False, got 'no'"),
    ],
)
def test_nodes_that_are_not_clear(changes, message):
    arguments = {"tails": [0, 1], "heads": [1, 2], "reward": [-1.0, -2.0], "goals": 2} | changes
    with pytest.raises(ValueError, match=message) as caught:
        models.road_network(**arguments)
    assert "\n" not in str(caught.value)
