"""Normal distributions whose covariance may be singular."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

_RANK = 1e-12  # eigenvalues of a correlation below this fraction of the largest count as zero
_ON_SUPPORT = 1e-6  # how far off its support rounding may put a value, relative to its size


@dataclass(frozen=True, eq=False)
class Root:
    """A square root of a covariance and its rank, computed in units in which variances are one.

    Attributes:
        factor: (..., d, d), L with L L' the covariance; a Cholesky factor where all have full rank.
        basis: (..., d, d), U of L = U diag(σ) V', orthonormal columns; None if all have full rank.
        scales: (..., d), σ, exactly zero along the directions without noise; None if all have full
            rank.
    """

    factor: Tensor
    basis: Tensor | None = None
    scales: Tensor | None = None

    @classmethod
    def of(cls, covariance: Tensor) -> Root:
        """The root of a symmetric covariance (..., d, d) without negative eigenvalues."""
        unit, correlation = standardised(covariance)
        values, vectors = torch.linalg.eigh(correlation)
        noisy = values > _RANK * values[..., -1:]
        if noisy.all():
            return cls(torch.linalg.cholesky(covariance))
        roots = torch.where(noisy, values, 0.0).sqrt()
        factor = unit.unsqueeze(-1) * vectors * roots.unsqueeze(-2)
        basis, scales, _ = torch.linalg.svd(factor)
        rank = noisy.sum(-1, keepdim=True)
        return cls(factor, basis, torch.where(torch.arange(scales.shape[-1]) < rank, scales, 0.0))

    def at(self, t: Any) -> Root:
        """The root of step t, where there is one for each step."""
        if self.factor.dim() == 2:
            return self
        if self.basis is None or self.scales is None:
            return Root(self.factor[t])
        return Root(self.factor[t], self.basis[t], self.scales[t])

    def around(self, mean: Tensor) -> TorchDistribution:
        """N(mean, L L'), by Pyro's own class where the covariance has full rank."""
        if self.basis is None or self.scales is None:
            return dist.MultivariateNormal(mean, scale_tril=self.factor, validate_args=False)
        return DegenerateNormal(mean, self.basis, self.scales)


class DegenerateNormal(TorchDistribution):
    """N(loc, U diag(σ²) U') with some σ = 0, so that it has no density on the whole space.

    Its score is the density on its support, the affine subspace through loc along which σ > 0, and
    -inf off it by more than rounding errors. A guide that draws the same site scores it the same
    way, so that importance weights and ELBOs are right. Hamiltonian Monte Carlo, which moves values
    freely, leaves the support and cannot be used.

    Args:
        loc: (..., d), the mean.
        basis: (..., d, d), orthonormal columns U.
        scales: (..., d), σ ≥ 0.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = torch.distributions.constraints.real_vector
    has_rsample = True

    def __init__(self, loc: Tensor, basis: Tensor, scales: Tensor) -> None:
        batch = torch.broadcast_shapes(loc.shape[:-1], scales.shape[:-1])
        self.loc, self.basis, self.scales = loc.expand(*batch, -1), basis, scales
        super().__init__(batch, loc.shape[-1:], validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> DegenerateNormal:
        """The same distribution with a larger batch shape."""
        return DegenerateNormal(self.loc.expand(*batch_shape, -1), self.basis, self.scales)

    @property
    def mean(self) -> Tensor:
        """(..., d)."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """(..., d)."""
        return ((self.basis * self.scales.unsqueeze(-2)) ** 2).sum(-1).expand(self.loc.shape)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """loc + U σ z with z ~ N(0, I), shape sample_shape + batch_shape + (d,)."""
        z = torch.randn(self._extended_shape(sample_shape), dtype=self.loc.dtype)
        return self.loc + matvec(self.basis, self.scales * z)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density on the support; -inf off it."""
        x = matvec(self.basis.mT, value - self.loc)
        noisy = self.scales > 0
        sigma = torch.where(noisy, self.scales, 1.0)
        log_p = -0.5 * ((x / sigma) ** 2 + math.log(2 * math.pi)) - sigma.log()
        size = 1 + value.abs().amax(-1, keepdim=True) + self.loc.abs().amax(-1, keepdim=True)
        rest = torch.where(x.abs() <= _ON_SUPPORT * size, 0.0, -torch.inf)
        return torch.where(noisy, log_p, rest).sum(-1)


def standardised(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Standard deviations, (..., d), with 1 for zeros, and the covariance in these units."""
    variances = covariance.diagonal(dim1=-2, dim2=-1)
    unit = torch.where(variances > 0, variances, 1.0).sqrt()
    return unit, covariance / unit.unsqueeze(-1) / unit.unsqueeze(-2)


def matvec(M: Tensor, x: Tensor) -> Tensor:
    """M x for batches of both that broadcast, (..., i, j) and (..., j)."""
    return (M @ x.unsqueeze(-1)).squeeze(-1)
