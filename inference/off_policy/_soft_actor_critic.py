"""A policy, two critics, copies of them that lag behind, and the memory that they learn from."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cai import checks
from cai.inference.learning.learned import Learned
from cai.inference.learning.q_network import follow, of_actions
from cai.inference.off_policy._adam import Adam
from cai.inference.off_policy._expectations import expectations
from cai.inference.off_policy._replay import Replay
from cai.inference.off_policy._twin_critics import TwinCritics
from cai.stepping.source import Transition

_VALUED = 32  # draws of an action whose mean is the value of a state


class SoftActorCritic:
    """The state of soft actor-critic.

    Args:
        policy: (t, s) -> distribution, which is trained.
        critics: which are trained.
        replay: the memory.
        discount: γ.
        batch: how many transitions are drawn for a step of Adam.
        updates: how many steps of Adam follow a step of all copies.
        warm_up: how many transitions are taken before the first of them.
        lag: the share by which the lagging critics move towards the others after each of them.
        learning_rate: that of Adam.

    Attributes:
        taken: how many transitions were seen.
        alpha: the temperature α.
    """

    def __init__(
        self,
        policy: nn.Module,
        critics: TwinCritics,
        replay: Replay,
        discount: float,
        batch: int,
        updates: int,
        warm_up: int,
        lag: float,
        learning_rate: float,
    ) -> None:
        self.policy, self.critics, self.lagging = policy, critics, copy.deepcopy(critics)
        self.discount = discount
        self.replay, self.batch, self.updates = replay, batch, updates
        self.warm_up, self.lag, self.learning_rate = warm_up, lag, learning_rate
        self.taken, self.alpha = 0, 1.0
        self._acts = Adam("sac", policy, learning_rate)
        self._judges = Adam("sac", critics, learning_rate)
        self._lagging, self._rate = list(self.lagging.parameters()), learning_rate

    def learn(self, transition: Transition, share: float) -> float:
        """Remembers one transition of each copy, and takes some steps of Adam.

        Args:
            transition: the transition.
            share: of the learning rate.

        Returns:
            The mean of the critics' squared errors; NaN before the first step.

        Raises:
            ValueError: if a reward is -inf.
            FloatingPointError: if a loss is not finite.
        """
        if transition.reward.isneginf().any():
            advice = "take a large penalty, or soft_q with a table (hidden=None)"
            checks.refuse("reward", "finite ones for a network", "-inf", advice)
        self.replay.add(transition)
        self.taken += len(transition.reward)
        if self.taken < self.warm_up:
            return math.nan
        self._rate = self.learning_rate * share
        losses = [self._update() for _ in range(self.updates)]
        return sum(losses) / len(losses)

    def _update(self) -> float:
        """A step of critics and policy; returns the mean of the critics' squared errors."""
        drawn = self.replay.draw(self.batch)
        assert drawn is not None
        [step] = drawn
        actions = self.critics.actions
        with torch.enable_grad():
            prior = self.critics.prior
            here = expectations(self.policy, prior, step.s, step.t, actions)
            with torch.no_grad():
                after = expectations(self.policy, prior, step.s_next, step.t + 1, actions)
                v = after.value(self.lagging.smaller, self.alpha)
                target = step.reward + self.discount * torch.where(step.ended, 0.0, v)
            found = self.critics(step.s, step.t, step.a)
            if actions is not None:
                found = of_actions(found, step.a)
            squares = torch.where(step.counts, (found - target.to(found.dtype)).square(), 0.0)
            self._judges.step(0.5 * squares.sum(0).mean(), self._rate)
            loss = here.loss(self.critics.smaller, self.alpha)
            self._acts.step(torch.where(step.counts, loss, 0.0).mean(), self._rate)
        follow(self._lagging, self._judges.parameters, self.lag)
        return squares.detach().mean().item()

    @torch.no_grad()
    def divergence(self, s: Tensor, t: Tensor, counts: Tensor) -> float:
        """The mean KL of the policy from the prior in those of n states that count, nats.

        NaN before the first step of Adam; of one action each if they are not finitely many.
        """
        if self.taken < self.warm_up:
            return math.nan
        found = expectations(self.policy, self.critics.prior, s, t, self.critics.actions)
        return found.divergence()[counts].mean().item()

    def learned(self, history: dict[str, Tensor]) -> Learned:
        """The result so far."""
        judged = _Judged(self.policy, self.critics, self.alpha)
        return Learned(self.policy, self.alpha, history, judged.values, judged.action_values)

    def cut(self) -> None:
        """Ends all episodes after the latest step, since others begin."""
        self.replay.cut()

    def parts(self) -> dict[str, Any]:
        """What a checkpoint holds, but for ``taken`` and α."""
        return {
            "policy": self.policy,
            "critics": self.critics,
            "lagging": self.lagging,
            "acts": self._acts.optimiser,
            "judges": self._judges.optimiser,
            "replay": self.replay,
        }


@dataclass(frozen=True, eq=False)
class _Judged:
    """The values of a policy by the mean of two critics, apart from what they were learnt from."""

    policy: nn.Module
    critics: TwinCritics
    alpha: float

    @torch.no_grad()
    def values(self, s: Tensor, t: Any = 0) -> Tensor:
        """E_π[Q - α log π/p] with the mean of both Q, of the batch shape of s, reward units."""
        s, actions = torch.as_tensor(s), self.critics.actions
        if actions is None:
            s = s.expand(_VALUED, *s.shape)
        found = expectations(self.policy, self.critics.prior, s, t, actions)
        value = found.value(self.critics.mean, self.alpha)
        return value.mean(0) if actions is None else value

    @torch.no_grad()
    def action_values(self, s: Tensor, a: Tensor, t: Any = 0) -> Tensor:
        """The mean of both Q, of the batch shape of s and a, reward units."""
        s, a = torch.as_tensor(s), torch.as_tensor(a)
        found = self.critics.mean(s, t, a)
        return found if self.critics.actions is None else of_actions(found, a)
