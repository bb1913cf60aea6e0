"""Learnt critics: estimates of the soft reward to go of each step and state."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cai import checks
from cai.distributions.exact_scores import support_size
from cai.networks.perceptron import perceptron
from cai.policies.observation import View
from cai.program.trajectory import TrajectoryModel

_MEMORY = 0.95  # decay per training step: a memory of about twenty steps
_PULL = 5.0  # visits at which a state's mean weighs as much as the mean of all states
_RATE = 1e-2  # learning rate of the critic's Adam, whose targets have standard deviation one


class TabularCritic(nn.Module):
    """A running mean of the reward to go of each step and state, shrunk to the mean of all states.

    Attributes:
        visits: (T, S), exponentially decaying counts of visits.
        sums: (T, S), nats: sums of the rewards to go, with the same decay.
    """

    visits: Tensor
    sums: Tensor

    def __init__(self, model: TrajectoryModel) -> None:
        super().__init__()
        T, S = checks.finite_horizon(model, "a critic"), support_size(model.initial)
        assert S is not None
        self.register_buffer("visits", torch.zeros(T, S, dtype=torch.float64))
        self.register_buffer("sums", torch.zeros(T, S, dtype=torch.float64))

    def forward(self, t: Tensor, s: Tensor) -> Tensor:
        """v_t(s), nats; zero before there is anything to go by."""
        level = self.sums.sum(1, keepdim=True) / self.visits.sum(1, keepdim=True).clamp(min=1e-9)
        values: Tensor = (self.sums + _PULL * level) / (self.visits + _PULL)
        return values[t, s.long()]

    def learn(self, states: Tensor, to_go: Tensor, alive: Tensor) -> None:
        """Counts the visits while alive, and the rewards to go."""
        t = torch.arange(states.shape[1]).expand(alive.shape)[alive]
        where = t, states.long()[alive]
        for kept, new in ((self.visits, alive.double()), (self.sums, to_go)):
            kept.mul_(_MEMORY).index_put_(where, new[alive], accumulate=True)


class NeuralCritic(nn.Module):
    """A network of (t, s) for the reward to go, standardised by each step's mean and one spread.

    Attributes:
        level: (T,), nats: the running mean.
        spread: (), nats: the running standard deviation about it.
    """

    level: Tensor
    spread: Tensor

    def __init__(self, model: TrajectoryModel, hidden: tuple[int, ...] = (64, 64)) -> None:
        super().__init__()
        T = checks.finite_horizon(model, "a critic")
        self._view = View(model)
        self.network = perceptron((1 + self._view.size, *hidden, 1))
        self.register_buffer("level", torch.zeros(T, dtype=torch.float64))
        self.register_buffer("spread", torch.zeros((), dtype=torch.float64))
        self._adam = torch.optim.Adam(self.network.parameters(), lr=_RATE)

    def forward(self, t: Tensor, s: Tensor) -> Tensor:
        """v_t(s), nats; zero before there is anything to go by."""
        return self.level[t] + self.spread * self._shape(t, s)

    def learn(self, states: Tensor, to_go: Tensor, alive: Tensor) -> None:
        """Updates mean and spread, and takes one step of Adam on the standardised target."""
        if not alive.any():
            return
        kept = _MEMORY if self.spread > 0 else 0.0
        count = alive.sum(0)
        level = torch.where(alive, to_go, 0.0).sum(0) / count.clamp(min=1)
        level = torch.where(count > 0, level, self.level)
        spread = (to_go - level)[alive].square().mean().sqrt()
        self.level.mul_(kept).add_((1 - kept) * level)
        self.spread.mul_(kept).add_((1 - kept) * spread)
        target = ((to_go - self.level) / self.spread.clamp(min=1e-9))[alive]
        t = torch.arange(states.shape[1]).expand(alive.shape)[alive]
        with torch.enable_grad():
            self._adam.zero_grad()
            (self._shape(t, states[alive]) - target).square().mean().backward()
            self._adam.step()

    def get_extra_state(self) -> dict[str, Any]:
        """The state of the optimiser, for checkpoints."""
        return self._adam.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restores the state of the optimiser."""
        self._adam.load_state_dict(state)

    def _shape(self, t: Tensor, s: Tensor) -> Tensor:
        dtype = next(self.network.parameters()).dtype
        x: Tensor = self.network(self._view.timed(t, s, dtype))
        return x.squeeze(-1).double()
