"""Q as a table of states and actions, or of times, states and actions."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import torch
from torch import Tensor

from cai.inference.learning.action_values import ActionValues
from cai.inference.learning.learned import ActionTable, Learned, StateTable
from cai.policies.tabular import TabularPolicy
from cai.stepping.source import Transition
from cai.tables import bellman
from cai.tables.bellman import Rule


class QTable(ActionValues):
    """The table and the segments that it learns from.

    Args:
        log_prior: log p(a|s), (S, A).
        horizon: T if the time is part of the state, or None.
        discount: γ.
        rule: "soft", "hard", "boltzmann" or "planned".
        entropy: whether the policy is paid its entropy.
        length: n, the number of steps in a segment.
        decay: how fast the rate falls with visits.

    Attributes:
        Q: (S, A), or (T, S, A) with a finite horizon, reward units.
        visits: how often each entry was updated.
        taken: how many transitions were seen.
    """

    def __init__(
        self,
        log_prior: Tensor,
        horizon: int | None,
        discount: float,
        rule: Rule,
        entropy: bool,
        length: int,
        decay: float,
    ) -> None:
        super().__init__(rule, entropy)
        self.timed = horizon is not None
        shape = tuple(log_prior.shape) if horizon is None else (horizon, *log_prior.shape)
        self.Q = torch.zeros(shape, dtype=torch.float64)
        self.visits = torch.zeros(self.Q.numel(), dtype=torch.float64)
        self.discount, self.decay, self.taken = discount, decay, 0
        self._prior = log_prior
        self._window: deque[Transition] = deque(maxlen=length)
        self._mean, self._averaged = torch.zeros_like(self.Q), 0

    def rows(self, s: Tensor, t: Tensor) -> Tensor:
        """Q(s,·), (n, A)."""
        return self.Q[t.clamp(max=len(self.Q) - 1), s.long()] if self.timed else self.Q[s.long()]

    def log_prior(self, s: Tensor, t: Tensor) -> Tensor:
        """log p(·|s), (n, A)."""
        return self._prior[s.long()]

    def learn(self, transition: Transition, remaining: float) -> float:
        """Learns from one transition of each copy.

        Args:
            transition: the transition.
            remaining: the share of transitions that are still to come; in the second half of the
                run Q is averaged.

        Returns:
            The mean squared error; NaN if there is no whole segment yet.
        """
        self._window.append(transition)
        self.taken += len(transition.reward)
        if len(self._window) < (self._window.maxlen or 1):
            return math.nan
        first = self._window[0]
        target = self.target(list(self._window), self.discount)
        A = self._prior.shape[1]
        entry = first.s.long() * A + first.a.long()
        if self.timed:
            entry = entry + first.t * self._prior.numel()
        entry, target = entry[first.counts], target[first.counts]
        found, group, count = entry.unique(return_inverse=True, return_counts=True)
        mean = torch.zeros(len(found), dtype=torch.float64).index_add_(0, group, target) / count
        flat = self.Q.view(-1)
        before = flat[found]
        self.visits[found] += count
        # One update at this rate for each copy that took the same action here.
        stays = (1 - self.visits[found] ** -self.decay) ** count
        moved = torch.where(mean == before, before, stays * before + (1 - stays) * mean)
        flat[found] = torch.where(mean == -torch.inf, mean, moved)
        if remaining < 0.5:
            self._average()
        return float((mean - before).square().mean())

    def _average(self) -> None:
        """Adds the present Q to the mean that is returned."""
        self._averaged += 1
        mean = self._mean + (self.Q - self._mean) / self._averaged
        self._mean = torch.where(self.Q.isneginf(), self.Q, mean)

    def parts(self) -> dict[str, Any]:
        """What a checkpoint holds, but for ``taken`` and α."""
        return {"Q": self}

    def state_dict(self) -> dict[str, Any]:
        """The state from which :meth:`load_state_dict` continues, but for ``taken`` and α."""
        mean = {"mean": self._mean, "averaged": self._averaged}
        return {"Q": self.Q, "visits": self.visits, "window": [*map(tuple, self._window)], **mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the table and the segments from a state."""
        self.Q, self.visits = state["Q"], state["visits"]
        self._mean, self._averaged = state["mean"], state["averaged"]
        self._window.extend(Transition(*columns) for columns in state["window"])

    def cut(self) -> None:
        """Ends all episodes after the latest step, since others begin."""
        if self._window:
            self._window[-1] = self._window[-1]._replace(cut=~self._window[-1].ended)

    def learned(self, history: dict[str, Tensor]) -> Learned:
        """The result so far."""
        Q = (self._mean if self._averaged else self.Q).clone()
        every = torch.arange(len(self._prior))
        prior, alpha, rule = self._reference(every, every), self.alpha, self.rule
        V = alpha * bellman.values_of(prior, Q / alpha, rule)
        policy = TabularPolicy.from_log_probs(bellman.policy_of(prior, Q / alpha, rule))
        return Learned(policy, alpha, history, StateTable(V), ActionTable(Q))
