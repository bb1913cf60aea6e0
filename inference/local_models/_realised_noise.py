"""The standard normal numbers that a value was made of, the inverse of ``from_noise``."""

from __future__ import annotations

from functools import singledispatch
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import ExpandedDistribution
from torch import Tensor

from cai import checks
from cai.distributions.degenerate_normal import DegenerateNormal, matvec


class Realised(NamedTuple):
    """Noise of a value of shape (...) + event shape, flattened to d numbers.

    Attributes:
        z: (..., d), standard normal; zero where there is no noise.
        noisy: (d,), boolean.
    """

    z: Tensor
    noisy: Tensor


@singledispatch
def realised(distribution: Any, value: Tensor) -> Realised:
    """What the noise of a value was.

    Raises:
        NotImplementedError: for a distribution that is not Gaussian, nor certain.
    """
    raise NotImplementedError


@realised.register
def _(d: dist.Delta, value: Tensor) -> Realised:
    if not d.v.is_floating_point():
        raise NotImplementedError
    return Realised(torch.zeros_like(value), torch.zeros(value.shape[-1:], dtype=torch.bool))


@realised.register
def _(d: dist.Normal, value: Tensor) -> Realised:
    return _all((value - d.loc) / d.scale)


@realised.register
def _(d: dist.MultivariateNormal, value: Tensor) -> Realised:
    off = (value - d.loc).unsqueeze(-1)
    root = d.scale_tril.double()
    return _all(torch.linalg.solve_triangular(root, off, upper=False).squeeze(-1))


@realised.register
def _(d: DegenerateNormal, value: Tensor) -> Realised:
    noisy = d.scales > 0
    along = matvec(d.basis.mT, value - d.loc)
    z = torch.where(noisy, along / torch.where(noisy, d.scales, 1.0), 0.0)
    return Realised(z, noisy.reshape(-1, noisy.shape[-1]).any(0))


@realised.register(dist.Independent)
@realised.register(ExpandedDistribution)
def _(d: Any, value: Tensor) -> Realised:
    return realised(d.base_dist, value)


def _all(z: Tensor) -> Realised:
    return Realised(z, torch.ones(z.shape[-1:], dtype=torch.bool))


def noise_of(t: int, distribution: Any, value: Tensor) -> Realised:
    """What the noise of the states (n, d) after step t was.

    Raises:
        ValueError: if they are no function of normal noise.
    """
    try:
        return realised(distribution, value)
    except NotImplementedError:
        checks.refuse(
            f"site s_{t + 1}",
            "a next state that is Gaussian or certain, of real numbers",
            type(distribution).__name__,
            "a local model needs states that are smooth functions of actions and normal noise",
        )
