"""Values of many goals against one linear system each, near and far beyond the range of floats."""

import numpy as np
import pytest
import torch
from examples import grid_edges, random_table
from hypothesis import given
from hypothesis import strategies as st

import cai
from cai import inference, models

seeds = st.integers(0, 10**6)


def alone(tails, heads, reward, goal, S):
    model = models.road_network(
        tails, heads, reward, goals=goal, num_states=S, recursive_logit=True
    )
    return inference.linear_system(model).log_values


def open_network(tails, heads, reward, S):
    """No street is closed: the only goal is a state S that nothing leads to."""
    model = models.road_network(
        tails, heads, reward, goals=S, num_states=S + 1, recursive_logit=True
    )
    return cai.tabulate(model)


@given(seed=seeds)
def test_one_factorisation_for_all_goals_of_a_small_network(seed):
    rng = np.random.default_rng(seed)
    S, E = int(rng.integers(2, 9)), int(rng.integers(2, 25))
    tails, heads = rng.integers(S, size=(2, E))
    reward = -2.5 - 3 * rng.random(E)  # steep enough to converge with any goal
    found = inference.goal_values(open_network(tails, heads, reward, S), range(S))
    for goal in range(S):
        expected = alone(tails, heads, reward, goal, S)
        assert torch.allclose(found.log_values[goal, :S], expected, atol=1e-10)
    assert found.residual < 1e-12
    assert found.goals.tolist() == list(range(S))


@given(seed=seeds, discount=st.sampled_from([1.0, 0.7]))
def test_joint_probability_of_optimality_and_the_goal(seed, discount):
    """On any model, death and other ends included: a dense solve with one row struck out."""
    table = random_table(seed, discount, level=-3.0)
    S = table.num_states
    W = np.zeros((S, S))
    index, weights = table.successor_index.numpy(), table.log_weights.exp().reshape(S, -1).numpy()
    for s in range(1, S):  # state 0 absorbs
        np.add.at(W[s], index[s], discount * weights[s])
    if np.abs(np.linalg.eigvals(W)).max() >= 1:
        return
    found = inference.goal_values(table, np.arange(S))
    for goal in range(S):
        M = W * (np.arange(S) != goal)[:, None]
        z = np.linalg.solve(np.eye(S) - M * (np.arange(S) != goal), M[:, goal])
        z[goal] = 1
        assert found.log_values[goal].exp().numpy() == pytest.approx(z, rel=1e-9, abs=1e-12)


def test_reach_is_detected():
    """On a grid of 3000 nats from corner to corner, far goals get a factorisation of their own."""
    S, tails, heads = grid_edges(16)
    reward = -100 - 0.5 * np.random.default_rng(0).random(len(tails))
    table = open_network(tails, heads, reward, S)
    goals = [0, 1, 17, S - 1, S - 2, S // 2]
    found = inference.goal_values(table, goals)
    assert 1 < found.factorisations < len(goals)
    assert found.residual < 1e-9
    assert found.log_values[:, :S].min() < -2900
    for goal, values in zip(goals, found.log_values, strict=True):
        expected = alone(tails, heads, reward, goal, S)
        assert torch.allclose(values[:S], expected, atol=1e-9, rtol=0)


def test_numbers_that_lose_their_digits_before_they_vanish():
    """Near the end of the floats G has a few digits left: no zero tells, only the residual."""
    for n in range(64, 72):  # 2 (n - 1) times 10 nats there and back, 1340 is all there is
        tails, heads = np.arange(n - 1), np.arange(1, n)
        tails, heads = np.append(tails, heads), np.append(heads, tails)
        table = open_network(tails, heads, np.full(len(tails), -10.0), n)
        found = inference.goal_values(table, [0, n - 1])
        expected = alone(tails, heads, -10.0, n - 1, n)
        assert torch.allclose(found.log_values[1, :n], expected, atol=1e-9, rtol=0)


def test_goals_on_a_network_that_needs_one_of_them_to_converge():
    """Around a circle that gains: only a goal on it stops the gain, and the other has no values."""
    tails, heads, reward = [0, 1, 2, 2], [1, 2, 0, 3], [1.0, -0.5, 0.5, -1.0]
    table = cai.tabulate(models.road_network(tails, heads, reward, goals=3, recursive_logit=True))
    found = inference.goal_values(table, [0, 1])
    for goal in (0, 1):
        expected = alone(tails, heads, reward, goal, 4)
        assert torch.allclose(found.log_values[goal, :3], expected[:3], atol=1e-12)
        assert found.log_values[goal, 3] == -torch.inf  # no way back
    with pytest.raises(ValueError, match=r"goals: 3 cannot be solved for.* is 1\.39561, expected"):
        inference.goal_values(table, [0, 3])


@pytest.mark.parametrize("goals", [[], [-1], [4], [0.5], [True]])
def test_goals_that_are_no_states(goals):
    table = cai.tabulate(models.road_network([0, 1, 2], [1, 2, 3], -1.0, goals=3))
    with pytest.raises(ValueError, match="goals: expected at least one state of 0 … 3"):
        inference.goal_values(table, goals)
