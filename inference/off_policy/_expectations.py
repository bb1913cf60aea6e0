"""Expectations of Q - α log π/p under a policy, and their gradients in the policy.

Of finitely many actions they are sums over all of them. Else of one action of a policy whose draws
have a gradient, and of several where only its density has one (as for mixtures).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import torch
from torch import Tensor

from cai import checks
from cai.distributions.exact_scores import exact, log_probs
from cai.inference.gradients.score_function import leave_one_out
from cai.numerics.logspace import kl
from cai.program.episode import policy_at

_DRAWS = 8  # actions for each state, of a policy whose draws have no gradient

ActionValue: TypeAlias = Callable[..., Tensor]
"""(s, t, a) -> Q, reward units; (s, t) -> (…, A) where actions are finitely many."""


class Expectations(Protocol):
    """Those of states of one batch shape (…)."""

    def value(self, Q: ActionValue, alpha: float) -> Tensor:
        """E_π[Q - α log π/p], (…), reward units."""

    def loss(self, Q: ActionValue, alpha: float) -> Tensor:
        """(…), reward units: its gradient is that of minus the value, in the policy."""


def expectations(
    policy: Any,
    prior: Any,
    s: Tensor,
    t: Any,
    actions: int | None,
    gradient: Literal["pathwise", "score"] | None = None,
) -> Expectations:
    """Those of a policy in some states.

    Args:
        policy: (t, s) -> distribution.
        prior: (s, t) -> the action prior.
        s: (…) + event shape.
        t: an int, or (…).
        actions: A; None if actions are not finitely many.
        gradient: through a drawn action, or by scores; None for the first where draws have one.
    """
    q, p = exact(policy_at(policy, t, s)), exact(prior(s, t))
    if actions is not None:
        log_q = log_probs(q, actions)
        return _OfAll(s, t, log_q, log_q - log_probs(p, actions))
    pathwise = q.has_rsample and gradient != "score"
    a = q.rsample() if pathwise else q.sample((_DRAWS,))
    log_q = q.log_prob(a)
    found = _OfOne if pathwise else _OfSeveral
    return found(s, t, a, log_q, log_q - p.log_prob(a))


def check_rsample(q: Any) -> None:
    """Raises ValueError if the draws of a policy's distribution have no gradient."""
    if not q.has_rsample:
        came, advice = f"a {type(q).__name__} without", "for instance cai.GaussianHead()"
        checks.refuse("policy", "one whose draws have a gradient", came, advice)


def divergence(q: Any, p: Any, a: Tensor, actions: int | None) -> Tensor:
    """(…), nats: KL(q ‖ p) of finitely many actions, else log q/p of one that q drew.

    Args:
        q: a policy in some states.
        p: the action prior in them.
        a: (…) + event shape.
        actions: A; None if actions are not finitely many.
    """
    q, p = exact(q), exact(p)
    if actions is None:
        found: Tensor = q.log_prob(a) - p.log_prob(a)
        return found
    return kl(log_probs(q, actions), log_probs(p, actions))


@dataclass(frozen=True)
class _OfAll:
    """Sums over all actions: log π and log π/p, (…, A)."""

    s: Tensor
    t: Any
    log_q: Tensor
    log_ratio: Tensor

    def value(self, Q: ActionValue, alpha: float) -> Tensor:
        """A sum over all actions."""
        return self._mean(Q(self.s, self.t) - alpha * self._ratio)

    def loss(self, Q: ActionValue, alpha: float) -> Tensor:
        """The same with a graph, Q held fixed."""
        with torch.no_grad():
            found = Q(self.s, self.t)
        return self._mean(alpha * self._ratio - found)

    @property
    def _ratio(self) -> Tensor:
        return torch.where(self.log_q > -torch.inf, self.log_ratio, 0.0)

    def _mean(self, x: Tensor) -> Tensor:
        return (self.log_q.exp() * x).sum(-1)


@dataclass(frozen=True)
class _OfOne:
    """One action for each state, (…) + event shape, with a gradient; log π and log π/p, (…)."""

    s: Tensor
    t: Any
    a: Tensor
    log_q: Tensor
    log_ratio: Tensor

    def value(self, Q: ActionValue, alpha: float) -> Tensor:
        """Of the one action."""
        return Q(self.s, self.t, self.a) - alpha * self.log_ratio

    def loss(self, Q: ActionValue, alpha: float) -> Tensor:
        """The gradient goes through the action into Q."""
        return -self.value(Q, alpha)


class _OfSeveral(_OfOne):
    """M actions for each state, (M, …) + event shape, without one; log π and log π/p, (M, …)."""

    def value(self, Q: ActionValue, alpha: float) -> Tensor:
        """The mean over them."""
        return super().value(Q, alpha).mean(0)

    def loss(self, Q: ActionValue, alpha: float) -> Tensor:
        """By scores, each relative to the mean of the other actions."""
        with torch.no_grad():
            each = super().value(Q, alpha)
            advantage = each - leave_one_out(each)
        return -(self.log_q * advantage).mean(0)


@dataclass(frozen=True)
class Terms:
    """Q/α and log p/q of K actions in each state, (K, …), nats."""

    nats: Tensor
    log_ratio: Tensor

    @classmethod
    def drawn(
        cls, critics: Any, s: Tensor, t: Any, count: int, alpha: float, policy: Any = None
    ) -> Terms:
        """Of actions of the prior, or of a policy with a density."""
        p = critics.prior(s, t)
        if policy is None:
            batch = () if p.batch_shape else s.shape[: s.dim() - critics.state_dims]
            a = p.sample((count, *batch))
            return cls(critics.mean(s, t, a) / alpha, torch.zeros(()))
        q = exact(policy_at(policy, t, s))
        a = q.sample((count,))
        return cls(critics.mean(s, t, a) / alpha, exact(p).log_prob(a) - q.log_prob(a))

    def log_mean(self) -> Tensor:
        """log 1/K Σ_k exp, (…), nats: V/α."""
        return (self.nats + self.log_ratio).logsumexp(0) - math.log(len(self.nats))

    def divergence(self) -> Tensor:
        """Σ_k w_k Q_k/α - V/α with weights that sum to one, (…), nats."""
        weights = (self.nats + self.log_ratio).softmax(0)
        return (weights * self.nats).sum(0) - self.log_mean()
