"""Four goals around a point: the smallest continuous problem with several best ways to act."""

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

GOALS = torch.tensor([[5.0, 0.0], [-5.0, 0.0], [0.0, 5.0], [0.0, -5.0]], dtype=torch.float64)

_EDGE = 7.0  # the plane is a square of ±7
_REACHED = 1.0  # a goal is reached where it is closer than this
_MOST_NOISE = 0.1  # a mass in the middle of a goal is then ten deviations from its edge


def multigoal(
    horizon: int = 30,
    temperature: float = 10.0,
    noise: Any = 0.0,
    goal_reward: float | None = 10.0,
    discount: float = 1.0,
) -> TrajectoryModel:
    """A point mass on a plane with a goal in each of four directions (Haarnoja et al. 2017, 5.1).

        s' = clip(s + a, ±7),   a ∈ [-1, 1]²,   p(s_0) = N(0, 0.1²)
        r(s,a) = -30 |a|²
        r⁺(s,a,s') = -min_g |s' - g|²,   + goal_reward where that is closer than 1 to a goal

    State and action are a position and a step. The goals lie at (±5, 0) and (0, ±5), and none is
    better than another: the best policy goes to each of them a quarter of the time, which a
    unimodal one can do only by a first step in any direction. An episode ends at a goal: the mass
    is moved to its centre and stays there without further rewards. This is the environment
    that was published with the paper; the paper itself calls its reward a mixture of Gaussians. The
    authors multiply rewards by 0.1, which is the temperature of 10 here, and discount by 0.99.

    The action prior is uniform on the square; steps outside it are clipped.

    Args:
        horizon: T; 30 is the longest episode of the authors' example.
        temperature: α.
        noise: standard deviations of the two coordinates of s' around the step above, two numbers
            or one for both, at most 0.1 where episodes end; with 0, as published, there is no
            noise and p(s'|s,a) is a Delta.
        goal_reward: paid on arrival at a goal, where the episode ends. None: it does not end there,
            and every step costs the distance to the goal; the return is then a continuous
            function of the actions, as pathwise gradients need it. A temperature of 1 is then
            better: at 10 the mass drifts about the goals.
        discount: γ.

    Returns:
        The model, a :class:`cai.TrajectoryModel`.

    Raises:
        ValueError: if an argument is out of range.

    >>> from cai import models
    >>> model = models.multigoal()
    >>> model.initial.event_shape
    torch.Size([2])
    """
    sd = deviations(noise, ("x", "y"), most=math.inf if goal_reward is None else _MOST_NOISE)
    if goal_reward is not None:
        goal_reward = checks.check_payment("goal_reward", goal_reward)
    mass = _Mass(goal_reward, sd)
    return TrajectoryModel(
        initial=dist.Normal(torch.zeros(2, dtype=torch.float64), 0.1).to_event(1),
        dynamics=mass.dynamics,
        reward=mass.reward,
        arrival_reward=mass.arrival_reward,
        action_prior=box(1.0, 2),
        horizon=horizon,
        temperature=temperature,
        discount=discount,
        terminal=None if goal_reward is None else mass.reached,
    )


@dataclass(frozen=True, eq=False)
class _Mass:
    """The dynamics and the rewards."""

    goal_reward: float | None
    noise: Tensor | None

    def dynamics(self, s: Tensor, a: Tensor) -> TorchDistribution:
        moved = (s + a.clamp(-1, 1)).clamp(-_EDGE, _EDGE)
        square, nearest = _squares(s).min(-1)
        ended = self._over(square).unsqueeze(-1)
        return around(torch.where(ended, GOALS[nearest], moved), self.noise)

    def reward(self, s: Tensor, a: Tensor) -> Tensor:
        effort = 30 * a.clamp(-1, 1).square().sum(-1)
        return torch.where(self.reached(s), 0.0, -effort)

    def arrival_reward(self, s: Tensor, a: Tensor, s_next: Tensor) -> Tensor:
        square = _squares(s_next).amin(-1)
        paid = torch.where(self._over(square), (self.goal_reward or 0.0) - square, -square)
        return torch.where(self.reached(s), 0.0, paid)

    def reached(self, s: Tensor) -> Tensor:
        """Whether the mass is at a goal."""
        return self._over(_squares(s).amin(-1))

    def _over(self, square: Tensor) -> Tensor:
        """Whether the episode has ended, by the squared distance to the nearest goal."""
        return square < (_REACHED**2 if self.goal_reward is not None else 0.0)


def _squares(s: Tensor) -> Tensor:
    """The squared distances to the goals, (..., 4)."""
    return (s.unsqueeze(-2) - GOALS).square().sum(-1)
