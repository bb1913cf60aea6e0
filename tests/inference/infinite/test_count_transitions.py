"""Observed paths: counted move by move, and their likelihood against every path."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from examples import random_table

import cai
from cai import inference, models


def network(**changes):
    arguments = {"goals": 4, "temperature": 0.5} | changes
    tails, heads = [0, 0, 1, 1, 2, 3, 2], [1, 2, 2, 3, 3, 4, 4]
    return models.road_network(tails, heads, [-1.0, -2, -0.5, -2, -1, -0.3, -3], **arguments)


def every_path(model):
    """All paths of an acyclic network from state 0, with the likelihood of each by hand."""
    table = cai.tabulate(model)
    found = []

    def walk(states, actions, log_weight):
        s = states[-1]
        if s == 4:
            found.append(((states, actions), log_weight))
            return
        for a in range(table.num_actions):
            if table.log_prior[s, a] > -math.inf:
                more = (table.log_prior[s, a] + table.reward[s, a] / table.temperature).item()
                walk([*states, table.successors[s, a, 0].item()], [*actions, a], log_weight + more)

    walk([0], [], 0.0)
    return table, found


def test_likelihood_of_every_path():
    table, paths = every_path(network())
    assert len(paths) == 5
    solved = inference.linear_system(table)
    total = math.log(sum(math.exp(w) for _, w in paths))
    assert solved.log_values[0].item() == pytest.approx(total, abs=1e-13)
    for path, weight in paths:
        found = solved.log_likelihood(inference.count_transitions(table, [path]))
        assert found == pytest.approx(weight - total, abs=1e-12)
    expected = sum(
        math.exp(w - total) * inference.count_transitions(table, [path]).transitions
        for path, w in paths
    )
    moves = solved.expected_transitions(torch.eye(5)[0])
    assert torch.allclose(moves, expected, atol=1e-13)


@pytest.mark.parametrize("discount", [1.0, 0.8])
def test_gradient_against_finite_differences(discount):
    """On a random model with deaths; the paths are the likeliest moves, whatever they are."""
    table = random_table(7, discount, level=-3.0)
    rng = np.random.default_rng(0)
    paths = [walk(table, s, rng) for s in range(table.num_states)]
    counts = inference.count_transitions(table, [path for path in paths if path is not None])
    gradient = inference.linear_system(table).reward_gradient(counts)
    assert gradient.shape == table.reward.shape
    assert gradient.abs().max() > 0.1
    for s, a in np.ndindex(*gradient.shape):
        if s == 0 or table.log_prior[s, a] == -math.inf:
            assert gradient[s, a] == 0
            continue
        values = []
        for step in (1e-5, -1e-5):
            reward = table.reward.clone()
            reward[s, a] += step
            changed = dataclasses.replace(table, reward=reward)
            values.append(inference.linear_system(changed).log_likelihood(counts))
        assert gradient[s, a].item() == pytest.approx((values[0] - values[1]) / 2e-5, abs=1e-6)


def walk(table, s, rng):
    """A path by the prior and the dynamics, until it is absorbed, dies, or is given up."""
    states, actions = [s], []
    for _ in range(200):
        if states[-1] == 0 or (actions and rng.random() > table.discount):
            return states, actions
        a = rng.choice(table.num_actions, p=table.log_prior[states[-1]].exp().numpy())
        p = table.log_dynamics[states[-1], a].exp().numpy()
        k = rng.choice(len(p), p=p)
        listed = table.successors
        states.append(int(k if listed is None else listed[states[-1], a, k]))
        actions.append(int(a))
    return None


def test_waiting_in_the_goal_does_not_count():
    table = cai.tabulate(network())
    short, long = ([2, 4], [1]), ([2, 4, 4, 4], [1, 0, 0])
    a, b = (inference.count_transitions(table, [path]) for path in (short, long))
    assert torch.equal(a.transitions, b.transitions)
    assert a.transitions.sum() == 1
    assert a.starts.tolist() == [0, 0, 1, 0, 0]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            ([0, 1], [0]),
            "number of steps|runs? until an absorbing state, got one that stops in state 1",
        ),
        (([0, 3, 4], [0, 0]), "action 0 in state 0 leading to state 3, which has probability zero"),
        (([2, 3, 4], [0, 1]), "action 1 in state 3 leading to state 4"),
        (([0, 9], [0]), "number 0: expected states 0 … 4"),
        (([3, 4], [5]), "number 0: expected actions 0 … 1"),
        (([3, 4], [0, 0]), r"n \+ 1 states and n actions, got shapes \[2\] and \[2\]"),
    ],
)
def test_paths_that_are_refused(path, message):
    with pytest.raises(ValueError, match=message):
        inference.count_transitions(network(), [path])


def test_no_paths_are_refused():
    with pytest.raises(ValueError, match="at least one trajectory, got none"):
        inference.count_transitions(network(), [])


def test_a_start_without_a_way_is_refused():
    model = models.road_network([1, 2], [0, 3], -1.0, goals=0, num_states=4)
    solved = inference.linear_system(model)
    with pytest.raises(ValueError, match=r"start: .* got one from state 2"):
        solved.expected_transitions(torch.tensor([0.0, 1, 1, 0]))
