"""The ledge: the smallest model with an optimism problem."""

from __future__ import annotations

from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from cai import checks
from cai.program.layout import Layout
from cai.program.trajectory import TrajectoryModel

START, BEND, LAST_BEND, HOME, RAVINE = range(5)
SHORT_CUT, PATH = range(2)

_ONWARD = torch.tensor([BEND, LAST_BEND, HOME, HOME, RAVINE])
_STEP_REWARD = torch.tensor([-1.0, -1.0, -1.0, 0.0, 0.0], dtype=torch.float64)


def ledge(
    horizon: int | None = 4,
    temperature: float = 1.0,
    gives_way: float = 0.5,
    fall_reward: float = -6.0,
    discount: float = 1.0,
) -> TrajectoryModel:
    """Five states: a path home in three steps, or a ledge in one, which gives way half the time.

    Every step on foot costs 1. From the start, the short cut leads home at once or, with
    probability ``gives_way``, into the ravine, which costs 6 more. On average that is worse than
    the path (-4 against -3); seen from a future that turned out well it looks better, since the
    ledge must then have held. All rewards are ≤ 0, so that ``optimality="bernoulli"`` works too.

    Args:
        horizon: T; four steps show everything.
        temperature: α.
        gives_way: the probability that the ledge gives way, the latent site ``gives_way``.
        fall_reward: r⁺ on arrival in the ravine.
        discount: γ.

    Returns:
        The model, a :class:`cai.TrajectoryModel`.

    Raises:
        ValueError: if ``gives_way`` is not a probability, or another argument is out of range.

    >>> from cai import models
    >>> model = models.ledge()
    >>> model.layout.states
    ('start', 'bend', 'last bend', 'home', 'ravine')
    """
    fall_reward = checks.check_payment("fall_reward", fall_reward)
    gives_way = checks.check_probability("gives_way", gives_way)
    ledge = _Ledge(gives_way, fall_reward)
    return TrajectoryModel(
        initial=dist.Categorical(torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0])),
        dynamics=ledge.dynamics,
        reward=ledge.reward,
        arrival_reward=ledge.arrival_reward,
        action_prior=dist.Categorical(torch.ones(2)),
        horizon=horizon,
        temperature=temperature,
        discount=discount,
        layout=Layout(
            states=("start", "bend", "last bend", "home", "ravine"),
            actions=("short cut", "path"),
        ),
    )


@dataclass(frozen=True)
class _Ledge:
    """The dynamics and the rewards."""

    gives_way: float
    fall_reward: float

    def dynamics(self, s: Tensor, a: Tensor) -> dist.Delta:
        breaks = pyro.sample("gives_way", dist.Bernoulli(self.gives_way)).bool()
        landing = torch.where(breaks, RAVINE, HOME)
        return dist.Delta(torch.where((s == START) & (a == SHORT_CUT), landing, _ONWARD[s]))

    def reward(self, s: Tensor, a: Tensor) -> Tensor:
        return _STEP_REWARD[s]

    def arrival_reward(self, s: Tensor, a: Tensor, s_next: Tensor) -> Tensor:
        return torch.where((s_next == RAVINE) & (s != RAVINE), self.fall_reward, 0.0)
