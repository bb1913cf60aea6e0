"""Linear dynamics, Gaussian noise, quadratic reward: LQR, LQG and their optimistic variants."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions.torch_distribution import TorchDistribution

from cai.distributions.flat_prior import FlatPrior
from cai.gaussian.linear_gaussian import LinearGaussian, shapes, sizes


def linear_gaussian(
    A: Any,
    B: Any,
    *,
    horizon: int | None,
    noise: Any = None,
    drift: Any = None,
    Q: Any = None,
    R: Any = None,
    N: Any = None,
    q: Any = None,
    rho: Any = None,
    Q_final: Any = None,
    q_final: Any = None,
    initial_mean: Any = None,
    initial_covariance: Any = None,
    action_prior: TorchDistribution | None = None,
    temperature: float = 1.0,
    discount: float = 1.0,
) -> LinearGaussian:
    """A linear-Gaussian model from its matrices, for which every exact answer is a Riccati sweep.

        s_0 ~ N(μ_0, S_0),   s' = A s + B a + c + w,  w ~ N(0, W),   a ~ N(m, Σ) or flat
        r(s,a) = -½ (s'Qs + 2 s'Na + a'Ra) + q's + ρ'a,      r_T(s) = -½ s'Q_T s + q_T's

    States are vectors of n numbers, actions of m. Each matrix of a step is constant or has a
    leading axis of length T. What is not given is zero.

    Args:
        A: (n, n) or (T, n, n).
        B: (n, m) or (T, n, m).
        horizon: T, or None for an infinite horizon, with constant matrices.
        noise: W, the covariance of w, (n, n) or (T, n, n); singular where a state has no noise.
        drift: c, (n,) or (T, n).
        Q: the cost of states, (n, n) or (T, n, n), reward units; only its symmetric part counts.
        R: the cost of actions, (m, m) or (T, m, m).
        N: the cost of both together, (n, m) or (T, n, m).
        q: (n,) or (T, n).
        rho: ρ, (m,) or (T, m).
        Q_final: Q_T, (n, n).
        q_final: q_T, (n,).
        initial_mean: μ_0, (n,).
        initial_covariance: S_0, (n, n).
        action_prior: a MultivariateNormal over the actions, of batch shape () or (T,); None is
            flat, log p(a|s) = 0: it adds nothing to the value, and the program cannot sample it.
        temperature: α, reward units per nat.
        discount: γ.

    Returns:
        The model, a :class:`cai.LinearGaussian`.

    Raises:
        ValueError: if shapes do not fit, a number is not finite, a covariance is not symmetric
            or has a negative eigenvalue, or something depends on the step of an infinite horizon.

    >>> from cai import inference, models
    >>> model = models.linear_gaussian([[1.0]], [[1.0]], horizon=5, Q=[[1.0]], R=[[1.0]])
    >>> inference.soft_values(model).gains.shape
    torch.Size([5, 1, 1])
    """
    n, m = sizes(B)
    given = {"noise": noise, "drift": drift, "Q": Q, "R": R, "N": N, "q": q, "rho": rho}
    given |= {"Q_final": Q_final, "q_final": q_final}
    given |= {"initial_mean": initial_mean, "initial_covariance": initial_covariance}
    every = shapes(n, m)
    matrices: dict[str, Any] = {
        name: torch.zeros(every[name]) if value is None else value for name, value in given.items()
    }
    return LinearGaussian(
        A=A,
        B=B,
        action_prior=FlatPrior(m) if action_prior is None else action_prior,
        horizon=horizon,
        temperature=temperature,
        discount=discount,
        **matrices,
    )
