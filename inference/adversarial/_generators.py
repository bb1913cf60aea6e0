"""Generators: learners whose rewards are those of a discriminator, whenever they are drawn."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cai.distributions.exact_scores import exact
from cai.inference.adversarial.adversarial_training import AdversarialTraining
from cai.inference.fitting.resumption import copy_of
from cai.inference.learning.q_network import QNetwork, of_actions
from cai.inference.learning.stepped import Stepped
from cai.inference.off_policy.q_critics import Critics
from cai.inference.off_policy.q_learner import QLearner
from cai.inference.off_policy.replay import Replay
from cai.inference.off_policy.sac import SoftActorCritic
from cai.policies.neural import NeuralPolicy
from cai.stepping.source import Transition


class Repaid(Replay):
    """A memory whose transitions are paid anew whenever they are drawn.

    Attributes:
        pay: transitions -> their rewards, (n,), reward units; None for those in memory.
    """

    pay: Callable[[Transition], Tensor] | None = None

    def draw(self, batch: int) -> list[Transition] | None:
        """Transitions with their present rewards."""
        found = super().draw(batch)
        if found is None or self.pay is None:
            return found
        return [x._replace(reward=self.pay(x)) for x in found]

    def recent(self, batch: int, count: int) -> Transition:
        """Some of the latest transitions, at random, as they are in memory."""
        n = self._columns[0].shape[1]
        rows = min(max(count // n, 1), self.written, self.size)
        first = (self.written - rows) * n
        return self._segments(first + torch.randint(rows * n, (batch,)))[0]

    def all_recent(self, count: int) -> Transition:
        """All of the latest transitions."""
        n = self._columns[0].shape[1]
        rows = min(max(count // n, 1), self.written, self.size)
        first = (self.written - rows) * n
        return self._segments(first + torch.arange(rows * n))[0]


class SoftQGenerator:
    """Soft Q-learning by a network, see :func:`cai.inference.soft_q`.

    Args:
        made: the problem and its copies.
        training: the settings.
        file: the checkpoint, or None.
    """

    name = "soft_q"

    def __init__(self, made: Stepped, training: AdversarialTraining, file: Path | None) -> None:
        problem, _, horizon = made
        actions = made.finitely_many_actions('take generator="sac"')
        online = QNetwork(problem, training.hidden, horizon is not None, actions, "soft", False)
        self.memory = Repaid(training.replay, made.copies.num_envs, 1, file)
        self.learner = QLearner(
            online,
            copy.deepcopy(online),
            self.memory,
            discount=float(problem.discount),
            batch=training.batch,
            updates=training.updates,
            lag=training.lag,
            learning_rate=training.learning_rate,
        )
        self.learner.alpha = float(problem.temperature)
        self._explores = training.exploration

    def act(self, made: Stepped) -> Tensor:
        """An action in each copy."""
        s, t = made.copies.s, made.copies.t
        p = self.learner.log_policy(s, t).exp()
        if self._explores:
            prior = self.learner.log_prior(s, t).exp()
            p = (1 - self._explores) * p + self._explores * prior
        return p.multinomial(1).squeeze(1)

    def log_ratio(self, s: Tensor, t: Tensor, a: Tensor) -> Tensor:
        """log π(a|s)/p(a|s), (n,), nats."""
        log_q, log_p = self.learner.log_policy(s, t), self.learner.log_prior(s, t)
        return of_actions(log_q, a) - of_actions(log_p.expand(log_q.shape), a)

    def learn(self, transition: Transition, share: float) -> float:
        """Remembers one transition of each copy, and learns."""
        return self.learner.learn(transition, share)

    @property
    def policy(self) -> Any:
        """As it acts, without exploration."""
        return self.learner.online


class SACGenerator:
    """Soft actor-critic, see :func:`cai.inference.sac`.

    Args:
        made: the problem and its copies.
        training: the settings.
        file: the checkpoint, or None.
    """

    name = "sac"

    def __init__(self, made: Stepped, training: AdversarialTraining, file: Path | None) -> None:
        problem, _, horizon = made
        policy = NeuralPolicy(problem, training.hidden, stationary=horizon is None)
        self.policy = copy_of(policy)
        made.check(self.policy)
        self.memory = Repaid(training.replay, made.copies.num_envs, 1, file)
        critics = Critics(problem, training.hidden, horizon is not None)
        names = ("batch", "updates", "lag", "learning_rate")
        arguments = {name: getattr(training, name) for name in names} | {
            "warm_up": 0,
            "start": None,
        }
        discount = float(problem.discount)
        self.learner = SoftActorCritic(self.policy, critics, self.memory, discount, arguments)
        self.learner.alpha = float(problem.temperature)
        self._prior = critics.prior

    def act(self, made: Stepped) -> Tensor:
        """An action in each copy."""
        return made.drawn(self.policy)

    @torch.no_grad()
    def log_ratio(self, s: Tensor, t: Tensor, a: Tensor) -> Tensor:
        """log π(a|s)/p(a|s), (n,), nats."""
        log_q = exact(self.policy(t, s)).log_prob(a).double()
        log_p: Tensor = exact(self._prior(s, t)).log_prob(a).double()
        return log_q - log_p

    def learn(self, transition: Transition, share: float) -> float:
        """Remembers one transition of each copy, and learns."""
        return self.learner.learn(transition, min(2 * share, 1.0))
