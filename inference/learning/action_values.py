"""Action values, the policy and values that a rule of action makes of them, and their targets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from cai.stepping.source import Transition
from cai.tables import bellman
from cai.tables.bellman import Rule


class ActionValues(ABC):
    """Q(s,·) of any states, at a temperature α.

    Attributes:
        rule: "soft", "hard", "boltzmann" or "planned".
        entropy: whether the policy is paid its entropy; otherwise it pays its KL from the prior.
        alpha: α.
    """

    def __init__(self, rule: Rule, entropy: bool) -> None:
        self.rule, self.entropy, self.alpha = rule, entropy, 1.0

    @abstractmethod
    def rows(self, s: Tensor, t: Tensor) -> Tensor:
        """Q(s,·), (n, A), reward units."""

    @abstractmethod
    def log_prior(self, s: Tensor, t: Tensor) -> Tensor:
        """log p(·|s), (n, A)."""

    def _reference(self, s: Tensor, t: Tensor) -> Tensor:
        """What the policy is relative to: log p(·|s), or 0 for each action that it allows."""
        log_prior = self.log_prior(s, t)
        if not self.entropy:
            return log_prior
        return torch.where(log_prior > -torch.inf, 0.0, -torch.inf)

    def log_policy(self, s: Tensor, t: Tensor, rule: Rule | None = None) -> Tensor:
        """log π(a|s), (n, A), with π ∝ p exp(Q/α); the best actions alone under the hard rule."""
        q = self.rows(s, t) / self.alpha
        return bellman.policy_of(self._reference(s, t), q, rule or self.rule)

    def V(self, s: Tensor, t: Tensor) -> Tensor:
        """State values under the rule, (n,), reward units."""
        q = self.rows(s, t) / self.alpha
        return self.alpha * bellman.values_of(self._reference(s, t), q, self.rule)

    def target(self, segment: Sequence[Transition], discount: float) -> Tensor:
        """The return of segments of n steps, with V after the last of them, (n,), reward units.

            r_t + Σ_{1≤d<n} γ^d (r_{t+d} - α log π(a_{t+d}|s_{t+d})/p) + γ^n V(s_{t+n})

        A segment ends before its n steps where its episode is over.
        """
        first = segment[0]
        if len(segment) == 1:  # the usual case, without the work of the others
            value = self.V(first.s_next, first.t + 1)
            return first.reward + discount * torch.where(first.ended, 0.0, value)
        total, going, weight = first.reward.clone(), ~first.over, 1.0
        last_s, last_t, ended = first.s_next, first.t + 1, first.ended
        for step in segment[1:]:
            weight *= discount
            reward = step.reward - self.alpha * self._log_ratio(step)
            total = torch.where(going, total + weight * reward, total)
            on = going.reshape(-1, *(1,) * (last_s.dim() - 1))
            last_s = torch.where(on, step.s_next, last_s)
            last_t = torch.where(going, step.t + 1, last_t)
            ended = torch.where(going, step.ended, ended)
            going = going & ~step.over
        lengths = last_t - first.t
        value = torch.where(ended, 0.0, self.V(last_s, last_t))
        return total + discount**lengths * value

    def _log_ratio(self, step: Transition) -> Tensor:
        """log π(a|s)/p(a|s) of the actions that were taken, (n,), nats."""
        ratio = self.log_policy(step.s, step.t) - self._reference(step.s, step.t)
        return ratio.gather(1, step.a.long().unsqueeze(1)).squeeze(1)
