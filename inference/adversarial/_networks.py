"""Discriminators of transitions as networks, for problems that can only be stepped."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from cai.networks.perceptron import perceptron
from cai.policies.observation import Numbers, View
from cai.rewards.linear_reward import LinearReward
from cai.rewards.neural_reward import NeuralReward
from cai.rewards.places import value_at
from cai.rewards.tabular_reward import TabularReward


class StateNetwork(nn.Module):
    """(s, a) -> a number, a network of the state alone.

    Args:
        problem: the model or environment, of which the space of states is kept.
        hidden: widths of the hidden layers.
    """

    def __init__(self, problem: Any, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self._view = View(problem)
        self._event = len(problem.initial.event_shape)
        self.network = perceptron((self._view.size, *hidden, 1))

    def forward(self, s: Tensor, a: Tensor) -> Tensor:
        """One number for each state."""
        dtype = next(self.network.parameters()).dtype
        found: Tensor = self.network(self._view.features(s, dtype))
        return found.squeeze(-1).double()


class PairNetwork(nn.Module):
    """(s, a) -> a number, a network of the state and the action.

    Args:
        problem: the model or environment.
        hidden: widths of the hidden layers.
    """

    def __init__(self, problem: Any, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self._view = View(problem)
        self._numbers = Numbers(problem.prior(problem.initial.sample(), 0))
        self.network = perceptron((self._view.size + self._numbers.size, *hidden, 1))

    def forward(self, s: Tensor, a: Tensor) -> Tensor:
        """One number for each state and action."""
        dtype = next(self.network.parameters()).dtype
        both = self._view.features(s, dtype), self._numbers(a).to(dtype)
        found: Tensor = self.network(torch.cat(both, -1))
        return found.squeeze(-1).double()


class _Weighted(nn.Module):
    """A linear reward, whose weights are parameters."""

    def __init__(self, reward: LinearReward) -> None:
        super().__init__()
        self.given = reward
        begun = list((reward.weights or dict.fromkeys(reward.names, 0.0)).values())
        self.weights = nn.Parameter(torch.tensor(begun, dtype=torch.float64))

    def forward(self, s: Tensor, a: Tensor, s_next: Tensor) -> Tensor:
        """r + r⁺, reward units."""
        total = value_at(self.given.offset, s, a).double()
        paid: list[tuple[Any, tuple[Tensor, ...]]]
        paid = [(f, (s, a)) for f in self.given.features.values()]
        paid += [(f, (s, a, s_next)) for f in self.given.arrival.values()]
        for weight, (f, at) in zip(self.weights, paid, strict=True):
            total = total + weight * value_at(f, *at).double()
        return total

    def trained(self) -> LinearReward:
        """With its weights."""
        return self.given.weighted(self.weights.detach())


class _Entries(nn.Module):
    """A reward that is free in each state, or each state and action."""

    def __init__(self, reward: TabularReward, sizes: tuple[int, int]) -> None:
        super().__init__()
        self.given = reward
        shape = sizes if reward.of == "action" else sizes[:1]
        begun = torch.zeros(shape) if reward.values is None else reward.values
        self.values = nn.Parameter(begun.detach().double().clone())

    def forward(self, s: Tensor, a: Tensor, s_next: Tensor) -> Tensor:
        """r, reward units."""
        at = (s.long(),) if self.given.of == "state" else (s.long(), a.long())
        return value_at(self.given.offset, s, a).double() + self.values[at]

    def trained(self) -> TabularReward:
        """With its numbers."""
        values = self.values.detach().clone()
        return TabularReward(self.given.of, self.given.offset, values)


class _Modules(nn.Module):
    """A reward of modules, of which copies are trained."""

    def __init__(self, reward: NeuralReward) -> None:
        super().__init__()
        self.module, self.arrival = copy.deepcopy((reward.module, reward.arrival))
        self.offset = reward.offset

    def forward(self, s: Tensor, a: Tensor, s_next: Tensor) -> Tensor:
        """r + r⁺, reward units."""
        held = self.trained()
        return held(s, a) + held.on_arrival(s, a, s_next)

    def trained(self) -> NeuralReward:
        """With its modules."""
        return NeuralReward(self.module, self.arrival, self.offset)


def _part(reward: Any, sizes: tuple[int, int] | None) -> nn.Module:
    if isinstance(reward, LinearReward):
        return _Weighted(reward)
    if isinstance(reward, TabularReward):
        assert sizes is not None
        return _Entries(reward, sizes)
    return _Modules(reward)


class TransitionDiscriminator(nn.Module):
    """f(s, a, s') in nats; the log-odds are f - log π/p.

    For AIRL f = (r + γ Φ(s') - Φ(s))/α with a network Φ; else a network of (s, a). After a
    termination s' is an absorbing state, whose reward and Φ are parameters of their own. At a
    finite horizon Φ is the final reward, and the Φ of the absorbing state is in proportion to the
    steps that remain.

    Args:
        problem: the model or environment.
        reward: r; None for a network of (s, a) without an r.
        hidden: widths of the hidden layers.
        horizon: T, or None.
        sizes: S and A where both are finitely many.
        ends: whether the absorbing state counts.
    """

    def __init__(
        self,
        problem: Any,
        reward: Any,
        hidden: tuple[int, ...],
        horizon: int | None,
        sizes: tuple[int, int] | None,
        ends: bool,
    ) -> None:
        super().__init__()
        self._alpha, self._gamma = float(problem.temperature), float(problem.discount)
        self._horizon, self._ends = horizon, ends
        self._final = getattr(problem, "final_rewards", None) if horizon else None
        self._view, timed = View(problem), horizon is not None
        self._timed = timed
        self.potential = self.pairs = self.reward = None
        if reward is None:
            self.pairs = PairNetwork(problem, hidden)
        else:
            self.reward = _part(reward, sizes)
            self.potential = perceptron((self._view.size + timed, *hidden, 1))
        self.absorbed = nn.Parameter(torch.zeros(2, dtype=torch.float64))  # r and Φ, nats

    def phi(self, t: Any, s: Tensor) -> Tensor:
        """Φ/α, nats, before the horizon."""
        assert self.potential is not None
        dtype = next(self.potential.parameters()).dtype
        found: Tensor = self.potential(self._view.inputs(t, s, dtype, self._timed))
        return found.squeeze(-1).double()

    def forward(self, s: Tensor, t: Tensor, a: Tensor, s_next: Tensor, ended: Tensor) -> Tensor:
        """f of transitions (n,), nats.

        Args:
            s: (n,) + event shape.
            t: (n,), steps.
            a: (n,) + event shape.
            s_next: (n,) + event shape.
            ended: (n,), boolean: whether the episode terminated, before any horizon.
        """
        if self.pairs is not None:
            found: Tensor = self.pairs(s, a)
            return found
        assert self.reward is not None
        paid = self.reward(s, a, s_next) / self._alpha
        after = self.phi(t + 1, s_next)
        if self._horizon is not None:
            last = t + 1 >= self._horizon
            known = 0.0 if self._final is None else self._final(s_next).double() / self._alpha
            after = torch.where(last, known, after)
        after = torch.where(ended, self._over(t + 1), after)
        return paid + self._gamma * after - self.phi(t, s)

    def _over(self, t: Tensor) -> Tensor:
        """Φ/α of the absorbing state."""
        phi = self.absorbed[1] * float(self._ends)
        return phi * self._left(t)

    def _left(self, t: Tensor) -> Tensor:
        if self._horizon is None:
            return torch.ones(t.shape, dtype=torch.float64)
        return (1 - t / self._horizon).clamp(min=0.0).double()

    def staying(self, t: Tensor) -> Tensor:
        """f of a step in the absorbing state, where there is nothing to choose, nats."""
        if self.pairs is not None:
            return self.absorbed[0].expand(t.shape)
        return self.absorbed[0] + self._gamma * self._over(t + 1) - self._over(t)

    def to_come(self, t: Tensor) -> Tensor:
        """Σ_k γ^k f of all steps in the absorbing state that follow step t, nats."""
        steps, count = self.steps_after(t), self.counted_after(t)
        found = self.absorbed[0] * count
        if self.pairs is None:  # what Φ adds telescopes, to zero at the horizon
            left = self._over(t + 1)
            found = found - self._gamma * left
        return torch.where(steps > 0, found, 0.0)

    def steps_after(self, t: Tensor) -> Tensor:
        """How many steps follow an episode that terminated after step t; infinity for all."""
        if self._horizon is None:
            return torch.full(t.shape, torch.inf, dtype=torch.float64)
        return (self._horizon - 1 - t).clamp(min=0).double()

    def counted_after(self, t: Tensor) -> Tensor:
        """Σ_k γ^k over these steps, from the next one on; 0 where they do not count."""
        gamma, m = self._gamma, self.steps_after(t)
        if not self._ends:
            return torch.zeros(t.shape, dtype=torch.float64)
        return m if gamma == 1 else gamma * (1 - gamma**m) / (1 - gamma)
