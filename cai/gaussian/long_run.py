"""The stationary distribution of a linear-Gaussian chain, and its return."""

from __future__ import annotations

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from cai.distributions.degenerate_normal import matvec
from cai.gaussian.forms import Gaussian, LinearMap
from cai.gaussian.linear_gaussian import LinearGaussian
from cai.gaussian.linear_policy import LinearGaussianPolicy
from cai.gaussian.moments import acting
from cai.gaussian.riccati import StepArrays
from cai.gaussian.riccati_equation import limit
from cai.gaussian.tilted_noise import Array, Breakdown


def long_run(dynamics: LinearMap, policy: LinearGaussianPolicy) -> tuple[Gaussian, Gaussian]:
    """The stationary distribution of s, (n,), and of (s, a), (n+m,).

    Raises:
        AttributeError: if there is none because the chain is unstable.
    """
    F, f, W = closed_loop(dynamics, policy)
    radius = np.abs(np.linalg.eigvals(F)).max()
    if radius >= 1:
        raise AttributeError(
            f"states: none in the long run, the chain is unstable (spectral radius {radius:.4g}); "
            "take a finite horizon"
        )
    mean = np.linalg.solve(np.eye(len(F)) - F, f)
    covariance = scipy.linalg.solve_discrete_lyapunov(F, W)
    states = Gaussian(torch.as_tensor(mean), torch.as_tensor(covariance))
    return states, acting(states, policy.gains, policy.offsets, policy.covariance)


def long_run_return(
    model: LinearGaussian, start: Gaussian, dynamics: LinearMap, policy: LinearGaussianPolicy
) -> float:
    """E[Σ_t γ^t r_t], reward units; without a discount the average reward per step.

    It is the value of the policy as the limit of long horizons: states may diverge as long as no
    reward depends on them.

    Raises:
        AttributeError: if the rewards diverge.
    """
    F, f, W = closed_loop(dynamics, policy)
    P, p, paid = _paid(model, policy)
    n, gamma = model.state_size, model.discount
    chain = StepArrays(
        A=F[None],
        B=np.zeros((1, n, 1)),
        c=f[None],
        L=np.zeros((1, n, n)),
        Q=P[None],
        N=np.zeros((1, n, 1)),
        R=np.ones((1, 1, 1)),
        q=p[None],
        rho=np.zeros((1, 1)),
        k=np.zeros(1),
        alpha=1.0,
        gamma=gamma,
    )
    try:
        P, p = limit(chain, 0.0)
    except Breakdown as breakdown:
        raise AttributeError(
            f"imagined_return: it is infinite, {breakdown}; take a finite horizon"
        ) from None
    step = paid + gamma * float((p - 0.5 * P @ f) @ f - 0.5 * (P * W).sum())
    if gamma == 1:
        return step
    m, S = start.mean.numpy(), start.covariance.numpy()
    return step / (1 - gamma) + float((p - 0.5 * P @ m) @ m - 0.5 * (P * S).sum())


def _paid(model: LinearGaussian, policy: LinearGaussianPolicy) -> tuple[Array, Array, float]:
    """P, p and k of the expected reward of a policy as a function of the state."""
    n = model.state_size
    K, k = policy.gains.numpy(), policy.offsets.numpy()
    M, slope = model.reward_curvature.numpy(), model.reward_slope.numpy()
    J, j = np.vstack([np.eye(n), -K]), np.concatenate([np.zeros(n), k])
    spread = 0.5 * (M[n:, n:] * policy.covariance.numpy()).sum()
    return J.T @ M @ J, J.T @ (slope - M @ j), float((slope - 0.5 * M @ j) @ j - spread)


def closed_loop(dynamics: LinearMap, policy: LinearGaussianPolicy) -> tuple[Array, Array, Array]:
    """F, f and W of s' = F s + f + N(0, W) under a stationary policy."""
    B, C = dynamics.B, policy.covariance
    F: Tensor = dynamics.A - B @ policy.gains
    f = dynamics.c + matvec(B, policy.offsets)
    W = dynamics.W + B @ C @ B.mT
    return F.numpy(), f.numpy(), W.numpy()
