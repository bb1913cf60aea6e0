"""Coordinates of continuous actions in which there are no edges."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cai.networks.heads import moments, onto


class Unsquashed:
    """Coordinates u of actions a: of a box or a half line before it is squashed, else a itself.

    Where the support has no edges they come in units of the prior's standard deviation.

    Args:
        prior: the action prior, whose support it is.
    """

    def __init__(self, prior: Any) -> None:
        self._shape, self._edge = prior.event_shape, onto(prior)
        self._mean, self._scale = moments(prior, torch.zeros(1))

    def action(self, u: Tensor) -> Tensor:
        """The actions (…) + event shape of coordinates (…, m)."""
        x = self._mean + self._scale * u
        x = x.reshape(*x.shape[:-1], *self._shape)
        return x if self._edge is None else self._edge(x)

    def of_draw(self, q: Any, a: Tensor) -> Tensor:
        """The coordinates (…, m) of a fresh draw of a distribution, with its gradient.

        Such a draw need not be inverted: the transform that made it remembers what from.
        """
        if self._edge is not None:
            last = getattr(q, "transforms", [None])[-1]
            a = (last if last == self._edge else self._edge).inv(a)
        x = a.reshape(*a.shape[: a.dim() - len(self._shape)], -1)
        return (x - self._mean) / self._scale

    def log_slope(self, u: Tensor, a: Tensor) -> Tensor:
        """log |∂a/∂u|, (…), up to a constant."""
        if self._edge is None:
            return torch.zeros(u.shape[:-1])
        x = (self._mean + self._scale * u).reshape(a.shape)
        slopes = self._edge.log_abs_det_jacobian(x, a)
        return slopes.reshape(*u.shape[:-1], -1).sum(-1)
