"""Mixtures of goals: solved without solving where that is true, and refused where it is not."""

import dataclasses

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import cai
from cai import inference, models

seeds = st.integers(0, 10**6)
WEIGHTS = [0.2, 0.3, 0.5]


def goals(seed, weights, discount=1.0, deterministic=False):
    """Tables of three final rewards, and of their mixture, by hand."""
    problem = oracles.random_problem(seed, S=4, discount=discount)
    if deterministic:
        rng = np.random.default_rng(seed)
        problem = dataclasses.replace(problem, P=np.eye(4)[rng.integers(4, size=(4, 2))])
    rng = np.random.default_rng(seed + 1)
    finals = torch.as_tensor(rng.normal(size=(3, 4)))
    table = cai.tabulate(problem.model())
    mixture = problem.temperature * torch.log(
        sum(
            w * (final / problem.temperature).exp()
            for w, final in zip(weights, finals, strict=True)
        )
    )
    return [dataclasses.replace(table, final_reward=f) for f in [*finals, mixture]]


@given(seed=seeds, discount=st.sampled_from([1.0, 0.8]))
def test_the_posterior_of_a_mixture_is_the_mixture(seed, discount):
    """At η = 1, with a discount too as long as the weights sum to one."""
    *parts, whole = goals(seed, WEIGHTS, discount)
    found = inference.compose([inference.posterior(table) for table in parts], WEIGHTS)
    truth = inference.posterior(whole)
    torch.testing.assert_close(found.V, truth.V, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.table.final_reward, whole.final_reward, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.states, truth.states, rtol=0, atol=1e-12)
    assert found.log_evidence == pytest.approx(truth.log_evidence, abs=1e-12)


@given(seed=seeds, eta=st.sampled_from([-2.0, 0.0, 0.5, 3.0]))
def test_any_optimism_composes_where_nothing_is_random(seed, eta):
    weights = [2.0, 0.1, 5.0]  # without a discount any will do
    *parts, whole = goals(seed, weights, deterministic=True)
    found = inference.compose([inference.soft_values(table, eta) for table in parts], weights)
    truth = inference.soft_values(whole, eta)
    torch.testing.assert_close(found.V, truth.V, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.states, truth.states, rtol=0, atol=1e-12)
    # Todorov's mixing rule: the policy is a mean of policies, weighted by w_i z_i(s).
    z = torch.stack([inference.soft_values(t, eta).log_values[0] for t in parts])
    share = (z + torch.tensor(weights, dtype=torch.float64).log().unsqueeze(1)).softmax(0)
    each = torch.stack([inference.soft_values(t, eta).policy.log_probs[0].exp() for t in parts])
    torch.testing.assert_close(
        (share.unsqueeze(-1) * each).sum(0), found.policy.log_probs[0].exp(), rtol=0, atol=1e-12
    )


@given(seed=seeds, discount=st.sampled_from([1.0, 0.7]))
def test_exits_compose_without_an_end(seed, discount):
    """First exit: prices of two exits, and the mixture of exp(-price/α), at η = 1."""
    rng = np.random.default_rng(seed)
    P = rng.dirichlet(np.ones(5), (5, 2))
    P[3:] = np.eye(5)[3:, None]
    reward = np.where(np.arange(5) < 3, -rng.random((2, 5)) - 1, 0.0).T

    def solve(prices):
        paid = torch.zeros(5, 2, 5, dtype=torch.float64)
        paid[:3, :, 3:] = -torch.as_tensor(prices)
        model = models.tabular(
            P, reward, arrival_reward=paid, horizon=None, discount=discount, temperature=0.7
        )
        return inference.soft_values(model, 1.0)

    prices = rng.normal(size=(2, 2))
    parts, weights = [solve(price) for price in prices], [0.25, 0.75]
    mixture = -0.7 * np.log(np.tensordot(weights, np.exp(-prices / 0.7), 1))
    found, truth = inference.compose(parts, weights), solve(mixture)
    assert (found.V - truth.V).abs().max() <= found.error + truth.error
    assert max(part.error for part in parts) <= found.error < 1e-9
    torch.testing.assert_close(found.states, truth.states, rtol=0, atol=1e-9)
    with pytest.raises(ValueError, match=r"weights: expected a sum of one, got 2"):
        inference.compose(parts, [1.0, 1.0])


@given(seed=seeds)
def test_elsewhere_the_mixture_solves_nothing(seed):
    """At η = 0 in random dynamics, and with a discount, it is wrong; so it is refused."""
    for discount, deterministic in ((1.0, False), (0.8, True)):
        *parts, whole = goals(seed, WEIGHTS, discount, deterministic)
        solutions = [inference.soft_values(table) for table in parts]
        mixed = torch.stack([s.log_values for s in solutions])
        mixed = (mixed + torch.tensor(WEIGHTS, dtype=torch.float64).log().view(3, 1, 1)).logsumexp(
            0
        )
        assert (mixed - inference.soft_values(whole).log_values).abs().max() > 1e-6
        with pytest.raises(ValueError, match="at optimism 0 the backup is not linear"):
            inference.compose(solutions, WEIGHTS)


def test_what_does_not_compose():
    *parts, _ = goals(0, WEIGHTS, discount=0.8)
    solutions = [inference.posterior(table) for table in parts]
    with pytest.raises(ValueError, match="weights: expected a sum of one, got 3"):
        inference.compose(solutions, [1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="weights: expected 3 finite numbers above 0"):
        inference.compose(solutions, [0.5, 0.5])
    with pytest.raises(ValueError, match="weights: expected 3 finite numbers above 0"):
        inference.compose(solutions, [1.0, 1.0, -1.0])
    other = inference.posterior(dataclasses.replace(parts[0], reward=parts[0].reward + 1))
    with pytest.raises(ValueError, match="their reward differ"):
        inference.compose([*solutions[:2], other], WEIGHTS)
    warmer = inference.posterior(dataclasses.replace(parts[0], temperature=9.0))
    with pytest.raises(ValueError, match="expected one temperature for all"):
        inference.compose([*solutions[:2], warmer], WEIGHTS)
    later = parts[0].arrival_reward + torch.rand(parts[0].arrival_reward.shape)
    paid = inference.posterior(dataclasses.replace(parts[0], arrival_reward=later))
    with pytest.raises(ValueError, match="arrival rewards differ for a state whose values differ"):
        inference.compose([*solutions[:2], paid], WEIGHTS)
