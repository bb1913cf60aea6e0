"""T v - v next to large values, and sums over chains that hardly ever end, in many digits."""

from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cai
from cai import inference, models
from cai.infinite import gap
from cai.infinite.bellman_operator import Operator
from cai.infinite.gap import gaps
from cai.numerics.state_reduction import StateReduction
from cai.tables import bellman

seeds = st.integers(0, 10**6)
ETAS = [-np.inf, -1e9, -30.0, -1.0, -0.05, -1e-6, -1e-12, 0.0, 1e-9, 1e-3, 0.3, 1.0, 50.0, np.inf]


def mean_in_digits(p, x, eta):
    """(1/η) log E_p[exp(ηx)]."""
    if np.isinf(eta):
        return max(x) if eta > 0 else min(x)
    if eta == 0:
        return sum(a * b for a, b in zip(p, x, strict=True))
    return mpmath.log(sum(a * mpmath.exp(eta * b) for a, b in zip(p, x, strict=True))) / eta


def normalised(log_p):
    """Rows sum to one but for rounding errors; what is impossible stays so."""
    p = [mpmath.exp(mpmath.mpf(x)) for x in log_p.tolist()]
    return [x / sum(p) for x in p]


def gap_in_digits(table, v, s, eta, rule):
    """(T v - v)(s), as bellman.py has it, in as many digits as are at work."""
    discount, prior = mpmath.mpf(table.discount), normalised(table.log_prior[s])
    worth = [mpmath.mpf(x) for x in v.tolist()]
    if discount < 1:
        worth = [mean_in_digits([discount, 1 - discount], [x, 0], eta) for x in worth]
    q = [
        mpmath.mpf(table.reward[s, a].item())
        + mean_in_digits(normalised(table.log_dynamics[s, a]), worth, eta)
        for a in range(table.num_actions)
    ]
    backed_up = max(q) if rule == "hard" else mean_in_digits(prior, q, 1)
    return backed_up - mpmath.mpf(v[s].item())


@settings(max_examples=80)
@given(seeds, st.sampled_from(ETAS), st.sampled_from([1.0, 1 - 1e-9, 0.5]))
def test_gaps_are_within_their_noise(seed, eta, discount):
    """For values, probabilities and ends of all sizes, in forty digits more than floats have."""
    rng = np.random.default_rng(seed)
    S = int(rng.integers(2, 5))
    P = rng.random((S, 2, S)) ** rng.choice([1, 8, 40])
    P[np.arange(S), :, np.arange(S)] += 10 ** rng.uniform(-3, 14, size=(S, 1))
    r = 10 ** rng.uniform(-2, 3) * rng.normal(size=(S, 2))
    prior = rng.dirichlet([1, 1], S)
    table = cai.tabulate(
        models.tabular(
            P / P.sum(-1, keepdims=True), r, horizon=None, discount=discount, action_prior=prior
        )
    )
    size, spread = 10 ** rng.uniform(-2, 12), rng.choice([0.0, 1e-12, 1e-3, 1.0])
    v = torch.from_numpy(rng.choice([-1, 1]) * size * (1 + spread * rng.normal(size=S)))
    for rule in ("soft", "hard"):
        [found] = gaps(table, v, eta, rule)
        with mpmath.workdps(60):
            for s in range(S):
                exact = gap_in_digits(table, v, s, eta, rule)
                assert abs(found.values[s].item() - exact) <= found.noise[s].item()


@pytest.mark.parametrize("eta", [-1e-13, 0.0, 1e-13])
@pytest.mark.parametrize("rule", ["soft", "hard"])
def test_to_stay_rounds_nothing(rule, eta):
    """Values of 3e12 nats are rounded to 2e-4; what a state left by 1e-12 adds to them is not."""
    P = [[[1 - 1e-12, 1e-12]], [[0, 1.0]]]
    table = cai.tabulate(models.tabular(P, [[-3.0], [0]], horizon=None))
    v = torch.tensor([-2.9e12, 0.0], dtype=torch.float64)
    [found] = gaps(table, v, eta, rule)
    with mpmath.workdps(60):
        exact = gap_in_digits(table, v, 0, eta, rule)
    assert abs(found.values[0].item() - exact) <= found.noise[0].item() < 1e-12
    assert abs((bellman.backup(table, v, eta, rule) - v)[0].item() - exact) > 1e-6


def test_rounded_logarithms_of_rare_ends_count():
    """The table has log p, rounded by ε |log p|; to leave is worth p |v|, for the p as given."""
    for k in range(1, 26):
        p = 10.0 ** (-10 * k)
        P, v = [[[1 - p, p]], [[0, 1.0]]], -0.3 / p
        table = cai.tabulate(models.tabular(P, [[0.0], [0.0]], horizon=None))
        [found] = gaps(table, torch.tensor([v, 0.0], dtype=torch.float64), 0.0, "soft")
        off = abs(Fraction(found.values[0].item()) + Fraction(p) * Fraction(v))
        assert off <= found.noise[0].item() < 1e-12


@pytest.mark.parametrize("discount", [1.0, 0.9])
@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("eta", [-np.inf, -0.3, 0.0, 1.0, np.inf])
def test_blocks_of_states_are_one_problem(eta, dense, discount, monkeypatch):
    """T v - v, its noise and the moves of all states in one piece, and of a few at a time."""
    rng = np.random.default_rng(0)
    P, successors = rng.dirichlet(np.ones(3), (20, 2)), None
    if dense:
        P = rng.dirichlet(np.ones(20), (20, 2))
    else:
        successors = np.argsort(rng.random((20, 2, 20)), -1)[..., :3]
    arrival_reward, reward = -rng.random(P.shape), -rng.random((20, 2))
    P[-1], reward[-1], arrival_reward[-1] = 0.0, 0.0, 0.0  # the trajectory ends there
    P[-1, :, -1] = 1.0
    if successors is not None:
        successors[-1, :, -1] = 19
    table = cai.tabulate(
        models.tabular(
            P,
            reward,
            arrival_reward=arrival_reward,
            successors=successors,
            horizon=None,
            discount=discount,
        )
    )
    v = torch.from_numpy(-10 * rng.random(20))
    for rule in ("soft", "hard", "boltzmann"):
        operator = Operator.of(table, eta, rule)
        [whole] = gaps(table, v, eta, rule)
        once = operator.linear(v)
        with monkeypatch.context() as patch:
            patch.setattr(gap, "_AT_ONCE", 50)
            assert len(list(gaps(table, v, eta, rule))) > 1
            step = operator.linear(v)
            noise = step.noise  # far from a fixed point it is found when it is asked for
        live = operator.ends.live
        assert live.any() or eta == -torch.inf
        close(step.gap, torch.where(live, whole.values, 0.0))
        close(noise, torch.where(live, whole.noise, 0.0))
        close(step.moves, once.moves)
        close(step.ending, once.ending)


def close(found, expected):
    """Sums in another order."""
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("end", [1e-6, 1e-13, 1e-30, 1e-200])
def test_chains_that_hardly_ever_end(end):
    """(I - M)⁻¹ b in fractions, where 1 - M has no digit of the end."""
    rng = np.random.default_rng(0)
    M = rng.dirichlet(np.ones(4), 4)
    left = end * rng.random(4)
    b = rng.random(4)
    found = StateReduction(M, left).sums(b)
    A = [[-Fraction(x) for x in row] for row in M.tolist()]
    for i in range(4):
        A[i][i] = Fraction(left[i]) - sum(A[i][j] for j in range(4) if j != i)
    exact = solved(A, [Fraction(x) for x in b.tolist()])
    for x, y in zip(found.tolist(), exact, strict=True):
        assert abs(Fraction(x) / y - 1) < Fraction(1, 10**14)


def solved(A, b):
    """A⁻¹ b by elimination, in fractions."""
    n = len(b)
    A, b = [list(row) for row in A], list(b)
    for k in range(n):
        for i in range(n):
            if i != k:
                share = A[i][k] / A[k][k]
                A[i] = [x - share * y for x, y in zip(A[i], A[k], strict=True)]
                b[i] -= share * b[k]
    return [b[k] / A[k][k] for k in range(n)]


def test_two_states_that_are_hardly_ever_left_for_the_end():
    """1e11 steps back and forth, of which 1 - p has few digits left."""
    P = [[[0.5, 0.5, 0]], [[0.5, 0.5, 1e-11]], [[0, 0, 1.0]]]
    model = models.tabular(P, [[-1.0], [-1.0], [0]], horizon=None)
    found = inference.soft_values(model, 0.0)
    exact = -2 / mpmath.mpf(1e-11)  # half of the time in the state from where it may end
    assert abs(found.V[0].item() - exact) <= found.error < 0.01 * abs(exact)
    assert abs(found.V[0].item() / exact - 1) < 1e-10
