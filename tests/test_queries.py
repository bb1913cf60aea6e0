"""What one can ask of a solution, against sums over all paths of its chain."""

import math

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import cai
from cai import inference, models

seeds = st.integers(0, 10**6)
discounts = st.sampled_from([1.0, 0.8])
etas = st.sampled_from([-2.0, -0.4, 0.3, 1.0, 2.5])


def bent_dynamics(solution, problem):
    """[t][s][a][s'] of surviving there and of dying there, by hand from the values."""
    eta, alpha, gamma = solution.optimism, problem.temperature, problem.discount
    P, arrival = np.asarray(problem.P), np.asarray(problem.arrival)
    V = solution.V.numpy()
    on = np.stack([P * gamma * np.exp(eta * (arrival + v) / alpha) for v in V[1:]])
    off = np.stack([P * (1 - gamma) * np.exp(eta * arrival / alpha) for _ in V[1:]])
    total = (on + off).sum(-1, keepdims=True)
    return on / total, off / total


def chain_paths(solution, problem):
    """Every path of the bent chain, with its probability under it."""
    policy = solution.policy.log_probs.exp().numpy()
    start = np.asarray(problem.initial) * np.exp(
        solution.optimism * solution.V[0].numpy() / problem.temperature
    )
    return list(
        oracles.paths(problem, start / start.sum(), policy, bent_dynamics(solution, problem))
    )


# The bend


def steps_of(path):
    return list(zip(path.states, path.actions, path.states[1:], strict=False))


@given(seed=seeds, discount=discounts, eta=etas)
def test_bend_by_paths(seed, discount, eta):
    """E_q[log q/p] over paths, of the start and of the dynamics, the coin of death included."""
    problem = oracles.random_problem(seed, discount=discount)
    found = inference.soft_values(problem.model(), eta)
    on, off = bent_dynamics(found, problem)
    start = dynamics = 0.0
    for path in chain_paths(found, problem):
        s = path.states[0]
        start += path.probability * math.log(found.initial[s] / problem.initial[s])
        for t, (s, a, n) in enumerate(steps_of(path)):
            lives = path.alive_at(t + 1)
            q = (on if lives else off)[t][s][a][n]
            p = problem.P[s][a][n] * (discount if lives else 1 - discount)
            dynamics += path.probability * math.log(q / p)
    assert found.bend_start == pytest.approx(start, abs=1e-11)
    assert found.bend_dynamics == pytest.approx(dynamics, abs=1e-11)
    assert found.total_bend == pytest.approx(start + dynamics, abs=1e-11)
    by_step = sum((found.state_actions[t] * found.bend(t)).sum().item() for t in range(problem.T))
    assert by_step == pytest.approx(dynamics, abs=1e-11)


@given(seed=seeds, discount=discounts, eta=etas)
def test_slope_of_the_bound(seed, discount, eta):
    table = cai.tabulate(oracles.random_problem(seed, discount=discount).model())
    h = 1e-4 * abs(eta)
    up, down = (inference.soft_values(table, eta + d).bound for d in (h, -h))
    slope = inference.soft_values(table, eta).total_bend / eta**2
    assert (up - down) / (2 * h) == pytest.approx(slope, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("discount", [1.0, 0.8])
@pytest.mark.parametrize("eta", [-1e-8, -1e-5, 1e-6, 1e-8])
def test_bend_near_zero_keeps_its_digits(discount, eta):
    """The bend is of order η²: at 1e-8 it is 1e-16, and still half the variance of luck · η²."""
    table = cai.tabulate(oracles.random_problem(5, T=6, discount=discount).model())
    up, down = (inference.soft_values(table, d).bound for d in (1e-4, -1e-4))
    slope = (up - down) / 2e-4
    assert inference.soft_values(table, eta).total_bend / eta**2 == pytest.approx(slope, rel=1e-4)


def test_no_bend_without_luck_or_at_zero():
    P = np.eye(4)[np.random.default_rng(0).integers(4, size=(4, 3))]
    sure = models.tabular(P, torch.zeros(4, 3), horizon=5, final_reward=torch.arange(4.0))
    assert inference.posterior(sure).total_bend == 0
    problem = oracles.random_problem(3, discount=0.8)
    assert inference.soft_values(problem.model(), 0.0).total_bend == 0


@pytest.mark.parametrize("eta", [-math.inf, math.inf])
def test_bend_at_the_ends_of_the_dial(eta):
    """The best and the worst case cost -log p of the outcomes that win."""
    found = inference.soft_values(models.ledge(), eta)
    assert found.bend(0)[0, 0].item() == pytest.approx(math.log(2))


def test_bend_of_a_step_outside_the_horizon_is_an_error():
    with pytest.raises(ValueError, match=r"t: .*0 … 3, got 4"):
        inference.posterior(models.ledge()).bend(4)
