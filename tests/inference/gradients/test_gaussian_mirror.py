"""Natural gradients of linear-Gaussian policies: Riccati, and the Fisher information."""

import numpy as np
import pytest
import torch
from examples import random_model, regulator, scramble
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import gradient
from torch.distributions import MultivariateNormal, kl_divergence

import cai
from cai import inference, models
from cai.gaussian.forms import Gaussian
from cai.gaussian.moments import moments, survival, true_dynamics
from cai.inference.gradients.estimators import closed_form_gradient
from cai.inference.gradients.gaussian_mirror import gaussian_mirror_gradient, gaussian_sweep

problems = given(seed=st.integers(0, 10**6), flat=st.booleans())


def case(seed, flat):
    """A random problem, a policy to start from, and the best one."""
    model = random_model(seed, flat=flat)
    torch.manual_seed(seed)
    policy = scramble(cai.LinearGaussianPolicy(model))
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(0.3)
    best = inference.soft_values(model, optimism=0).policy
    return model, policy, (best.gains, best.offsets, best.covariance)


def check_close(found, expected):
    for x, y in zip(found, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-7, atol=1e-9)


@settings(max_examples=15)
@problems
def test_k_simultaneous_sweeps_make_the_last_k_steps_optimal(seed, flat):
    model, policy, best = case(seed, flat)
    for k in range(1, model.horizon + 1):
        swept = gaussian_sweep(model, policy)
        check_close([x[-k:] for x in swept], [x[-k:] for x in best])
        policy = cai.LinearGaussianPolicy.from_matrices(*swept)


@settings(max_examples=15)
@problems
def test_one_sweep_backward_is_riccati(seed, flat):
    model, policy, best = case(seed, flat)
    check_close(gaussian_sweep(model, policy, backward=True), best)


def test_half_steps_halve_the_error_of_the_last_step():
    """In the natural parameters, where nothing comes after it; and all errors in the long run."""
    model, policy, best = case(4, False)

    def off(policy):
        precision = torch.linalg.inv(policy.covariance), torch.linalg.inv(best[2])
        ours, theirs = (
            (P, P @ K, (P @ k.unsqueeze(-1)))
            for P, K, k in zip(
                precision, (policy.gains, best[0]), (policy.offsets, best[1]), strict=True
            )
        )
        return [x - y for x, y in zip(ours, theirs, strict=True)]

    before = off(policy)
    for sweep in range(40):
        policy = cai.LinearGaussianPolicy.from_matrices(*gaussian_sweep(model, policy, 0.5))
        after = off(policy)
        if sweep < 5:
            for x, y in zip(before, after, strict=True):
                torch.testing.assert_close(y[-1], x[-1] / 2, rtol=1e-7, atol=1e-9)
        before = after
    assert max(x.abs().max() for x in before) < 1e-6


def sigma_points(states):
    """States whose mean of a quadratic function is exact, (T, 2n, n)."""
    n = states.mean.shape[-1]
    root = torch.linalg.cholesky(states.covariance).mT * n**0.5
    mean = states.mean.unsqueeze(-2)
    return torch.cat([mean + root, mean - root], -2)


def fisher(model, policy):
    """The Hessian of Σ γ^t E[KL(q ‖ q_θ)] at q_θ = q, in all parameters, by autograd."""
    T = model.horizon
    start = Gaussian(model.initial_mean, model.initial_covariance)
    states, _ = moments(start, true_dynamics(model), policy, T)
    s = sigma_points(Gaussian(states.mean[:-1].detach(), states.covariance[:-1].detach()))
    t = torch.arange(T).unsqueeze(1)
    names, shapes = ([x[i] for x in policy.named_parameters()] for i in (0, 1))
    theta = torch.cat([p.detach().flatten() for p in policy.parameters()])

    def at(theta):
        parts = theta.split([x.numel() for x in shapes])
        held = {name: x.view_as(old) for name, x, old in zip(names, parts, shapes, strict=True)}
        q = torch.func.functional_call(policy, held, (t, s))
        return MultivariateNormal(q.loc, scale_tril=q.scale_tril.expand(*q.loc.shape, -1))

    alive, here = survival(model.discount, T)[:-1], at(theta)

    def divergence(theta):
        return (alive * kl_divergence(here, at(theta)).mean(-1)).sum()

    return torch.autograd.functional.hessian(divergence, theta)


@pytest.mark.parametrize("discount", [1.0, 0.7])
@pytest.mark.parametrize("stationary", [False, True])
def test_the_natural_gradient_by_the_fisher_information(stationary, discount):
    """F times a small natural step, in the policy's own parameters, is the gradient."""
    B = [[0.4, 0.1], [0.5, -0.3]]
    model = regulator(B=B, R=[[0.3, 0.1], [0.1, 0.4]], discount=discount, action_prior=None)
    torch.manual_seed(2)
    policy = cai.LinearGaussianPolicy(model, stationary=stationary)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        policy.lower.copy_(policy.lower.tril(-1))
    slope = gradient(closed_form_gradient(model, policy), policy)
    natural = gradient(gaussian_mirror_gradient(model, policy, 1e-6), policy)
    torch.testing.assert_close(fisher(model, policy) @ natural, slope, rtol=2e-5, atol=1e-5)
    assert slope.norm() > 1


def test_fit_takes_as_many_steps_as_the_horizon():
    model = regulator(horizon=12)
    fitted = inference.fit(model, cai.LinearGaussianPolicy(model), estimator="mirror")
    assert 2 <= len(fitted.losses) <= 13  # the last one finds nothing to gain
    assert fitted.converged
    assert fitted.elbo == pytest.approx(inference.soft_values(model).elbo, abs=1e-9)
    half = inference.fit(
        model, cai.LinearGaussianPolicy(model), estimator="mirror", learning_rate=0.5
    )
    assert half.converged
    assert 13 < len(half.losses) < 60
    assert half.elbo == pytest.approx(fitted.elbo, abs=1e-9)


def test_a_stationary_policy_ends_where_the_gradient_does():
    model = regulator(horizon=12)
    policy = cai.LinearGaussianPolicy(model, stationary=True)
    fitted = inference.fit(model, policy, estimator="mirror", steps=100)
    assert (fitted.losses.diff() < 1e-10).all()  # though whole steps would diverge
    assert fitted.elbo < inference.soft_values(model).elbo - 1e-3
    assert gradient(closed_form_gradient(model, fitted.policy), fitted.policy).abs().max() < 1e-5
    adam = inference.fit(model, policy, estimator="exact", steps=600, learning_rate=0.05)
    assert adam.elbo == pytest.approx(fitted.elbo, abs=1e-4)


def test_what_nobody_ever_sees_does_not_move():
    """A state that is always zero has a gain that nothing depends on."""
    arguments = {"A": np.eye(2).tolist(), "B": [[1.0], [0.0]], "horizon": 3, "Q": np.eye(2)}
    model = models.linear_gaussian(**arguments, R=[[1.0]], initial_mean=[1.0, 0.0])
    policy = cai.LinearGaussianPolicy(model, stationary=True)
    with torch.no_grad():
        policy.gains[0, 1] = 0.7
    gains, _, _ = gaussian_sweep(model, policy)
    assert gains[0, 1].item() == pytest.approx(0.7, abs=1e-9)
    assert gains[0, 0] != 0


def test_what_cannot_be_swept():
    model = regulator()
    with pytest.raises(ValueError, match="backward: expected a policy for each step"):
        gaussian_sweep(model, cai.LinearGaussianPolicy(model, stationary=True), backward=True)
    wild = regulator(Q=[[-9.0, 0.0], [0.0, -9.0]], R=[[0.01]], action_prior=None)
    with pytest.raises(ValueError, match=r"narrower action_prior, got at step \d a reward"):
        gaussian_sweep(wild, cai.LinearGaussianPolicy(wild))
