"""A linear-Gaussian chain in the long run, and its discounted return."""

from __future__ import annotations

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from cai.gaussian import Gaussian, LinearMap, matvec
from cai.gaussian_evaluation import acting
from cai.linear_gaussian import LinearGaussian
from cai.linear_policy import LinearGaussianPolicy


def long_run(dynamics: LinearMap, policy: LinearGaussianPolicy) -> tuple[Gaussian, Gaussian]:
    """The stationary distribution of s, (n,), and of (s, a), (n+m,).

    Raises:
        AttributeError: where there is none, since the chain runs away.
    """
    F, f, W = closed_loop(dynamics, policy)
    radius = np.abs(np.linalg.eigvals(F)).max()
    if radius >= 1:
        raise AttributeError(
            f"states: there is no long run, the chain runs away (spectral radius {radius:.4g}); "
            "take a finite horizon"
        )
    mean = np.linalg.solve(np.eye(len(F)) - F, f)
    covariance = scipy.linalg.solve_discrete_lyapunov(F, W)
    states = Gaussian(torch.as_tensor(mean), torch.as_tensor(covariance))
    return states, acting(states, policy.gains, policy.offsets, policy.covariance)


def discounted_return(
    model: LinearGaussian, start: Gaussian, dynamics: LinearMap, policy: LinearGaussianPolicy
) -> float:
    """E[Σ_t γ^t r_t], reward units, γ < 1.

    Second moments of (s, 1) follow a linear recursion, so that their discounted sum solves a
    Lyapunov equation.
    """
    gamma, n = model.discount, model.state_size
    F, f, W = closed_loop(dynamics, policy)
    step = np.block([[F, f[:, None]], [np.zeros((1, n)), np.ones((1, 1))]])
    noise = scipy.linalg.block_diag(W, 0.0) * gamma / (1 - gamma)
    m = np.append(start.mean.numpy(), 1.0)
    first = np.outer(m, m) + scipy.linalg.block_diag(start.covariance.numpy(), 0.0)
    total = scipy.linalg.solve_discrete_lyapunov(np.sqrt(gamma) * step, first + noise)
    # As a Gaussian of the same first two moments, which is all that a quadratic reward sees.
    mean = torch.as_tensor(total[:n, n] / total[n, n])
    second = torch.as_tensor(total[:n, :n] / total[n, n])
    states = Gaussian(mean, second - torch.outer(mean, mean))
    average = model.reward_form.expectation(
        acting(states, policy.gains, policy.offsets, policy.covariance)
    )
    return average.item() / (1 - gamma)


def closed_loop(
    dynamics: LinearMap, policy: LinearGaussianPolicy
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """F, f and W of s' = F s + f + N(0, W) under a stationary policy."""
    B, C = dynamics.B, policy.covariance
    F: Tensor = dynamics.A - B @ policy.gains
    f = dynamics.c + matvec(B, policy.offsets)
    W = dynamics.W + B @ C @ B.mT
    return F.numpy(), f.numpy(), W.numpy()
