"""The linear-Gaussian policy: the family that contains the best policy of such a model."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn

from cai import checks, one_line
from cai.distributions.degenerate_normal import Root, matvec, standardised
from cai.gaussian.forms import numbers
from cai.gaussian.linear_gaussian import LinearGaussian, at
from cai.numerics import arrays, memory
from cai.program.interfaces import Policy

_FLAT = 1e-14  # an eigenvalue of a correlation below this fraction of the largest is zero


class LinearGaussianPolicy(nn.Module):
    """q(a_t|s_t) = N(k_t - K_t s_t, C_t), a gain, an offset and a covariance for each step.

    It starts at the prior: zero gain and the prior's mean and covariance; N(0, I) for a flat one.
    C = L L' with L lower triangular, the diagonal of which is kept as a logarithm.

    Args:
        model: a linear-Gaussian model, which gives the sizes.
        stationary: one policy for all steps instead of one for each.

    Attributes:
        gains: K, (T, m, n), or (m, n) where stationary; float64.
        offsets: k, (T, m) or (m,).
        log_scales: log of the diagonal of L, (T, m) or (m,).
        lower: L below its diagonal, (T, m, m) or (m, m); the other entries are not used.

    Raises:
        ValueError: for a model of another kind, an infinite horizon without ``stationary=True``,
            or a stationary policy for a prior that depends on the step.

    >>> import cai
    >>> from cai import inference, models
    >>> model = models.linear_gaussian([[1.0]], [[1.0]], horizon=3, Q=[[1.0]], R=[[1.0]])
    >>> fitted = inference.fit(model, cai.LinearGaussianPolicy(model), estimator="mirror")
    >>> abs(fitted.elbo - inference.soft_values(model).elbo) < 1e-9
    True
    """

    gains: Tensor
    offsets: Tensor
    log_scales: Tensor
    lower: Tensor

    __repr__ = one_line.of_module

    def __init__(self, model: LinearGaussian, stationary: bool = False) -> None:
        super().__init__()
        advice = "for any other take cai.NeuralPolicy(model)"
        expected = "a linear-Gaussian one, of models.linear_gaussian"
        checks.check_kind("model", model, LinearGaussian, expected, advice)
        checks.check_flag("stationary", stationary)
        n, m = model.state_size, model.action_size
        steps = () if stationary else (checks.finite_horizon(model, "a time-dependent policy"),)
        size, advice = math.prod(steps) * m * (n + 1 + 2 * m), "take stationary=True"
        memory.check_fits("model", "gains and covariances of all steps", size, advice)
        mean, tril = torch.zeros(m, dtype=torch.float64), torch.eye(m, dtype=torch.float64)
        if isinstance(model.action_prior, dist.MultivariateNormal):
            mean, tril = model.action_prior.loc, model.action_prior.scale_tril
        if stationary and mean.dim() > 1:
            expected = "one prior for all steps"
            checks.refuse("stationary", expected, "one for each", "leave stationary out")
        self._set(
            nn.Parameter,
            torch.zeros(*steps, m, n, dtype=torch.float64),
            mean.expand(*steps, m).clone(),
            tril.expand(*steps, m, m).clone(),
        )

    @classmethod
    def from_matrices(
        cls, gains: Tensor, offsets: Tensor, covariance: Tensor
    ) -> LinearGaussianPolicy:
        """The policy with given K, k and C, with or without an axis of steps; nothing to train.

        C may be singular: then actions are deterministic along some directions and are scored by
        the density on their support.

        Raises:
            ValueError: if they are not numbers, or their shapes do not fit.
        """
        advice = "K (m, n), k (m,) and C (m, m), all or none with a first axis of T steps"
        given = {"gains": gains, "offsets": offsets, "covariance": covariance}
        gains, offsets, covariance = (arrays.numbers(x, y) for x, y in given.items())
        for name, x in (("gains", gains), ("offsets", offsets), ("covariance", covariance)):
            checks.check_no_nan(name, x, "look for 0/0 or inf - inf where they are made")
        *steps, m, _ = gains.shape if gains.dim() in (2, 3) else (0, 0, 0)
        shapes = tuple(offsets.shape), tuple(covariance.shape)
        if m == 0 or shapes != ((*steps, m), (*steps, m, m)):
            came = f"{list(gains.shape)}, {list(offsets.shape)} and {list(covariance.shape)}"
            checks.refuse("gains, offsets, covariance", "shapes that fit", came, advice)
        policy = cls.__new__(cls)
        nn.Module.__init__(policy)
        gains, offsets, covariance = (x.detach() for x in (gains, offsets, covariance))
        policy._set(nn.Buffer, gains, offsets, _lower(covariance))
        return policy

    def _set(self, kind: Any, gains: Tensor, offsets: Tensor, tril: Tensor) -> None:
        self.gains, self.offsets = kind(gains), kind(offsets)
        self.log_scales = kind(tril.diagonal(dim1=-2, dim2=-1).log())
        self.lower = kind(tril.tril(-1))

    @property
    def scale_tril(self) -> Tensor:
        """L, (T, m, m) or (m, m)."""
        return self.lower.tril(-1) + torch.diag_embed(self.log_scales.exp())

    @property
    def covariance(self) -> Tensor:
        """C = L L', (T, m, m) or (m, m), squared units of action."""
        return self.scale_tril @ self.scale_tril.mT

    def forward(self, t: Any, s: Tensor) -> TorchDistribution:
        """q(a_t|s_t) for an int or a tensor t that broadcasts with the batch shape of s."""
        tril = at(self.scale_tril, t, 2)
        return _act(at(self.gains, t, 2), at(self.offsets, t, 1), tril, s)

    def unroll(self) -> Policy:
        """The same policy for one run over all steps, with one full-size gradient, not T."""
        if self.gains.dim() == 2:
            gain, offset, tril = self.gains, self.offsets, self.scale_tril
            return lambda t, s: _act(gain, offset, tril, s)
        gains, offsets = self.gains.unbind(), self.offsets.unbind()
        trils = self.scale_tril.unbind()
        return lambda t, s: _act(gains[t], offsets[t], trils[t], s)


def _act(gain: Tensor, offset: Tensor, tril: Tensor, s: Tensor) -> TorchDistribution:
    mean = offset - matvec(gain, numbers(s))
    if (tril.diagonal(dim1=-2, dim2=-1) == 0).any():
        return Root.of(tril @ tril.mT).around(mean)
    return dist.MultivariateNormal(mean, scale_tril=tril, validate_args=False)


def _lower(covariance: Tensor) -> Tensor:
    """L lower triangular with L L' = C, its diagonal zero where C is singular."""
    unit, correlation = standardised(covariance)
    values, basis = torch.linalg.eigh(correlation)
    flat = values <= _FLAT * values[..., -1:]
    if not flat.any():
        return torch.linalg.cholesky(covariance)
    root = unit.unsqueeze(-1) * basis * torch.where(flat, 0.0, values).sqrt().unsqueeze(-2)
    L = torch.linalg.qr(root.mT).R.mT
    diagonal = L.diagonal(dim1=-2, dim2=-1)
    decided = (diagonal / unit).square() <= _FLAT * values[..., -1:]
    L = L * torch.where(diagonal < 0, -1.0, 1.0).unsqueeze(-2)
    return L.tril(-1) + torch.diag_embed(torch.where(decided, 0.0, diagonal.abs()))
