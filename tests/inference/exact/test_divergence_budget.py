"""A budget of nats: one temperature, at which nobody buys more with as many."""

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
HORIZONS = st.sampled_from([(3, 1.0), (3, 0.8), (None, 0.8)])


def random_table(seed, horizon, discount):
    """Uneven priors; nothing is forbidden, so that every action can be had at a price."""
    problem = oracles.random_problem(seed, S=4, A=3, discount=discount, forbidden=0.0)
    final = None if horizon is None else problem.final
    return cai.tabulate(problem.model(horizon=horizon, final_reward=final))


def at(table, temperature):
    return inference.soft_values(dataclasses.replace(table, temperature=temperature))


def spent(table, policy):
    """E Σ KL by the evaluation of the policy, which counts it on its own."""
    true = cai.evaluate(table, policy)
    return true.expected_return / table.temperature - true.elbo


def of_the_most(table, share):
    """A share of what the greedy policy spends."""
    return share * spent(table, inference.soft_values(table, rule="hard").policy)


@given(p=st.floats(0.05, 0.95), share=st.floats(0.1, 0.99), gain=st.floats(0.01, 100))
def test_two_actions_in_closed_form(p, share, gain):
    """π = σ(logit p + gain/α), so that α = gain/(logit π - logit p)."""
    pi = p + share * (1 - p)
    nats = pi * math.log(pi / p) + (1 - pi) * math.log((1 - pi) / (1 - p))
    one_step = [[[1.0], [1.0]]]
    model = models.tabular(one_step, [[0.0, gain]], horizon=1, action_prior=[1 - p, p])
    found = inference.divergence_budget(model, nats)
    q = math.log(pi / p) - math.log((1 - pi) / (1 - p))
    alpha = gain / q
    assert found.temperature == pytest.approx(alpha, rel=1e-9)
    # The root is a log α within 1e-14 (1 + |log α|) of the true one, and d KL/d log α = q² π (1-π).
    step = 2e-14 * (1 + abs(math.log(alpha)))
    assert found.divergence == pytest.approx(nats, abs=1e-14 + step * q * q * pi * (1 - pi))
    assert found.expected_return == pytest.approx(pi * gain, rel=1e-9)
    assert found.policy.log_probs[0, 0, 1].exp().item() == pytest.approx(pi, rel=1e-9)


@given(seed=seeds, case=HORIZONS, share=st.floats(-4, -0.1).map(lambda x: 10**x))
def test_the_slope_of_the_dual_is_what_is_spent(seed, case, share):
    """d(α bound)/dα = -E Σ KL."""
    table = random_table(seed, *case)
    nats = of_the_most(table, share)
    found = inference.divergence_budget(table, nats)
    alpha, h = found.temperature, 1e-4 * found.temperature
    rise = [(alpha + d) * at(table, alpha + d).bound for d in (-h, h)]
    assert -(rise[1] - rise[0]) / (2 * h) == pytest.approx(nats, rel=1e-5, abs=1e-9)
    assert spent(table, found.policy) == pytest.approx(nats, abs=1e-11)
    assert found.divergence == pytest.approx(nats, abs=1e-12)
    true = cai.evaluate(table, found.policy)
    assert found.expected_return == pytest.approx(true.expected_return, abs=1e-9)
    assert found.solution.table.temperature == alpha


@given(seed=seeds, case=HORIZONS)
def test_nobody_buys_more_with_as_many_nats(seed, case):
    """Primal and dual: any policy within the budget returns less, any other price says more."""
    table = random_table(seed, *case)
    nats = of_the_most(table, 0.3)
    found = inference.divergence_budget(table, nats)
    for factor in (0.5, 0.9, 1.1, 2.0):
        alpha = factor * found.temperature
        assert found.expected_return <= alpha * (nats + at(table, alpha).bound) + 1e-12
    rng = np.random.default_rng(seed)
    for _ in range(5):
        towards, size = torch.as_tensor(rng.normal(size=found.solution.Q.shape)), 1.0
        while True:
            log_q = (table.log_prior + size * (towards + 3 * found.solution.Q)).log_softmax(-1)
            other = cai.TabularPolicy.from_log_probs(log_q)
            if spent(table, other) <= nats:
                break
            size /= 2
        assert cai.evaluate(table, other).expected_return < found.expected_return


def test_the_temperature_of_the_model_has_no_say():
    model = models.ledge(temperature=0.1)
    warm = inference.divergence_budget(dataclasses.replace(model, temperature=30.0), 0.3)
    assert warm.temperature == inference.divergence_budget(model, 0.3).temperature
    assert "budget=0.3 nats, temperature=" in repr(warm)


def test_more_than_the_greedy_policy_spends():
    one_step = [[[1.0], [1.0], [1.0]]]
    model = models.tabular(one_step, [[0.0, 1.0, 1.0]], horizon=1)
    words = r"nats: expected a number between 0 and 0.405465, what .*, got 0.41; no temperature"
    with pytest.raises(ValueError, match=words):
        inference.divergence_budget(model, 0.41)  # log 3/2: both best actions are as good
    assert inference.divergence_budget(model, 0.405).temperature < 0.2
    lake = models.gym("FrozenLake-v1", horizon=None, discount=0.9)
    with pytest.raises(ValueError, match=r"nats: expected a number between 0 and 12.7046"):
        inference.divergence_budget(lake, 100)
    with pytest.raises(ValueError, match="nats: expected a number between 0 and 0, what"):
        inference.divergence_budget(models.tabular(one_step, [[1.0, 1.0, 1.0]], horizon=3), 0.1)


def test_less_than_it_takes_to_survive():
    """What avoids a reward of -inf is paid at any temperature."""
    model = models.tabular([[[1.0]] * 3], [[-math.inf, 0.0, 1.0]], horizon=1)
    words = r"nats: expected a number between 0.405465 and 1.09861, what .*, got 0.4;"
    with pytest.raises(ValueError, match=words):
        inference.divergence_budget(model, 0.4)
    assert inference.divergence_budget(model, 0.41).divergence == pytest.approx(0.41, abs=1e-14)
    P = [[[0.5, 0.5], [0.5, 0.5]], [[0.0, 1.0], [0.0, 1.0]]]
    doomed = models.tabular(P, [[0.0, 1.0], [-math.inf] * 2], horizon=2)
    words = "model: expected a policy that never meets a reward of -inf, got none; make them finite"
    with pytest.raises(ValueError, match=words):
        inference.divergence_budget(dataclasses.replace(doomed, horizon=3), 0.1)


@pytest.mark.parametrize("nats", [0, -1.0, math.inf, math.nan, "1", None])
def test_what_is_no_budget(nats):
    with pytest.raises(ValueError, match="nats: expected a finite number above 0, got"):
        inference.divergence_budget(models.ledge(), nats)


def test_without_an_end():
    with pytest.raises(ValueError, match="expected a finite horizon or a discount below one, got"):
        inference.divergence_budget(models.ledge(horizon=None), 0.1)
