"""A network of noise as the family of a policy: easy to draw from, and without a density."""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn

from cai import checks, one_line
from cai.networks.heads import moments, moved, onto
from cai.networks.perceptron import perceptron

_CLOSEST = 0.875  # tanh of a Gaussian of this deviation is closest to uniform in KL, 0.01 nats


class NoiseHead(nn.Module):
    """An action u = ξ + f(x, ξ) of noise ξ ~ N(0, I) and a network f, moved onto the support.

    It can have any number of modes. It starts at the prior or close to it: f = 0, and ξ has the
    prior's mean and standard deviation, or on a box a standard deviation of 0.875 before tanh,
    which is closest to uniform. From there a sampler finds separate modes; one that starts narrow
    keeps to few of them.

    Nothing makes the network invertible, so that its density is not known: one determinant is not
    the density where the network folds. ``stein_soft_q`` trains it without; what needs a density
    takes a :class:`FlowHead`.

    Args:
        context: how many numbers x condition the network.
        hidden: widths of the hidden layers of f.

    >>> import cai
    >>> from cai import models
    >>> head = cai.NoiseHead(16, hidden=(32,))
    >>> policy = cai.NeuralPolicy(models.multigoal(), head=head)
    >>> policy(0, models.multigoal().initial.sample((5,))).sample().shape
    torch.Size([5, 2])
    """

    __repr__ = one_line.of_module

    def __init__(self, context: int = 64, hidden: tuple[int, ...] = (64, 64)) -> None:
        super().__init__()
        checks.check_count("context", context)
        checks.check_widths("hidden", hidden)
        self.context, self.hidden = context, hidden
        self.network = nn.Sequential()

    def size(self, prior: TorchDistribution) -> int:
        """How many numbers condition the network, which is made for actions like the prior's.

        Raises:
            ValueError: if it was made for actions of another length.
        """
        onto(prior)
        m = prior.event_shape.numel()
        if not len(self.network):
            self.network = perceptron((self.context + m, *self.hidden, m))
        made = self.network[-1].out_features
        if made != m:
            advice = "make a head for each model"
            checks.refuse("head", f"one for actions of {m} numbers", f"one for {made}", advice)
        return self.context

    def forward(self, x: Tensor, prior: TorchDistribution) -> TorchDistribution:
        """The distribution, batch shape (...)."""
        mean, scale = moments(prior, x)
        noise = scale if onto(prior) is None else _CLOSEST * scale
        return moved(_OfNoise(self.network, x, mean, noise), prior)


class DensityUnknown(ValueError, NotImplementedError):
    """A density that is not known, as torch says it and as this library does."""


class _OfNoise(TorchDistribution):
    """mean + scale (ξ + f(x, ξ)) with ξ ~ N(0, I), of m numbers."""

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = torch.distributions.constraints.real_vector
    has_rsample = True

    def __init__(self, network: nn.Sequential, x: Tensor, mean: Tensor, scale: Tensor) -> None:
        self._network, self._x, self._mean, self._scale = network, x, mean, scale
        self._layers: list[Any] = list(network)
        super().__init__(x.shape[:-1], mean.shape[-1:], validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> _OfNoise:
        """The same distribution with a larger batch shape."""
        x = self._x.expand(*batch_shape, -1)
        return _OfNoise(self._network, x, self._mean, self._scale)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Draws, sample_shape + batch_shape + (m,)."""
        xi = torch.randn(self._extended_shape(sample_shape), dtype=self._x.dtype)
        first, *others = self._layers
        of_x, of_noise = first.weight.split([self._x.shape[-1], xi.shape[-1]], -1)
        # One product for all draws in a state, and a small one for each of them.
        y = torch.nn.functional.linear(self._x, of_x, first.bias) + xi @ of_noise.mT
        for layer in others:
            y = layer(y)
        u = xi + y
        return self._mean + self._scale * u.to(self._mean.dtype)

    def log_prob(self, value: Tensor) -> NoReturn:
        """Raises an error: there is none."""
        raise DensityUnknown(
            "policy: expected one with a density, got a network of noise (NoiseHead), which has "
            "none; cai.evaluate gives its return, and cai.FlowHead has a density"
        )
