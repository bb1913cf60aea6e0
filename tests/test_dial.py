"""The dial against as many digits as it takes, and the curve that it draws."""

import math

import numpy as np
import oracles
import precise
import pytest

from cai import inference

EPS = 2.0**-52
TINY = (5e-324, 1e-300, 1e-30, 1e-12, 1e-8, 1e-4, 0.01, 0.0999, 0.1)
LARGE = (0.5, 1.0, 3.0, 1e3, 1e8, 1e15, 1e200, 1.7e308, math.inf)
BOTH = [sign * eta for eta in (*TINY, *LARGE) for sign in (1, -1)]


def numbers(x):
    return np.array(x, dtype=object).astype(float)


def apart(found, expected):
    """The largest difference; equal infinities are none, and NaN is the worst."""
    found, expected = np.asarray(found, float), np.asarray(expected, float)
    assert not np.isnan(found).any()
    with np.errstate(invalid="ignore"):
        return np.where(found == expected, 0.0, np.abs(found - expected)).max()


def check(problem, eta, chain=True):
    """Values, policy, bent start and dynamics, occupancies and returns, against mpmath.

    A value of v nats is known to v rounding errors, and ηv is what the bent chain hangs on.
    """
    exact = precise.Dial(problem, eta)
    found = inference.soft_values(problem.model(), eta)
    values = numbers(exact.V)
    error = 50 * EPS * max(1.0, np.abs(values[np.isfinite(values)]).max(initial=0))
    assert apart(found.log_values, values) <= error
    assert apart(found.bound, float(exact.bound)) <= error
    assert apart(found.policy.log_probs.exp(), numbers(exact.policy)) <= error
    if chain:
        error *= max(1.0, abs(eta)) if math.isfinite(eta) else 1.0
        assert apart(found.initial, numbers(exact.initial)) <= error
        for t, dynamics in enumerate(exact.dynamics):
            assert apart(found.dynamics(t), numbers(dynamics)) <= error
        assert apart(found.states, numbers(exact.states)) <= error
        expected = float(exact.imagined_return)
        assert abs(found.imagined_return - expected) <= error * max(1.0, abs(expected))
        assert abs(found.total_bend - float(exact.bend)) <= 50 * error


@pytest.mark.parametrize("eta", BOTH)
@pytest.mark.parametrize("discount", [1.0, 0.8])
def test_against_mpmath(eta, discount):
    for scale, seed in ((1.0, 0), (1e6, 1), (1e-6, 2)):
        check(oracles.random_problem(seed, S=2, T=2, discount=discount, scale=scale), eta)


@pytest.mark.parametrize("eta", [0.0, *BOTH[6::4]])
def test_small_shapes_against_mpmath(eta):
    """One state, one action, one step, a coin that almost always or almost never kills."""
    for S, A, T, discount in (
        (1, 1, 2, 1.0),
        (1, 2, 1, 0.5),
        (2, 1, 1, 1e-9),
        (3, 1, 2, 1 - 1e-12),
    ):
        check(oracles.random_problem(3, S=S, A=A, T=T, discount=discount), eta)
