"""Linear-Gaussian models of which states, actions and some o_t are observed, against one Gaussian.

The oracle is that of test_linear_gaussian: a trajectory as a linear map of standard normals.
"""

import dataclasses
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from dense_gaussian import dense, slope_at_zero
from examples import random_model, scalar
from hypothesis import given
from hypothesis import strategies as st
from pyro import poutine
from scipy import integrate

import cai
from cai import inference, models
from cai.distributions.squash import Squash

seeds = st.integers(0, 10**6)
PLACES = [
    (),
    ("s_4",),
    ("s_0", "a_0", "s_3"),
    ("s_2", "a_3", "s_4"),
    ("s_1", "s_2", "s_3"),
    ("a_1", "a_2", "s_2"),
]
NOISELESS = [(), ("s_4",), ("s_0", "a_0", "s_3")]


def values_at(model, sites, seed):
    rng = np.random.default_rng(seed)
    sizes = {"s": model.state_size, "a": model.action_size}
    return {site: rng.normal(size=sizes[site[0]]) for site in sites}


def masked(model, optimal):
    """The model that is paid at the steps of the mask only."""
    optimal = torch.as_tensor(optimal)
    T = model.horizon
    paid = optimal[:-1].double()
    changes = {
        name: getattr(model, name) * paid.view(T, *[1] * (getattr(model, name).dim() - 1))
        for name in ("Q", "N", "R", "q", "rho")
    }
    final = {name: getattr(model, name) * optimal[-1] for name in ("Q_final", "q_final")}
    return dataclasses.replace(model, **changes, **final)


def conditioned_densely(oracle, observed):
    """log p(observed, O), and mean and covariance of the standard normals given both."""
    mean, covariance = oracle.conditioned()
    bound = oracle.renyi(1)
    if observed:
        where = {"s": oracle.s, "a": oracle.a}
        parts = [where[site[0]][int(site[2:])] for site in observed]
        F, f = (np.concatenate(x) for x in zip(*parts, strict=True))
        gap = np.concatenate(list(observed.values())) - F @ mean - f
        S = F @ covariance @ F.T
        bound -= 0.5 * (gap @ np.linalg.solve(S, gap) + np.linalg.slogdet(2 * math.pi * S)[1])
        gain = np.linalg.solve(S, F @ covariance).T
        mean, covariance = mean + gain @ gap, covariance - gain @ F @ covariance
    return bound, mean, covariance


@given(
    seed=seeds,
    sites=st.sampled_from(PLACES),
    optimal=st.lists(st.booleans(), min_size=5, max_size=5) | st.none(),
    noise=st.booleans(),
)
def test_every_field_against_the_dense_gaussian(seed, sites, optimal, noise):
    """W is singular, or zero: then actions alone reach what is observed."""
    model = random_model(seed)
    if not noise:
        model = dataclasses.replace(model, noise=torch.zeros(3, 3))
        sites = sites if sites in NOISELESS else ("s_4",)
    observed = values_at(model, sites, seed)
    found = inference.posterior(model, observed, optimal)
    paid = model if optimal is None else masked(model, optimal)
    oracle = dense(paid, inference.soft_values(model).policy, seed)
    bound, mean, covariance = conditioned_densely(oracle, observed)
    assert found.log_evidence == pytest.approx(bound, rel=1e-8, abs=1e-8)
    for t, (F, f) in enumerate(oracle.s):
        np.testing.assert_allclose(found.states.mean[t], F @ mean + f, atol=1e-7)
        np.testing.assert_allclose(found.states.covariance[t], F @ covariance @ F.T, atol=1e-7)
    expected = 0.0
    for t, (G, g) in enumerate(oracle.a):
        F, f = np.concatenate([oracle.s[t][0], G]), np.concatenate([oracle.s[t][1], g])
        own = F @ covariance @ F.T
        np.testing.assert_allclose(found.state_actions.mean[t], F @ mean + f, atol=1e-7)
        np.testing.assert_allclose(found.state_actions.covariance[t], own, atol=1e-7)
        both = cai.Gaussian(torch.as_tensor(F @ mean + f), torch.as_tensor(own))
        form = model.reward_form
        expected += cai.Quadratic(form.P[t], form.p[t], form.k[t]).expectation(both)
    F, f = oracle.s[-1]
    last = cai.Gaussian(torch.as_tensor(F @ mean + f), torch.as_tensor(F @ covariance @ F.T))
    expected += model.final_form.expectation(last)
    assert found.imagined_return == pytest.approx(expected.item(), rel=1e-6, abs=1e-6)


@given(seed=seeds, sites=st.sampled_from(PLACES))
def test_derivatives_of_the_evidence_are_moments(seed, sites):
    """∂bound/∂q_t = E[s_t]/α, ∂bound/∂ρ_t = E[a_t]/α, ∂bound/∂Q_t = -½ E[s_t s_t']/α, …"""
    model = random_model(seed)
    observed = values_at(model, sites, seed)
    found = inference.posterior(model, observed)
    rng = np.random.default_rng(seed)
    mean, covariance = found.state_actions.mean, found.state_actions.covariance
    second = covariance + mean.unsqueeze(-1) * mean.unsqueeze(-2)
    slopes = {
        "q": mean[:, :3],
        "rho": mean[:, 3:],
        "N": -second[:, :3, 3:],
        "R": -0.5 * second[:, 3:, 3:],
        "q_final": found.states.mean[-1],
    }
    for name, slope in slopes.items():
        direction = torch.as_tensor(rng.normal(size=slope.shape))

        def bound(d, name=name, direction=direction):
            changed = {name: getattr(model, name) + d * direction}
            return inference.posterior(dataclasses.replace(model, **changed), observed).bound

        expected = (slope * direction).sum().item() / model.temperature
        assert slope_at_zero(bound, 1e-5) == pytest.approx(expected, rel=1e-5, abs=1e-5), name


@given(seed=seeds)
def test_the_density_of_the_whole_program(seed):
    """Everything is observed: the program's own score."""
    model = random_model(seed, rank=3)
    names = [f"s_{t}" for t in range(5)] + [f"a_{t}" for t in range(4)]
    observed = values_at(model, names, seed)
    data = {name: torch.as_tensor(value) for name, value in observed.items()}
    program = poutine.trace(pyro.condition(model, data)).get_trace()
    found = inference.posterior(model, observed)
    assert found.bound == pytest.approx(program.log_prob_sum().item(), rel=1e-10)
    assert found.states.covariance.abs().max() == 0
    for t in range(4):
        torch.testing.assert_close(found.policy(t, data[f"s_{t}"]).sample(), data[f"a_{t}"])


@pytest.mark.parametrize("site", ["s_0", "s_2", "s_3", "a_1"])
def test_densities_integrate_to_the_evidence(site):
    """∫ p(x, O) dx = p(O), and ∫ x p(x, O) dx its mean times that."""
    model = scalar(3, W=0.4, initial_covariance=[[0.5]], initial_mean=[1.0], drift=[0.3])
    whole = inference.posterior(model)
    kind, t = site[0], int(site[2:])
    grid = np.linspace(-12, 12, 97)
    density = np.exp([inference.posterior(model, {site: x}).bound for x in grid])
    total = integrate.trapezoid(density, grid)
    assert math.log(total) == pytest.approx(whole.log_evidence, abs=1e-10)
    mean = integrate.trapezoid(density * grid, grid) / total
    of = {"s": whole.states.mean[t, 0], "a": whole.state_actions.mean[min(t, 2), 1]}[kind]
    assert mean == pytest.approx(of.item(), abs=1e-10)


@given(seed=seeds)
def test_sharp_rewards_observe(seed):
    """A reward of -½ λ |s_T - x|² with λ → ∞, without what makes it a density.

    It sees x with a noise of covariance α/λ: beside that of s_T, S, this is a share of at most
    α/(λ min S), and by this share of itself at most each thing that x says is less than it was.
    """
    model = random_model(seed, Q_final=np.zeros((3, 3)), q_final=np.zeros(3))
    x = torch.as_tensor(np.random.default_rng(seed).normal(size=3))
    found = inference.posterior(model, {"s_4": x})
    sharp = 1e7
    near = inference.posterior(
        dataclasses.replace(model, Q_final=sharp * torch.eye(3), q_final=sharp * x)
    )
    alpha = model.temperature
    own = 0.5 * sharp * float(x @ x) / alpha + 1.5 * math.log(2 * math.pi * alpha / sharp)
    before = inference.posterior(model)
    S, gap = before.states.covariance[-1], x - before.states.mean[-1]
    share = alpha / (sharp * torch.linalg.eigvalsh(S).min().item())
    surprise = (gap @ torch.linalg.solve(S, gap)).item()  # squared, in standard deviations
    rounding = 1e-14 * sharp
    assert near.bound - own == pytest.approx(
        found.bound, rel=0, abs=share * (surprise + 3) / 2 + rounding * (1 + float(x @ x))
    )
    for field in ("states", "state_actions"):
        one, other, wide = (getattr(y, field) for y in (near, found, before))
        spread = wide.covariance.abs().max().item()
        atol = share * math.sqrt(spread * surprise) + rounding
        torch.testing.assert_close(one.mean, other.mean, rtol=0, atol=atol)
        torch.testing.assert_close(
            one.covariance, other.covariance, rtol=0, atol=share * spread + rounding
        )


@given(seed=seeds, flat=st.booleans())
def test_nothing_observed_is_the_posterior(seed, flat):
    model = random_model(seed, flat=flat)
    found, plain = inference.posterior(model, {}), inference.posterior(model)
    assert found.bound == pytest.approx(plain.bound, abs=1e-10)
    pairs = [(found.V, plain.V), (found.Q, plain.Q), (found.states, plain.states)]
    pairs += [(found.initial, plain.initial), (found.dynamics(2), plain.dynamics(2))]
    for one, other in pairs:
        for field in dataclasses.fields(one):
            torch.testing.assert_close(
                getattr(one, field.name), getattr(other, field.name), rtol=1e-8, atol=1e-8
            )
    for name in ("gains", "offsets", "covariance"):
        torch.testing.assert_close(getattr(found.policy, name), getattr(plain.policy, name))
    assert found.imagined_return == pytest.approx(plain.imagined_return, abs=1e-9)
    assert found.optimism == 1


@given(seed=seeds, flat=st.booleans())
def test_policy_and_dynamics_are_what_the_values_say(seed, flat):
    """log p(a|s,O) - log p(a) = (Q - V)/α, and log p(s'|s,a,O)/p(s'|s,a) = (V' - Q + r)/α."""
    model = random_model(seed, rank=3, flat=flat)
    model = dataclasses.replace(model, noise=model.noise + 0.1 * torch.eye(3))
    found = inference.posterior(model, values_at(model, ("s_2", "a_2"), seed))
    rng = np.random.default_rng(seed)
    s, after = (torch.as_tensor(rng.normal(size=(4, 5, 3))) for _ in range(2))
    a = torch.as_tensor(rng.normal(size=(4, 5, 2)))
    for t in (0, 1, 3):
        gain = (found.Q(t, s[t], a[t]) - found.V(t, s[t])) / model.temperature
        ratio = found.policy(t, s[t]).log_prob(a[t]) - model.prior(s[t], t).log_prob(a[t])
        torch.testing.assert_close(ratio, gain, rtol=0, atol=1e-8)
    for t in (0, 2, 3):
        true = model.transition(s[t], a[t], t).log_prob(after[t])
        worth = found.V(t + 1, after[t]) - found.Q(t, s[t], a[t]) + model.rewards(s[t], a[t], t)
        tilted = found.dynamics(t)(s[t], a[t]).log_prob(after[t])
        torch.testing.assert_close(tilted - true, worth / model.temperature, rtol=1e-8, atol=1e-8)
    at_goal = found.dynamics(1)
    assert not any(x.any() for x in (at_goal.A, at_goal.B, at_goal.W))


def test_no_step_optimal_is_the_prior():
    model = random_model(3)
    found = inference.posterior(model, optimal=[False] * 5)
    assert found.bound == pytest.approx(0, abs=1e-12)
    prior = dist.MultivariateNormal(model.action_prior.loc, model.action_prior.covariance_matrix)
    torch.testing.assert_close(found.policy.offsets, prior.loc)
    torch.testing.assert_close(found.policy.covariance, prior.covariance_matrix)
    torch.testing.assert_close(found.dynamics(1).W, model.noise[1])


def test_a_start_that_is_seen():
    """As a model that starts there; its density is the one of the start."""
    model = random_model(2)
    x = torch.tensor([0.3, -1.0, 2.0]).double()
    found = inference.posterior(model, {"s_0": x})
    there = dataclasses.replace(model, initial_mean=x, initial_covariance=torch.zeros(3, 3))
    plain = inference.posterior(there)
    density = model.initial.log_prob(x).item()
    assert found.bound == pytest.approx(plain.bound + density, abs=1e-10)
    torch.testing.assert_close(found.states.mean, plain.states.mean)
    torch.testing.assert_close(found.states.covariance, plain.states.covariance)


def steered(T=6, **changes):
    """A cart on rails, pushed, without noise: a position and a velocity, one force."""
    arguments = {
        "A": [[1.0, 0.1], [0.0, 1.0]],
        "B": [[0.005], [0.1]],
        "R": [[1.0]],
        "horizon": T,
        "initial_mean": [0.0, 0.0],
    }
    return models.linear_gaussian(**(arguments | changes))


def test_steering_to_a_goal_without_noise():
    """The last two forces are decided; a rollout of the policy in the program arrives."""
    goal = torch.tensor([1.0, 0.0]).double()
    model = steered()
    found = inference.posterior(model, {"s_6": goal})
    spread = found.policy.covariance.flatten()
    assert (spread > 0).tolist() == [True] * 4 + [False] * 2
    paths = model.simulate(found.policy, 7, seed=0)
    torch.testing.assert_close(paths.states[:, -1], goal.expand(7, 2), rtol=0, atol=1e-9)
    assert paths.states[:, 2].std(0).min() > 0.003
    s = paths.states[:, 4]
    assert found.policy(4, s).log_prob(found.policy(4, s).sample()).eq(0).all()
    assert found.policy(4, s).log_prob(paths.actions[:, 4] + 1).eq(-math.inf).all()
    assert cai.evaluate(model, found.policy).elbo == -math.inf
    # The mean force is the one of least effort: by the pseudo-inverse of six forces.
    A, B = model.A.numpy(), model.B.numpy()
    reach = np.hstack([np.linalg.matrix_power(A, 5 - t) @ B for t in range(6)])
    least = np.linalg.pinv(reach) @ goal.numpy()
    np.testing.assert_allclose(found.state_actions.mean[:, 2], least, atol=1e-9)
    S = reach @ reach.T
    log_p = -0.5 * goal.numpy() @ np.linalg.solve(S, goal.numpy())
    log_p += 3 * math.log(2 * math.pi) - 0.5 * np.linalg.slogdet(2 * math.pi * S)[1]
    assert found.bound == pytest.approx(log_p, rel=1e-10)


def test_actions_decided_in_one_direction():
    """Three forces on one coordinate that is observed: two combinations of them are free."""
    turn, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))
    model = models.linear_gaussian([[1.0]], turn[:1], horizon=1, R=np.eye(3))
    found = inference.posterior(model, {"s_1": 3.0})
    policy = found.policy(0, torch.zeros(500, 1).double())
    a = policy.sample()
    along, *across = (a @ turn.mT).unbind(-1)
    torch.testing.assert_close(along, torch.full((500,), 3.0).double())
    free = sum(-0.5 * x**2 - 0.5 * math.log(2 * math.pi) for x in across)
    torch.testing.assert_close(policy.log_prob(a), free, rtol=1e-9, atol=1e-9)
    assert policy.log_prob(a + 0.1 * turn[0]).eq(-math.inf).all()
    back = found.policy.scale_tril
    torch.testing.assert_close(back @ back.mT, found.policy.covariance)


@given(seed=seeds)
def test_coordinates_do_not_matter(seed):
    """A cart beside what drifts at random, mixed by a rotation: noise is not where force is."""
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    A, B, W = np.eye(3), np.array([[0.005], [0.1], [0.0]]), np.diag([0.0, 0.0, 0.3])
    A[0, 1] = 0.1
    goal, Q = rng.normal(size=3), np.diag([0.5, 0.0, 1.0])
    plain, turned = (
        inference.posterior(
            models.linear_gaussian(
                M @ A @ M.T, M @ B, noise=M @ W @ M.T, Q=M @ Q @ M.T, R=[[1.0]], horizon=9
            ),
            {"s_4": M @ goal, "s_9": M @ -goal},
        )
        for M in (np.eye(3), turn)
    )
    assert turned.bound == pytest.approx(plain.bound, rel=1e-8)
    turn = torch.as_tensor(turn)
    expected = plain.states.mean @ turn.mT
    torch.testing.assert_close(turned.states.mean, expected, rtol=1e-7, atol=1e-7)
    expected = turn @ plain.states.covariance @ turn.mT
    torch.testing.assert_close(turned.states.covariance, expected, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(turned.policy.covariance, plain.policy.covariance)


@pytest.mark.parametrize("noise", [1e-10, 1e-4, 1e4])
@pytest.mark.parametrize("cost", [1e-6, 1e6])
def test_extremes(noise, cost):
    model = steered(60, noise=noise * np.eye(2), R=[[cost]], Q=np.eye(2))
    found = inference.posterior(model, {"s_30": [1.0, 2.0], "s_60": [5.0, 0.0]})
    assert math.isfinite(found.bound)
    for x in (found.states.mean, found.states.covariance, found.V.P, found.policy.gains):
        assert x.isfinite().all()
    assert found.states.mean[60].tolist() == [5, 0]
    assert torch.linalg.eigvalsh(found.states.covariance).min() > -1e-9 * noise


@pytest.mark.parametrize(
    ("observed", "message"),
    [
        ({"s_9": [0.0, 0.0]}, r"observed: expected one of the sites s_0 … s_6, .* got 's_9'"),
        ({"alive_1": 1}, "only if the discount is below 1"),
        ({"s_3": [1.0]}, r"observed\['s_3'\]: expected 2 finite numbers, got \[1.0\]"),
        ({"s_3": [1.0, math.nan]}, r"observed\['s_3'\]: expected 2 finite numbers"),
        ({"a_3": "left"}, r"observed\['a_3'\]: expected 1 finite numbers, got 'left'"),
        (
            {"s_0": [0.0, 0.0]},
            r"observed\['s_0'\]: .* one that is partly determined",
        ),
        ({"s_0": [0.0, 1.0]}, "observed s_0 is impossible"),
        (
            {"s_1": [0.0, 0.0]},
            r"observed\['s_1'\]: .* one that is partly determined",
        ),
        ({"s_1": [1.0, 0.0]}, "observed s_1 is impossible"),
        (
            {"s_2": [1.0, 0.0], "s_3": [1.0, 0.0]},
            r"observed\['s_3'\]: .* one that is partly determined",
        ),
        ({"s_2": [1.0, 0.0], "s_3": [2.0, 0.0]}, "observed s_3 is impossible"),
        ({"s_2": [1.0, 0.0], "a_2": [0.0], "s_4": [3.0, 0.0]}, "observed s_4 is impossible"),
    ],
)
def test_what_cannot_be_observed(observed, message):
    with pytest.raises(ValueError, match=message):
        inference.posterior(steered(), observed)


def test_refusals():
    with pytest.raises(ValueError, match="optimal: expected 7 booleans"):
        inference.posterior(steered(), optimal=[True] * 3)
    with pytest.raises(ValueError, match=r"integral over the action of step 5 is infinite"):
        inference.posterior(steered(), {"s_5": [0.0, 1.0]}, [True] * 5 + [False, True])
    convex = steered(Q=[[-1e3, 0.0], [0.0, 0.0]], noise=0.1 * np.eye(2))
    with pytest.raises(ValueError, match=r"integral over the noise of step 4 is infinite"):
        inference.posterior(convex, {})
    first = scalar(1, Q=[[-9.0]], initial_covariance=[[1.0]])
    with pytest.raises(ValueError, match="integral over the noise of the first state is infinite"):
        inference.posterior(first, {"s_1": 1.0})
    with pytest.raises(ValueError, match=r"discount: expected 1, where .* is conditioned"):
        inference.posterior(steered(discount=0.9), {"s_3": [0.0, 1.0]})
    with pytest.raises(ValueError, match="horizon: the posterior of an infinite horizon"):
        inference.posterior(steered(None), {"s_3": [0.0, 1.0]})
    found = inference.posterior(steered(), {"s_6": [0.0, 1.0]})
    with pytest.raises(ValueError, match=r"t: expected a step in 0 … 5, got 6"):
        found.dynamics(6)
    assert "log_evidence=" in repr(found)


# Numbers of Python are float64


@pytest.mark.parametrize("noise", [1e-2, 1e-8, 1e-10, 1e-14])
@pytest.mark.parametrize("kind", [list, tuple, lambda x: torch.as_tensor(np.array(x))])
def test_observed_lists_keep_their_digits(noise, kind):
    """log p(s_0) + log p(s_1|s_0), by hand."""
    A, B = np.array([[1.0, 0.1], [0.0, 1.0]]), np.array([[0.0], [1.0]])
    model = models.linear_gaussian(
        A,
        B,
        horizon=1,
        noise=noise * np.eye(2),
        initial_covariance=np.eye(2),
        action_prior=dist.MultivariateNormal(torch.zeros(1).double(), torch.eye(1).double()),
    )
    s, after = [0.1, 0.3], [0.13, 0.3]
    expected = 0.0
    for x, C in ((np.array(s), np.eye(2)), (after - A @ s, noise * np.eye(2) + B @ B.T)):
        expected -= 0.5 * (x @ np.linalg.solve(C, x) + np.linalg.slogdet(2 * math.pi * C)[1])
    found = inference.posterior(model, {"s_0": kind(s), "s_1": kind(after)})
    arrays = inference.posterior(model, {"s_0": np.array(s), "s_1": np.array(after)})
    assert found.log_evidence == arrays.log_evidence
    # The action is seen through noise of which the precision is 1/noise, beside a prior of one.
    assert found.log_evidence == pytest.approx(expected, abs=1e-12 + 1e-16 * 100 / noise)


def test_lists_as_states_and_actions():
    """A third is not a third of float32."""
    model = random_model(1)
    found = inference.posterior(model)
    s, a = [1 / 3, 0.1, -0.7], [0.3, 1e-9]
    x, y = np.array(s), np.array(a)
    value = found.V(0, s).item()
    P, p, k = (getattr(found.V, name)[0].numpy() for name in "Ppk")
    assert value == pytest.approx(-0.5 * x @ P @ x + p @ x + k, rel=1e-14)
    mean = model.A[0].numpy() @ x + model.B[0].numpy() @ y + model.drift[0].numpy()
    np.testing.assert_allclose(model.transition(s, a).mean, mean, rtol=1e-14)
    joint = model.reward_curvature[0].numpy()
    z = np.concatenate([x, y])
    paid = -0.5 * z @ joint @ z + model.q[0].numpy() @ x + model.rho[0].numpy() @ y
    assert model.rewards(s, a, 0).item() == pytest.approx(paid, rel=1e-13)
    policy = found.policy
    expected = policy.offsets[0].numpy() - policy.gains[0].numpy() @ x
    np.testing.assert_allclose(policy(0, s).mean, expected, rtol=1e-14)


def test_edges_of_a_box_as_numbers():
    squash = Squash(-0.1, 0.3)
    x = torch.tensor([0.7], dtype=torch.float64)
    assert squash(x).item() == pytest.approx(-0.1 + 0.2 * (1 + math.tanh(0.7)), rel=1e-15)
