"""The objective of demonstrations as a function of the reward arrays, which torch differentiates.

Everything follows from one solution, whose derivative is one sweep: with values v and policy π of a
table in nats, Q = v(s) + log π(a|s) - log p(a|s), and

    log q(s', alive|s,a) = log p(s'|s,a) + log γ + η (r⁺ + v(s') - Q + r).

So the gradient in all rewards (S, A) and (S, A, K) costs as much as that in one weight.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cai.inference.derivatives.values_and_policy import values_and_policy
from cai.inference.inverse._scores import Likelihood
from cai.inference.inverse.observed import Observed
from cai.numerics import logspace
from cai.rewards.linear_reward import FeatureArrays
from cai.tables import bellman
from cai.tables.table import Table

_SMALL = 20_000  # numbers of a step's dynamics, up to which many weights are taken at once
_AT_ONCE = 1_000_000  # numbers of all of them together


class Objective:
    """The objective of each demonstration, as :class:`Likelihoods` has it for features.

    Args:
        table: the problem; its rewards are replaced.
        seen: the demonstrations.
        eta: the optimism η of the demonstrator.
        rule: how it chooses actions.
        likelihood: "actions", "paths" or "matching".
    """

    def __init__(
        self, table: Table, seen: Observed, eta: float, rule: bellman.Rule, likelihood: Likelihood
    ) -> None:
        self.seen, self.eta, self.rule, self.likelihood = seen, eta, rule, likelihood
        self._alpha, self._endless = float(table.temperature), table.horizon is None
        self._log_moves = _log_moves(table, seen)
        prior = table.log_prior
        at = (seen.s, seen.a) if prior.dim() == 2 else (seen.t, seen.s, seen.a)
        self._log_prior = prior[at]
        drawn = "terminated" in seen.demonstrations.ends
        self._gamma = 1.0 if drawn else table.discount
        self._table = table

    def __call__(self, table: Table) -> Tensor:
        """(n,), nats, of the table with some rewards.

        Raises:
            ValueError: if it has no values (an infinite horizon).
        """
        seen = self.seen
        with table.threads():
            v, log_pi = values_and_policy(table, self.eta, self.rule, seen.t, seen.s, seen.a)
        if self.likelihood == "matching":
            return self._matched(table, v)
        each = log_pi
        if self.likelihood == "paths":
            each = each + self._log_moves
            if self.eta:
                each = each + self.eta * self._luck(table, v, log_pi)
        return each.new_zeros(len(seen.demonstrations)).index_add(0, seen.who, each)

    @property
    def takes_many(self) -> bool:
        """Whether many weights are quicker at once: a short recursion over small arrays."""
        small = self._table.at(0).log_dynamics.numel() <= _SMALL if not self._endless else False
        return small and self.likelihood == "actions"

    def many(self, features: FeatureArrays, weights: Tensor) -> Tensor:
        """(n,), nats: the sum over demonstrations at n weights (n, k), without a gradient.

        The recursion of :mod:`cai.tables.bellman`, with n rewards side by side.
        """
        alone = self._table.at(0).log_dynamics.numel()
        rows = max(1, _AT_ONCE // alone)
        with self._table.threads():
            return torch.cat([self._sums(features, some) for some in weights.split(rows)])

    def _sums(self, features: FeatureArrays, weights: Tensor) -> Tensor:
        n, alpha = len(weights), self._alpha
        reward = (features.offset + torch.einsum("nk,ksa->nsa", weights, features.reward)) / alpha
        arrival = None
        if features.arrival is not None:
            arrival = torch.einsum("nk,ksao->nsao", weights, features.arrival) / alpha
        total = torch.zeros(n, dtype=torch.float64)
        v = (self._table.final_reward / alpha).expand(n, -1)
        for t in range(self._table.steps - 1, -1, -1):
            at = self._table.at(t)
            x = at.gather(bellman.continuation(v, self.eta, at.discount))
            x = x if arrival is None else x + arrival
            q = reward + logspace.soft_mean(at.log_dynamics, x, self.eta)
            inside = self.seen.at(t)
            log_pi = bellman.policy_of(at.log_prior, q, self.rule)
            total += log_pi[:, self.seen.s[inside], self.seen.a[inside]].sum(1)
            v = bellman.values_of(at.log_prior, q, self.rule)
        return total

    def _luck(self, table: Table, v: Tensor, log_pi: Tensor) -> Tensor:
        """(N,), nats: how much better than on average, r⁺ + v(s') - (Q - r)."""
        seen = self.seen
        after = seen.demonstrations.states[seen.who, seen.step + 1]
        q = self._value(v, seen.t, seen.s) + log_pi - self._log_prior
        ahead = torch.where(seen.alive, self._value(v, seen.t + 1, after), 0.0)
        return self._paid(table) + ahead - q

    def _paid(self, table: Table) -> Tensor:
        """(N,), nats: r + r⁺ of each action."""
        at = self.seen.s, self.seen.a
        paid = table.reward[at]
        if table.arrival_reward is not None:
            paid = paid + table.arrival_reward[(*at, self.seen.outcome)]
        return paid / self._alpha

    def _matched(self, table: Table, v: Tensor) -> Tensor:
        """(R(τ) + V_L(s_L) - V_0(s_0))/α, without what follows termination."""
        seen = self.seen
        paid = self._gamma ** seen.step.double() * self._paid(table)
        lives = ~seen.demonstrations.ending("terminated")
        share = lives.double() * self._gamma ** seen.demonstrations.lengths.double()
        ends = share * self._value(v, seen.last, seen.stop)
        return (ends - self._value(v, seen.first, seen.starts)).index_add(0, seen.who, paid)

    def _value(self, v: Tensor, t: Tensor, s: Tensor) -> Tensor:
        return v[s] if self._endless else v[t, s]


def _log_moves(table: Table, seen: Observed) -> Tensor:
    """(N,), nats: log p of each successor, and of being terminated or not."""
    log_p = table.log_dynamics
    at = (seen.s, seen.a, seen.outcome)
    found = log_p[at] if log_p.dim() == 3 else log_p[(seen.t, *at)]
    if table.discount < 1:
        gamma = table.discount
        lives = seen.alive.double()
        found = found + lives * math.log(gamma) + (1 - lives) * math.log1p(-gamma)
    return found
