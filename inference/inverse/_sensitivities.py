"""Derivatives of values and policies in the weights of a reward, by recursion.

With f the features, g^Q_t(s,a) and g^V_t(s) are the features that are expected from step t on,
under the policy and the dynamics at η: the derivatives of Q and V in the weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from cai.inference.infinite.stationary_values import stationary
from cai.infinite.transient import Transient
from cai.infinite.visits import answering
from cai.rewards.linear_reward import FeatureArrays
from cai.tables import bellman
from cai.tables.bellman import Linearised
from cai.tables.table import Table


@dataclass(frozen=True, eq=False)
class Step:
    """One step of the recursion and its sensitivities.

    Attributes:
        t: its number.
        at: the recursion, linearised.
        v: (S,), nats.
        after: (S, k), derivatives of v of the next step.
        g_q: (S, A, k), derivatives of q.
        g_v: (S, k), derivatives of v.
    """

    t: int
    at: Linearised
    v: Tensor
    after: Tensor
    g_q: Tensor
    g_v: Tensor


class Sensitivities:
    """The recursion at an optimism and a rule, with its derivatives in the weights.

    Args:
        features: k of them, on the table.
        alpha: the temperature α.
        eta: the optimism η.
        rule: how actions are chosen.

    Attributes:
        f: (S, A, k), features over α.
        arrival: (S, A, K, k), those paid on arrival over α; or None.
    """

    def __init__(
        self, features: FeatureArrays, alpha: float, eta: float, rule: bellman.Rule
    ) -> None:
        self.eta, self.rule = eta, rule
        self.f = (features.reward / alpha).movedim(0, -1).contiguous()
        self.arrival: Tensor | None = None
        if features.arrival is not None:
            self.arrival = (features.arrival / alpha).movedim(0, -1).contiguous()

    def steps(self, table: Table) -> Iterator[Step]:
        """The steps, the last one first."""
        if table.horizon is None:
            yield self._fixed(table)
            return
        v = table.final_reward / table.temperature
        g = torch.zeros(table.num_states, self.f.shape[-1], dtype=torch.float64)
        for t in range(table.horizon - 1, -1, -1):
            at = bellman.linearised(table.at(t), v, self.eta, self.rule)
            v, after = bellman.state_values(at.table, at.q, self.rule), g
            g_q = self._now(at) + _expected(at, after)
            g = (bellman.slopes(at, v)[0].unsqueeze(-1) * g_q).sum(1)
            yield Step(t, at, v, after, g_q, g)

    def _now(self, at: Linearised) -> Tensor:
        """f + E_q[f⁺], (S, A, k)."""
        if self.arrival is None:
            return self.f
        return self.f + (at.transitions.unsqueeze(-2) @ self.arrival).squeeze(-2)

    def _fixed(self, table: Table) -> Step:
        """The step that repeats itself, g = (I - J)⁻¹ of what is collected in one."""
        v = stationary(table, self.eta, self.rule).log_values
        at = bellman.linearised(table, v, self.eta, self.rule)
        slopes = bellman.slopes(at, v)[0]
        counts = answering(table, slopes.unsqueeze(-1) * at.survived) & (v > -torch.inf)
        slopes = torch.where(counts.unsqueeze(-1), slopes, 0.0)
        chain, now = Transient(table, slopes.unsqueeze(-1) * at.survived, counts), self._now(at)
        collected = (slopes.unsqueeze(-1) * now).sum(1)
        g = torch.stack([chain.sums(x) for x in collected.T.contiguous()], -1)
        return Step(0, at, v, g, now + _expected(at, g), g)

    def of_outcomes(self, step: Step, visits: Tensor) -> Tensor:
        """η² Σ visits(s,a) Cov_q(f⁺ + g^V(s')), (k, k), termination included."""
        table, at = step.at.table, step.at
        among = visits.unsqueeze(-1) * at.survived
        if self.arrival is None:
            found = _products(step.after, table.arrivals(among))
        else:
            ahead = table.gather(step.after.T).movedim(0, -1).expand(*at.x.shape, -1)
            found = _products(ahead + self.arrival, among)
            if table.discount < 1:
                died = visits.unsqueeze(-1) * (at.transitions - at.survived)
                found = found + _products(self.arrival, died)
        return self.eta**2 * (found - _products(step.g_q - self.f, visits))

    def spread_ahead(self, step: Step, mass: Tensor) -> Tensor:
        """Σ_s mass(s) of the curvature of V that a step adds, (k, k)."""
        found = spread(step, centred(step), mass)
        if self.eta:
            visits = mass.unsqueeze(-1) * step.at.log_policy.exp()
            found = found + self.of_outcomes(step, visits) / self.eta
        return found


def _expected(at: Linearised, after: Tensor) -> Tensor:
    """E_q[after(s'), alive], (S, k) -> (S, A, k), by one product of matrices."""
    table, survived = at.table, at.survived
    S, A, K = survived.shape
    if table.successors is None:
        return (survived.reshape(S * A, S) @ after).view(S, A, -1)
    places = np.arange(0, S * A * K + 1, K), table.successor_index.numpy().ravel()
    moves = csr_array((survived.numpy().ravel(), places[1], places[0]), shape=(S * A, S))
    return torch.from_numpy(moves @ after.numpy()).view(S, A, -1)


def centred(step: Step) -> Tensor:
    """g^Q(s,a) less its mean under the policy, (S, A, k)."""
    pi = step.at.log_policy.exp().unsqueeze(-1)
    return step.g_q - (pi * step.g_q).sum(1, keepdim=True)


def spread(step: Step, centred: Tensor, visits: Tensor) -> Tensor:
    """Σ_s visits(s) Cov_π(g^Q(s,·)), (k, k), over the states that are visited."""
    some = visits.nonzero().squeeze(1)
    weights = visits[some].unsqueeze(-1) * step.at.log_policy[some].exp()
    return _products(centred[some], weights)


def _products(x: Tensor, weights: Tensor) -> Tensor:
    """Σ weights x x', (k, k), over all but the last axis."""
    x = x.reshape(-1, x.shape[-1])
    return (x * weights.reshape(-1, 1)).T @ x
