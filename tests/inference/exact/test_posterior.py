"""Exact smoothing against sums over all paths, against Pyro's enumeration, and in closed form."""

import math
from fractions import Fraction

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import cai
from cai import inference, models

PROBLEMS = [(seed, discount) for seed in range(6) for discount in (1.0, 0.8)]


def close(x, y, tolerance=1e-11):
    np.testing.assert_allclose(np.asarray(x, float), np.asarray(y, float), rtol=0, atol=tolerance)


@pytest.mark.parametrize(("seed", "discount"), PROBLEMS)
@pytest.mark.parametrize("form", ["model", "latent_model"])
def test_every_field_against_all_paths(seed, discount, form):
    problem = oracles.random_problem(seed, discount=discount)
    truth = oracles.posterior(problem)
    found = inference.posterior(getattr(problem, form)())
    assert found.log_evidence == pytest.approx(math.log(truth["evidence"]), abs=1e-12)
    assert found.imagined_return == pytest.approx(truth["imagined_return"], abs=1e-11)
    close(found.states, truth["states"])
    close(found.state_actions, truth["state_actions"])
    close(found.initial, truth["states"][0])
    flow = np.array(truth["transitions"])
    pairs = np.array(truth["state_actions"])
    for t in range(problem.T):
        close(found.dynamics(t).numpy() * pairs[t][..., None], flow[t])
        seen = pairs[t].sum(-1) > 0
        policy = pairs[t][seen] / pairs[t][seen].sum(-1, keepdims=True)
        close(found.policy.log_probs[t].exp()[torch.as_tensor(seen)], policy)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("discount", [Fraction(1), Fraction(4, 5)])
def test_evidence_is_the_exact_fraction(seed, discount):
    """Rewards in units of log 2 make every weight a power of two, and p(O) a fraction."""
    problem = oracles.rational_problem(seed, discount=discount)
    exact = oracles.posterior(problem, weigh=lambda reward: Fraction(2) ** reward)
    floats = oracles.Problem(
        *(
            np.array(x, float) * scale
            for x, scale in (
                (problem.initial, 1),
                (problem.prior, 1),
                (problem.P, 1),
                (problem.reward, math.log(2)),
                (problem.arrival, math.log(2)),
                (problem.final, math.log(2)),
            )
        ),
        T=problem.T,
        discount=float(discount),
        temperature=1.0,
    )
    found = inference.posterior(floats.model())
    assert isinstance(exact["evidence"], Fraction)
    assert math.exp(found.log_evidence) == pytest.approx(float(exact["evidence"]), rel=1e-14)
    close(found.states, exact["states"], 1e-14)


@pytest.mark.parametrize(("seed", "discount"), PROBLEMS[:6])
def test_against_pyro_enumeration(seed, discount):
    problem = oracles.random_problem(seed, T=5, discount=discount)
    model = problem.latent_model()
    found, second = inference.posterior(model), inference.enumeration(model)
    assert found.log_evidence == pytest.approx(second.log_evidence, abs=1e-12)
    if discount == 1:
        for t in range(problem.T):
            close(found.states[t], second.marginals[f"s_{t}"])
            close(found.state_actions[t].sum(0), second.marginals[f"a_{t}"])
    else:
        for t in range(1, problem.T + 1):
            close(found.states[t].sum(), second.marginals[f"alive_{t}"][1])


@given(seed=st.integers(0, 10**6), discount=st.sampled_from([1.0, 0.9]), T=st.integers(1, 12))
def test_the_marginals_are_one_chain(seed, discount, T):
    """What flows out of (s_t, a_t) under the tilted dynamics arrives in s_{t+1}."""
    found = inference.posterior(oracles.random_problem(seed, 4, 3, T, discount).model())
    close(found.states[0].sum(), 1)
    for t in range(T):
        close(found.state_actions[t].sum(-1), found.states[t])
        arrived = torch.einsum("sa,san->n", found.state_actions[t], found.dynamics(t))
        close(arrived, found.states[t + 1])
        alive = found.states[t + 1].sum()
        assert (alive <= found.states[t].sum() + 1e-12) if discount < 1 else (alive > 1 - 1e-12)


def test_ledge_in_closed_form():
    """½ e^-3 along the path, and ½ · ½ (e^-1 + e^-7) by the ledge."""
    found = inference.posterior(models.ledge())
    path, ledge = 0.5 * math.exp(-3), 0.25 * (math.exp(-1) + math.exp(-7))
    assert found.log_evidence == pytest.approx(math.log(path + ledge), abs=1e-13)
    chosen = found.policy.log_probs[0, 0].exp()
    close(chosen, [ledge / (path + ledge), path / (path + ledge)])
    holds = math.exp(-1) / (math.exp(-1) + math.exp(-7))
    close(found.dynamics(0)[0, 0], [0, 0, 0, holds, 1 - holds])


def test_one_step_one_state_one_action():
    found = inference.posterior(models.tabular([[[1.0]]], [[-2.0]], horizon=1, temperature=0.5))
    assert found.log_evidence == -4.0
    assert found.imagined_return == -2.0
    close(found.states, [[1], [1]])


def test_values_are_in_reward_units():
    """V and Q scale with the rewards at a fixed ratio to the temperature; bounds do not."""
    small, large = (
        inference.posterior(models.tabular([[[1.0]]], [[-2.0 * k]], horizon=3, temperature=1.0 * k))
        for k in (1, 10)
    )
    close(large.V, 10 * small.V)
    close(large.Q, 10 * small.Q)
    assert large.bound == pytest.approx(small.bound)


def test_dead_ends_act_by_the_prior():
    """From state 1 every reward is -inf: the policy there is the prior, and nothing is NaN."""
    P = torch.zeros(2, 2, 2)
    P[0, 0, 0] = P[0, 1, 1] = P[1, :, 1] = 1
    r = torch.tensor([[0.0, 0.0], [-torch.inf, -torch.inf]])
    prior = [[0.5, 0.5], [0.25, 0.75]]
    found = inference.posterior(models.tabular(P, r, horizon=3, action_prior=prior))
    close(found.policy.log_probs[:, 1].exp(), [[0.25, 0.75]] * 3)
    close(found.states, [[1, 0]] * 3 + [[0.5, 0.5]])
    assert found.log_evidence == pytest.approx(2 * math.log(0.5))
    for field in (found.Q, found.states, found.state_actions, found.dynamics(0)):
        assert not field.isnan().any()
    assert found.imagined_return == 0


def test_forbidden_actions_stay_forbidden():
    problem = oracles.random_problem(3, forbidden=0.6)
    policy = inference.posterior(problem.model()).policy.log_probs.exp()
    assert (policy[:, torch.as_tensor(problem.prior) == 0] == 0).all()


def test_evidence_zero_is_an_error():
    model = models.tabular([[[1.0]]], [[-torch.inf]], horizon=2)
    with pytest.raises(ValueError, match="p\\(O\\) = 0"):
        inference.posterior(model)


def test_infinite_horizon_is_an_error():
    with pytest.raises(ValueError, match=r"horizon: .*infinite"):
        inference.posterior(models.ledge(horizon=None))


def test_a_step_outside_the_horizon_is_an_error():
    found = inference.posterior(models.ledge())
    with pytest.raises(ValueError, match=r"0 … 3, got 4"):
        found.dynamics(4)


def test_large_rewards_and_long_horizons():
    """Rewards of ±1e6, and a horizon of 1e5: finite numbers, right ones."""
    P = torch.eye(2).repeat(2, 1, 1).double()  # action a leads to state a
    r = torch.tensor([[1e6, -1e6], [0.0, 1e6]])
    found = inference.posterior(models.tabular(P, r, horizon=3))
    # Paths that stay put earn 1e6 a step; ln 2 a step is the price of choosing.
    assert found.log_evidence == pytest.approx(3e6 - 3 * math.log(2), abs=1e-8)
    close(found.policy.log_probs[0, 0].exp(), [1, 0])
    far = inference.posterior(models.tabular([[[1.0]]], [[-0.25]], horizon=100_000))
    assert far.log_evidence == -25_000
    assert far.imagined_return == -25_000


def test_table_is_as_good_as_the_model():
    model = models.ledge()
    assert inference.posterior(cai.tabulate(model)).bound == inference.posterior(model).bound
