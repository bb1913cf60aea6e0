"""A rectangular grid: its nodes, and the nodes around any point with their multilinear weights."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Axes:
    """The axes of a grid in d dimensions.

    Attributes:
        points: the coordinates along each axis, ascending, at least two.
        turns: of each axis how far it is once around, to the first point from the last and on; or
            None where it does not close to a circle.
    """

    points: tuple[Tensor, ...]
    turns: tuple[float | None, ...]

    @classmethod
    def closing(cls, points: Iterable[Tensor], periodic: Iterable[bool]) -> Axes:
        """Where an axis is periodic its last point is the first again, and is left out."""
        pairs = list(zip(points, periodic, strict=True))
        return cls(
            tuple(x[:-1] if around else x for x, around in pairs),
            tuple((x[-1] - x[0]).item() if around else None for x, around in pairs),
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """How many points each axis has."""
        return tuple(len(x) for x in self.points)

    @property
    def size(self) -> int:
        """How many nodes there are."""
        return math.prod(self.shape)

    @property
    def nodes(self) -> Tensor:
        """(size, d), the last axis first to change."""
        return torch.cartesian_prod(*self.points).reshape(self.size, -1)

    def corners(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The nodes around points, and their weights in a multilinear interpolation.

        What lies off the grid is taken at its edge.

        Args:
            x: (..., d).

        Returns:
            Numbers of nodes and weights ≥ 0 that sum to one, both (..., 2^d).
        """
        sides = [self._between(i, x[..., i]) for i in range(len(self.points))]
        index, weight = [], []
        for corner in itertools.product((0, 1), repeat=len(sides)):
            number = torch.zeros_like(sides[0][0])
            share = torch.ones_like(sides[0][2])
            for n, (low, high, part), upper in zip(self.shape, sides, corner, strict=True):
                number = number * n + (high if upper else low)
                share = share * (part if upper else 1 - part)
            index.append(number)
            weight.append(share)
        return torch.stack(index, -1), torch.stack(weight, -1)

    def _between(self, i: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The points below and above along one axis, and how far one is towards the one above."""
        points, turn = self.points[i], self.turns[i]
        if turn is not None:
            points = torch.cat([points, points[:1] + turn])
            x = points[0] + (x - points[0]) % turn
        x = x.clamp(points[0], points[-1])
        low = (torch.searchsorted(points, x.contiguous(), right=True) - 1).clamp(0, len(points) - 2)
        part = (x - points[low]) / (points[low + 1] - points[low])
        return low, (low + 1) % self.shape[i], part
