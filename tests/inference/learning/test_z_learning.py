"""Z-learning finds the exact messages, by sampling the program alone."""

import math

import numpy as np
import pyro
import pytest
import torch
from examples import passive

from cai import inference, models


def first_exit(P, cost, exit_cost, exits):
    """log z by a dense linear solve, for exits at the end of the list."""
    n = len(P) - exits
    M = np.exp(-cost[:n])[:, None] * P[:n]
    z = np.linalg.solve(np.eye(n) - M[:, :n], M[:, n:] @ np.exp(-exit_cost[n:]))
    return np.log(np.append(z, np.ones(exits)))


def test_it_converges_to_the_exact_desirability():
    """And the error falls with the number of episodes, as a stochastic approximation's does."""
    P, cost = passive(4, exits=2)
    exit_cost = np.array([0, 0, 0, 0, 0.0, 1.0])
    model = models.linearly_solvable(
        P, cost, horizon=None, exit_cost=exit_cost, initial=[1, 1, 1, 1, 0, 0]
    )
    truth = torch.as_tensor(first_exit(P, cost, exit_cost, 2))
    errors = []
    for episodes in (10, 600):
        found = inference.z_learning(model, episodes=episodes, steps=20, seed=1, progress=False)
        errors.append((found.log_values - truth)[:4].abs().max().item())
        assert len(found.bounds) == episodes
    assert errors[1] < 0.03
    assert errors[1] < errors[0] / 3
    start = math.log(truth[:4].exp().mean())
    assert found.bounds[-1].item() == pytest.approx(start, abs=0.02)
    assert found.log_values[4:].tolist() == pytest.approx([0, 0], abs=1e-12)


def test_it_shares_the_optimism_of_the_posterior():
    """On the ledge the short cut gives way half the time; z counts the luck, as eq. 7 does."""
    model = models.ledge(horizon=None)
    found = inference.z_learning(model, episodes=1500, steps=4, progress=False)
    far = inference.posterior(models.ledge(horizon=20))
    assert found.log_values[0].item() == pytest.approx(far.log_values[0, 0].item(), abs=0.05)
    assert found.policy.log_probs[0, 0].exp().item() == pytest.approx(
        far.policy.log_probs[0, 0, 0].exp().item(), abs=0.03
    )


def test_death_ends_an_episode_at_no_further_cost():
    """One state, cost 1, γ: z = e^-1 (γ z + 1 - γ)."""
    model = models.tabular([[[1.0]]], [[-1.0]], horizon=None, discount=0.7)
    found = inference.z_learning(model, episodes=600, steps=10, progress=False)
    z = 0.3 * math.exp(-1) / (1 - 0.7 * math.exp(-1))
    assert found.log_values.exp().item() == pytest.approx(z, rel=0.03)


def test_seeded_and_alone():
    model = models.ledge(horizon=None)
    state = torch.random.get_rng_state()
    one, two, three = (
        inference.z_learning(model, episodes=20, seed=seed, progress=False) for seed in (1, 1, 2)
    )
    assert torch.equal(one.log_values, two.log_values)
    assert not torch.equal(one.log_values, three.log_values)
    assert torch.equal(state, torch.random.get_rng_state())
    assert len(pyro.get_param_store()) == 0


def test_states_of_minus_infinity():
    """A reward of -inf on the way: z = 0 there, and no NaN."""
    P = torch.tensor([[[0.5, 0.5]], [[0.0, 1.0]]])
    model = models.tabular(P, [[0.0], [-math.inf]], horizon=None, initial=[0.5, 0.5])
    found = inference.z_learning(model, episodes=30, steps=5, progress=False)
    assert found.log_values[1] == -math.inf
    assert not found.log_values.isnan().any()


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"horizon: z_learning .* got a horizon of 4"):
        inference.z_learning(models.ledge())
    with pytest.raises(ValueError, match="episodes: expected a whole number"):
        inference.z_learning(models.ledge(horizon=None), episodes=0)
    with pytest.raises(ValueError, match="half_life: expected a finite number above 0"):
        inference.z_learning(models.ledge(horizon=None), half_life=0.0)
