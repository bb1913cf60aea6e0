"""A learnt critic as the baseline of the score function, and generalised advantages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cai import checks
from cai.distributions.support import support_size
from cai.inference.gradients.gradient import Estimator
from cai.inference.gradients.score_function import scored
from cai.policies.neural import perceptron
from cai.policies.observation import View
from cai.program.calling import check_policy
from cai.program.trajectory import TrajectoryModel
from cai.tables.table import Table

_MEMORY = 0.95  # what a critic keeps of the steps of training before: that of some twenty
_PULL = 5.0  # visits that a state's mean must have to weigh as much as that of all states
_RATE = 1e-2  # of the critic's Adam, whose targets have a spread of one


def critic_gradient(
    model: TrajectoryModel | Table, policy: nn.Module, particles: int, *, lam: float = 1.0
) -> Estimator:
    """The score function weighted by advantages over a critic v (Schulman et al. 2016, GAE).

        A_t = Σ_k λ^k δ_{t+k},    δ_t = (r + r⁺)/α + log p(a_t|s_t) - log q(a_t|s_t)
                                        + v_{t+1}(s_{t+1}) - v_t(s_t)

    The critic is a table of means for finitely many states, else a network of (t, s). It learns the
    soft reward to go, in nats, from trajectories that its values have been used for: so λ = 1, the
    reward to go less v_t(s_t), is unbiased however wrong the critic is. With λ < 1 what comes late
    is left to the critic: less noise, and biased as far as the critic errs. From each advantage the
    mean of the other particles is taken, so that a critic that knows nothing yet does no harm.

    As an estimator of ``fit``: ``estimator="critic"``, or ``functools.partial(critic_gradient,
    lam=0.95)`` for another λ.

    Args:
        model: any program.
        policy: any that can be scored along a trajectory.
        particles: trajectories a call, at least two.
        lam: λ in [0, 1].

    Raises:
        ValueError: where λ is none, the horizon is infinite, or the model is a table.
    """
    checks.check_share("lam", lam, "1 is unbiased")
    if isinstance(model, Table):
        checks.refuse("critic", "a model whose program can be run", "its table", "pass the model")
    check_policy(policy)
    checks.check_count("particles", particles)
    if particles < 2:
        checks.refuse("particles", "at least 2", "1", "each is a baseline of the others")
    checks.finite_horizon(model, "fit")
    finite = support_size(model.initial) is not None
    critic: TabularCritic | NeuralCritic = TabularCritic(model) if finite else NeuralCritic(model)
    return _Estimator(model, policy, particles, lam, critic)


@dataclass(frozen=True, eq=False)
class _Estimator:
    """The gradient, and the critic that it learns."""

    model: TrajectoryModel
    policy: nn.Module
    particles: int
    lam: float
    module: TabularCritic | NeuralCritic  # see Estimator

    def __call__(self) -> float:
        drawn = scored(self.model, self.policy, self.particles)
        alive, s = drawn.alive, drawn.paths.states[:, :-1]
        with torch.no_grad():
            v = torch.where(alive, self.module(torch.arange(s.shape[1]), s), 0.0)
            ends = (drawn.paths.final_rewards / self.model.temperature).unsqueeze(1)
            residuals = drawn.paid + torch.cat([v[:, 1:], ends], 1) - v
            weight = _less_the_others(_accumulated(residuals, self.lam), alive) / self.particles
        (-(weight * drawn.log_q).sum()).backward()
        self.module.learn(s, drawn.to_go, alive)
        return -drawn.to_go[:, 0].mean().item()


def _accumulated(residuals: Tensor, lam: float) -> Tensor:
    """Σ_k λ^k δ_{t+k}, (n, T)."""
    total, parts = torch.zeros_like(residuals[:, 0]), []
    for residual in reversed(residuals.unbind(1)):
        total = residual + lam * total
        parts.append(total)
    return torch.stack(parts[::-1], 1)


def _less_the_others(advantage: Tensor, alive: Tensor) -> Tensor:
    """Each less the mean of the others that are alive at the step; zero for the dead."""
    advantage = torch.where(alive, advantage, 0.0)
    others = alive.sum(0) - alive.double()
    mean = (advantage.sum(0) - advantage) / others.clamp(min=1)
    return torch.where(alive, advantage - mean, 0.0)


class TabularCritic(nn.Module):
    """The mean reward to go of each step and state, of late; few visits count towards all states'.

    Attributes:
        visits: (T, S), how often each was visited, the past counting less and less.
        sums: (T, S), nats: the rewards to go that were had, weighted likewise.
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
        """Counts the visits of the living, and what they got."""
        t = torch.arange(states.shape[1]).expand(alive.shape)[alive]
        where = t, states.long()[alive]
        for kept, new in ((self.visits, alive.double()), (self.sums, to_go)):
            kept.mul_(_MEMORY).index_put_(where, new[alive], accumulate=True)


class NeuralCritic(nn.Module):
    """A network of (t, s), for the reward to go less the mean of its step, over its spread.

    Attributes:
        level: (T,), nats: the mean of late.
        spread: (), nats: the standard deviation about it, of late.
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
        """Follows the mean and the spread, and takes one step of Adam towards what is left."""
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
        """The state of the optimiser, so that a checkpoint has it."""
        return self._adam.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Goes on from there."""
        self._adam.load_state_dict(state)

    def _shape(self, t: Tensor, s: Tensor) -> Tensor:
        dtype = next(self.network.parameters()).dtype
        x: Tensor = self.network(self._view.timed(t, s, dtype))
        return x.squeeze(-1).double()
