"""Where stationary values end, and that they are found up to there, on ill-conditioned problems.

For one policy of the hard rule w = exp(ηV) solves w = M w + b, M = P exp(η r⁺) over the states
that go on, and is finite where the spectral radius of M is below one: where all pivots of I - M are
above zero, which is told here in forty digits.
"""

import itertools
import math
import re

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

import cai
from cai import inference, models
from cai.infinite.transient import Transient

seeds = st.integers(0, 10**6)


def finite(P, W, eta):
    """Whether exp(ηV) is finite for one policy: P, W (S, S), the last state the end."""
    with mpmath.workdps(40):
        n = len(P) - 1
        p = [[mpmath.mpf(float(x)) for x in row] for row in P]
        M = mpmath.matrix(n, n)
        for i, j in itertools.product(range(n), range(n)):
            M[i, j] = -p[i][j] * mpmath.exp(eta * mpmath.mpf(float(W[i][j])))
        for i in range(n):  # rows sum to one, and what leaves a state is known to all its digits
            stays = 1 - sum(x for j, x in enumerate(p[i]) if j != i)
            M[i, i] = 1 - stays * mpmath.exp(eta * mpmath.mpf(float(W[i][i])))
        for k in range(n):
            if M[k, k] <= 0:
                return False
            for i, j in itertools.product(range(k + 1, n), range(k + 1, n)):
                M[i, j] -= M[i, k] / M[k, k] * M[k, j]
        return True


def edge(exists, sign, digits=1e-3):
    """The optimism of a sign up to which values exist; None where that is very far."""
    low, high = 0.0, 1e-14
    while exists(sign * high):
        low, high = high, 8 * high
        if high > 2**20:
            return None
    while high - low > digits * high:
        middle = math.sqrt(low * high) if low else high / 2
        low, high = (middle, high) if exists(sign * middle) else (low, middle)
    return sign * (low + high) / 2


def critical(P, W, sign):
    """The critical optimism of the hard rule, by all of its policies, P, W (S, A, S)."""
    S, A, _ = P.shape
    policies = [
        (P[np.arange(S), list(a)], W[np.arange(S), list(a)])
        for a in itertools.product(*([range(A)] * (S - 1) + [[0]]))
    ]
    some = any if sign < 0 else all  # below zero a policy is chosen that has values, if one has
    return edge(lambda eta: some(finite(*policy, eta) for policy in policies), sign)


def named(error):
    return float(re.findall(r"is about ([-0-9.e+]*[0-9])", str(error.value))[0])


def check(model, rule, eta, shares=(0.01, 0.5, 0.9), beyond=(1.03, 2.0, 30.0)):
    for share in shares:
        found = inference.soft_values(model, share * eta, rule)
        v = found.V[found.V != 0].abs().max().item()
        assert found.error < 0.1 * v
    for share in beyond:
        with pytest.raises(ValueError, match="critical optimism") as error:
            inference.soft_values(model, share * eta, rule)
        assert named(error) == pytest.approx(eta, rel=0.01)


def tabular(P, W):
    S, A, _ = P.shape
    return models.tabular(
        P, np.zeros((S, A)), arrival_reward=W, horizon=None, initial=np.ones(S) / S
    )


def ill_conditioned(seed, A, least=-11.0):
    """Transitions of all sizes, the end as unlikely as 1e-11, rewards of one or of both signs."""
    rng = np.random.default_rng(seed)
    S = int(rng.integers(2, 5))
    P = rng.random((S, A, S)) ** rng.choice([1, 4, 10])
    if rng.random() < 0.5:
        P[..., -1] *= 10 ** rng.uniform(least, 0)
    else:
        P[np.arange(S), :, np.arange(S)] += 10 ** rng.uniform(0, -least, size=(S, 1))
    P /= P.sum(-1, keepdims=True)
    W = 10 ** rng.uniform(-1, 1.5) * rng.random((S, A, S))
    W *= rng.choice([-1, 1]) if rng.random() < 0.6 else rng.choice([-1, 1], size=W.shape)
    P[-1], W[-1] = np.eye(S)[-1], 0
    return P, W


@pytest.mark.parametrize("actions", [1, 2])
@settings(max_examples=8)
@example(399047, -1)  # values at optimism 0 are out of reach
@given(seeds, st.sampled_from([-1, 1]))
def test_random_ill_conditioned_problems(actions, seed, sign):
    P, W = ill_conditioned(seed, actions)
    eta = critical(P, W, sign)
    # Where the end is as rare as 1e-12 a few digits are left of it, and of what it is to be worth.
    assume(eta is not None and abs(eta) > 1e-8)
    # Values of 1e8 nats are rounded by 1e-8 a step, which the rare end near an edge multiplies: the
    # certificate may then refuse values that have a few digits left.
    shares = (0.01, 0.5, 0.9) if abs(eta) > 1e-4 else (0.01,)
    check(tabular(P, W), "hard", eta, shares)


@pytest.mark.parametrize("stay", [0.5, 1 - 1e-6, 1 - 1e-10])
@pytest.mark.parametrize("sign", [-1, 1])
def test_the_soft_rule_in_one_state(stay, sign):
    """Actions a that stay with p_a and pay r_a: values end where Σ π_a exp(r_a) p_a^{1/η} = 1."""
    p = np.array([stay, stay**3, 0.3])
    r, prior = sign * np.array([1.0, 0.7, 3.0]), np.array([0.5, 0.4, 0.1])
    kept = prior if sign < 0 else np.array([0.6, 0.4, 0.0])

    def exists(eta):
        log_sum = np.logaddexp.reduce(np.log(kept[kept > 0]) + (r + np.log(p) / eta)[kept > 0])
        return log_sum > 0 if eta < 0 else log_sum < 0

    eta = edge(exists, sign, 1e-6)
    P = np.zeros((2, 3, 2))
    P[0, :, 0], P[0, :, 1], P[1, :, 1] = p, 1 - p, 1
    model = models.tabular(
        P, np.stack([r, 0 * r]), action_prior=np.stack([kept, kept]), horizon=None
    )
    check(model, "soft", eta)


@pytest.mark.parametrize("rule", ["soft", "hard"])
@pytest.mark.parametrize("sign", [-1, 1])
def test_death_is_an_end_as_well(rule, sign):
    """One state, r a step: γ exp(ηr) = 1 at log(1/γ)/r."""
    for discount in (0.5, 1 - 1e-6):
        model = models.tabular([[[1.0]]], [[2.0 * sign]], horizon=None, discount=discount)
        eta = -math.log(discount) / (2 * sign)
        for share in (0.01, 0.5, 0.99):
            found = inference.soft_values(model, share * eta, rule)
            again = share * eta * 2 * sign
            dead = (1 - discount) * math.exp(again) / (1 - discount * math.exp(again))
            exact = math.log(dead) / (share * eta)
            assert abs(found.V.item() - exact) <= found.error + 1e-9 * abs(exact)
        if sign < 0 or rule == "hard":
            check(model, rule, eta, shares=())


def slow_and_slower():
    """One leaves slowly, with values tens of nats apart; of the other a state is left by 4e-7."""
    slow = np.array([[0.0, 0.14, 0.86], [0.0176, 0.9824, 0.0], [0.0, 0.0, 1.0]])
    paid = np.array([[0.0, -5.4, 5.5], [-0.77, -14.8, 0.0], [0.0, 0.0, 0.0]])
    slower = np.array(
        [
            [0.1716, 0.5124, 6.4e-8, 0.0560, 0.2599],
            [1.04e-5, 4e-34, 0.0144, 1.1e-5, 0.9855],
            [4.02e-10, 3.1e-7, 0.0504, 5.7e-5, 0.9495],
            [2.47e-12, 2.5e-11, 4.1e-17, 1.0, 4.29e-7],
            [0.0, 0.0, 0.0, 0.0, 1.0],
        ]
    )
    cost = np.array([-0.208, -0.161, -0.703, -1.829, 0.0])[:, None] * np.ones((5, 5))
    return (slow, paid), (slower / slower.sum(-1, keepdims=True), cost)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("rule", ["soft", "hard"])
def test_slow_ends(which, rule):
    """With one action both rules are the same; below zero optimism."""
    P, W = (x[:, None] for x in slow_and_slower()[which])
    check(tabular(P, W), rule, critical(P, W, -1), (0.001, 0.01, 0.1, 0.5, 0.9, 0.95))


@settings(max_examples=8)
@given(seeds, st.floats(0.05, 0.95), st.sampled_from([-1, 1]))
def test_values_near_the_edge_solve_the_linear_system(seed, share, sign):
    """exp(ηV) = (I - M)⁻¹ b with one action, in forty digits."""
    P, W = ill_conditioned(seed, 1, least=-5.0)
    eta = critical(P, W, sign)
    assume(eta is not None and abs(eta) > 1e-6)
    found = inference.soft_values(tabular(P, W), share * eta)
    n = len(P) - 1
    with mpmath.workdps(40):
        weights = [
            [mpmath.mpf(float(P[i, 0, j])) * mpmath.exp(share * eta * float(W[i, 0, j]))
             for j in range(n + 1)]
            for i in range(n)
        ]  # fmt: skip
        M = mpmath.eye(n) - mpmath.matrix([row[:-1] for row in weights])
        w = mpmath.lu_solve(M, mpmath.matrix([row[-1] for row in weights]))
        exact = [float(mpmath.log(x) / (share * eta)) for x in w]
    off = (found.V[:-1] - torch.tensor(exact, dtype=torch.float64)).abs().max().item()
    # Rows sum to one but for 1e-16, which counts as often as one goes round before the end.
    assert off <= found.error + 1e-9 * np.abs(exact).max()


@pytest.mark.parametrize("rule", ["soft", "hard"])
@pytest.mark.parametrize("sign", [-1, 1])
def test_values_that_are_out_of_reach_at_optimism_zero(rule, sign):
    """1e15 steps at ∓5 wait there; away from it nature, or luck, ends them. The edge is log(2).

    It is where state 0, left at even odds, is worth staying in for ever at ±1 a step.
    """
    P = np.array([[0.5, 0.5, 0], [0, 1 - 1e-15, 1e-15], [0, 0, 1]])[:, None]
    W = sign * np.array([1.0, -5.0, 0.0])[:, None, None] * np.ones((3, 1, 3))
    check(tabular(P, W), rule, sign * math.log(2))
    rises = "rise" if sign < 0 else "fall"
    with pytest.raises(ValueError, match=f"too late .* still {rises} by 5 "):
        inference.soft_values(tabular(P, W), 0.0, rule)


def test_an_end_of_1e_17_is_told_where_optimism_discounts():
    """z = exp(-η) ((1-ℓ) z + ℓ): far from ℓ, going on is given up by the dreamer soon enough."""
    model = models.tabular([[[1.0, 1e-17]], [[0, 1.0]]], [[-1.0], [0]], horizon=None)
    found = inference.soft_values(model, 1e-12)
    z = math.exp(-1e-12) * 1e-17 / (-math.expm1(-1e-12) + 1e-17)
    assert abs(found.V[0].item() - math.log(z) / 1e-12) <= found.error < 0.02 * abs(found.V[0])


def test_what_lies_beyond_is_told_by_few_factorisations(monkeypatch):
    """To six digits at most four solves a digit, whichever way; each failure is told by one."""
    made, init = [], Transient.__init__
    monkeypatch.setattr(
        Transient, "__init__", lambda self, *args: made.append(1) or init(self, *args)
    )
    for index in (0, 1):
        P, W = (x[:, None] for x in slow_and_slower()[index])
        table = cai.tabulate(tabular(P, W))
        for eta in (-1.0, -math.inf):
            made.clear()
            with pytest.raises(ValueError, match="critical optimism"):
                inference.soft_values(table, eta)
            assert len(made) < 250


@pytest.mark.parametrize("rule", ["soft", "hard"])
@pytest.mark.parametrize("beside", [False, True])
def test_luck_that_makes_going_on_for_ever_pay(rule, beside):
    """Two states that are never left, a toss of -3 or 1 a step, where E exp(ηr) = 1 is the edge.

    Alone, or beside a state from where it is a step to the end, for a cost of 1.
    """
    P, W = np.full((2, 1, 2), 0.5), np.array([-3.0, 1.0]) * np.ones((2, 1, 2))
    if beside:
        P, W = np.pad(P, ((0, 2), (0, 0), (0, 2))), np.pad(W, ((0, 2), (0, 0), (0, 2)))
        P[2:, :, 3] = 1
        W[2, :, 3] = -1
    model = tabular(P, W)
    eta = edge(lambda eta: math.cosh(2 * eta) < math.exp(eta), 1, 1e-9)
    for share in (-1.0, 0.5, 0.98):
        if share > 0 or beside:
            V = inference.soft_values(model, share * eta, rule).V
            assert V.tolist() == [-math.inf, -math.inf, -1, 0][: len(V)]
    for share in (1.02, 3.0, math.inf):
        with pytest.raises(ValueError, match="critical optimism") as error:
            inference.soft_values(model, share * eta, rule)
        assert named(error) == pytest.approx(eta, rel=1e-5)
