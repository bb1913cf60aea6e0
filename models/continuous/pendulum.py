"""The pendulum: swing it up with a torque too weak to lift it, and hold it there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from cai import checks
from cai.models.continuous.process_noise import around, box, deviations
from cai.program.trajectory import TrajectoryModel

_DT, _MAX_SPEED = 0.05, 8.0  # s, rad/s


def pendulum(
    horizon: int = 200,
    temperature: float = 1.0,
    noise: Any = 0.0,
    gravity: float = 10.0,
    max_torque: float = 2.0,
    discount: float = 1.0,
    mass: float = 1.0,
    length: float = 1.0,
) -> TrajectoryModel:
    """A pendulum to swing up and hold, with a limited torque: Gymnasium's Pendulum-v1.

        θ̇' = clip(θ̇ + (3g/(2l) sin θ + 3u/(m l²)) dt, ±8),   θ' = θ + θ̇' dt,   dt = 0.05 s
        r(s,a) = -([θ]² + 0.1 θ̇² + 0.001 u²),   u = clip(a, ±max_torque)

    A uniform rod of mass m and length l, held at one end. θ = 0 is upright, and [θ] the same angle
    in [-π, π); θ itself runs on, so that it counts the turns, and the reward has a kink where the
    rod hangs. The state is (θ, θ̇), not the observation (cos θ, sin θ, θ̇), which a network may be
    given instead. Without noise each step is that of the environment; the starts are its own too,
    uniform on ±π rad and ±1 rad/s.

    The action prior is uniform on the box of torques. With ``dataclasses.replace`` it may be any
    distribution: torques outside the box are clipped, as in the environment.

    Args:
        horizon: T; 200 is the environment's limit.
        temperature: α. From hanging at rest the policy of a fine grid (``cai.on_grid``) gets -338
            at α = 1 and -305 at 0.1.
        noise: standard deviations of θ' (rad) and of θ̇' (rad/s) around the step above, two
            numbers or one for both; with 0 there is no noise and p(s'|s,a) is a Delta.
        gravity: g, m/s².
        max_torque: N m.
        discount: γ.
        mass: m, kg.
        length: l, m.

    Returns:
        The model, a :class:`cai.TrajectoryModel`.

    Raises:
        ValueError: if an argument is out of range.

    >>> import torch
    >>> from cai import models
    >>> model = models.pendulum(horizon=10)
    >>> model.initial.event_shape
    torch.Size([2])

    A torque of 1 N m moves a rod of twice the mass half as fast:

    >>> rest, torque = torch.zeros(2), torch.ones(1)
    >>> model.dynamics(rest, torque).v[1], models.pendulum(mass=2.0).dynamics(rest, torque).v[1]
    (tensor(0.1500), tensor(0.0750))
    """
    sd = deviations(noise, ("θ", "θ̇"))
    gravity = checks.check_positive("gravity", gravity)
    max_torque = checks.check_positive("max_torque", max_torque)
    mass, length = checks.check_positive("mass", mass), checks.check_positive("length", length)
    rod = _Rod(1.5 * gravity / length, 3.0 / (mass * length**2), max_torque, sd)
    start = torch.tensor([math.pi, 1.0], dtype=torch.float64)
    return TrajectoryModel(
        initial=dist.Uniform(-start, start).to_event(1),
        dynamics=rod.dynamics,
        reward=rod.reward,
        action_prior=box(max_torque, 1),
        horizon=horizon,
        temperature=temperature,
        discount=discount,
    )


@dataclass(frozen=True, eq=False)
class _Rod:
    """The dynamics and the reward.

    Attributes:
        fall: 3g/(2l), the angular acceleration of a level rod, rad/s².
        push: 3/(m l²), that by a torque of one N m, rad/s².
        max_torque: N m.
        noise: standard deviations of θ' and θ̇'.
    """

    fall: float
    push: float
    max_torque: float
    noise: Tensor | None

    def dynamics(self, s: Tensor, a: Tensor) -> TorchDistribution:
        angle, speed = s[..., 0], s[..., 1]
        change = (self.fall * angle.sin()).add(self._torque(a), alpha=self.push)
        speed = speed.add(change, alpha=_DT).clamp(-_MAX_SPEED, _MAX_SPEED)
        return around(torch.stack([angle.add(speed, alpha=_DT), speed], -1), self.noise)

    def reward(self, s: Tensor, a: Tensor) -> Tensor:
        angle, speed, torque = s[..., 0], s[..., 1], self._torque(a)
        from_upright = (angle + math.pi).remainder(2 * math.pi) - math.pi
        cost = from_upright.square().addcmul(speed, speed, value=0.1)
        return -cost.addcmul(torque, torque, value=0.001)

    def _torque(self, a: Tensor) -> Tensor:
        return a[..., 0].clamp(-self.max_torque, self.max_torque)
