"""A conditional normalising flow as the family of a policy, from Pyro's transforms."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.conditional import ConditionalTransformModule
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor, nn
from torch.distributions import Transform, constraints

from cai import checks, one_line
from cai.networks.heads import moments, moved, onto


class FlowHead(nn.Module):
    """A Gaussian transformed by a flow conditioned on time and state, if need be onto a box.

    The numbers x hold the mean and the logarithms of the standard deviations of the Gaussian, and
    then a context that conditions the transforms:

    >>> import cai
    >>> from pyro.distributions.transforms import conditional_spline
    >>> head = cai.FlowHead(conditional_spline(input_dim=2, context_dim=16), context=16)

    Its parameters, converted to float64, are trained with those of the policy that holds it.

    Args:
        transforms: Pyro's conditional transforms of vectors of m numbers, in the order in which
            they act, each with a context of the size given.
        context: how many numbers condition them.

    Raises:
        ValueError: if there are no transforms, or one is not conditional.
    """

    __repr__ = one_line.of_module

    def __init__(self, *transforms: ConditionalTransformModule, context: int) -> None:
        super().__init__()
        checks.check_count("context", context)
        if not transforms or not all(isinstance(x, ConditionalTransformModule) for x in transforms):
            checks.refuse(
                "transforms",
                "conditional transforms of Pyro",
                ", ".join(type(x).__name__ for x in transforms) or "none",
                "for instance pyro.distributions.transforms.conditional_spline(m, context)",
            )
        # Some transforms put values through their network, and values come in float64.
        self.transforms, self.context = nn.ModuleList(transforms).double(), context

    def size(self, prior: TorchDistribution) -> int:
        """2m + context for an action of m numbers.

        Raises:
            ValueError: if a transform is of vectors of another length, or of another context.
        """
        onto(prior)
        m = prior.event_shape.numel()
        for transform in self.transforms:
            self._try_out(transform, m)
        return 2 * m + self.context

    def _try_out(self, transform: Any, m: int) -> None:
        try:
            with torch.no_grad():
                bent = _Conditioned(transform, torch.zeros(self.context))
                came = str(list(bent(torch.zeros(1, m, dtype=torch.float64)).shape[1:]))
        except (RuntimeError, ValueError, IndexError) as error:
            came = str(error).split("\n")[0]
        if came != f"[{m}]":
            checks.refuse(
                f"FlowHead, {type(transform).__name__}",
                f"a transform of {m} numbers, as an action has, in a context of {self.context}",
                f"one that gives {came}",
                f"make it with input_dim={m} and context_dim={self.context}",
            )

    def forward(self, x: Tensor, prior: TorchDistribution) -> TorchDistribution:
        """The flow, batch shape (...)."""
        m, (mean, scale) = prior.event_shape.numel(), moments(prior, x)
        context = x[..., 2 * m :]
        bent = [_Conditioned(transform, context) for transform in self.transforms]
        x = x.to(mean.dtype)
        location, scales = mean + scale * x[..., :m], scale * x[..., m : 2 * m].exp()
        standard = dist.Normal(torch.zeros_like(location), 1.0).to_event(1)
        placed = dist.transforms.AffineTransform(location, scales)
        return moved(dist.TransformedDistribution(standard, [*bent, placed]), prior)


class _Conditioned(Transform):
    """A conditional transform in its context, for values of any sample shape.

    Pyro's own do not broadcast a context with a sample shape, and their cache is lost when they are
    conditioned again, so that scoring a draw would take an inverse.
    """

    domain = codomain = constraints.real_vector
    bijective = True

    def __init__(self, transform: Any, context: Tensor) -> None:
        super().__init__(cache_size=1)
        self._transform = transform
        self._dtype = next((p.dtype for p in transform.parameters()), torch.float64)
        self._context = context.to(self._dtype)
        self._last: tuple[torch.Size, Any] | None = None

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        jacobian: Tensor = self._for(x).log_abs_det_jacobian(x.to(self._dtype), y.to(self._dtype))
        return jacobian if self._for(x).codomain.event_dim else jacobian.sum(-1)

    def _call(self, x: Tensor) -> Tensor:
        y: Tensor = self._for(x)(x.to(self._dtype))
        return y.to(x.dtype)

    def _inverse(self, y: Tensor) -> Tensor:
        x: Tensor = self._for(y).inv(y.to(self._dtype))
        return x.to(y.dtype)

    def _for(self, x: Tensor) -> Any:
        shape = torch.broadcast_shapes(x.shape[:-1], self._context.shape[:-1])
        if self._last is None or self._last[0] != shape:
            context = self._context.expand(*shape, -1)
            self._last = shape, self._transform.condition(context).with_cache()
        return self._last[1]
