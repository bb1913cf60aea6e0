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
    plain = inference.linear_values(cai.tabulate(network(temperature=0.7)))
    logit = inference.linear_values(cai.tabulate(network(temperature=0.7, recursive_logit=True)))
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
    assert torch.allclose(forever.expected_moves(start).sum(-1)[:3], counted, atol=1e-13)


def test_edges_of_a_networkx_graph():
    graph = nx.DiGraph()
    graph.add_weighted_edges_from([(0, 1, 1.5), (1, 2, 2.5)], weight="length")
    tails, heads, lengths = zip(*graph.edges(data="length"), strict=True)
    model = models.road_network(tails, heads, -np.array(lengths), goals=[2])
    assert inference.linear_values(cai.tabulate(model)).tolist() == pytest.approx([-4, -2.5, 0])


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
