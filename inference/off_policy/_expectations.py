"""Expectations of Q - α log π/p under a policy, and their gradients in the policy.

Of finitely many actions they are sums over all of them. Else of one action of a policy whose draws
have a gradient, and of several where only its density has one (as for mixtures).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from cai.distributions.exact_scores import exact, log_probs
from cai.inference.gradients.score_function import leave_one_out
from cai.inference.off_policy._twin_critics import TwinCritics
from cai.program.episode import policy_at

_DRAWS = 8  # actions for each state, of a policy whose draws have no gradient


class Expectations(Protocol):
    """Those of n states."""

    def value(self, critics: TwinCritics, alpha: float) -> Tensor:
        """E_π[Q - α log π/p] with the smaller Q of each action, (n,), reward units."""

    def loss(self, critics: TwinCritics, alpha: float) -> Tensor:
        """(n,), reward units: its gradient is that of minus the value, in the policy."""

    def divergence(self) -> Tensor:
        """(n,), nats: log π/p, whose mean is the KL from the action prior."""


def expectations(
    policy: Any, prior: Any, s: Tensor, t: Tensor, actions: int | None
) -> Expectations:
    """Those of a policy in n states.

    Args:
        policy: (t, s) -> distribution.
        prior: (s, t) -> the action prior.
        s: (n,) + event shape.
        t: (n,).
        actions: A; None if actions are not finitely many.
    """
    q, p = exact(policy_at(policy, t, s)), exact(prior(s, t))
    if actions is not None:
        log_q = log_probs(q, actions)
        return _OfAll(s, t, log_q, log_q - log_probs(p, actions))
    a = q.rsample() if q.has_rsample else q.sample((_DRAWS,))
    log_q = q.log_prob(a)
    ratio = log_q - p.log_prob(a)
    if q.has_rsample:
        return _OfOne(s, t, a, ratio)
    return _OfSeveral(s, t, *(x.movedim(0, 1) for x in (a, log_q, ratio)))


@dataclass(frozen=True)
class _Of:
    s: Tensor
    t: Tensor


@dataclass(frozen=True)
class _OfAll(_Of):
    """Sums over all actions: log π and log π/p, (n, A)."""

    log_q: Tensor
    log_ratio: Tensor

    def value(self, critics: TwinCritics, alpha: float) -> Tensor:
        """A sum over all actions."""
        q = of_two(critics(self.s, self.t))
        return self._mean(q - alpha * self._ratio)

    def loss(self, critics: TwinCritics, alpha: float) -> Tensor:
        """The same with a graph, the critics held fixed."""
        with torch.no_grad():
            q = of_two(critics(self.s, self.t))
        return self._mean(alpha * self._ratio - q)

    def divergence(self) -> Tensor:
        """The KL itself."""
        return self._mean(self._ratio)

    @property
    def _ratio(self) -> Tensor:
        return torch.where(self.log_q > -torch.inf, self.log_ratio, 0.0)

    def _mean(self, x: Tensor) -> Tensor:
        return (self.log_q.exp() * x).sum(-1)


@dataclass(frozen=True)
class _OfOne(_Of):
    """One action for each state, (n,) + event shape, with a gradient; log π/p, (n,)."""

    a: Tensor
    log_ratio: Tensor

    def value(self, critics: TwinCritics, alpha: float) -> Tensor:
        """Of the one action."""
        return of_two(critics(self.s, self.t, self.a)) - alpha * self.log_ratio

    def loss(self, critics: TwinCritics, alpha: float) -> Tensor:
        """The gradient goes through the action into Q."""
        return -self.value(critics, alpha)

    def divergence(self) -> Tensor:
        """Of the one action."""
        return self.log_ratio


@dataclass(frozen=True)
class _OfSeveral(_Of):
    """Several actions for each state, (n, M) + event shape; log π and log π/p, (n, M)."""

    a: Tensor
    log_q: Tensor
    log_ratio: Tensor

    def value(self, critics: TwinCritics, alpha: float) -> Tensor:
        """The mean over them."""
        return self._each(critics, alpha).mean(-1)

    def loss(self, critics: TwinCritics, alpha: float) -> Tensor:
        """By scores, each relative to the mean of the other actions."""
        with torch.no_grad():
            each = self._each(critics, alpha)
            advantage = each - leave_one_out(each, 1)
        return -(self.log_q * advantage).mean(-1)

    def divergence(self) -> Tensor:
        """The mean over them."""
        return self.log_ratio.mean(-1)

    def _each(self, critics: TwinCritics, alpha: float) -> Tensor:
        q = critics(self.s.unsqueeze(1), self.t.unsqueeze(1), self.a)
        return of_two(q) - alpha * self.log_ratio


def of_two(q: Tensor, mean: bool = False) -> Tensor:
    """The smaller of two Q, or their mean, from (2, …)."""
    q = q.double()
    return q.mean(0) if mean else q.amin(0)
