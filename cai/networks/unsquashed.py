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
        x = self._placed(u)
        x = x.reshape(*x.shape[:-1], *self._shape)
        return x if self._edge is None else self._edge(x)

    def draws(self, q: Any, shape: torch.Size) -> Tensor:
        """Coordinates (…, m) of draws of a distribution over actions, with their gradient.

        They are drawn there, without an inverse, if the last transform of q is onto the support.
        """
        if self._edge is None:
            x = q.rsample(shape)
        elif getattr(q, "transforms", [None])[-1] == self._edge:
            x = q.base_dist.rsample(shape)
            for transform in q.transforms[:-1]:
                x = transform(x)
        else:
            x = self._edge.inv(q.rsample(shape))
        x = x.reshape(*x.shape[: x.dim() - len(self._shape)], -1)
        return x if self._edge is not None else (x - self._mean) / self._scale

    def log_slope(self, u: Tensor, a: Tensor) -> Tensor:
        """log |∂a/∂u|, (…), up to a constant."""
        if self._edge is None:
            return torch.zeros(u.shape[:-1])
        slopes = self._edge.log_abs_det_jacobian(self._placed(u).reshape(a.shape), a)
        return slopes.reshape(*u.shape[:-1], -1).sum(-1)

    def _placed(self, u: Tensor) -> Tensor:
        return u.to(self._mean.dtype) if self._edge is not None else self._mean + self._scale * u
