"""Trajectories as functions of the actions and of standard normal noise."""

from __future__ import annotations

from functools import singledispatch
from typing import Any, NoReturn

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import ExpandedDistribution
from torch import Tensor

from cai import checks
from cai.distributions.degenerate_normal import DegenerateNormal, matvec
from cai.numerics.exclusive import exclusive
from cai.program.episode import run
from cai.program.handlers import Draws
from cai.program.trajectory import TrajectoryModel


@singledispatch
def from_noise(distribution: Any, z: Tensor) -> Tensor:
    """A value as a function of standard normal numbers z, differentiable in both arguments.

    For some distributions it is the inverse of the distribution function.

    Args:
        distribution: a distribution of a batch shape that broadcasts with z's.
        z: (...) + event shape, float64.

    Raises:
        NotImplementedError: if there is no such function for the distribution.
    """
    if distribution.event_shape or not distribution.has_rsample:
        raise NotImplementedError
    value: Tensor = distribution.icdf(torch.special.ndtr(z))
    return value


@from_noise.register
def _(d: dist.Delta, z: Tensor) -> Tensor:
    if not d.v.is_floating_point():
        raise NotImplementedError
    return d.v.double().expand(z.shape)


@from_noise.register
def _(d: dist.Normal, z: Tensor) -> Tensor:
    return d.loc + d.scale * z


@from_noise.register
def _(d: dist.MultivariateNormal, z: Tensor) -> Tensor:
    return d.loc + matvec(d.scale_tril.double(), z)


@from_noise.register
def _(d: DegenerateNormal, z: Tensor) -> Tensor:
    return d.loc + matvec(d.basis, d.scales * z)


@from_noise.register(dist.Independent)
@from_noise.register(ExpandedDistribution)
def _(d: Any, z: Tensor) -> Tensor:
    return from_noise(d.base_dist, z)


@from_noise.register
def _(d: dist.TransformedDistribution, z: Tensor) -> Tensor:
    if d.base_dist.event_shape.numel() != d.event_shape.numel():
        raise NotImplementedError
    x = from_noise(d.base_dist, z)
    for transform in d.transforms:
        x = transform(x)
    return x


class Noise:
    """Makes each draw of a program a function of the next entries of a list of normal numbers.

    Args:
        numbers: (n, size), float64; or None to draw them, which determines how many are needed.

    Attributes:
        size: how many numbers of each trajectory were used.
    """

    def __init__(self, numbers: Tensor | None) -> None:
        self.numbers, self.size = numbers, 0

    def __call__(self, name: str, distribution: Any, batch: torch.Size) -> Tensor:
        """n values, (n,) + event shape.

        Raises:
            ValueError: if they are not a function of normal numbers with a gradient.
        """
        shape = distribution.event_shape
        used = 0 if isinstance(distribution, dist.Delta) else shape.numel()
        if self.numbers is None:
            z = torch.randn(*batch, used, dtype=torch.float64)
        else:
            z = self.numbers[:, self.size : self.size + used]
        self.size += used
        z = z.view(*batch, *shape) if used else z.new_zeros(*batch, *shape)
        try:
            return from_noise(distribution, z).expand(*batch, *shape)
        except NotImplementedError:
            _refuse(name, distribution)


def roll(model: TrajectoryModel, plans: Tensor, numbers: Tensor | None) -> tuple[Tensor, int]:
    """States of plans for given noise, (n, T+1) + event shape, and the size of the noise.

    Args:
        model: a model whose sites are all reparameterised.
        plans: (n, T) + event shape.
        numbers: (n, size), with the size from :class:`Noise`; None draws them.

    Raises:
        ValueError: if a site is not a function of normal numbers with a gradient.
    """
    n, T = plans.shape[:2]
    actions, noise = plans.unbind(1), Noise(numbers)
    with exclusive(), Draws(n, noise) as draws:
        path = run(
            model,
            lambda t, s, before, alive: actions[t],
            range(T),
            sample=draws.sample,
            terminates=False,
        )
    return torch.stack(path.states, 1), noise.size


def _refuse(name: str, distribution: Any) -> NoReturn:
    what = type(distribution).__name__
    if isinstance(distribution, dist.Delta):
        what += f" of {distribution.v.dtype}"
    checks.refuse(
        f"site {name}",
        "a reparameterised distribution of real numbers, such as Normal, MultivariateNormal, "
        "Uniform, a transform of these, or a Delta of floats",
        what,
        "Hamiltonian dynamics need gradients in every site: take inference.smc or "
        "inference.importance, which run any program",
    )
