"""The cart-pole: keep a pole upright on a cart by pushing the cart."""

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

LEFT, RIGHT = range(2)

_DT = 0.02  # s
_FORCE = 10.0  # N
_GRAVITY, _CART, _POLE, _HALF = 9.8, 1.0, 0.1, 0.5  # m/s², kg, kg, m: half the pole's length
_MAX_POSITION, _MAX_ANGLE = 2.4, math.radians(12)  # m, rad
_MOST_NOISE = 0.1  # a pole that lies at 90° is then 13 deviations away from standing again


def cartpole(
    horizon: int = 500,
    temperature: float = 1.0,
    noise: Any = 0.0,
    continuous: bool = False,
    discount: float = 1.0,
) -> TrajectoryModel:
    """A pole on a cart, to be kept upright by pushing the cart: Gymnasium's CartPole-v1.

    The state is the environment's, (x, ẋ, θ, θ̇) in m, m/s, rad and rad/s, and so are the starts,
    uniform on ±0.05, the two actions, 10 N to the left and to the right, the Euler steps of 0.02 s
    and the reward: 1 for each step until the pole has fallen, which is where |θ| > 12° or
    |x| > 2.4 m, 0 from then on. The state tells whether it has. A fallen pole comes to lie at ±90°
    on a cart at rest and stays there: the end of an episode is a terminal state.

    A count of steps has no gradient that a path could carry. ``continuous=True`` is the same cart
    under a force of any size up to 10 N (larger ones are clipped), with a uniform prior. Its
    episodes do not end, and its reward is

        r(s,a) = exp(-½ (x / 2.4 m)² - ½ (θ / 12°)²),   θ unwrapped,

    which is 1 in the middle and nearly 0 once the pole has fallen: a smooth function, for which
    pathwise gradients are unbiased.

    Args:
        horizon: T; 500 is the environment's limit.
        temperature: α.
        noise: standard deviations of x', ẋ', θ', θ̇' around the step, four numbers or one for all,
            at most 0.1 where episodes end; with 0 there is no noise and p(s'|s,a) is a Delta.
        continuous: a force as the action instead of left and right.
        discount: γ.

    Returns:
        The model, a :class:`cai.TrajectoryModel`.

    Raises:
        ValueError: if an argument is out of range.

    >>> from cai import models
    >>> model = models.cartpole(horizon=10)
    >>> model.initial.event_shape
    torch.Size([4])
    """
    checks.check_flag("continuous", continuous)
    sd = deviations(noise, ("x", "ẋ", "θ", "θ̇"), most=math.inf if continuous else _MOST_NOISE)
    cart = _Cart(sd)
    start = torch.full((4,), 0.05, dtype=torch.float64)
    return TrajectoryModel(
        initial=dist.Uniform(-start, start).to_event(1),
        dynamics=cart.any_force if continuous else cart.left_or_right,
        reward=_nearness if continuous else _upright,
        action_prior=box(_FORCE, 1) if continuous else dist.Categorical(torch.ones(2)),
        horizon=horizon,
        temperature=temperature,
        discount=discount,
        terminal=None if continuous else _fallen,
    )


@dataclass(frozen=True, eq=False)
class _Cart:
    """The dynamics: one Euler step, with process noise around it."""

    noise: Tensor | None

    def left_or_right(self, s: Tensor, a: Tensor) -> TorchDistribution:
        force = torch.where(a == RIGHT, _FORCE, -_FORCE)
        moved = torch.where(_standing(s).unsqueeze(-1), _step(s, force), _at_rest(s))
        return around(moved, self.noise)

    def any_force(self, s: Tensor, a: Tensor) -> TorchDistribution:
        return around(_step(s, a[..., 0].clamp(-_FORCE, _FORCE)), self.noise)


def _upright(s: Tensor, a: Tensor) -> Tensor:
    return _standing(s).double()


def _nearness(s: Tensor, a: Tensor) -> Tensor:
    x, angle = s[..., 0] / _MAX_POSITION, s[..., 2] / _MAX_ANGLE
    return torch.exp(-0.5 * (x**2 + angle**2))


def _standing(s: Tensor) -> Tensor:
    x, _, angle, _ = s.unbind(-1)
    return (x.abs() <= _MAX_POSITION) & (angle.abs() <= _MAX_ANGLE)


def _fallen(s: Tensor) -> Tensor:
    return ~_standing(s)


def _step(s: Tensor, force: Tensor) -> Tensor:
    """One Euler step (Barto, Sutton and Anderson 1983; Florian 2007, without friction)."""
    _, speed, angle, spin = s.unbind(-1)
    sin, cos = angle.sin(), angle.cos()
    mass, moment = _CART + _POLE, _POLE * _HALF
    push = torch.addcmul(force, spin * spin, sin, value=moment) / mass
    length = (cos * cos).mul_(-_HALF * _POLE / mass).add_(_HALF * 4 / 3)
    turn = (_GRAVITY * sin).addcmul(cos, push, value=-1) / length
    pull = torch.addcmul(push, turn, cos, value=-moment / mass)
    slopes = torch.broadcast_tensors(speed, pull, spin, turn)
    return s.add(torch.stack(slopes, -1), alpha=_DT)


def _at_rest(s: Tensor) -> Tensor:
    """Where a fallen pole lies: at ±90°, on the side to which it leans."""
    x, angle = s[..., 0], s[..., 2]
    zero = torch.zeros_like(x)
    flat = torch.full_like(angle, math.pi / 2).copysign(angle)
    return torch.stack([x, zero, flat, zero], -1)
