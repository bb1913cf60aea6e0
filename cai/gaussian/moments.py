"""Means, covariances and expected return of a linear-Gaussian policy in such a model."""

from __future__ import annotations

import torch
from torch import Tensor

from cai.distributions.degenerate_normal import matvec
from cai.gaussian.forms import Gaussian, LinearMap
from cai.gaussian.linear_gaussian import LinearGaussian
from cai.gaussian.linear_policy import LinearGaussianPolicy


def true_dynamics(model: LinearGaussian) -> LinearMap:
    """The dynamics of all steps, each with or without an axis of steps."""
    return LinearMap(model.A, model.B, model.drift, model.noise)


def moments(
    start: Gaussian, dynamics: LinearMap, policy: LinearGaussianPolicy, T: int
) -> tuple[Gaussian, Gaussian]:
    """Means and covariances of s_0 … s_T, and of (s_t, a_t) for t < T, given being alive.

    Raises:
        ValueError: if the policy is for another number of steps, states or actions.
    """
    n, m = dynamics.B.shape[-2:]
    K, k, C = _fitting(policy, T, n, m)
    A, B = dynamics.A.expand(T, n, n), dynamics.B.expand(T, n, m)
    closed = A - B @ K
    shift = matvec(B, k) + dynamics.c
    noise = B @ C @ B.mT + dynamics.W
    mean, covariance = start.mean, start.covariance
    means, covariances = [mean], [covariance]
    for F, f, W in zip(closed.unbind(), shift.unbind(), noise.unbind(), strict=True):
        mean, covariance = F @ mean + f, F @ covariance @ F.mT + W
        means.append(mean)
        covariances.append(covariance)
    states = Gaussian(torch.stack(means), torch.stack(covariances))
    return states, acting(Gaussian(states.mean[:-1], states.covariance[:-1]), K, k, C)


def acting(states: Gaussian, K: Tensor, k: Tensor, C: Tensor) -> Gaussian:
    """The joint distribution of (s, a), (..., n+m), where a ~ N(k - K s, C)."""
    n = states.mean.shape[-1]
    eye = torch.eye(n, dtype=torch.float64).expand(*K.shape[:-2], n, n)
    J = torch.cat([eye, -K], -2)
    mean = torch.cat([states.mean, k - matvec(K, states.mean)], -1)
    own = torch.nn.functional.pad(C, (n, 0, n, 0))
    return Gaussian(mean, J @ states.covariance @ J.mT + own)


def expected_return(model: LinearGaussian, states: Gaussian, state_actions: Gaussian) -> Tensor:
    """E[Σ rewards] from the moments of all steps, reward units."""
    alive = survival(model.discount, len(state_actions.mean))
    last = Gaussian(states.mean[-1], states.covariance[-1])
    paid = (alive[:-1] * model.reward_form.expectation(state_actions)).sum()
    return paid + alive[-1] * model.final_form.expectation(last)


def survival(discount: float, T: int) -> Tensor:
    """P(alive at step t) = γ^t, (T+1,)."""
    return torch.as_tensor(discount, dtype=torch.float64) ** torch.arange(T + 1)


def log_det(tril: Tensor) -> Tensor:
    """½ log det of L L', (...)."""
    return tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def expected_square(M: Tensor, x: Gaussian) -> Tensor:
    """E[x'Mx], (...)."""
    return (matvec(M, x.mean) * x.mean).sum(-1) + (M * x.covariance).sum((-2, -1))


def _fitting(policy: LinearGaussianPolicy, T: int, n: int, m: int) -> tuple[Tensor, Tensor, Tensor]:
    try:
        return (
            policy.gains.expand(T, m, n),
            policy.offsets.expand(T, m),
            policy.covariance.expand(T, m, m),
        )
    except RuntimeError:
        raise ValueError(
            f"policy: gains of shape {list(policy.gains.shape)} do not fit a model of {T} steps, "
            f"{n} state and {m} action dimensions; it was made for another model"
        ) from None
