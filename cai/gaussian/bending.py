"""What bending costs in a linear-Gaussian model, and how far a policy is from the posterior."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cai import checks
from cai.distributions.degenerate_normal import matvec
from cai.gaussian import riccati
from cai.gaussian.forms import Gaussian
from cai.gaussian.linear_gaussian import LinearGaussian
from cai.gaussian.linear_policy import LinearGaussianPolicy
from cai.gaussian.moments import log_det, moments, survival, true_dynamics

if TYPE_CHECKING:
    from cai.gaussian.gaussian_solution import GaussianSolution


def luck(
    value: riccati.Value, factor: Tensor, theta: float, around: Gaussian
) -> tuple[Tensor, Tensor]:
    """KL(bent noise ‖ true noise) and KL(true ‖ bent), expected over the mean that it is around.

    Args:
        value: V of the step after, as arrays.
        factor: L (..., n, n), the root of the covariance.
        theta: η/α.
        around: the distribution of the mean μ of the state before its noise.

    Returns:
        Two tensors (...), nats.
    """
    P, p, _ = value
    spectrum = riccati.spectrum(P, p, factor.numpy(), theta)
    f, _ = (torch.as_tensor(x) for x in riccati.pull(spectrum[1], spectrum[3], theta, ""))
    _, lam, Y, y = (torch.as_tensor(x) for x in spectrum)
    # In the eigenbasis of L'PL the noise moves by f (y - Y'μ), and keeps 1/(1 + θλ) of its spread.
    slope = y - matvec(Y.mT, around.mean)
    square = slope**2 + (Y * (around.covariance @ Y)).sum(-2)
    if math.isinf(theta):
        moved = torch.where((f != 0).any(-1), torch.inf, 0.0).double()
        return moved, moved
    stretch = theta * lam
    log = stretch.log1p()
    bent = 0.5 * (log - stretch / (1 + stretch) + f**2 * square).sum(-1)
    true = 0.5 * (stretch - log + theta * f * square).sum(-1)
    return bent, true


def arrivals(model: LinearGaussian, state_actions: Gaussian) -> Gaussian:
    """The distribution of the mean A s + B a + c of s', from the moments of (s, a)."""
    n, m = model.state_size, model.action_size
    axis = state_actions.mean.shape[:-1]
    AB = torch.cat([model.A.expand(*axis, n, n), model.B.expand(*axis, n, m)], -1)
    mean = matvec(AB, state_actions.mean) + model.drift
    return Gaussian(mean, AB @ state_actions.covariance @ AB.mT)


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
    _, of_dynamics = luck(posterior.next, model.noise_root.factor, theta, around)
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
    return luck(posterior.first, root, theta, Gaussian(mean, torch.zeros_like(root)))[1].item()


def _policy_kl(q: LinearGaussianPolicy, p: LinearGaussianPolicy, states: Gaussian) -> Tensor:
    """E[KL(q(a|s) ‖ p(a|s))] over the states of each step, (T,), nats."""
    precision = torch.cholesky_inverse(p.scale_tril)
    gap = p.gains - q.gains
    mean = matvec(gap, states.mean) + q.offsets - p.offsets
    second = gap @ states.covariance @ gap.mT + q.covariance
    m = mean.shape[-1]
    square = (matvec(precision, mean) * mean).sum(-1) + (precision * second).sum((-2, -1))
    return 0.5 * (square - m) + log_det(p.scale_tril) - log_det(q.scale_tril)
