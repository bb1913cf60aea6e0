"""Heads: they turn the numbers that a policy computes into a distribution over actions.

A head has the support of the action prior: actions 0 … A-1, or numbers and vectors, where a
Gaussian is transformed onto the box or the half line that is the prior's support.
"""

from __future__ import annotations

import math
from typing import NoReturn, Protocol
from weakref import WeakKeyDictionary

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import Transform, biject_to, constraints

from cai import checks, one_line
from cai.distributions.exact_scores import log_probs, support_size
from cai.distributions.squash import Squash
from cai.distributions.support import elementwise

# Cached, since in most models one prior serves all steps.
_edges: WeakKeyDictionary[TorchDistribution, Transform | None] = WeakKeyDictionary()
_moments: WeakKeyDictionary[TorchDistribution, tuple[Tensor, Tensor]] = WeakKeyDictionary()
_logs: WeakKeyDictionary[TorchDistribution, Tensor] = WeakKeyDictionary()


class Head(Protocol):
    """A family q(a; x) of distributions over actions."""

    def size(self, prior: TorchDistribution) -> int:
        """How many numbers x a distribution takes, given the action prior.

        Raises:
            ValueError: if the family cannot have the support of the prior.
        """

    def __call__(self, x: Tensor, prior: TorchDistribution) -> TorchDistribution:
        """q(a; x), for x of shape (..., size); x = 0 gives the prior, or something close to it."""


class CategoricalHead:
    """q(a; x) ∝ p(a|s) exp(x_a), restricted to the actions that the prior allows.

    >>> import cai
    >>> from cai import models
    >>> policy = cai.NeuralPolicy(models.ledge(), head=cai.CategoricalHead())
    >>> policy.outputs  # one number for each action
    2
    """

    def __repr__(self) -> str:
        return one_line.named("CategoricalHead")

    def size(self, prior: TorchDistribution) -> int:
        """A, the number of actions."""
        A = support_size(prior)
        if A is None:
            _refuse(prior, "a Categorical, whose actions are 0 … A-1")
        return A

    def __call__(self, x: Tensor, prior: TorchDistribution) -> TorchDistribution:
        """The categorical distribution, batch shape (...)."""
        return dist.Categorical(logits=x + _log_probs(prior, x.shape[-1]), validate_args=False)


class GaussianHead:
    """q(a; x) = N(m, L L'), squashed onto the box or half line where the prior keeps to one.

    x holds the mean, the logarithms of the standard deviations (for "full", of the diagonal of L)
    and the rest of L, relative to the mean and the standard deviations of the prior if its support
    is unbounded. The density of a squashed action is exact, by the change of variables. Actions
    have the dtype of the prior's; in float32 the edge of a box is resolved to 1e-7 of its width.

    Args:
        covariance: "diagonal", or "full" for correlated coordinates of an action.

    >>> import cai
    >>> from cai import models
    >>> policy = cai.NeuralPolicy(models.multigoal(), head=cai.GaussianHead("full"))
    >>> policy.outputs  # two means, two standard deviations and a correlation
    5
    """

    def __init__(self, covariance: str = "diagonal") -> None:
        checks.check_one_of("covariance", covariance, ("diagonal", "full"), "take either")
        self.full = covariance == "full"

    def __repr__(self) -> str:
        return one_line.named("GaussianHead", '"full"' if self.full else '"diagonal"')

    def size(self, prior: TorchDistribution) -> int:
        """2m for an action of m numbers, or m + m (m + 1)/2 where full."""
        onto(prior)
        m = prior.event_shape.numel()
        return 2 * m + (m * (m - 1) // 2 if self.full else 0)

    def __call__(self, x: Tensor, prior: TorchDistribution) -> TorchDistribution:
        """The Gaussian, batch shape (...)."""
        m, (mean, scale) = prior.event_shape.numel(), moments(prior, x)
        mu, log_sigma, rest = x.to(mean.dtype).split([m, m, x.shape[-1] - 2 * m], -1)
        location, scales = torch.addcmul(mean, scale, mu), scale * log_sigma.exp()
        if self.full and m > 1:
            rows, columns = torch.tril_indices(m, m, -1)
            tril = torch.diag_embed(scales)
            tril[..., rows, columns] = (scale[..., rows] * rest).expand(*scales.shape[:-1], -1)
            return moved(
                dist.MultivariateNormal(location, scale_tril=tril, validate_args=False), prior
            )
        shape = location.shape[:-1] + prior.event_shape
        base = dist.Normal(location.reshape(shape), scales.reshape(shape), validate_args=False)
        return moved(base.to_event(len(prior.event_shape)), prior)


class MixtureHead:
    """A mixture of Gaussians with diagonal covariances, squashed as with :class:`GaussianHead`.

    The components start apart, on a circle of one standard deviation around the prior's mean, since
    symmetry would otherwise keep them together. Samples have no pathwise gradient: changing the
    weights does not move a sample from one Gaussian to another. (That of Pyro's
    MixtureOfDiagNormals is biased unless standard deviations are one.)

    Args:
        components: K, how many Gaussians.

    >>> import cai
    >>> from cai import models
    >>> cai.NeuralPolicy(models.multigoal(), head=cai.MixtureHead(4)).outputs
    20
    """

    def __init__(self, components: int) -> None:
        checks.check_count("components", components)
        self.components = components

    def __repr__(self) -> str:
        return one_line.named("MixtureHead", f"components={self.components}")

    def size(self, prior: TorchDistribution) -> int:
        """K (1 + 2m) for an action of m numbers."""
        onto(prior)
        return self.components * (1 + 2 * prior.event_shape.numel())

    def __call__(self, x: Tensor, prior: TorchDistribution) -> TorchDistribution:
        """The mixture, batch shape (...)."""
        K, m = self.components, prior.event_shape.numel()
        mean, scale = (moment.unsqueeze(-2) for moment in moments(prior, x))
        weights, location, log_scale = x.to(mean.dtype).split([K, K * m, K * m], -1)
        location = location.unflatten(-1, (K, m)) + _circle(K, m).to(mean.dtype)
        location, scales = mean + scale * location, scale * log_scale.unflatten(-1, (K, m)).exp()
        shape = location.shape[:-1] + prior.event_shape
        components = dist.Normal(
            location.reshape(shape), scales.reshape(shape), validate_args=False
        )
        base = dist.MixtureSameFamily(
            dist.Categorical(logits=weights), components.to_event(len(prior.event_shape))
        )
        return moved(base, prior)


def head_for(prior: TorchDistribution, chosen: Head | None = None) -> Head:
    """The chosen head; by default the one that suits the prior: categorical or diagonal Gaussian.

    Raises:
        ValueError: if what was chosen is not a head.
    """
    if chosen is not None:
        if isinstance(chosen, type) or not hasattr(chosen, "size") or not callable(chosen):
            checks.refuse("head", "a head", repr(chosen), 'for instance cai.GaussianHead("full")')
        return chosen
    return GaussianHead() if support_size(prior) is None else CategoricalHead()


def moved(base: TorchDistribution, prior: TorchDistribution) -> TorchDistribution:
    """A distribution over all numbers, transformed onto the prior's support."""
    parts: list[Transform] = []
    if base.event_shape != prior.event_shape:
        parts.append(dist.transforms.ReshapeTransform(base.event_shape, prior.event_shape))
    edge = onto(prior)
    if edge is not None:
        parts.append(edge.with_cache())  # so that a fresh draw need not be inverted
    return dist.TransformedDistribution(base, parts, validate_args=False) if parts else base


def _log_probs(prior: TorchDistribution, actions: int) -> Tensor:
    """log p(a|s) for a = 0 … A-1, (..., A), kept where one prior serves all states."""
    if prior in _logs:
        return _logs[prior]
    found = log_probs(prior, actions)
    if not prior.batch_shape and not found.requires_grad:
        _logs[prior] = found
    return found


def moments(prior: TorchDistribution, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of a prior with unbounded support, (..., m); else 0 and 1.

    They have the dtype of the prior, or of x if that is unknown.
    """
    if prior in _moments:
        return _moments[prior]
    m = prior.event_shape.numel()
    try:
        mean, bounded = prior.mean.detach(), onto(prior) is not None
        scale = mean if bounded else prior.stddev.detach()  # which not every prior has
    except NotImplementedError:  # a flat prior has neither
        return x.new_zeros(m), x.new_ones(m)
    if bounded or not (mean.isfinite() & scale.isfinite()).all():
        found = mean.new_zeros(m), mean.new_ones(m)
    else:
        shape = (*prior.batch_shape, m)
        found = mean.reshape(shape), scale.reshape(shape)
    _moments[prior] = found
    return found


def onto(prior: TorchDistribution) -> Transform | None:
    """The transform of all numbers onto the prior's support; None if that is all numbers.

    Raises:
        ValueError: if the support is not all numbers, a half line or a box.
    """
    if prior not in _edges:
        _edges[prior] = _onto(prior)
    return _edges[prior]


def _onto(prior: TorchDistribution) -> Transform | None:
    support = elementwise(prior.support)
    if support is constraints.real:
        return None
    low, high = getattr(support, "lower_bound", None), getattr(support, "upper_bound", None)
    if not support.is_discrete and low is not None and high is not None:
        return Squash(low, high)
    if not support.is_discrete and (low is not None or high is not None):
        return biject_to(support)
    _refuse(prior, "a density on all numbers, a half line or a box, for instance Normal or Uniform")


def _circle(K: int, m: int) -> Tensor:
    """Points on a circle of radius one in the first two of m coordinates, (K, m)."""
    points = torch.zeros(K, m)
    if K > 1:
        angle = torch.arange(K) * (2 * math.pi / K)
        points[:, 0] = angle.cos() if m > 1 else torch.linspace(-1, 1, K)
        points[:, 1:2] = angle.sin().unsqueeze(1)[:, : m - 1]
    return points


def _refuse(prior: TorchDistribution, expected: str) -> NoReturn:
    checks.refuse(
        "action_prior",
        expected,
        f"{type(prior).__name__} with support {prior.support}",
        "take another head, or write the policy as a function (t, s) -> distribution",
    )
