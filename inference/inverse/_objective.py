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
from cai.tables import bellman
from cai.tables.table import Table


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
