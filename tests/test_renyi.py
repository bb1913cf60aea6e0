"""The Rényi bound of a policy: exact, sampled, and Pyro's own."""

import itertools
import math

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import cai
from cai import inference

seeds = st.integers(0, 10**6)
discounts = st.sampled_from([1.0, 0.8])
etas = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(-4, 4).filter(lambda eta: abs(eta) > 1e-3))


def random_log_policy(seed, problem):
    """log q(a|s) at random on what the prior allows, (T, S, A)."""
    rng = np.random.default_rng(seed)
    weights = rng.random((problem.T, *problem.sizes)) * (np.asarray(problem.prior) > 0)
    return torch.as_tensor(weights / weights.sum(-1, keepdims=True)).log()


@given(seed=seeds, discount=discounts, eta=etas)
def test_exact_against_all_paths(seed, discount, eta):
    problem = oracles.random_problem(seed, discount=discount)
    log_q = random_log_policy(seed, problem)
    found = inference.renyi_bound(problem.model(), cai.TabularPolicy.from_log_probs(log_q), eta)
    assert found.bound == pytest.approx(oracles.renyi(problem, log_q.exp().numpy(), eta), abs=1e-10)
    assert found.stderr is None


@given(seed=seeds, discount=discounts, eta=etas)
def test_renyi_theorem(seed, discount, eta):
    """bound_η = max over policies of R_η for η < 1, min for η > 1, no matter which at η = 1."""
    problem = oracles.random_problem(seed, discount=discount)
    table = cai.tabulate(problem.model())
    best = inference.soft_values(table, eta)
    attained = inference.renyi_bound(table, best.policy, eta).bound
    assert attained == pytest.approx(best.bound, abs=1e-10)
    assert oracles.renyi(problem, best.policy.log_probs.exp().numpy(), eta) == pytest.approx(
        best.bound, abs=1e-10
    )
    other = cai.TabularPolicy.from_log_probs(random_log_policy(seed, problem))
    gain = best.bound - inference.renyi_bound(table, other, eta).bound
    if eta == 1:
        assert gain == pytest.approx(0, abs=1e-10)
    else:
        assert gain * (1 if eta < 1 else -1) >= -1e-10


@given(seed=seeds, discount=discounts)
def test_grows_with_eta_between_the_extremes(seed, discount):
    problem = oracles.random_problem(seed, discount=discount)
    log_q = random_log_policy(seed, problem)
    table, policy = cai.tabulate(problem.model()), cai.TabularPolicy.from_log_probs(log_q)
    turned = [-math.inf, -1e4, -2.0, -1e-9, 0.0, 1e-9, 0.5, 1.0, 3.0, 1e4, math.inf]
    bounds = [inference.renyi_bound(table, policy, eta).bound for eta in turned]
    assert all(b >= a - 1e-12 for a, b in itertools.pairwise(bounds))
    weights = [
        path.reward / problem.temperature - oracles.log_ratio(problem, path, log_q.exp().numpy())
        for path in oracles.paths(problem, policy=log_q.exp().numpy())
    ]
    assert bounds[0] == pytest.approx(min(weights), abs=1e-11)
    assert bounds[-1] == pytest.approx(max(weights), abs=1e-11)
    assert bounds[4] == pytest.approx(cai.evaluate(table, policy).elbo, abs=1e-11)
