"""Mirror descent for linear-Gaussian policies; with step size one and backward it is Riccati's.

Given (s, a), let Q_t^q(s,a)/α + log p(a|s) = -½ a'Ha + a'(h - Gs) + …, nats, the value of an action
if the policy q = N(k - Ks, C) is followed afterwards. The natural parameters of q are Λ = C⁻¹, ΛK
and Λk, and H, G, h are those of the policy that would be best now. If each step has a policy of its
own, the natural gradient in these parameters is simply the difference.

A stationary policy takes averages. With x = (-s, 1), so that the mean is Wx for W = [K, k], with
M_t = γ^t E[xx'] and D = [G, h] - HW, the Fisher information of (W, Λ) is made of blocks, ΣM_t ⊗ Λ
and Σγ^t tr(C dΛ C dΛ)/2, and the natural gradient of Λ and of ΛW is, over all steps,

    dΛ = Σγ^t (H_t - Λ) / Σγ^t,      d(ΛW) = dΛ W + (Σ D_t M_t)(Σ M_t)⁻¹
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from cai import checks
from cai.evaluation.exact_evaluation import of_linear_policy
from cai.gaussian.forms import Gaussian
from cai.gaussian.linear_gaussian import LinearGaussian
from cai.gaussian.linear_policy import LinearGaussianPolicy
from cai.gaussian.moments import moments, survival, true_dynamics
from cai.gaussian.riccati import StepArrays, definite
from cai.gaussian.tilted_noise import Array
from cai.inference.gradients.gradient import Estimator, checked, not_too_far

Gaussians: TypeAlias = tuple[Tensor, Tensor, Tensor]
"""K (T, m, n), k (T, m) and C (T, m, m) of N(k - Ks, C), or without the axis of steps."""


def gaussian_mirror_gradient(
    model: LinearGaussian, policy: LinearGaussianPolicy, step: float = 1.0
) -> Estimator:
    """The estimator of the natural gradient, with which SGD at rate ``step`` makes one sweep.

    The gradient is the change of the parameters by :func:`gaussian_sweep` over the step size; at
    another rate the parameters move along the same straight line. With a policy for each step no
    sweep lowers the ELBO; for a stationary policy the step is halved until it does not.
    """

    def after(step: float) -> LinearGaussianPolicy:
        return LinearGaussianPolicy.from_matrices(*gaussian_sweep(model, policy, step))

    def estimate() -> float:
        with torch.no_grad():
            elbo = of_linear_policy(model, policy).elbo.item()
            checked(elbo)
            far = step
            if policy.gains.dim() == 2:
                far = not_too_far(
                    elbo, lambda to: of_linear_policy(model, after(to)).elbo.item(), step
                )
            new = after(far)
            for name, parameter in policy.named_parameters():
                way = (parameter - getattr(new, name)) / step
                parameter.grad = way.tril(-1) if name == "lower" else way
        return -elbo

    return estimate


def gaussian_sweep(
    model: LinearGaussian, policy: LinearGaussianPolicy, step: float = 1.0, backward: bool = False
) -> Gaussians:
    """The gains, offsets and covariances after one step of mirror descent.

    The natural parameters move by the fraction λ. Simultaneously, every step assumes the old policy
    afterwards: with λ = 1, k sweeps make the last k steps optimal. Backward, it assumes the new
    one: a single sweep with λ = 1 is Riccati's recursion.

    Args:
        model: the problem, with a finite horizon.
        policy: the old policy, which is not changed.
        step: λ in (0, 1].
        backward: whether later steps are changed before earlier ones.

    Raises:
        ValueError: if some H is not positive definite, so that nothing limits the actions; if a
            stationary policy is to be swept backward.
    """
    W = torch.cat([policy.gains, policy.offsets.unsqueeze(-1)], -1).detach().numpy()
    precision = torch.linalg.inv(policy.covariance.detach()).numpy()
    stationary = W.ndim == 2
    T = checks.finite_horizon(model, "mirror descent")
    if stationary and backward:
        checks.refuse("backward", "a policy for each step", "a stationary one", "leave it out")
    old = np.broadcast_to(W, (T, *W.shape[-2:]))

    def changed(t: int, H: Array, slope: Array) -> Array:
        return _moved(old[t], precision[t], H, slope - H @ old[t], step)[0]

    H, slope = _targets(model, T, changed if backward else lambda t, *_: old[t])
    lean = slope - H @ old
    if stationary:
        H, lean = _averages(model, policy, H, lean)
    new, precision = _moved(W, precision, H, lean, step)
    n = model.state_size
    return _tensors(new[..., :n], new[..., n], np.linalg.inv(precision))


def _moved(W: Array, precision: Array, H: Array, lean: Array, step: float) -> tuple[Array, Array]:
    """W and Λ after a step, where ΛW moves by dΛ W + D."""
    new = (1 - step) * precision + step * H
    return W + step * np.linalg.solve(new, lean), new


def _targets(
    model: LinearGaussian, T: int, follow: Callable[[int, Array, Array], Array]
) -> tuple[Array, Array]:
    """H and [G, h] of each step, (T, m, m) and (T, m, n+1), nats.

    Args:
        model: the problem.
        T: its horizon.
        follow: (t, H, [G, h]) -> W of the policy that is followed at step t.
    """
    n, m = model.state_size, model.action_size
    problem = StepArrays.of(model)
    alpha, gamma = problem.alpha, problem.gamma
    H, slope = np.empty((T, m, m)), np.empty((T, m, n + 1))
    P, p = model.Q_final.numpy(), model.q_final.numpy()  # V = -½ s'Ps + p's + …, reward units
    for t, (A, B, c, _, Q, N, R, q, rho, _) in reversed(list(enumerate(problem.over(T)))):
        onward, drift = gamma * P, gamma * (p - P @ c)
        own, R = R, R + B.T @ onward @ B
        G, h = N.T + B.T @ onward @ A, rho + B.T @ drift
        if not definite(R, np.abs(own) + np.abs(B).T @ np.abs(onward) @ np.abs(B)):
            checks.refuse(
                'estimator "mirror"',
                "rewards that fall with the size of the actions, or a narrower action_prior",
                f"at step {t} a reward to go that does not",
                'take "exact", which does not go so far at once',
            )
        H[t], slope[t, :, :n], slope[t, :, n] = R / alpha, G / alpha, h / alpha
        W = follow(t, H[t], slope[t])
        K, k = W[:, :n], W[:, n]
        P = Q + A.T @ onward @ A - G.T @ K - K.T @ G + K.T @ R @ K
        p = q + A.T @ drift - G.T @ k - K.T @ (h - R @ k)
    return H, slope


def _averages(
    model: LinearGaussian, policy: LinearGaussianPolicy, H: Array, lean: Array
) -> tuple[Array, Array]:
    """What a stationary policy moves by, of all steps: Σγ^t H/Σγ^t, and (Σ D M)(Σ M)⁻¹."""
    T = len(H)
    start = Gaussian(model.initial_mean, model.initial_covariance)
    states, _ = moments(start, true_dynamics(model), policy, T)
    mean, covariance = states.mean[:-1].detach().numpy(), states.covariance[:-1].detach().numpy()
    x = np.concatenate([-mean, np.ones((T, 1))], 1)
    M = x[:, :, None] * x[:, None, :]
    M[:, :-1, :-1] += covariance
    alive = survival(model.discount, T)[:-1].numpy()[:, None, None]
    seen = (alive * M).sum(0)
    # Along what no state ever shows there is nothing to learn.
    lean = (lean @ (alive * M)).sum(0) @ np.linalg.pinv(seen, rcond=1e-12, hermitian=True)
    return (alive * H).sum(0) / alive.sum(), lean


def _tensors(*arrays: Any) -> Gaussians:
    K, k, C = map(torch.as_tensor, arrays)
    return K, k, C
