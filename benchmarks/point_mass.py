"""A point mass with drag among walls, the body of ``two_directions`` and ``pretraining``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

import cai

Box: TypeAlias = tuple[Sequence[float], Sequence[float]]
"""The lower and the upper corner of a wall or of a room, with one number for each direction."""

_START = 0.05  # the standard deviation of the first position


def point_mass(
    pays: Callable[[Tensor, Tensor], Tensor],
    start: Sequence[float],
    *,
    drag: float,
    force: float,
    discount: float,
    temperature: float,
    dt: float = 1.0,
    room: Box | None = None,
    walls: Sequence[Box] = (),
    over: Callable[[Tensor], Tensor] | None = None,
    shortened: bool = False,
) -> cai.TrajectoryModel:
    """A mass that begins at rest, on a line or on a plane, without an end.

        v' = (1 - drag) v + force a,   p' = p + dt v',   a ∈ [-1, 1]^n

    The state is (p, v). The top speed in each direction is force/drag. A move against a wall ends
    at the wall, with speed zero across it and the speed along it unchanged; first the first
    coordinate moves, then the second.

    Args:
        pays: (s, s') -> the reward of a step.
        start: where an episode begins, up to a standard deviation of 0.05.
        drag: the share of the speed that is lost in a step.
        force: the speed that a step of full force adds.
        discount: γ.
        temperature: α.
        dt: the duration of a step.
        room: the box that the mass cannot leave; None for no limits.
        walls: boxes through which it cannot move; it slides along their faces, so that those that
            close a gap must overlap, and reach beyond the room.
        over: s -> whether an episode is over; the mass then stays where it is.
        shortened: whether forces longer than 1 are shortened to 1, so that no direction is faster.
    """
    middle, n = torch.tensor(start, dtype=torch.float64), len(start)
    corners = torch.tensor(walls, dtype=torch.float64).reshape(-1, 2, n)
    edges = torch.tensor([[-torch.inf] * n, [torch.inf] * n] if room is None else room).double()
    mass = _Mass(corners, edges, drag, force, dt, pays, over, shortened)
    deviation = torch.tensor([_START] * n + [1e-6] * n, dtype=torch.float64)
    high = torch.ones(n, dtype=torch.float64)
    return cai.TrajectoryModel(
        initial=dist.Normal(torch.cat([middle, torch.zeros_like(middle)]), deviation).to_event(1),
        dynamics=mass.dynamics,
        reward=0.0,
        arrival_reward=mass.arrival_reward,
        action_prior=dist.Uniform(-high, high).to_event(1),
        horizon=None,
        temperature=temperature,
        discount=discount,
        terminal=over,
    )


@dataclass(frozen=True, eq=False)
class _Mass:
    """The dynamics and the rewards; walls are (K, 2, n), the room is (2, n)."""

    walls: Tensor
    room: Tensor
    drag: float
    force: float
    dt: float
    pays: Callable[[Tensor, Tensor], Tensor]
    over: Callable[[Tensor], Tensor] | None
    shortened: bool

    def dynamics(self, s: Tensor, a: Tensor) -> TorchDistribution:
        n, pull = self.room.shape[-1], a.clamp(-1, 1)
        if self.shortened:
            pull = pull / pull.norm(dim=-1, keepdim=True).clamp(min=1)
        p, v = s[..., :n], (1 - self.drag) * s[..., n:] + self.force * pull
        at, batch = list(p.unbind(-1)), torch.broadcast_shapes(p.shape, v.shape)
        for i in range(n):
            at[i] = self._stopped(at, i, at[i] + self.dt * v[..., i])
        arrives = torch.stack([x.expand(batch[:-1]) for x in at], -1)
        free = (arrives - p - self.dt * v).abs() < 1e-9
        s_next = torch.cat([arrives, torch.where(free, v, 0.0)], -1)
        if self.over is not None:
            s_next = torch.where(self.over(s).unsqueeze(-1), s, s_next)
        return dist.Delta(s_next, event_dim=1, validate_args=False)

    def _stopped(self, at: list[Tensor], i: int, goes_to: Tensor) -> Tensor:
        """Where a move along coordinate i ends, with the other coordinates held."""
        low, high = self.room[:, i]
        goes_to = goes_to.clamp(low, high)
        if not len(self.walls):
            return goes_to
        meets = torch.ones((), dtype=torch.bool)
        for j, x in enumerate(at):
            if j != i:
                x = x.unsqueeze(-1)
                meets = meets & (self.walls[:, 0, j] < x) & (x < self.walls[:, 1, j])
        near, far, x = self.walls[:, 0, i], self.walls[:, 1, i], at[i].unsqueeze(-1)
        above = torch.where(meets & (x <= near), near, torch.inf).amin(-1)
        below = torch.where(meets & (x >= far), far, -torch.inf).amax(-1)
        return torch.maximum(torch.minimum(goes_to, above), below)

    def arrival_reward(self, s: Tensor, a: Tensor, s_next: Tensor) -> Tensor:
        paid = self.pays(s, s_next)
        return paid if self.over is None else torch.where(self.over(s), 0.0, paid)
