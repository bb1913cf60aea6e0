"""Each part of what certifies stationary values, held by a case that would be wrong without it."""

from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cai
from cai import inference, models
from cai.infinite import certificate
from cai.infinite.bellman_operator import Operator
from cai.infinite.certificate import certified, rounding
from cai.infinite.gap import gaps
from cai.tables import bellman

seeds = st.integers(0, 10**6)


def at(table, v, eta=0.0, rule="soft"):
    """What is certified of values v, nats."""
    operator = Operator.of(table, eta, rule)
    v = operator.ends.filled(torch.as_tensor(v, dtype=torch.float64))
    return certified(operator.linear(v))


def ending(discount=0.9, stay=0.5, cost=1.0):
    """One state that costs, and one where it is over."""
    P = [[[stay, 1 - stay]], [[0.0, 1.0]]]
    return cai.tabulate(models.tabular(P, [[-cost], [0.0]], horizon=None, discount=discount))


@pytest.mark.parametrize("off", [-3.0, -0.1, 0.1, 3.0])
@pytest.mark.parametrize("stay", [0.1, 0.5, 0.9])
def test_macqueen_counts_the_states_that_have_ended(off, stay):
    """There T v - v = 0: in one live state alone the bracket would have no width, far from V."""
    exact = -1 / (1 - 0.9 * stay)
    near, error = at(ending(stay=stay), [exact + off, 0.0])
    assert near[1] == 0
    assert abs(near[0].item() - exact) <= error


@pytest.mark.parametrize("discount", [0.5, 0.9, 0.99])
def test_macqueen_without_an_end_is_exact_but_for_rounding(discount):
    """One state that goes on: any v gives the exact value, and errors of a few ε/(1-γ) remain."""
    found = at(cai.tabulate(models.tabular([[[1.0]]], [[1.0]], horizon=None, discount=discount)), 7)
    assert abs(found[0].item() - 1 / (1 - discount)) <= found[1] < 1e-13 / (1 - discount) ** 2


def test_macqueen_allows_for_rounding():
    """Where T v = v to the last digit, V is not known to the last digit: r/(1-γ) in fractions."""
    missed = 0
    for k in range(1, 40):
        r, discount = k / 7, 0.97
        model = models.tabular([[[1.0]]], [[r]], horizon=None, discount=discount)
        found = inference.soft_values(model)
        off = abs(Fraction(found.V.item()) - Fraction(r) / (1 - Fraction(discount)))
        assert off <= found.error < 1e-10
        table, v = found.table, found.log_values
        gap = abs((bellman.backup(table, v, 0.0) - v).item()) * discount / (1 - discount)
        missed += off > gap  # more than a bracket from the residual alone would say
    assert missed > 10


@settings(max_examples=40)
@given(seeds, st.floats(0.3, 0.97), st.sampled_from([1e-12, 1e-6, 0.1]))
def test_macqueen_holds_around_any_values(seed, discount, off):
    rng = np.random.default_rng(seed)
    S = int(rng.integers(2, 6))
    P, r = rng.dirichlet(np.ones(S), (S, 2)), rng.normal(size=(S, 2))
    if seed % 2:
        P[-1], r[-1] = np.eye(S)[-1], 0
    table = cai.tabulate(models.tabular(P, r, horizon=None, discount=discount))
    exact = inference.soft_values(table)
    near, error = at(table, exact.log_values + off * torch.from_numpy(rng.normal(size=S)))
    assert (near - exact.log_values).abs().max() <= error + exact.error


@pytest.mark.parametrize("rule", ["soft", "hard"])
@pytest.mark.parametrize("eta", [-0.4, 0.0, 0.5, np.inf])
def test_a_bracket_needs_both_sides(rule, eta):
    """Values above, or below, by more than d: only one side of v ± d moves towards them."""
    table = ending(1.0)
    operator, d = Operator.of(table, eta, rule), torch.tensor([0.05, 0.0]).double()
    exact = inference.soft_values(table, eta, rule).log_values
    holds = lambda v: certificate._holds(operator, v, d)  # noqa: E731
    assert holds(exact)
    assert holds(exact + 0.5 * d)
    assert holds(exact - 0.5 * d)
    assert not holds(exact + 2 * d)
    assert not holds(exact - 2 * d)


@pytest.mark.parametrize("eta", [-0.2, 0.0, 0.5])
def test_a_bracket_of_rounding_errors_is_none(eta):
    """A bracket as narrow as the last digit holds for nothing, whichever way T rounds."""
    table = ending(1.0, cost=1.7)
    operator = Operator.of(table, eta, "soft")
    v = inference.soft_values(table, eta).log_values
    digit = torch.tensor([4.5e-16, 0.0]).double()
    for k in range(1, 20):
        assert not certificate._holds(operator, v, k * digit)
    noise = torch.where(operator.ends.live, next(operator.gaps(v)).noise, 0.0)
    assert certificate._holds(operator, v, 100 * noise)


@pytest.mark.parametrize("eta", [-0.5, 0.0, 1.0, np.inf])
def test_a_circle_for_nothing_has_no_bracket(eta):
    """Any v ≥ -1 repeats itself under max(v, -1): T u ≤ u and T l ≥ l, but neither strictly."""
    P = np.eye(2)[[[0, 1], [1, 1]]]
    table = cai.tabulate(models.tabular(P, [[0.0, -1.0], [0.0, 0.0]], horizon=None))
    for v in (-1.0, -0.5, 0.0):
        assert at(table, [v, 0.0], eta, "hard")[1] is None


@pytest.mark.parametrize("eta", [-np.inf, -0.5, 0.0, 0.5, np.inf])
def test_the_worst_of_what_ties_counts(eta):
    """Four times 2i -> 2i+2 or 2i+3: rounding errors of odd states, of 1e9 back and forth, add up.

    The way through even states alone, or a mixture of the two, would sum up to less.
    """
    P = np.zeros((9, 3, 9))
    for s in range(8):
        P[s, :2] = np.eye(9)[[min(s - s % 2 + 2, 8), min(s - s % 2 + 3, 8)]]
    worst_way(P, eta)


@pytest.mark.parametrize("eta", [-np.inf, np.inf])
def test_the_worst_of_the_outcomes_that_tie_counts(eta):
    """As above, but luck leads to one or the other; at -∞ it is below that they add up."""
    P = np.zeros((9, 3, 9))
    for s in range(8):
        for way in (2, 3):
            P[s, :2, min(s - s % 2 + way, 8)] += 0.5
    worst_way(P, eta)


def worst_way(P, eta):
    P[:8, 2, 8] = P[8, :, 8] = 1
    r = np.full((9, 3), -1.0)
    r[:8, 2], r[1:8:2, :2], r[8] = -10, -1e9 - 1, 0
    paid = 1e9 * (r < -1e9)[..., None] * np.ones(9)
    table = cai.tabulate(models.tabular(P, r, arrival_reward=paid, horizon=None))
    near, error = at(table, [-4, -4, -3, -3, -2, -2, -1, -1, 0], eta, "hard")
    [found] = gaps(table, near, eta, "hard")
    noise = found.noise[1]
    assert 2 * 4 * noise <= error < 5 * 4 * noise


@settings(max_examples=40)
@given(seeds, st.sampled_from([-30.0, -1.0, -0.05, -1e-6, 0.0, 1e-9, 1e-3, 0.3, 1.0, 50.0]))
def test_rounding_errors_are_within_their_bound(seed, eta):
    """T v in floats against T v in forty digits, for values and probabilities of all sizes."""
    rng = np.random.default_rng(seed)
    S = int(rng.integers(2, 5))
    P = rng.random((S, 2, S)) ** rng.choice([1, 8, 40])
    P[-1] = np.eye(S)[-1]
    r = 10 ** rng.uniform(-2, 4) * rng.normal(size=(S, 2))
    r[-1] = 0
    model = models.tabular(P / P.sum(-1, keepdims=True), r, horizon=None)
    table = cai.tabulate(model)
    v = torch.from_numpy(10 ** rng.uniform(-2, 9) * rng.normal(size=S))
    v[-1] = 0
    bound = rounding(table, v, eta)
    for rule in ("soft", "hard"):
        found = bellman.backup(table, v, eta, rule)
        with mpmath.workdps(60):
            for s in range(S - 1):
                q = [in_digits(table, v, s, a, eta) for a in range(2)]
                exact = max(q)
                if rule == "soft":
                    terms = [mpmath.exp(mpmath.mpf(table.log_prior[s, a].item()) + q[a])
                             for a in range(2)]  # fmt: skip
                    exact = mpmath.log(sum(terms))
                assert abs(found[s].item() - exact) <= bound[s].item()


def in_digits(table, v, s, a, eta):
    """Q(s,a)/α, as bellman.py has it, in as many digits as are at work."""
    log_p, reward = table.log_dynamics[s, a].tolist(), mpmath.mpf(table.reward[s, a].item())
    p, x = [mpmath.exp(mpmath.mpf(y)) for y in log_p], [mpmath.mpf(y) for y in v.tolist()]
    p = [y / sum(p) for y in p]  # rows sum to one but for rounding errors
    if eta == 0:
        return reward + sum(y * z for y, z in zip(p, x, strict=True))
    moment = sum(y * mpmath.exp(eta * z) for y, z in zip(p, x, strict=True))
    return reward + mpmath.log(moment) / eta
