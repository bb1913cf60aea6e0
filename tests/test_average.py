"""Long-run averages: eigenvalues, long horizons, and the certificate."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import cai
from cai import inference, models
from cai.inference import average

seeds = st.integers(0, 10**6)


def problem(seed, S=5, A=3, temperature=0.7, mixing=0.0, **changes):
    """A random model in which every state leads everywhere in the end, with arrival rewards."""
    rng = np.random.default_rng(seed)
    P = rng.random((S, A, S)) * (rng.random((S, A, S)) < 0.5)
    P[np.arange(S), :, (np.arange(S) + 1) % S] += 0.2
    P += mixing
    arguments = {
        "horizon": None,
        "arrival_reward": rng.normal(size=(S, A, S)),
        "temperature": temperature,
        "action_prior": rng.random((S, A)) + 0.05,
    }
    P /= P.sum(-1, keepdims=True)
    return models.tabular(P, rng.normal(size=(S, A)), **(arguments | changes))


@given(seed=seeds)
def test_the_eigenvalue_at_optimism_one(seed):
    model = problem(seed)
    table = cai.tabulate(model)
    M = table.dense(table.log_weights).sum(1).numpy()
    values, vectors = np.linalg.eig(M)
    top = values.real.argmax()
    found = inference.average_reward(model, 1.0)
    assert found.gain == pytest.approx(0.7 * math.log(values[top].real), abs=1e-12)
    v = np.log(np.abs(vectors[:, top].real)) * 0.7
    ours = found.V.numpy()
    np.testing.assert_allclose(ours - ours[0], v - v[0], atol=1e-10)
    # Doob's transform of M is the bent chain, and left times right eigenvector where it lives.
    values, left = np.linalg.eig(M.T)
    weights = np.abs(left[:, values.real.argmax()].real * vectors[:, top].real)
    np.testing.assert_allclose(found.states, weights / weights.sum(), atol=1e-10)


@given(seed=seeds, eta=st.sampled_from([-2.0, -0.7, 0.0, 1e-6, 0.5, 3.0]))
def test_a_long_horizon_gains_as_much_a_step(seed, eta):
    """V_0 - V_1 → g, the policy in the middle is the stationary one; and Q is a fixed point."""
    model = problem(seed, temperature=2.0, mixing=0.2)  # every chain forgets in time
    found = inference.average_reward(model, eta)
    far = inference.soft_values(dataclasses.replace(model, horizon=300), eta)
    gains = torch.full((5,), found.gain, dtype=torch.float64)
    torch.testing.assert_close(far.V[0] - far.V[1], gains, rtol=0, atol=1e-9)
    torch.testing.assert_close(far.policy.log_probs[0], found.policy.log_probs, rtol=0, atol=1e-9)
    torch.testing.assert_close(far.states[150], found.states, rtol=0, atol=1e-9)
    assert found.error < 1e-11
    torch.testing.assert_close(far.Q[0] - far.V[1, 0], found.Q - found.V[0], rtol=0, atol=1e-8)


def test_the_gain_is_reward_less_the_cost_of_control():
    """At η = 0: Σ_s states E_π[r + r⁺ - α log π/p], by hand."""
    model = problem(3)
    table, found = cai.tabulate(model), inference.average_reward(model)
    log_pi = found.policy.log_probs
    paid = table.reward + (table.log_dynamics.exp() * table.arrival_reward).sum(-1)
    worth = (log_pi.exp() * (paid - 0.7 * (log_pi - table.log_prior))).sum(-1)
    assert found.gain == pytest.approx((found.states @ worth).item(), abs=1e-12)


@given(seed=seeds, eta=st.sampled_from([-1.0, 0.0, 1.0]))
def test_the_certificate_holds_wherever_one_stops(seed, eta):
    """The bracket of an early stop is wide, and the truth lies within."""
    model = problem(seed)
    truth = inference.average_reward(model, eta)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(average, "_TOLERANCE", 0.5)
        early = inference.average_reward(model, eta)
    assert early.error > 1e-6
    assert abs(early.gain - truth.gain) <= early.error + truth.error
    assert early.error <= 0.25 * 0.7 * max(1.0, abs(early.gain) / 0.7 + 0.5) + 1e-12


def test_a_cycle_of_three_in_closed_form():
    """No choice, and a period of three: value iteration alone would swing for ever."""
    P = torch.eye(3).roll(1, 1).unsqueeze(1)
    found = inference.average_reward(models.tabular(P, [[3.0], [0.0], [-1.5]], horizon=None))
    assert found.gain == pytest.approx(0.5, abs=1e-14)
    assert found.states.tolist() == pytest.approx([1 / 3] * 3)
    assert (found.V[0] - found.V[1]).item() == pytest.approx(2.5)


def test_forbidden_states_are_left_out():
    """A reward of -inf that can be avoided is avoided; where it cannot, V is -inf."""
    P = torch.zeros(3, 2, 3)
    P[0, 0, 0] = P[0, 1, 1] = P[1, 0, 0] = P[1, 1, 2] = P[2, :, 2] = 1
    r = torch.tensor([[1.0, 0.0], [0.0, 0.0], [-math.inf, -math.inf]])
    found = inference.average_reward(models.tabular(P, r, horizon=None, temperature=0.5))
    M = np.array([[math.exp(2), 1], [1, 0]]) / 2  # going on to state 2 is out of the question
    assert found.gain == pytest.approx(0.5 * math.log(np.linalg.eigvals(M).max()), abs=1e-12)
    assert found.V[2] == -math.inf
    assert found.states[2] == 0
    assert not found.policy.log_probs.isnan().any()


@pytest.mark.parametrize("scale", [1e-6, 1e4])
def test_any_scale_of_rewards(scale):
    small = inference.average_reward(problem(4))
    table = cai.tabulate(problem(4))
    scaled = dataclasses.replace(
        table,
        reward=table.reward * scale,
        arrival_reward=table.arrival_reward * scale,
        temperature=table.temperature * scale,
    )
    assert inference.average_reward(scaled).gain == pytest.approx(small.gain * scale, rel=1e-11)


def test_what_has_no_average():
    with pytest.raises(ValueError, match=r"horizon: .* infinite horizon, got 4"):
        inference.average_reward(models.ledge())
    with pytest.raises(ValueError, match=r"discount: with a discount of 0.9 every trajectory ends"):
        inference.average_reward(problem(0, discount=0.9))
    with pytest.raises(ValueError, match=r"2 sets of states .* one holds state 0, another state 1"):
        inference.average_reward(
            models.tabular(torch.eye(2).unsqueeze(1), [[1.0], [-2.0]], horizon=None)
        )
    with pytest.raises(ValueError, match="one holds state 3, another state 4"):
        inference.average_reward(models.ledge(horizon=None))
    with pytest.raises(ValueError, match=r"p\(O\) = 0"):
        inference.average_reward(models.tabular([[[1.0]]], [[-math.inf]], horizon=None))
    with pytest.raises(ValueError, match="optimism: expected a finite number"):
        inference.average_reward(problem(0), math.inf)
