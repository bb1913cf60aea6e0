"""A transform from the real numbers onto a box, with a density that is exact up to its edges."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Transform, constraints
from torch.nn.functional import logsigmoid


class _Box(NamedTuple):
    """The edges in one dtype, the floats next to them inside, and log 2 (high - low)."""

    low: Tensor
    high: Tensor
    least: Tensor
    most: Tensor
    log_slope: Tensor


class Squash(Transform):
    """a = low + (high - low) σ(2x), elementwise, with σ(2x) = (1 + tanh x)/2.

    The derivative, 2 (high - low) σ(2x) σ(-2x), is taken in logarithms, log σ(-y) = log σ(y) - y,
    and the inverse as half of log(a - low) - log(high - a), so that both are exact where σ rounds
    to one. (torch's softplus would be cut off at 20.) A value that rounds to an edge is moved to
    the next float inside, as a uniform density is zero at its upper edge.

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
        self._boxes: dict[torch.dtype, _Box] = {}

    def with_cache(self, cache_size: int = 1) -> Squash:
        """The same transform with a cache of its last value."""
        same = copy.copy(self)
        same._cache_size, same._cached_x_y = cache_size, (None, None)
        return same

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Squash)
            and torch.equal(self.low, other.low)
            and torch.equal(self.high, other.high)
        )

    __hash__ = Transform.__hash__

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log da/dx."""
        return self._box(x.dtype).log_slope + 2 * (logsigmoid(2 * x) - x)

    def _call(self, x: Tensor) -> Tensor:
        box = self._box(x.dtype)
        return torch.lerp(box.low, box.high, (2 * x).sigmoid()).clamp(box.least, box.most)

    def _inverse(self, y: Tensor) -> Tensor:
        box = self._box(y.dtype)
        y = y.clamp(box.least, box.most)
        return ((y - box.low).log() - (box.high - y).log()) / 2

    def _box(self, dtype: torch.dtype) -> _Box:
        """The constants, kept for all copies unless they have a gradient."""
        if dtype in self._boxes:
            return self._boxes[dtype]
        low, high = self.low.to(dtype), self.high.to(dtype)
        inside = torch.nextafter(low, high), torch.nextafter(high, low)
        box = _Box(low, high, *inside, (2 * (high - low)).log())
        if not box.log_slope.requires_grad:
            self._boxes[dtype] = box
        return box
