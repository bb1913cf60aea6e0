"""Soft, hard and Boltzmann actions: each against trees and paths, and against the others."""

import itertools
import math

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import cai
from cai import inference, models

RULES = ["soft", "hard", "boltzmann", "planned"]
seeds = st.integers(0, 10**6)
discounts = st.sampled_from([1.0, 0.8])
rules = st.sampled_from(RULES)
finite = st.one_of(st.sampled_from([0.0, 1e-3, 1.0]), st.floats(-3, 3))
etas = st.one_of(finite, st.sampled_from([-math.inf, math.inf]))


def soft_mean(p, x, eta):
    """(1/η) log E_p[exp(ηx)] of lists of numbers."""
    possible = [(p_k, x_k) for p_k, x_k in zip(p, x, strict=True) if p_k > 0]
    if math.isinf(eta):
        return (max if eta > 0 else min)(x_k for _, x_k in possible)
    m = sum(p_k * x_k for p_k, x_k in possible)
    if abs(eta) < 1e-100:  # half of η times the variance is nothing; η x may have no digits left
        return m
    return m + math.log1p(sum(p_k * math.expm1(eta * (x_k - m)) for p_k, x_k in possible)) / eta


def tree(problem, eta, rule, s, t):
    """v and π of a state, by walking the tree of everything that may follow; no table is kept."""
    if t == problem.T:
        return problem.final[s] / problem.temperature, None
    S, A = problem.sizes
    allowed = [a for a in range(A) if problem.prior[s][a] > 0]
    q = {}
    for a in allowed:
        p, x = [], []
        for n in range(S):
            if problem.P[s][a][n] > 0:
                paid = problem.arrival[s][a][n] / problem.temperature
                on = tree(problem, eta, rule, n, t + 1)[0]
                p += [problem.P[s][a][n] * problem.discount]
                p += [problem.P[s][a][n] * (1 - problem.discount)]
                x += [paid + on, paid]
        q[a] = problem.reward[s][a] / problem.temperature + soft_mean(p, x, eta)
    weight = {a: problem.prior[s][a] * math.exp(q[a] - max(q.values())) for a in allowed}
    if rule == "hard":
        weight = {a: problem.prior[s][a] * (q[a] == max(q.values())) for a in allowed}
    total = sum(weight.values())
    pi = [weight.get(a, 0.0) / total for a in range(A)]
    if rule == "soft":
        return max(q.values()) + math.log(total), pi
    if rule == "planned":
        return max(q.values()), pi
    return sum(pi[a] * q[a] for a in allowed), pi


@given(seed=seeds, discount=discounts, eta=etas, rule=rules)
def test_the_tree_of_everything_that_may_follow(seed, discount, eta, rule):
    problem = oracles.random_problem(seed, discount=discount)
    found = inference.soft_values(problem.model(), eta, rule)
    for s in range(problem.sizes[0]):
        v, pi = tree(problem, eta, rule, s, 0)
        assert found.V[0, s].item() == pytest.approx(v * problem.temperature, abs=1e-10)
        np.testing.assert_allclose(found.policy.log_probs[0, s].exp(), pi, atol=1e-9)


def certainty_equivalent(problem, policy, eta):
    """(1/η) log E[exp(η return/α)] of a policy, summed over all paths; no price on its actions."""
    everything = list(oracles.paths(problem, policy=policy))
    p = [path.probability for path in everything]
    x = [path.reward / problem.temperature for path in everything]
    return soft_mean(p, x, eta)


@pytest.mark.parametrize("discount", [1.0, 0.8])
@pytest.mark.parametrize("eta", [-2.0, -0.5, 0.0, 0.5, 1.0, 2.0])
def test_hard_is_the_best_deterministic_policy(eta, discount):
    """Of all of them, by the exponential utility of the return: risk-sensitive control."""
    problem = oracles.random_problem(3, S=2, A=2, T=3, discount=discount, forbidden=0.0)
    found = inference.soft_values(problem.model(), eta, "hard")
    choices = itertools.product(range(2), repeat=6)
    policies = [np.eye(2)[np.reshape(choice, (3, 2))] for choice in choices]
    best = max(certainty_equivalent(problem, policy, eta) for policy in policies)
    assert found.bound == pytest.approx(best, abs=1e-11)
    own = certainty_equivalent(problem, found.policy.log_probs.exp().numpy(), eta)
    assert own == pytest.approx(best, abs=1e-11)


@given(seed=seeds, discount=discounts)
def test_boltzmann_is_the_return_of_a_trembling_hand(seed, discount):
    """Without bending, V is the plain expected return of the policy, and π ∝ p exp(its own Q/α)."""
    problem = oracles.random_problem(seed, discount=discount)
    found = inference.soft_values(problem.model(), 0.0, "boltzmann")
    policy = found.policy.log_probs.exp().numpy()
    _, expected = oracles.elbo(problem, policy)
    assert found.bound * problem.temperature == pytest.approx(expected, abs=1e-11)
    assert found.imagined_return == pytest.approx(expected, abs=1e-11)
    for s, a in np.argwhere(np.asarray(problem.prior) > 0):
        forced = policy.copy()
        forced[0, s] = np.eye(problem.sizes[1])[a]
        start = np.eye(problem.sizes[0])[s]
        paths = oracles.paths(problem, start, forced)
        q = sum(path.probability * path.reward for path in paths)
        assert found.Q[0, s, a].item() == pytest.approx(q, abs=1e-11)


@given(seed=seeds, discount=discounts, theta=st.floats(-3, 3))
def test_hard_is_soft_at_temperature_zero(seed, discount, theta):
    """With θ = η/α as it is: 0 ≤ hard - soft ≤ T α log(1/least prior), so for α = 1e-7 equality."""
    problem = oracles.random_problem(seed, discount=discount)
    hard = inference.soft_values(problem.model(), theta * problem.temperature, "hard")
    cold = 1e-7
    soft = inference.soft_values(problem.model(temperature=cold), theta * cold)
    np.testing.assert_allclose(soft.V, hard.V, rtol=0, atol=1e-4)
    assert (soft.V <= hard.V + 1e-9).all()


def test_hard_is_value_iteration():
    problem = oracles.random_problem(11, S=6, A=3, T=8, discount=0.9, forbidden=0.0)
    r = problem.reward + (problem.P * problem.arrival).sum(-1)
    V = problem.final
    for _ in range(problem.T):
        Q = r + 0.9 * problem.P @ V
        V = Q.max(-1)
    found = inference.soft_values(problem.model(), 0.0, "hard")
    np.testing.assert_allclose(found.V[0], V, atol=1e-12)
    assert (found.policy.log_probs[0].argmax(-1).numpy() == Q.argmax(-1)).all()


@given(seed=seeds, discount=discounts, eta=etas)
def test_boltzmann_and_soft_below_hard(seed, discount, eta):
    model = oracles.random_problem(seed, discount=discount).model()
    hard, soft, boltzmann = (
        inference.soft_values(model, eta, rule).V for rule in ("hard", "soft", "boltzmann")
    )
    assert (soft <= hard + 1e-11).all()
    assert (boltzmann <= hard + 1e-11).all()


@given(seed=seeds, eta=finite)
def test_hard_bound_grows_with_optimism(seed, eta):
    model = oracles.random_problem(seed).model()
    low, high = (inference.soft_values(model, x, "hard") for x in (eta, eta + 0.5))
    assert low.bound <= high.bound + 1e-11
    if abs(eta) > 0.1:
        step = 1e-5
        above, below = (inference.soft_values(model, eta + d, "hard") for d in (step, -step))
        if torch.equal(above.policy.log_probs, below.policy.log_probs):  # no kink between them
            slope = (above.bound - below.bound) / (2 * step)
            assert low.total_tilt / eta**2 == pytest.approx(slope, abs=1e-5)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("eta", [-math.inf, -1.0, 0.0, 1.0, math.inf])
def test_extremes(rule, eta):
    """Dead ends, forbidden actions, huge rewards: answers, no NaN and no warnings."""
    P = [[[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]], [[0.0, 0.0, 1.0]] * 2, [[0.0, 0.0, 1.0]] * 2]
    model = models.tabular(
        P,
        [[1e6, -1e6], [-math.inf, 2.0], [-math.inf, -math.inf]],
        action_prior=[[0.3, 0.7], [0.5, 0.5], [1.0, 0.0]],
        horizon=3,
    )
    found = inference.soft_values(model, eta, rule)
    policy = found.policy.log_probs.exp()
    assert not found.V.isnan().any()
    assert found.V[0, 2] == -math.inf
    torch.testing.assert_close(policy[:, 2], torch.tensor([[1.0, 0.0]] * 3).double())
    torch.testing.assert_close(policy.sum(-1), torch.ones(3, 3).double())
    assert not found.states.isnan().any()
    assert found.V[2, 0].item() == pytest.approx(1e6, abs=2)


def test_ties_are_ties_in_spite_of_rounding():
    """0.1 + 0.2 is not 0.3, but it is as good."""
    P = torch.eye(2).double().expand(2, 2, 2)
    prior, r_T = [0.25, 0.75], [0.2, 0.0]
    model = models.tabular(
        P, [[0.1, 0.3], [0.1, 0.3]], horizon=1, action_prior=prior, final_reward=r_T
    )
    assert 0.1 + 0.2 != 0.3
    found = inference.soft_values(model, 0.0, "hard")
    torch.testing.assert_close(found.policy.log_probs[0, 0].exp(), torch.tensor(prior).double())


def test_comparison_of_rules():
    """Each believes its own bound; the ELBO is the same question to all of them."""
    problem = oracles.random_problem(5, zeros=0.0, forbidden=0.0)
    model = problem.model()
    methods = {
        f"{rule} {eta:g}": inference.soft_values(model, eta, rule)
        for rule in RULES
        for eta in (-1.0, 0.0, 1.0)
    }
    report = cai.compare(model, methods)
    for name, row in report.items():
        assert row.elbo + row.kl == pytest.approx(report.log_evidence, abs=1e-9)
        assert row.imagined_bound == pytest.approx(methods[name].bound, abs=1e-11)
        assert (row.optimism_gap is None) == name.endswith(" 0")
        if name.startswith("planned"):  # it does not count on its own errors
            hard = methods[name.replace("planned", "hard")]
            assert row.imagined_bound == pytest.approx(hard.bound, abs=1e-11)
            if name.endswith(" 0"):
                assert row.imagined_return == pytest.approx(row.expected_return, abs=1e-11)
                assert row.imagined_bound * model.temperature > row.imagined_return
        elif not name.startswith("soft"):
            worth = row.expected_return / model.temperature
            if name.endswith(" 0"):
                assert row.imagined_bound == pytest.approx(worth, abs=1e-11)
                assert row.imagined_return == pytest.approx(row.expected_return, abs=1e-11)
            else:
                assert row.optimism_gap == pytest.approx(row.imagined_bound - worth, abs=1e-11)
        if row.optimism_gap is not None and not name.startswith("planned"):
            assert row.optimism_gap * methods[name].optimism >= 0
    assert report["soft 0"].elbo == max(row.elbo for row in report.values())
    assert report["hard 0"].expected_return == max(r.expected_return for r in report.values())


def test_what_is_no_elbo_says_so():
    model = oracles.random_problem(5).model()
    hard = inference.soft_values(model, 0.0, "hard")
    with pytest.raises(AttributeError, match=r"elbo: .*rule 'hard' does not count KL"):
        _ = hard.elbo
    with pytest.raises(AttributeError, match=r"elbo: .*under changed dynamics"):
        _ = inference.soft_values(model, 1.0, "hard").elbo
    with pytest.raises(AttributeError, match=r"log_evidence: .*rule 'boltzmann' is not"):
        _ = inference.soft_values(model, 1.0, "boltzmann").log_evidence
    assert "rule='hard'" in repr(hard)
    assert "rule" not in repr(inference.soft_values(model))


def test_mistakes():
    with pytest.raises(ValueError, match=r"rule: expected .*got 'max'"):
        inference.soft_values(models.ledge(), 0.0, "max")
    eye = np.eye(1)
    gaussian = models.linear_gaussian(eye, eye, horizon=2, noise=eye, Q=eye, R=eye)
    with pytest.raises(ValueError, match=r"rule: .*linear-Gaussian"):
        inference.soft_values(gaussian, 0.0, "hard")


def test_boltzmann_values_of_a_long_life_are_not_waited_for():
    """One state, one action, a reward of one: 1/(1-γ), where a million sweeps would lead."""
    model = models.tabular([[[1.0]]], [[1.0]], horizon=None, discount=1 - 1e-5)
    found = inference.soft_values(model, 0.0, "boltzmann")
    assert found.V.item() == pytest.approx(1e5, rel=1e-9)
