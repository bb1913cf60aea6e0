"""Below zero optimism: values of policies that are none of the best at any optimism nearer to 0.

A state is left with probability 1 - p a step, at a cost of c each: w = exp(ηV) solves
w = exp(-ηc) (p w + 1 - p), up to the edge η = log(p)/c. A way out that is dear but sure is the best
one only from a hair's breadth before that edge on, and has values beyond it.
"""

import itertools
import math
import re

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cai import inference, models


def solved(P, r, eta, rule="hard", **changes):
    return inference.soft_values(models.tabular(P, r, horizon=None, **changes), eta, rule)


def named(P, r, eta, rule="hard", **changes):
    """The critical optimism that a refusal names."""
    with pytest.raises(ValueError, match="critical optimism") as error:
        solved(P, r, eta, rule, **changes)
    return float(re.findall(r"is about ([-0-9.e+]*[0-9])", str(error.value))[0])


def dear_but_sure(stay, cost, price):
    """0: try to get away, or pay; 1 leads to 0 at odds of one half, 2 surely, and 3 to 2."""
    P, r = np.zeros((5, 2, 5)), np.zeros((5, 2))
    P[0, 0, [0, 4]], P[0, 1, 4], r[0] = (stay, 1 - stay), 1, (-cost, -price)
    P[1][:, [0, 4]], P[2, :, 0], P[3, :, 2], P[4, :, 4] = 0.5, 1, 1, 1
    r[1], r[2], r[3] = -1, -7, -11
    return P, r


@pytest.mark.parametrize("price", [200.0, 2e4, 1e9])
@pytest.mark.parametrize("stay", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("rule", ["hard", "soft"])
def test_a_way_out_that_is_dear_but_sure(rule, stay, price):
    """At twice the edge, trying is worth V - c/2: exp(V) = ½ exp(V - c/2) + ½ exp(-price)."""
    edge, cost = -0.1, 10 * math.log(1 / stay)
    found = solved(*dear_but_sure(stay, cost, price), 2 * edge, rule)
    out = -price
    if rule == "soft":
        out += math.log(0.5) - math.log1p(-0.5 * math.exp(-cost / 2))
    expected = [out, out - 1 + math.log(0.5) / (2 * edge), out - 7, out - 18, 0]
    assert found.V.tolist() == pytest.approx(expected, abs=1e-12 * price, rel=0)
    assert found.error < 1e-9 * price


@pytest.mark.parametrize("discount", [0.9, 0.5])
def test_death_may_be_put_off_as_well(discount):
    """The edge of staying for ever is log(γ)/c; to pay ends it all the same."""
    P, r = dear_but_sure(1.0, 3.0, 2e4)
    found = solved(P, r, 5 * math.log(discount) / 3, discount=discount)
    assert found.V[0].item() == pytest.approx(-2e4, abs=1e-8)


def second_best(price):
    """0: leave at odds of one half for a cost of 1, or pay to be in 1, left as easily for 0.1."""
    P, r = np.zeros((3, 2, 3)), np.zeros((3, 2))
    P[0, 0, [0, 2]], P[0, 1, 1], P[1][:, [1, 2]], P[2, :, 2] = 0.5, 1, 0.5, 1
    r[0], r[1] = (-1.0, -price), -0.1
    return P, r


@pytest.mark.parametrize("price", [10.0, 1e3, 1e6])
@pytest.mark.parametrize("rule", ["hard", "soft"])
def test_the_critical_optimism_is_that_of_the_last_policy(rule, price):
    """It is log(½)/0.1, ten times that of the first policy."""
    P, r = second_best(price)
    critical = 10 * math.log(0.5)
    for share in (0.099, 0.101, 0.5, 0.99):
        eta, actions = share * critical, 1.0 if rule == "hard" else 0.5
        found = solved(P, r, eta, rule)
        w = 0.5 * math.exp(-0.1 * eta)
        # Of two actions that are the same, the soft rule takes either, for nothing.
        assert found.V[1].item() == pytest.approx(math.log(w / (1 - w)) / eta, rel=1e-9)
        if share > 0.1 and price > 10:  # trying is worth V - 1 + log(½)/η once more
            again = 0.0 if rule == "hard" else actions * math.exp(math.log(0.5) / eta - 1)
            out = found.V[1].item() - price + math.log(actions) - math.log1p(-again)
            assert found.V[0].item() == pytest.approx(out, abs=1e-9 * price)
    for share in (1.01, 3.0, math.inf):
        assert named(P, r, share * critical, rule) == pytest.approx(critical, rel=1e-5)


def exists(P, r, eta):
    """Whether any deterministic policy has values: a spectral radius below one, and an end."""
    states = np.arange(len(P) - 1)
    policies = np.array(list(itertools.product(range(P.shape[1]), repeat=len(states))))
    M = (np.exp(eta * r)[..., None] * P)[states, policies]
    within, ends = M[..., :-1], M[..., -1] > 0
    for _ in states:
        ends = ends | ((within > 0) & ends[:, None, :]).any(-1)
    return bool(((np.abs(np.linalg.eigvals(within)).max(-1) < 1) & ends.all(-1)).any())


@settings(max_examples=10)
@given(st.integers(0, 10**6), st.sampled_from([1.0, 5.0, 30.0]))
def test_values_exist_as_far_as_any_policy_has_some(seed, dear):
    rng = np.random.default_rng(seed)
    S = int(rng.integers(3, 6))
    P = np.eye(S)[rng.integers(S, size=(2, S, 2))].mean(0)
    P[:, 0] = 0.5 * P[:, 0] + 0.5 * np.eye(S)[np.minimum(np.arange(S) + 1, S - 1)]
    r = -rng.integers(1, 4, size=(S, 2)) * np.where(rng.random((S, 2)) < 0.4, dear, 1.0)
    P[-1], r[-1] = np.eye(S)[-1], 0
    low, high = 0.0, 4.0
    assume(not exists(P, r, -high))
    while high - low > 1e-4 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if exists(P, r, -middle) else (low, middle)
    assert solved(P, r, -0.99 * low).error < math.inf
    for eta in (-1.01 * high, -4.0):
        assert named(P, r, eta) == pytest.approx(-low, rel=1e-3)
