"""Robustness: a budget of nats against the policy, and attacks within it."""

import math

import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cai
from cai import inference, models

seeds = st.integers(0, 10**6)
discounts = st.sampled_from([1.0, 0.8])
budgets = st.floats(-6, 1).map(lambda exponent: 10**exponent)


@given(seed=seeds, discount=discounts, budget=budgets)
def test_the_budget_is_spent_and_nothing_guarantees_more(seed, discount, budget):
    """bend = ρ unless η = -∞, and h(λ) = bound_{-1/λ} - λρ is nowhere higher."""
    table = cai.tabulate(oracles.random_problem(seed, discount=discount).model())
    found = inference.robust(table, budget)
    if math.isfinite(found.optimism):
        assert found.solution.total_bend == pytest.approx(budget, rel=1e-9)
        assert found.value == pytest.approx(found.solution.bound + budget / found.optimism)
    nominal = inference.soft_values(table).bound
    assert found.value <= nominal
    for eta in [-(10.0**k) for k in range(-4, 5)]:
        other = inference.soft_values(table, eta).bound + budget / eta
        assert other <= found.value + 1e-3 * (nominal - found.value) + 1e-10


def test_no_budget_and_all_of_it():
    model = models.ledge()
    assert inference.robust(model, 0.0).optimism == 0
    for budget in (1e3, math.inf):
        found = inference.robust(model, budget)
        assert found.optimism == -math.inf
        assert found.value == inference.soft_values(model, -math.inf).bound
