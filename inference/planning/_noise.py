"""Trajectories as functions of the actions and of standard normal numbers, one for each draw."""

from __future__ import annotations

from functools import singledispatch
from typing import Any, NoReturn

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import ExpandedDistribution
from pyro.poutine.messenger import Messenger
from torch import Tensor

from cai import checks
from cai.distributions.degenerate_normal import DegenerateNormal, matvec
from cai.numerics.exclusive import exclusive
from cai.program.trajectory import TrajectoryModel


@singledispatch
def from_noise(distribution: Any, z: Tensor) -> Tensor:
    """The value that standard normal numbers z become, with its gradient in both.

    By the inverse of the distribution function, where a distribution has one.

    Args:
        distribution: of any batch shape that broadcasts with z's.
        z: (...) + event shape, float64.

    Raises:
        NotImplementedError: where the distribution is no such function.
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


@from_noise.register
def _(d: dist.Independent, z: Tensor) -> Tensor:
    return from_noise(d.base_dist, z)


@from_noise.register
def _(d: ExpandedDistribution, z: Tensor) -> Tensor:
    return from_noise(d.base_dist, z)


@from_noise.register
def _(d: dist.TransformedDistribution, z: Tensor) -> Tensor:
    if d.base_dist.event_shape.numel() != d.event_shape.numel():
        raise NotImplementedError
    x = from_noise(d.base_dist, z)
    for transform in d.transforms:
        x = transform(x)
    return x


class Noise(Messenger):
    """Makes each draw of a program a function of the next of a list of standard normal numbers.

    Args:
        numbers: (n, size), float64; or None to draw them, and to find out how many there are.
        n: how many trajectories.

    Attributes:
        size: how many numbers of each trajectory were used.
    """

    def __init__(self, numbers: Tensor | None, n: int) -> None:
        super().__init__()
        self.numbers, self.n, self.size = numbers, n, 0
        self.scope = ""

    def _pyro_sample(self, msg: Any) -> None:
        msg["stop"] = True  # no handler outside has a part in it
        if not msg["is_observed"]:
            msg["value"] = self.draw(self.scope + msg["name"], msg["fn"])
            msg["done"] = True

    def draw(self, name: str, distribution: Any) -> Tensor:
        """n values, (n,) + event shape.

        Raises:
            ValueError: where they are no function of normal numbers with a gradient.
        """
        shape = distribution.event_shape
        used = 0 if isinstance(distribution, dist.Delta) else shape.numel()
        if self.numbers is None:
            z = torch.randn(self.n, used, dtype=torch.float64)
        else:
            z = self.numbers[:, self.size : self.size + used]
        self.size += used
        z = z.view(self.n, *shape) if used else z.new_zeros(self.n, *shape)
        try:
            return from_noise(distribution, z).expand(self.n, *shape)
        except NotImplementedError:
            _refuse(name, distribution)


def roll(model: TrajectoryModel, plans: Tensor, numbers: Tensor | None) -> tuple[Tensor, int]:
    """States of plans for given noise, (n, T+1) + event shape, and how many numbers they took.

    Args:
        model: every site of which is reparameterised.
        plans: (n, T) + event shape.
        numbers: (n, size), as many as :class:`Noise` found; None draws them.

    Raises:
        ValueError: where a site is not a function of normal numbers with a gradient.
    """
    n, T = plans.shape[:2]
    with exclusive(), Noise(numbers, n) as noise:
        s = noise.draw("s_0", model.initial)
        states = [s]
        for t in range(T):
            noise.scope = f"t{t}/"
            next_state = model.transition(s, plans[:, t], t)
            noise.scope = ""
            s = noise.draw(f"s_{t + 1}", next_state)
            states.append(s)
    return torch.stack(states, 1), noise.size


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
