"""Linear-Gaussian models: against one dense Gaussian over the whole trajectory, and others."""

import dataclasses
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.linalg
import torch
from dense_gaussian import dense, slope_at_zero, square_root
from examples import random_model, scalar
from hypothesis import given
from hypothesis import strategies as st
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO

import cai
from cai import inference, models
from cai.distributions.degenerate_normal import DegenerateNormal
from cai.gaussian import riccati, tilted_noise

seeds = st.integers(0, 10**6)


# The oracle: a trajectory is a linear map of independent standard normals, and all that is asked
# of it is one Gaussian integral of that many dimensions.


def allowed(model, eta):
    """η, or half of the most negative one that exists where it is below that."""
    return eta if eta >= 0 else max(eta, 0.5 * inference.optimism_range(model)[0])


@given(seed=seeds, flat=st.booleans())
def test_posterior_is_the_dense_gaussian_conditional(seed, flat):
    """Evidence and marginals, whichever policy the trajectories are drawn from."""
    model = random_model(seed, flat=flat)
    found = inference.posterior(model)
    oracle = dense(model, inference.soft_values(model).policy, seed)
    assert found.log_evidence == pytest.approx(oracle.renyi(1), abs=1e-10)
    mean, covariance = oracle.conditioned()
    for t, (F, f) in enumerate(oracle.s):
        np.testing.assert_allclose(found.states.mean[t], F @ mean + f, atol=1e-9)
        np.testing.assert_allclose(found.states.covariance[t], F @ covariance @ F.T, atol=1e-9)
    for t, (G, g) in enumerate(oracle.a):
        F, f = np.concatenate([oracle.s[t][0], G]), np.concatenate([oracle.s[t][1], g])
        np.testing.assert_allclose(found.state_actions.mean[t], F @ mean + f, atol=1e-9)
        own = F @ covariance @ F.T
        np.testing.assert_allclose(found.state_actions.covariance[t], own, atol=1e-9)


# Other optimism: the variational characterisation, in the true dynamics and by brute force


@given(seed=seeds, eta=st.sampled_from([-0.02, 0.0, 1e-9, 0.3, 0.9, 1.0, 1.7, 4.0]))
def test_bound_is_the_best_renyi_bound(seed, eta):
    """bound_η = max_π (1/η) log E_q[(p(τ,O)/q(τ))^η], the minimum for η > 1; any π at η = 1."""
    model = random_model(seed, cost=0.3, T=3)
    eta = allowed(model, eta)
    found = inference.soft_values(model, eta)
    assert found.bound == pytest.approx(dense(model, found.policy).renyi(eta), abs=1e-7)
    for nudge in range(4):
        other = dense(model, found.policy, nudge).renyi(eta)
        if eta == 1:
            assert other == pytest.approx(found.bound, abs=1e-9)
        else:
            assert (found.bound - other) * (1 - eta) > 0


@given(seed=seeds)
def test_slightly_below_zero_is_dense_too(seed):
    model = random_model(seed, T=2, cost=0.1)
    lowest, highest = inference.optimism_range(model)
    assert highest == math.inf
    for part in (0.01, 0.5, 0.99):
        found = inference.soft_values(model, part * lowest)
        oracle = dense(model, found.policy).renyi(part * lowest)
        assert found.bound == pytest.approx(oracle, abs=1e-8 / (1 - part))


@given(seed=seeds)
def test_nothing_exists_below_the_lowest(seed):
    """The dense integral of the very policy that is best just above the edge diverges below it."""
    model = random_model(seed, T=3)
    lowest, _ = inference.optimism_range(model)
    best = inference.soft_values(model, lowest * (1 - 1e-6)).policy
    assert dense(model, best).renyi(lowest * (1 - 1e-6)) > -math.inf
    assert dense(model, best).renyi(lowest * (1 + 1e-3)) == -math.inf
    with pytest.raises(ValueError, match="most negative η that exists"):
        inference.soft_values(model, lowest * (1 + 1e-6))


def test_lowest_optimism_in_closed_form():
    """One step: 1 + ηW/α = 0. More steps have less room, down to that of the stationary value."""
    assert inference.optimism_range(scalar(1, W=0.5, alpha=2))[0] == pytest.approx(-4, rel=1e-8)
    edges = [inference.optimism_range(scalar(T))[0] for T in (1, 2, 5, 100)]
    assert edges == sorted(edges)
    stationary = inference.optimism_range(scalar(None))[0]
    assert edges[-1] == pytest.approx(stationary, abs=1e-3)
    assert edges[-1] < stationary + 1e-9
    # P = 1 + 1/(1/P + 1 + θ) has the solution that the horizon tends to while θ ≥ -1 + 1/P, …
    value = inference.soft_values(scalar(None), stationary * 0.5).V.P.item()
    assert value == pytest.approx(1 + 1 / (1 / value + 1 + 0.5 * stationary), abs=1e-12)


@pytest.mark.parametrize("W", [1e-140, 1e-60, 1e-19, 1e-7, 0.03, 5.0, 1e12])
def test_edges_of_any_size_in_closed_form(W):
    """One step: 1 + ηW = 0; with a reward of s² at the end, H = 1 - 2/(1 - 2ηW) = 0."""
    lowest, highest = inference.optimism_range(scalar(1, W=W))
    assert (lowest * W, highest) == (pytest.approx(-1, rel=1e-8), math.inf)
    wild = scalar(1, W=W, Q_final=[[-2.0]])
    lowest, highest = inference.optimism_range(wild)
    assert (lowest, highest * W) == (-math.inf, pytest.approx(-0.5, rel=1e-8))
    with pytest.raises(ValueError, match=r"is \+∞: .* largest η that exists is -\d") as error:
        inference.soft_values(wild)
    named = float(str(error.value).partition("exists is ")[2].split()[0])
    assert named * W == pytest.approx(-0.5, rel=1.001e-5)  # six digits, rounded to the inside
    assert math.isfinite(inference.soft_values(wild, named).bound)


def test_a_step_in_between_breaks_down_though_later_numbers_look_well():
    """Without the check the recursion goes on through 1 + θPW < 0 and returns a finite bound."""
    T, step, theta = 5, 2, -1.5
    W = np.zeros((T, 1, 1))
    W[step] = 1.0
    B = np.ones((T, 1, 1))
    B[step] = 0.0  # so that the action of that step shows nothing
    model = models.linear_gaussian(
        [[0.5]], B, horizon=T, noise=W, Q=[[1.0]], R=[[1.0]], Q_final=[[1.0]]
    )
    P = 1.0
    for t in reversed(range(T)):
        soft = P / (1 + theta * P * W[t].item())
        H = 1 + B[t].item() ** 2 * soft
        assert H > 0
        P = 1 + 0.25 * soft - (0.5 * B[t].item() * soft) ** 2 / H
    assert 0 < P < 2
    at_fault = inference.soft_values(model).V.P[step + 1].item()
    with pytest.raises(ValueError, match=r"step 2 is infinite.* exists is -0\.\d+") as error:
        inference.soft_values(model, theta)
    named = float(str(error.value).partition("exists is ")[2].split()[0])
    assert named == pytest.approx(-1 / at_fault, rel=1e-5)
    assert math.isfinite(inference.soft_values(model, named).bound)


def test_the_first_state_can_break_down_alone():
    model = scalar(3, W=0.0, initial_covariance=[[1.0]])
    P = inference.soft_values(model).V.P[0].item()
    assert inference.optimism_range(model)[0] == pytest.approx(-1 / P, rel=1e-8)
    with pytest.raises(ValueError, match="over the noise of the first state is infinite"):
        inference.soft_values(model, -1.01 / P)


def test_luck_without_limit():
    """A reward convex in the state: from η = 2 on nature's gifts are worth any price, and from
    η = 1 on the agent's own pushes are, which nature then makes more of."""
    for R, edge, what in (([[1.0]], 1, "in the action"), ([[1e9]], 2, "over the noise")):
        model = scalar(1, R=R, Q_final=[[-0.5]])
        assert inference.optimism_range(model) == (-math.inf, pytest.approx(edge, rel=1e-6))
        with pytest.raises(ValueError, match=rf"is \+∞: .*{what} .* that exists is ") as error:
            inference.soft_values(model, 2.5 if edge == 2 else 1.5)
        named = float(str(error.value).partition("exists is ")[2].split()[0])
        assert named == pytest.approx(edge, rel=1e-5)
        assert math.isfinite(inference.soft_values(model, named).bound)
        assert math.isfinite(inference.soft_values(model, -math.inf).bound)


def test_an_edge_at_zero_is_found(monkeypatch):
    """Where every η below zero fails, the search ends, too."""
    real = riccati.backward

    def fails_below_zero(model, eta):
        if eta < 0:
            raise tilted_noise.Breakdown(-1, "for the test")
        return real(model, eta)

    monkeypatch.setattr(riccati, "backward", fails_below_zero)
    assert inference.optimism_range(scalar(1)) == (0, math.inf)
    with pytest.raises(ValueError, match=r"most negative η that exists is 0 \(every step"):
        inference.soft_values(scalar(1), -1.0)


def test_actions_without_cost_have_no_answer():
    model = scalar(2, R=[[0.0]], Q=[[0.0]], Q_final=[[0.0]])
    with pytest.raises(ValueError, match=r"no η at all has a solution; let every action cost"):
        inference.soft_values(model)
    with pytest.raises(ValueError, match="no η at all has a solution"):
        inference.optimism_range(model)


@given(seed=seeds, eta=st.sampled_from([-0.01, 0.0, 0.5, 1.0, 3.0, math.inf]))
def test_derivatives_of_the_bound_are_moments_of_the_bent_chain(seed, eta):
    """∂bound/∂q_t = E[s_t]/α, ∂bound/∂ρ_t = E[a_t]/α, ∂bound/∂Q_t = -½ E[s_t s_t']/α, …"""
    model = random_model(seed, T=3, cost=0.3)
    eta = allowed(model, eta)
    found = inference.soft_values(model, eta)
    rng = np.random.default_rng(seed)
    n, alpha = model.state_size, model.temperature
    mean, covariance = found.state_actions.mean, found.state_actions.covariance
    second = covariance + mean.unsqueeze(-1) * mean.unsqueeze(-2)
    last = found.states.covariance[-1] + torch.outer(*[found.states.mean[-1]] * 2)
    slopes = {
        "q": mean[:, :n],
        "rho": mean[:, n:],
        "Q": -0.5 * second[:, :n, :n],
        "N": -second[:, :n, n:],
        "R": -0.5 * second[:, n:, n:],
        "q_final": found.states.mean[-1],
        "Q_final": -0.5 * last,
    }
    for name, slope in slopes.items():
        direction = torch.as_tensor(rng.normal(size=slope.shape))

        def bound(d, name=name, direction=direction):
            changed = {name: getattr(model, name) + d * direction}
            return inference.soft_values(dataclasses.replace(model, **changed), eta).bound

        expected = (slope * direction).sum().item() / alpha
        assert slope_at_zero(bound, 1e-5) == pytest.approx(expected, rel=1e-5, abs=1e-6), name


@given(seed=seeds, eta=st.sampled_from([-0.01, 0.0, 0.5, 1.0, 3.0]), flat=st.booleans())
def test_imagined_return_is_the_derivative_in_the_size_of_rewards(seed, eta, flat):
    model = random_model(seed, T=3, cost=0.3, flat=flat)
    eta = allowed(model, eta)
    rewards = "Q", "N", "R", "q", "rho", "Q_final", "q_final"
    h = 1e-5
    up, down = (
        inference.soft_values(
            dataclasses.replace(
                model, **{name: (1 + d) * getattr(model, name) for name in rewards}
            ),
            eta,
        ).bound
        for d in (h, -h)
    )
    found = inference.soft_values(model, eta)
    slope = (up - down) / (2 * h) * model.temperature
    assert slope == pytest.approx(found.imagined_return, rel=1e-5, abs=1e-5)


@given(seed=seeds, eta=st.sampled_from([-0.01, 1e-3, 0.5, 1.0, 3.0]))
def test_slope_of_the_dial_is_the_bend_over_eta_squared(seed, eta):
    model = random_model(seed, T=3, cost=0.3)
    eta = allowed(model, eta)
    found = inference.soft_values(model, eta)
    h = 1e-3 * abs(eta)
    up, down = (inference.soft_values(model, eta + d).bound for d in (h, -h))
    assert (up - down) / (2 * h) == pytest.approx(found.total_tilt / eta**2, rel=1e-4)
    assert min(found.tilt_start, found.tilt_dynamics) >= 0


@pytest.mark.parametrize("eta", [1e-4, 1e-8, 1e-12, 1e-300])
def test_stable_near_zero(eta):
    model = random_model(3)
    zero = inference.soft_values(model)
    slope = inference.soft_values(model, 1e-5).total_tilt / 1e-10
    plus, minus = (inference.soft_values(model, sign * eta).bound for sign in (1, -1))
    assert plus - zero.bound == pytest.approx(slope * eta, rel=0.05, abs=1e-12)
    assert zero.bound - minus == pytest.approx(slope * eta, rel=0.05, abs=1e-12)


@given(seed=seeds)
def test_infinite_optimism_is_the_limit(seed):
    """As near as 1/θλ, and the noise of the start may move the value by a λ as small as 1e-9."""
    model = random_model(seed, T=3)
    limit, near = (inference.soft_values(model, eta) for eta in (math.inf, 1e24))
    assert limit.bound == pytest.approx(near.bound, abs=1e-5)
    torch.testing.assert_close(limit.V.P, near.V.P, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(limit.states.mean, near.states.mean, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(limit.dynamics(1).W, near.dynamics(1).W, rtol=0, atol=1e-6)
    assert limit.imagined_return == pytest.approx(near.imagined_return, rel=1e-4, abs=1e-4)
    assert limit.total_tilt == math.inf
    with pytest.raises(ValueError, match=r"noise .* can move the value without limit"):
        inference.soft_values(model, -math.inf)


@given(seed=seeds, flat=st.booleans())
def test_without_noise_there_is_nothing_to_hope_for(seed, flat):
    zeros = np.zeros((3, 3))
    model = random_model(seed, flat=flat, noise=zeros, initial_covariance=zeros)
    answers = [inference.soft_values(model, eta) for eta in (-math.inf, -3.0, 0.0, 1.0, math.inf)]
    for found in answers:
        assert found.bound == pytest.approx(answers[0].bound, abs=1e-10)
        assert found.total_tilt == 0
        torch.testing.assert_close(found.states.mean, answers[0].states.mean, rtol=0, atol=1e-10)


# Point by point


@given(seed=seeds, eta=st.sampled_from([-0.01, 0.0, 0.5, 1.0, 3.0]), flat=st.booleans())
def test_policy_and_bent_dynamics_are_what_the_values_say(seed, eta, flat):
    """log π/p = (Q - V)/α, and log q(s'|s,a)/p(s'|s,a) = η (V(s') - Q + r)/α, everywhere."""
    model = random_model(seed, rank=3, flat=flat, cost=0.3)
    names = "noise", "initial_covariance"
    full = {name: getattr(model, name) + 0.1 * torch.eye(3) for name in names}
    model = dataclasses.replace(model, **full)
    eta = allowed(model, eta)
    found = inference.soft_values(model, eta)
    rng = np.random.default_rng(seed)
    s, after = (torch.as_tensor(rng.normal(size=(model.horizon, 5, 3))) for _ in range(2))
    a = torch.as_tensor(rng.normal(size=(model.horizon, 5, 2)))
    t = torch.arange(model.horizon).unsqueeze(1)
    gain = (found.Q(t, s, a) - found.V(t, s)) / model.temperature
    ratio = found.policy(t, s).log_prob(a) - model.prior(s, t).log_prob(a)
    torch.testing.assert_close(ratio, gain, rtol=0, atol=1e-9)
    worth = eta * (found.V(t + 1, after) - found.Q(t, s, a) + model.rewards(s, a, t))
    for step in range(model.horizon):
        true = model.transition(s[step], a[step], step).log_prob(after[step])
        tilted = found.dynamics(step)(s[step], a[step]).log_prob(after[step])
        torch.testing.assert_close(
            tilted - true, worth[step] / model.temperature, rtol=1e-8, atol=1e-8
        )
    start = model.initial.log_prob(s[0])
    tilted = found.initial.distribution().log_prob(s[0])
    hope = eta * (found.V(0, s[0]) / model.temperature - found.bound)
    torch.testing.assert_close(tilted - start, hope, rtol=1e-8, atol=1e-8)


@given(seed=seeds, eta=st.sampled_from([-0.02, 0.0, 1.0, 5.0]))
def test_optimism_is_control_authority(seed, eta):
    """With N = 0: P⁻ = Q + A'(P⁻¹ + B R⁻¹ B' + θW)⁻¹A, the inverse as P(I + (…)P)⁻¹ for any P."""
    model = random_model(seed, flat=True, N=np.zeros((3, 2)), cost=0.3)
    eta = allowed(model, eta)
    found = inference.soft_values(model, eta)
    theta = eta / model.temperature
    for t in range(model.horizon):
        A, B, W = model.A[t], model.B[t], model.noise[t]
        P, authority = found.V.P[t + 1], B @ torch.linalg.solve(model.R[t], B.mT) + theta * W
        system = torch.eye(3) + authority @ P
        expected = model.Q[t] + A.mT @ P @ torch.linalg.solve(system, A)
        # Both sides lose what the condition of that system multiplies rounding by.
        lost = 1e-14 * torch.linalg.cond(system).item() * expected.abs().max().item()
        torch.testing.assert_close(found.V.P[t], expected, rtol=0, atol=1e-10 + lost)


# Infinite horizon


def stationary_model(seed, n=3, m=2, **changes):
    rng = np.random.default_rng(seed)
    A, B, L = rng.normal(size=(n, n)), rng.normal(size=(n, m)), 0.3 * rng.normal(size=(n, 2))
    root = rng.normal(size=(n + m, n + m))
    joint = 0.2 * root @ root.T + np.eye(n + m)
    arguments = {
        "horizon": None,
        "noise": L @ L.T,
        "drift": rng.normal(size=n),
        "Q": joint[:n, :n],
        "N": joint[:n, n:],
        "R": joint[n:, n:],
        "q": rng.normal(size=n),
        "rho": rng.normal(size=m),
        "initial_mean": rng.normal(size=n),
        "initial_covariance": 0.1 * np.eye(n),
        "temperature": rng.uniform(0.5, 2),
    }
    return models.linear_gaussian(A, B, **(arguments | changes))


@given(seed=seeds, discount=st.sampled_from([1.0, 0.9]))
def test_stationary_against_scipy(seed, discount):
    """At η = 0 it is LQR: P of the DARE, whatever the noise, the drift and the temperature."""
    model = stationary_model(seed, discount=discount)
    found = inference.soft_values(model)
    A, B = (math.sqrt(discount) * x.numpy() for x in (model.A, model.B))
    Q, N, R = model.Q.numpy(), model.N.numpy(), model.R.numpy()
    P = scipy.linalg.solve_discrete_are(A, B, Q, R, s=N)
    np.testing.assert_allclose(found.V.P, P, rtol=1e-8)
    gain = np.linalg.solve(R + B.T @ P @ B, N.T + B.T @ P @ A)
    np.testing.assert_allclose(found.gains, gain, rtol=1e-7, atol=1e-9)


@given(seed=seeds, eta=st.sampled_from([-0.01, 0.3, 1.0, 20.0]))
def test_stationary_at_any_optimism_against_scipy(seed, eta):
    """Inputs [B, W^½] at the cost blkdiag(R, I/θ)."""
    model = stationary_model(
        seed, action_prior=dist.MultivariateNormal(torch.ones(2), torch.eye(2))
    )
    eta = allowed(model, eta)
    theta = eta / model.temperature
    inputs = np.hstack([model.B, square_root(model.noise.numpy() + 1e-30 * np.eye(3))])
    own = model.R.numpy() + model.temperature * np.eye(2)
    cost = scipy.linalg.block_diag(own, np.eye(3) / theta)
    cross = np.hstack([model.N.numpy(), np.zeros((3, 3))])
    P = scipy.linalg.solve_discrete_are(model.A.numpy(), inputs, model.Q.numpy(), cost, s=cross)
    np.testing.assert_allclose(inference.soft_values(model, eta).V.P, P, rtol=1e-6)


@pytest.mark.parametrize("eta", [-0.01, 0.0, 0.3, 1.0, 20.0])
def test_stationary_by_the_equation_alone(eta, monkeypatch):
    """Not by the recursion run until it settles, which would find the same."""
    monkeypatch.setattr(cai.gaussian.riccati_equation, "_STEPS", 0)
    for seed in range(5):
        assert inference.soft_values(stationary_model(seed), eta).V.P.isfinite().all()


@given(seed=seeds, eta=st.sampled_from([-0.01, 0.0, 0.3, 1.0, 20.0, math.inf]))
def test_stationary_is_the_limit_of_long_horizons(seed, eta):
    model = stationary_model(seed)
    eta = allowed(model, eta)
    found = inference.soft_values(model, eta)
    tilted = found.dynamics()
    radius = torch.linalg.eigvals(tilted.A - tilted.B @ found.gains).abs().max().item()
    # Half of the steps forget either end: what is left of it is below 1e-13.
    T = 120 if radius < 0.6 else min(4000, 2 * math.ceil(30 / -math.log(radius)))
    long = inference.soft_values(dataclasses.replace(model, horizon=T), eta)
    for here, there in ((found.V.P, long.V.P[0]), (found.V.p, long.V.p[0])):
        torch.testing.assert_close(here, there, rtol=1e-7, atol=1e-7)
    for field in ("gains", "offsets", "curvature"):
        torch.testing.assert_close(
            getattr(found, field), getattr(long, field)[0], rtol=1e-7, atol=1e-7
        )
    assert found.growth == pytest.approx((long.V.k[0] - long.V.k[1]).item(), abs=1e-7)
    tilted, there = found.dynamics(), long.dynamics(0)
    for field in "ABcW":
        torch.testing.assert_close(
            getattr(tilted, field), getattr(there, field), rtol=1e-6, atol=1e-6
        )
    for field in ("mean", "covariance"):
        for part in ("states", "state_actions"):
            torch.testing.assert_close(
                getattr(getattr(found, part), field),
                getattr(getattr(long, part), field)[T // 2],
                rtol=1e-6,
                atol=1e-6,
            )
    middle = model.reward_form.expectation(long.state_actions)[T // 2].item()
    assert found.imagined_return == pytest.approx(middle, abs=1e-6)
    with pytest.raises(AttributeError, match="grows forever, by"):
        _ = found.bound
    assert "/step" in repr(found)


@given(seed=seeds)
def test_stationary_with_a_discount(seed):
    model = stationary_model(seed, discount=0.8)
    found = inference.soft_values(model)
    loop = torch.linalg.eigvals(model.A - model.B @ found.gains).abs().max().item()
    # Of the quadratic part γ^T loop^(2T) is left, e^-40, and of the constant γ^T, 0.8^150 = e^-33.
    rate = math.log(0.8 * loop**2)
    T = min(4000, max(150, math.ceil(-40 / rate)))
    long = inference.soft_values(dataclasses.replace(model, horizon=T))
    assert found.elbo == pytest.approx(long.elbo, abs=1e-7)
    assert found.imagined_return == pytest.approx(long.imagined_return, abs=1e-7)
    assert found.growth is None
    torch.testing.assert_close(found.V.k, long.V.k[0], rtol=1e-7, atol=1e-7)


def test_stationary_where_nothing_costs():
    """The DARE has no stabilising solution; the limit of long horizons is still there."""
    model = scalar(None, Q=[[0.0]], W=0.3)
    assert inference.soft_values(model).V.P.item() == 0
    runs_away = scalar(None, W=0.3, Q=[[0.0]])
    with pytest.raises(AttributeError, match="the chain is unstable"):
        _ = inference.soft_values(runs_away).states


def test_no_policy_holds_the_state():
    model = models.linear_gaussian(
        [[2.0]], [[0.0]], horizon=None, noise=[[1.0]], Q=[[1.0]], R=[[1.0]]
    )
    with pytest.raises(ValueError, match="costs grow without limit over the steps"):
        inference.soft_values(model)
    lucky = inference.soft_values(model, 1.0)  # but luck can
    assert lucky.V.P.item() == pytest.approx(1 + 4 / (1 / lucky.V.P.item() + 1), abs=1e-12)


# Comparison and evaluation


@given(seed=seeds, flat=st.booleans())
def test_evaluation_in_closed_form(seed, flat):
    """ELBO of any linear-Gaussian policy against the dense trajectory's."""
    model = random_model(seed, flat=flat)
    policy = cai.LinearGaussianPolicy(model)
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += torch.as_tensor(0.3 * rng.normal(size=parameter.shape))
    found = cai.evaluate(model, policy)
    with torch.no_grad():
        oracle = dense(model, policy).renyi(0)
    assert found.elbo == pytest.approx(oracle, rel=1e-9, abs=1e-9)
    assert found.elbo <= inference.soft_values(model).elbo


@pytest.mark.parametrize("discount", [1.0, 0.8])
def test_evaluation_by_simulation(discount):
    """The program, with its steps that differ, its singular noise and its deaths."""
    model = random_model(1, discount=discount)
    best = inference.soft_values(model)
    exact, found = (cai.evaluate(model, best.policy, samples=n) for n in (None, 20_000))
    assert exact.elbo == pytest.approx(best.elbo, abs=1e-9)
    assert exact.expected_return == pytest.approx(best.imagined_return, abs=1e-9)
    for name in ("elbo", "expected_return", "entropy"):
        error = getattr(found, f"{name}_stderr")
        assert 0 < error < 0.5
        assert abs(getattr(found, name) - getattr(exact, name)) < 4 * error
    paths = model.simulate(best.policy, 20_000, seed=3)
    for t in range(5):
        alive = paths.alive[:, t]
        torch.testing.assert_close(
            paths.states[alive, t].mean(0), best.states.mean[t], rtol=0, atol=0.1
        )
        torch.testing.assert_close(
            paths.states[alive, t].T.cov(), best.states.covariance[t], rtol=0.1, atol=0.1
        )
    t, step = 2, paths.alive[:, 2]
    paid = model.rewards(paths.states[step, t], paths.actions[step, t], t)
    torch.testing.assert_close(paths.rewards[step, t], paid)


@given(seed=seeds, flat=st.booleans())
def test_the_identity_of_the_comparison(seed, flat):
    """log p(O) - ELBO = KL start + KL actions + KL dynamics, in closed form."""
    model = random_model(seed, flat=flat)
    exact, fixed = inference.posterior(model), inference.soft_values(model)
    anyone = cai.LinearGaussianPolicy(model)
    report = cai.compare(model, {"exact": exact, "fixed": fixed, "anyone": anyone})
    for row in report.values():
        assert min(row.kl_start, row.kl_actions, row.kl_dynamics) >= -1e-12
        gap = report.log_evidence - row.elbo
        assert gap == pytest.approx(row.kl, rel=1e-9, abs=1e-9)
        assert row.elbo_stderr is None
    assert report["exact"].kl_actions == pytest.approx(0, abs=1e-9)
    assert report["exact"].imagined_return == exact.imagined_return
    assert report["fixed"].optimism_gap is None
    assert report["fixed"].elbo >= max(row.elbo for row in report.values())
    assert "log p(O)" in str(report)


def test_comparison_without_a_posterior():
    """Discounted, the posterior is not Gaussian; other policies are simulated."""
    model = random_model(2, discount=0.9, T=2)
    fixed = inference.soft_values(model)
    report = cai.compare(model, {"fixed": fixed, "as it is": lambda t, s: model.prior(s, t)})
    assert report.log_evidence is None
    assert report["fixed"].kl is None
    assert report["fixed"].elbo_stderr is None
    assert report["as it is"].elbo_stderr > 0


# The Pyro program


def test_the_evidence_by_importance_sampling_of_the_program():
    """With W singular and steps that differ; the guide is the rollout of the posterior's policy."""
    model = random_model(4, T=3, cost=0.2)
    exact = inference.posterior(model)
    with pyro.plate("particles", 80_000):
        guide = poutine.trace(model.rollout(exact.policy)).get_trace()
        with poutine.replay(trace=guide):
            program = poutine.trace(model).get_trace()
    guide.compute_log_prob()
    program.compute_log_prob()
    sites = [(trace, site) for trace in (program, guide) for site in trace.nodes.values()]
    weights = sum(
        (site["log_prob"] if trace is program else -site["log_prob"])
        for trace, site in sites
        if "log_prob" in site
    )
    share = (weights - weights.amax()).exp()
    error = (share.std() / share.mean() / len(share) ** 0.5).item()
    assert error < 0.05
    estimate = weights.logsumexp(0).item() - math.log(len(share))
    assert estimate == pytest.approx(exact.log_evidence, abs=4 * error)


@pytest.mark.parametrize("flat", [True, False])
def test_pyro_svi_reaches_the_best_elbo(flat):
    model = random_model(1, T=3, n=2, m=1, rank=1, flat=flat)
    best = inference.soft_values(model).elbo
    policy = cai.LinearGaussianPolicy(model)
    start = cai.evaluate(model, policy).elbo
    optimiser = pyro.optim.ClippedAdam({"lr": 0.05, "lrd": 0.01 ** (1 / 300)})
    elbo = Trace_ELBO(num_particles=30, vectorize_particles=True, max_plate_nesting=0)
    svi = SVI(model, model.rollout(policy), optimiser, elbo)
    for _ in range(300):
        svi.step()
    reached = cai.evaluate(model, policy).elbo
    assert start < best - 1
    assert best - 0.03 < reached < best


def test_fit_reaches_the_best_elbo():
    model = random_model(5, T=3)
    best = inference.soft_values(model)
    fitted = inference.fit(model, cai.LinearGaussianPolicy(model), progress=False)
    assert fitted.elbo == pytest.approx(best.elbo, abs=1e-4)
    torch.testing.assert_close(fitted.policy.gains.data, best.gains, rtol=0, atol=0.02)
    torch.testing.assert_close(fitted.policy.offsets.data, best.offsets, rtol=0, atol=0.05)


def test_fit_by_samples_and_with_a_network():
    model = random_model(1, T=2, n=2, m=1, rank=1)
    for policy in (cai.LinearGaussianPolicy(model), cai.NeuralPolicy(model)):
        before = cai.evaluate(model, policy).elbo
        fitted = inference.fit(model, policy, estimator="score", steps=150, progress=False)
        assert before + 0.1 < fitted.elbo < inference.soft_values(model).elbo + 0.1


def test_policies_broadcast_over_steps():
    model = random_model(2)
    policy = inference.soft_values(model).policy
    s = torch.randn(7, 3, dtype=torch.float64)
    together = policy(torch.arange(4).unsqueeze(1), s)
    assert together.batch_shape == (4, 7)
    unrolled = policy.unroll()
    for t in range(4):
        for one in (policy(t, s), unrolled(t, s)):
            torch.testing.assert_close(together.mean[t], one.mean)
            torch.testing.assert_close(together.covariance_matrix[t], one.covariance_matrix)
    stationary = cai.LinearGaussianPolicy(stationary_model(0), stationary=True)
    assert stationary(3, s).batch_shape == (7,)
    assert stationary.unroll()(3, s).batch_shape == (7,)


def test_a_flat_prior_cannot_be_sampled():
    model = random_model(0, flat=True)
    with pytest.raises(
        ValueError, match=r"action_prior: the flat prior \(None\) cannot be sampled"
    ):
        model()
    with pytest.raises(ValueError, match="cannot be sampled"):
        model.simulate(lambda t, s: model.prior(s, t), 3)
    poutine.trace(model.rollout(inference.soft_values(model).policy)).get_trace()
    assert model.prior(torch.zeros(5, 3)).log_prob(torch.ones(5, 2)).eq(0).all()


# Noise without full rank


def test_degenerate_normal():
    rng = np.random.default_rng(0)
    basis = torch.as_tensor(np.linalg.qr(rng.normal(size=(3, 3)))[0])
    scales = torch.tensor([0.5, 0.0, 2.0]).double()
    loc = torch.tensor([1.0, -1.0, 3.0]).double()
    d = cai.Gaussian(loc, basis * scales**2 @ basis.mT).distribution()
    assert isinstance(d, DegenerateNormal)
    x = d.sample((20_000,))
    torch.testing.assert_close(x.mean(0), loc, rtol=0, atol=0.05)
    torch.testing.assert_close(x.T.cov().diagonal(), d.variance, rtol=0.05, atol=0.02)
    inside = dist.Normal(torch.zeros(2).double(), scales[[0, 2]]).to_event(1)
    along = ((x - loc) @ basis)[:, [0, 2]]
    torch.testing.assert_close(d.log_prob(x), inside.log_prob(along))
    assert d.log_prob(loc + 0.01 * basis[:, 1]) == -math.inf
    assert d.expand((4,)).log_prob(loc).shape == (4,)
    point = cai.Gaussian(loc, torch.zeros(3, 3).double()).distribution()
    assert point.log_prob(point.sample((2,))).tolist() == [0, 0]


# What is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"A": np.eye(2)}, r"A: expected a shape \(3, 3\) or \(4, 3, 3\), got \(2, 2\)"),
        ({"A": np.zeros((5, 3, 3))}, r"A: .*got \(5, 3, 3\); the first axis"),
        ({"B": np.zeros(3)}, "B: expected a shape"),
        ({"Q": np.full((3, 3), np.nan)}, "Q: expected finite numbers"),
        ({"noise": -np.eye(3)}, "noise: expected a covariance.*eigenvalue of -1"),
        ({"noise": np.triu(np.ones((3, 3)))}, "noise: expected a symmetric matrix"),
        ({"initial_covariance": -np.eye(3)}, "initial_covariance: expected a covariance"),
        ({"Q_final": np.zeros((4, 3, 3))}, r"Q_final: expected a shape \(3, 3\), got"),
        ({"action_prior": dist.Normal(0.0, 1.0)}, "action_prior: expected a MultivariateNormal"),
        (
            {"action_prior": dist.MultivariateNormal(torch.zeros(3), torch.eye(3))},
            "action_prior: expected a MultivariateNormal over 2 numbers",
        ),
        ({"horizon": 0}, "horizon: expected a whole number"),
        ({"horizon": None}, r"an infinite horizon has one matrix for all steps"),
        ({"temperature": 0.0}, "temperature: expected a finite number above 0"),
        ({"discount": 0.0}, "discount: expected a number in"),
    ],
)
def test_bad_matrices(changes, message):
    with pytest.raises(ValueError, match=message):
        random_model(0, **changes)


def test_refusals_of_methods():
    model = random_model(0, discount=0.9)
    for method in (inference.posterior, lambda m: inference.soft_values(m, -0.1)):
        with pytest.raises(ValueError, match=r"discount: expected 1 at optimism .* not quadratic"):
            method(model)
    with pytest.raises(ValueError, match="optimism: expected a real number"):
        inference.soft_values(model, math.nan)
    found = inference.soft_values(model)
    with pytest.raises(AttributeError, match=r"log_evidence: .* not log p\(O\)"):
        _ = found.log_evidence
    with pytest.raises(AttributeError, match=r"elbo: .* under changed dynamics"):
        _ = inference.posterior(random_model(0)).elbo
    with pytest.raises(ValueError, match=r"t: expected a step in 0 … 3, got 4"):
        found.dynamics(4)
    with pytest.raises(ValueError, match=r"policy: gains of shape .* do not fit"):
        cai.evaluate(random_model(0, T=3), found.policy)
    with pytest.raises(ValueError, match=r"horizon: .*infinite"):
        cai.LinearGaussianPolicy(stationary_model(0))
    with pytest.raises(ValueError, match="horizon: the posterior of an infinite horizon"):
        inference.posterior(stationary_model(0))
    with pytest.raises(ValueError, match="stationary: expected one prior for all steps"):
        cai.LinearGaussianPolicy(random_model(0), stationary=True)


# Extremes


@pytest.mark.parametrize("scale", [1e6, 1e-6])
@pytest.mark.parametrize("eta", [0.0, 1.0, 1e8, math.inf])
def test_extreme_rewards(scale, eta):
    found = inference.soft_values(random_model(6, cost=scale), eta)
    assert math.isfinite(found.bound)
    for field in (found.V.P, found.gains, found.states.mean, found.states.covariance):
        assert field.isfinite().all()
    least = torch.linalg.eigvalsh(found.states.covariance).min()
    assert least > -1e-9 * found.states.covariance.abs().max()


def test_one_number_one_step():
    """By hand: V = -½ s²(1 + 1/(1 + 1/P̃)) …, with P̃ = 1/(1 + θW)."""
    theta, W = 0.7, 2.0
    found = inference.soft_values(scalar(1, W=W), theta)
    soft = 1 / (1 + theta * W)
    assert found.V.P[0].item() == pytest.approx(1 + soft - soft**2 / (1 + soft))
    k = -math.log(1 + theta * W) / (2 * theta) + 0.5 * math.log(2 * math.pi / (1 + soft))
    assert found.bound == pytest.approx(k)


def test_variants_by_replace():
    model = random_model(0)
    warm = dataclasses.replace(model, temperature=3.0, horizon=4)
    assert isinstance(warm, cai.LinearGaussian)
    assert inference.soft_values(warm).model.temperature == 3


# Arrays that are written into afterwards


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_a_model_keeps_copies(kind):
    """Every matrix of it, and the prior's: a sweep may write into one array."""
    plain = random_model(3)
    names = "A", "B", "drift", "noise", "Q", "R", "N", "q", "rho", "Q_final", "q_final"
    arrays = {
        name: kind(getattr(plain, name).clone().numpy())
        for name in (*names, "initial_mean", "initial_covariance")
    }
    mean, tril = plain.action_prior.loc.clone(), plain.action_prior.scale_tril.clone()
    prior = dist.MultivariateNormal(mean, scale_tril=tril)
    made = models.linear_gaussian(
        **arrays, horizon=4, action_prior=prior, temperature=plain.temperature
    )
    again = dataclasses.replace(plain, **arrays)
    for x in (*arrays.values(), mean, tril):
        x *= 0.1
    expected = inference.soft_values(plain).bound
    assert inference.soft_values(made).bound == expected
    assert inference.soft_values(again).bound == expected
    assert cai.evaluate(made, inference.soft_values(plain).policy).elbo == pytest.approx(expected)


def test_policies_keep_copies():
    model = random_model(3)
    best = inference.soft_values(model)
    gains, offsets = best.gains.clone(), best.offsets.clone()
    covariance = best.policy.covariance.clone()
    policy = cai.LinearGaussianPolicy.from_matrices(gains, offsets, covariance)
    fitted = cai.LinearGaussianPolicy(model)
    for x in (gains, offsets, covariance, model.action_prior.loc, model.action_prior.scale_tril):
        x *= 0.1
    assert cai.evaluate(random_model(3), policy).elbo == pytest.approx(best.elbo)
    torch.testing.assert_close(fitted.offsets.data, random_model(3).action_prior.loc)


def test_a_sweep_over_one_array():
    """s' = a s with a = .5, 1, 2, all of one array: V_0 = -½ (1 + a² + a⁴) without actions."""
    A, made = np.zeros((1, 1)), []
    for a in (0.5, 1.0, 2.0):
        A[0, 0] = a
        made.append(
            models.linear_gaussian(
                A, [[0.0]], horizon=2, Q=[[1.0]], R=[[2 * math.pi]], Q_final=[[1.0]]
            )
        )
    costs = [inference.soft_values(model).V.P[0].item() for model in made]
    assert costs == pytest.approx([1 + a**2 + a**4 for a in (0.5, 1.0, 2.0)])


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("a", [1.0, -1.3, 2.0])
def test_an_edge_at_zero_optimism(a, sign):
    """s' = a s + w, r = sign s²/2: at η = 0 no long horizon has a value, beside it each has one.

    The noise is a control, and |η| P² + (1 - |η| - a²) P = 1 for the size of P.
    """
    model = models.linear_gaussian(
        [[a]], [[0.0]], horizon=None, noise=[[1.0]], Q=[[-sign]], R=[[1]]
    )
    near, far = sorted(inference.optimism_range(model), key=abs)
    assert 0 < -sign * near < 1e-20
    assert far == -sign * math.inf
    for size in (1e-9, 1e-3, 1.0, 40.0):
        b = 1 - size - a * a
        root = (-b + math.sqrt(b * b + 4 * size)) / (2 * size)
        found = inference.soft_values(model, -sign * size)
        assert found.V.P.item() == pytest.approx(-sign * root, rel=1e-9)
    with pytest.raises(ValueError, match="the value is [+]∞" if sign > 0 else "the value is -∞"):
        inference.soft_values(model, 0.0)
