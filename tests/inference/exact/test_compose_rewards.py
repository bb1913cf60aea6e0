"""Means of rewards: a policy without solving, how far off it is, and what would correct it."""

import dataclasses
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
CASES = st.sampled_from([(3, 1.0), (3, 0.8), (None, 0.8)])
MEANS = st.sampled_from([[0.5, 0.5], [0.2, 0.3, 0.5], [0.01, 0.99]])


def tables(seed, case, n):
    """One set of dynamics and n rewards of every kind; uneven priors, some actions forbidden."""
    horizon, discount = case
    problem = oracles.random_problem(seed, S=4, A=3, discount=discount)
    table = cai.tabulate(problem.model(horizon=None, final_reward=None))
    rng = np.random.default_rng(seed)

    def draw(like, of=True):
        return torch.as_tensor(rng.normal(size=like.shape) * of)

    for _ in range(n):
        yield dataclasses.replace(
            table,
            horizon=horizon,
            reward=draw(table.reward),
            arrival_reward=draw(table.log_dynamics) * (table.log_dynamics > -math.inf),
            final_reward=draw(table.final_reward, horizon is not None),
        )


def composed(seed, case, weights):
    parts = list(tables(seed, case, len(weights)))
    return parts, inference.compose_rewards([inference.soft_values(x) for x in parts], weights)


def close(one, other, atol=1e-11):
    torch.testing.assert_close(one, other, rtol=0, atol=atol)


def mixed_by_hand(parts, weights):
    """The table of the mean reward."""
    reward, arrival, final = (
        sum(w * getattr(x, name) for w, x in zip(weights, parts, strict=True))
        for name in ("reward", "arrival_reward", "final_reward")
    )
    paid = {"reward": reward, "arrival_reward": arrival, "final_reward": final}
    return dataclasses.replace(parts[0], **paid)


@given(seed=seeds, case=CASES, weights=MEANS)
def test_the_correction_is_exact(seed, case, weights):
    """Q + correction are the soft values of the mean reward, and so is the policy."""
    parts, found = composed(seed, case, weights)
    truth = inference.soft_values(mixed_by_hand(parts, weights))
    close(found.Q + found.correction, truth.Q)
    close(found.best_policy.log_probs.exp(), truth.policy.log_probs.exp())
    assert cai.tabulate(found.table) is found.table
    close(inference.soft_values(found.table).V, truth.V)


@given(seed=seeds, case=CASES, weights=MEANS)
def test_the_loss_is_what_the_policy_falls_short_of(seed, case, weights):
    """From each state, by the evaluation of π_Σ, which knows nothing of parts."""
    parts, found = composed(seed, case, weights)
    mixed = mixed_by_hand(parts, weights)
    alpha, first = mixed.temperature, (lambda x: x) if case[0] is None else (lambda x: x[0])
    best = first(inference.soft_values(mixed).V)
    log_pi = first(found.policy.log_probs)
    values = first(found.Q - found.loss) + alpha * (mixed.log_prior - log_pi)
    values = torch.where(log_pi > -math.inf, log_pi.exp() * values, 0.0).sum(-1)
    for s in range(4):
        there = dataclasses.replace(mixed, log_initial=torch.eye(4).double()[s].log())
        worth = alpha * cai.evaluate(there, found.policy).elbo
        assert worth == pytest.approx(values[s].item(), abs=1e-11)
        assert best[s].item() - worth == pytest.approx(first(found.shortfall)[s].item(), abs=1e-11)


@given(seed=seeds, case=CASES, weights=MEANS)
def test_bounds_in_order(seed, case, weights):
    """Q ≥ Q* ≥ Q^π_Σ ≥ Q - gap; nothing is lost where all rewards are the same."""
    parts, found = composed(seed, case, weights)
    assert (found.correction <= 1e-12).all()
    assert (found.loss >= -found.correction - 1e-12).all()
    assert (found.gap >= found.loss - 1e-12).all()
    assert (found.shortfall >= -1e-12).all()
    same = [inference.soft_values(parts[0])] * len(weights)
    alike = inference.compose_rewards(same, weights)
    close(alike.Q, same[0].Q)
    close(alike.gap, torch.zeros_like(alike.Q))


@given(seed=seeds)
def test_the_bound_of_the_paper(seed):
    """Haarnoja et al. (2018), lemma 1: C ← γ E[(α/2) D_½(π₁‖π₂) + max C], iterated by hand."""
    parts, found = composed(seed, (None, 0.8), [0.5, 0.5])
    table, alpha = parts[0], parts[0].temperature
    one, other = (inference.soft_values(x).policy.log_probs.exp() for x in parts)
    renyi = -2 * (one * other).sqrt().sum(-1).log()
    P = table.dense(table.log_dynamics)
    allowed = table.log_prior > -math.inf
    C = torch.zeros(4, 3, dtype=torch.float64)
    for _ in range(200):
        C = 0.8 * P @ (alpha / 2 * renyi + C.masked_fill(~allowed, 0.0).amax(-1))
    close(found.gap, C)


def test_the_last_step_has_nothing_to_correct():
    _, found = composed(0, (3, 1.0), [0.5, 0.5])
    for nothing in (found.correction[-1], found.loss[-1], found.gap[-1], found.shortfall[-1]):
        close(nothing, torch.zeros_like(nothing))
    assert (found.loss[0] > 1e-3).any()


def test_without_an_end_and_without_a_discount():
    """The correction is exact there too; the paper's bound need not be finite."""
    table = cai.tabulate(models.gridworld("bridge", horizon=None, slip=0.2))
    other = dataclasses.replace(table, reward=table.reward * torch.linspace(0.5, 2, 4).double())
    parts = [table, other]
    found = inference.compose_rewards([inference.soft_values(x) for x in parts], [0.5, 0.5])
    mean = dataclasses.replace(table, reward=(table.reward + other.reward) / 2)
    close(found.Q + found.correction, inference.soft_values(mean).Q, atol=1e-10)
    assert (found.loss >= -found.correction - 1e-10).all()
    with pytest.raises(ValueError, match="has no finite values here: from state"):
        found.gap  # noqa: B018


@pytest.mark.parametrize("horizon", [3, None])
def test_what_one_forbids_and_the_other_demands(horizon):
    """No action is left in state 1, whose mean value is -inf; state 0 need not go there."""
    P = [[[1.0, 0.0], [0.5, 0.5]], [[0.3, 0.7], [0.7, 0.3]]]

    def solved(reward):
        model = models.tabular(P, reward, horizon=horizon, discount=0.8)
        return inference.soft_values(model)

    lost = -math.inf
    parts = solved([[0.0, 1.0], [lost, 2.0]]), solved([[1.0, 0.0], [1.0, lost]])
    found = inference.compose_rewards(parts, [0.5, 0.5])
    best = inference.soft_values(found.table)
    close(found.Q + found.correction, best.Q)
    assert best.V[..., 0].isfinite().all()
    assert not found.shortfall.isnan().any()
    assert found.shortfall.flatten()[0] == math.inf  # π_Σ may go where nothing is left
    if horizon is None:
        with pytest.raises(ValueError, match="solutions: expected policies with an action in"):
            found.gap  # noqa: B018


def test_what_does_not_compose():
    parts = [inference.soft_values(x) for x in tables(0, (3, 0.8), 2)]
    words = r"weights: expected a sum of one, got 2; .* solve each at α/n"
    with pytest.raises(ValueError, match=words):
        inference.compose_rewards(parts, [1.0, 1.0])
    with pytest.raises(ValueError, match="weights: expected 2 finite numbers above 0"):
        inference.compose_rewards(parts, [1.0, -1.0])
    with pytest.raises(ValueError, match="solutions: expected a list of solutions of tables"):
        inference.compose_rewards(parts[0], [1.0])
    table = parts[0].table
    for wrong, came in (
        (inference.soft_values(table, 1.0), "the rule 'soft' at optimism 1;"),
        (inference.soft_values(table, rule="hard"), "the rule 'hard' at optimism 0;"),
        (inference.posterior(table, {"s_1": 2}), "at optimism 1 with observations;"),
    ):
        with pytest.raises(ValueError, match=came):
            inference.compose_rewards([parts[0], wrong], [0.5, 0.5])
    other = dataclasses.replace(table, log_prior=table.log_prior.flip(0))
    with pytest.raises(ValueError, match="some whose log_prior differ; solve one model"):
        inference.compose_rewards([parts[0], inference.soft_values(other)], [0.5, 0.5])
    warmer = inference.soft_values(dataclasses.replace(table, temperature=9.0))
    with pytest.raises(ValueError, match="solutions: expected one temperature for all"):
        inference.compose_rewards([parts[0], warmer], [0.5, 0.5])


def test_it_says_what_it_is():
    assert repr(composed(0, (3, 0.8), [0.5, 0.5])[1]) == "ComposedRewards(4 states, 3 actions)"
