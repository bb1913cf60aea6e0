"""Gaussians, quadratic functions and linear maps with noise, in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from cai import one_line
from cai.distributions.degenerate_normal import Root, matvec


@dataclass(frozen=True, eq=False)
class Gaussian:
    """N(mean, covariance); the covariance may be singular.

    Attributes:
        mean: (..., d).
        covariance: (..., d, d).

    >>> import torch, cai
    >>> certain = cai.Gaussian(torch.ones(2), torch.zeros(2, 2))
    >>> certain.distribution().sample()
    tensor([1., 1.])
    """

    mean: Tensor
    covariance: Tensor

    __repr__ = one_line.of_fields

    def distribution(self) -> TorchDistribution:
        """As a distribution to sample from and to score with."""
        return Root.of(self.covariance).around(self.mean)


@dataclass(frozen=True, eq=False)
class Quadratic:
    """-½ x'Px + p'x + k, one function or one for each step.

    Attributes:
        P: (..., d, d), symmetric.
        p: (..., d).
        k: (...).

    >>> import torch, cai
    >>> square = cai.Quadratic(torch.eye(1).double(), torch.zeros(1).double(), torch.tensor(0.0))
    >>> square(0, [2.0]).item()
    -2.0
    """

    P: Tensor
    p: Tensor
    k: Tensor

    __repr__ = one_line.of_fields

    def __call__(self, t: Any, *x: Tensor) -> Tensor:
        """The values at step t of x, (..., d), or of several such vectors put together.

        Args:
            t: an int or a tensor of steps that broadcasts with the batch shape of x; ignored if
                there is one function for all steps.
            x: one vector, as in V(t, s), or several, as in Q(t, s, a).
        """
        P, p, k = self.P, self.p, self.k
        if k.dim():
            P, p, k = P[t], p[t], k[t]
        z = torch.cat([numbers(part) for part in x], -1)
        return k + ((p - 0.5 * matvec(P, z)) * z).sum(-1)

    def expectation(self, at: Gaussian) -> Tensor:
        """(...): E[-½ x'Px + p'x + k] for x ~ N(mean, covariance)."""
        m, S = at.mean, at.covariance
        spread = (self.P * S).sum((-2, -1))
        return self.k + ((self.p - 0.5 * matvec(self.P, m)) * m).sum(-1) - 0.5 * spread


@dataclass(frozen=True, eq=False)
class LinearMap:
    """s' = A s + B a + c + w with w ~ N(0, W): the dynamics of a step.

    Attributes:
        A: (..., n, n).
        B: (..., n, m).
        c: (..., n).
        W: (..., n, n), may be singular.

    >>> import torch, cai
    >>> eye = torch.eye(2).double()
    >>> cai.LinearMap(eye, eye, eye[0], eye)([0.0, 0.0], [1.0, 1.0]).mean
    tensor([2., 1.], dtype=torch.float64)
    """

    A: Tensor
    B: Tensor
    c: Tensor
    W: Tensor

    __repr__ = one_line.of_fields

    def at(self, t: int) -> LinearMap:
        """That of step t, where there is one for each step."""
        return LinearMap(self.A[t], self.B[t], self.c[t], self.W[t])

    def mean(self, s: Tensor, a: Tensor) -> Tensor:
        """E[s'|s,a], (..., n)."""
        return matvec(self.A, numbers(s)) + matvec(self.B, numbers(a)) + self.c

    def __call__(self, s: Tensor, a: Tensor) -> TorchDistribution:
        """The distribution of s' given s, (..., n), and a, (..., m)."""
        return Root.of(self.W).around(self.mean(s, a))


def numbers(x: Any) -> Tensor:
    """A vector, or several, in float64; lists are converted without losing digits."""
    return torch.as_tensor(x, dtype=torch.float64)
