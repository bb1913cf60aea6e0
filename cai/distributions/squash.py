"""A transform from the real numbers onto a box, with a density that is exact up to its edges."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Transform, constraints
from torch.nn.functional import logsigmoid


class Squash(Transform):
    """a = low + (high - low) (1 + tanh x)/2, elementwise.

    The derivative is taken in logarithms, 1 - tanh² x = 4 σ(2x) σ(-2x), and the inverse as half of
    log(a - low) - log(high - a), so that both are exact where tanh rounds to one. (torch's softplus
    would be cut off at 20.) A value that rounds to an edge is moved to the next float inside, as a
    uniform density is zero at its upper edge.

    Args:
        low: the lower edges, a tensor or a number.
        high: the upper edges.
    """

    domain = constraints.real
    bijective = True
    sign = +1

    def __init__(self, low: Any, high: Any, cache_size: int = 0) -> None:
        super().__init__(cache_size=cache_size)
        self.low, self.high = (
            edge if isinstance(edge, Tensor) else torch.as_tensor(edge, dtype=torch.float64)
            for edge in (low, high)
        )
        self.codomain = constraints.interval(self.low, self.high)

    def with_cache(self, cache_size: int = 1) -> Squash:
        """The same transform with a cache of its last value."""
        return Squash(self.low, self.high, cache_size)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Squash)
            and torch.equal(self.low, other.low)
            and torch.equal(self.high, other.high)
        )

    __hash__ = Transform.__hash__

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log da/dx."""
        low, high = self._edges(x)
        return (2 * (high - low)).log() + logsigmoid(2 * x) + logsigmoid(-2 * x)

    def _call(self, x: Tensor) -> Tensor:
        low, high = self._edges(x)
        return self._inside(low + (high - low) * (x.tanh() + 1) / 2)

    def _inverse(self, y: Tensor) -> Tensor:
        low, high = self._edges(y)
        y = self._inside(y)
        return ((y - low).log() - (high - y).log()) / 2

    def _edges(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.low.to(x.dtype), self.high.to(x.dtype)

    def _inside(self, y: Tensor) -> Tensor:
        low, high = self._edges(y)
        return y.clamp(torch.nextafter(low, high), torch.nextafter(high, low))
