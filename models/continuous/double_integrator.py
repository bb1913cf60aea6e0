"""A point with inertia among obstacles on a plane: linear dynamics, nonlinear reward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from cai import checks
from cai.models.continuous.process_noise import around, deviations
from cai.numerics import arrays
from cai.program.trajectory import TrajectoryModel

_DT = 0.1  # s
_GOAL = torch.tensor([3.0, 0.0], dtype=torch.float64)  # m
_TWO_GATES = ((0.0, 2.4, 0.6), (0.0, 0.0, 0.6), (0.0, -2.4, 0.6))


def double_integrator(
    horizon: int = 50,
    temperature: float = 1.0,
    noise: Any = 0.02,
    obstacles: Any = _TWO_GATES,
    obstacle_cost: float = 50.0,
    acceleration: float = 3.0,
    discount: float = 1.0,
) -> TrajectoryModel:
    """A point with inertia that is to come to rest at (3, 0), past obstacles on its way.

        p' = p + v dt + ½ a dt²,   v' = v + a dt,   dt = 0.1 s,   p(a) = N(0, acceleration²)
        r(s,a) = -dt (½ |p - goal|² + obstacle_cost Σ_k exp(-½ |p - c_k|² / ρ_k²))
        r_T(s) = -5 (|p - goal|² + |v|²)

    The state is (p, v), position (m) and velocity (m/s) in the plane; it starts at rest around
    (-3, 0), with deviations of 0.1. The action is the acceleration (m/s²). It is not bounded, and
    what it costs is its prior: log p(a) = -½ |a|² / acceleration², in nats. So without obstacles
    this is ``models.linear_gaussian``, whose answer is exact. The default obstacles leave two
    gates, equally good: going straight on costs 12 nats more.

    Args:
        horizon: T.
        temperature: α.
        noise: standard deviations of x', y' (m) and of their velocities (m/s) after a step, four
            numbers or one for all; with 0 there is no noise and p(s'|s,a) is a Delta.
        obstacles: (K, 3): centre and radius ρ_k (m) of each smooth hill of cost, which is down to
            61 % at ρ_k and to 1 % at 3 ρ_k; ``()`` for none.
        obstacle_cost: reward units per second in the middle of an obstacle.
        acceleration: the standard deviation of the action prior in each direction, m/s².
        discount: γ.

    Returns:
        The model, a :class:`cai.TrajectoryModel`.

    Raises:
        ValueError: if an argument is out of range.

    >>> from cai import models
    >>> model = models.double_integrator(horizon=10)
    >>> model.initial.event_shape
    torch.Size([4])
    """
    sd = deviations(noise, ("x", "y", "ẋ", "ẏ"))
    acceleration = checks.check_positive("acceleration", acceleration)
    obstacle_cost = checks.check_positive("obstacle_cost", obstacle_cost)
    centres, radii = _hills(obstacles)
    point = _Point(centres, radii, obstacle_cost, sd)
    return TrajectoryModel(
        initial=dist.Normal(torch.tensor([-3.0, 0.0, 0.0, 0.0]).double(), 0.1).to_event(1),
        dynamics=point.dynamics,
        reward=point.reward,
        final_reward=point.final_reward,
        action_prior=dist.Normal(torch.zeros(2).double(), acceleration).to_event(1),
        horizon=horizon,
        temperature=temperature,
        discount=discount,
    )


@dataclass(frozen=True, eq=False)
class _Point:
    """The dynamics and the rewards.

    Attributes:
        centres: (K, 2), m, of the obstacles.
        radii: (K,), m.
        obstacle_cost: reward units per second in the middle of one.
        noise: standard deviations, or None.
    """

    centres: Tensor
    radii: Tensor
    obstacle_cost: float
    noise: Tensor | None

    def dynamics(self, s: Tensor, a: Tensor) -> TorchDistribution:
        p, v = s[..., :2], s[..., 2:]
        moved = torch.cat([p + _DT * v + 0.5 * _DT**2 * a, v + _DT * a], -1)
        return around(moved, self.noise)

    def reward(self, s: Tensor, a: Tensor) -> Tensor:
        p = s[..., :2]
        squares = (p.unsqueeze(-2) - self.centres).square().sum(-1) / self.radii**2
        hills = self.obstacle_cost * torch.exp(-0.5 * squares).sum(-1)
        return -_DT * (0.5 * (p - _GOAL).square().sum(-1) + hills)

    def final_reward(self, s: Tensor) -> Tensor:
        return -5.0 * ((s[..., :2] - _GOAL).square().sum(-1) + s[..., 2:].square().sum(-1))


def _hills(obstacles: Any) -> tuple[Tensor, Tensor]:
    """Centres (K, 2) and radii (K,)."""
    expected = "rows of three finite numbers"
    rows = arrays.numbers("obstacles", obstacles, expected)
    rows = rows.reshape(0, 3) if rows.dim() and not len(rows) else rows
    if rows.dim() != 2 or rows.shape[1] != 3 or not rows.isfinite().all():
        checks.refuse("obstacles", expected, repr(obstacles), "each is (x, y, radius); () is none")
    if not (rows[:, 2] > 0).all():
        checks.refuse("obstacles", "radii above 0", repr(obstacles), "or drop those")
    return rows[:, :2], rows[:, 2]
