"""Soft Q-learning by a network, a copy that lags behind, and a replay memory."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from cai.inference.learning.learned import Learned
from cai.inference.learning.q_network import QNetwork, follow
from cai.inference.off_policy._adam import Adam
from cai.inference.off_policy.replay import Replay
from cai.stepping.source import Transition
from cai.tables.bellman import Rule


class QLearner:
    """A network, a copy that lags behind, and the memory that they learn from.

    Args:
        online: the network that is trained and acts.
        lagging: an equal one for the targets, and the result; the same one for none.
        replay: the memory.
        discount: γ.
        batch: how many segments are drawn for a step of Adam; None for the latest of each copy.
        updates: how many steps of Adam follow a step of all copies.
        lag: the share by which the lagging parameters move towards the others after each of them.
        learning_rate: that of Adam at the start; it falls to zero in proportion to what remains.

    Attributes:
        taken: how many transitions were seen.
    """

    def __init__(
        self,
        online: QNetwork,
        lagging: QNetwork,
        replay: Replay,
        discount: float,
        batch: int | None,
        updates: int,
        lag: float | None,
        learning_rate: float,
    ) -> None:
        self.online, self.lagging, self.replay = online, lagging, replay
        self.discount, self.batch, self.updates = discount, batch, updates
        self.lag, self.learning_rate, self.taken = lag, learning_rate, 0
        self._adam, self._remaining = Adam("soft_q", online, learning_rate), 1.0
        self._lagging = list(lagging.parameters())  # torch takes long to find them

    @property
    def alpha(self) -> float:
        """α, of both networks."""
        return self.online.alpha

    @alpha.setter
    def alpha(self, value: float) -> None:
        """Sets α of both networks."""
        self.online.alpha = self.lagging.alpha = value

    def log_prior(self, s: Tensor, t: Tensor) -> Tensor:
        """log p(·|s), (n, A) or (A,)."""
        return self.online.log_prior(s, t)

    def log_policy(self, s: Tensor, t: Tensor, rule: Rule | None = None) -> Tensor:
        """log π(a|s), (n, A)."""
        return self.online.log_policy(s, t, rule)

    def learn(self, transition: Transition, remaining: float) -> float:
        """Remembers one transition of each copy, and takes some steps of Adam.

        Args:
            transition: the transition.
            remaining: the share of transitions that are still to come.

        Returns:
            The mean loss; NaN if there is no whole segment yet.

        Raises:
            ValueError: if a reward is -inf.
            FloatingPointError: if the loss is not finite.
        """
        self.replay.add(transition)
        self.taken += len(transition.reward)
        self._remaining = remaining
        losses = [self._update() for _ in range(self.updates)]
        return sum(losses) / len(losses)

    def _update(self) -> float:
        """A step of Adam on ½ (Q(s,a) - target)² of segments; returns the mean of the squares."""
        replay = self.replay
        segment = replay.latest() if self.batch is None else replay.draw(self.batch)
        if segment is None:
            return math.nan
        first = segment[0]
        index = first.a.long().unsqueeze(1)
        target = self.lagging.target(segment, self.discount)
        with torch.enable_grad():
            rows = self.online.rows(first.s, first.t)
        chosen = rows.gather(1, index).squeeze(1)
        error = torch.where(first.counts, chosen - target, 0.0)
        # The slope of the loss by hand, since each operation that is recorded takes its time.
        slope = torch.zeros_like(rows).scatter_(1, index, (error / len(error)).unsqueeze(1))
        loss = 0.5 * error.square().mean().item()
        self._adam.step_at(rows, slope, loss, self.learning_rate * self._remaining)
        if self.lag is not None:
            follow(self._lagging, self._adam.parameters, self.lag)
        return 2 * loss

    def cut(self) -> None:
        """Ends all episodes after the latest step, since others begin."""
        self.replay.cut()

    def parts(self) -> dict[str, Any]:
        """What a checkpoint holds, but for ``taken`` and α."""
        networks = {"online": self.online, "lagging": self.lagging}
        return networks | {"adam": self._adam.optimiser, "replay": self.replay}

    def learned(self, history: dict[str, Tensor]) -> Learned:
        """The result so far, of the lagging network, whose parameters are averaged over steps."""
        Q = self.lagging
        return Learned(Q, self.alpha, history, Q.values, Q.action_values)
