"""How far a linear-Gaussian policy is from the posterior, in closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from cai import checks
from cai.distributions.degenerate_normal import matvec
from cai.gaussian import riccati
from cai.gaussian.forms import Gaussian
from cai.gaussian.gaussian_solution import GaussianSolution
from cai.gaussian.linear_policy import LinearGaussianPolicy
from cai.gaussian.moments import expected_square, log_det, moments, survival, true_dynamics
from cai.gaussian.tilting import arrivals, tilt_divergences


def divergences(
    posterior: GaussianSolution, policy: LinearGaussianPolicy
) -> tuple[float, float, float]:
    """KL(q(τ) ‖ p(τ|O)) of a policy in the true dynamics, split into start, actions, dynamics.

    Args:
        posterior: the exact posterior, η = 1.
        policy: for the same model.

    Returns:
        Three divergences in nats.
    """
    model, theta = posterior.model, posterior.optimism / posterior.model.temperature
    T = checks.finite_horizon(model, "a comparison")
    start = Gaussian(model.initial_mean, model.initial_covariance)
    states, state_actions = moments(start, true_dynamics(model), policy, T)
    around = arrivals(model, state_actions)
    _, of_dynamics = tilt_divergences(posterior.next, model.noise_root.factor, theta, around)
    before = Gaussian(states.mean[:-1], states.covariance[:-1])
    of_actions = _policy_kl(policy, posterior.policy, before)
    alive = survival(model.discount, T)[:-1]
    actions, dynamics = ((alive * kl).sum().item() for kl in (of_actions, of_dynamics))
    return of_start(posterior), actions, dynamics


def of_start(posterior: GaussianSolution) -> float:
    """KL(p(s_0) ‖ p(s_0|O)), nats."""
    model = posterior.model
    mean, root = (torch.as_tensor(x) for x in riccati.model_start(model))
    theta = posterior.optimism / model.temperature
    return tilt_divergences(posterior.first, root, theta, Gaussian(mean, torch.zeros_like(root)))[
        1
    ].item()


def _policy_kl(q: LinearGaussianPolicy, p: LinearGaussianPolicy, states: Gaussian) -> Tensor:
    """E[KL(q(a|s) ‖ p(a|s))] over the states of each step, (T,), nats."""
    precision = torch.cholesky_inverse(p.scale_tril)
    gap = p.gains - q.gains
    mean = matvec(gap, states.mean) + q.offsets - p.offsets
    second = gap @ states.covariance @ gap.mT + q.covariance
    square = expected_square(precision, Gaussian(mean, second))
    return 0.5 * (square - mean.shape[-1]) + log_det(p.scale_tril) - log_det(q.scale_tril)
