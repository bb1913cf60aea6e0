"""The lottery: a ticket that almost never wins."""

from __future__ import annotations

from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from cai import checks
from cai.program.layout import Layout
from cai.program.trajectory import TrajectoryModel

KIOSK, RICH = range(2)
SAVE, BUY = range(2)


def lottery(
    horizon: int | None = 10,
    temperature: float = 1.0,
    chance: float = 0.001,
    prize: float = 20.0,
    discount: float = 1.0,
) -> TrajectoryModel:
    """Two states: every step save, or buy a ticket for 1 that wins 20 with probability 0.001.

    A ticket returns -0.98 on average. But exp(prize) · chance is in the hundreds of thousands, and
    so the exact posterior is sure to win.

    Args:
        horizon: T, the number of times a ticket can be bought.
        temperature: α.
        chance: the probability that a ticket wins, the latent site ``wins``.
        prize: r⁺ on becoming rich.
        discount: γ.

    Returns:
        The model, a :class:`cai.TrajectoryModel`.

    Raises:
        ValueError: if ``chance`` is not a probability, or another argument is out of range.

    >>> from cai import models
    >>> model = models.lottery()
    >>> model.layout.actions
    ('save', 'buy')
    """
    prize = checks.check_payment("prize", prize)
    chance = checks.check_probability("chance", chance)
    lottery = _Lottery(chance, prize)
    return TrajectoryModel(
        initial=dist.Categorical(torch.tensor([1.0, 0.0])),
        dynamics=lottery.dynamics,
        reward=lottery.reward,
        arrival_reward=lottery.arrival_reward,
        action_prior=dist.Categorical(torch.ones(2)),
        horizon=horizon,
        temperature=temperature,
        discount=discount,
        layout=Layout(states=("kiosk", "rich"), actions=("save", "buy")),
    )


@dataclass(frozen=True)
class _Lottery:
    """The dynamics and the rewards."""

    chance: float
    prize: float

    def dynamics(self, s: Tensor, a: Tensor) -> dist.Delta:
        wins = pyro.sample("wins", dist.Bernoulli(self.chance)).bool()
        return dist.Delta(torch.where((s == KIOSK) & (a == BUY) & wins, RICH, s))

    def reward(self, s: Tensor, a: Tensor) -> Tensor:
        return torch.where((s == KIOSK) & (a == BUY), -1.0, 0.0)

    def arrival_reward(self, s: Tensor, a: Tensor, s_next: Tensor) -> Tensor:
        return torch.where((s == KIOSK) & (s_next == RICH), self.prize, 0.0)
