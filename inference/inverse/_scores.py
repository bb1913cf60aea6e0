"""Log-likelihoods of demonstrations and their derivatives in the weights of a reward.

With the expected features g of :mod:`cai.inference.inverse._sensitivities`, the score of an action
is (g^Q(s,a) - E_π g^Q(s,·))/α, and that of a successor η (f⁺ + g^V(s') - E_q[…])/α. They have mean
zero given the past, so that their covariances add up to the Fisher information.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from cai.demonstrations.scored_demonstrations import ScoredDemonstrations
from cai.inference.inverse._sensitivities import Sensitivities, Step, centred, spread
from cai.inference.inverse.observed import Observed
from cai.infinite.transient import Transient
from cai.infinite.visits import answering
from cai.rewards.linear_reward import FeatureArrays
from cai.tables import bellman
from cai.tables.table import Table

Likelihood: TypeAlias = Literal["actions", "paths", "matching"]


class Likelihoods:
    """The objective of demonstrations, as a function of the weights.

    Args:
        table: the problem; its rewards are replaced.
        features: of the reward, on the table.
        seen: the demonstrations.
        eta: the optimism η of the demonstrator.
        rule: how it chooses actions.
        likelihood: "actions", "paths" or "matching".
    """

    def __init__(
        self,
        table: Table,
        features: FeatureArrays,
        seen: Observed,
        eta: float,
        rule: bellman.Rule,
        likelihood: Likelihood,
    ) -> None:
        self.table, self.features, self.seen = table, features, seen
        self.eta, self.rule, self.likelihood = eta, rule, likelihood
        self._sensitive = Sensitivities(features, float(table.temperature), eta, rule)
        # Minus a potential's Hessian depends on the data by where they begin and are cut off.
        self._potential = likelihood == "matching" or (likelihood == "paths" and eta == 1)

    @torch.no_grad()
    def __call__(self, weights: Tensor) -> ScoredDemonstrations:
        """At some weights (k,).

        Raises:
            ValueError: if there are no values at these weights (an infinite horizon).
        """
        table, seen = self.features.rewards(self.table, weights), self.seen
        k, n = len(weights), len(seen.demonstrations)
        found = ScoredDemonstrations(
            torch.zeros(n, dtype=torch.float64),
            torch.zeros(n, k, dtype=torch.float64),
            torch.zeros(k, k, dtype=torch.float64),
        )
        with table.threads():
            steps = self._sensitive.steps(table)
            if self.likelihood == "matching":
                return self._matched(table, list(steps), found)
            kept = []
            for step in steps:
                self._score(step, found)
                if self._potential:
                    kept.append(step)
            if self._potential:
                found = found._replace(information=self._curvature(table, kept))
        return found

    def observed_features(self) -> Tensor:
        """(k,), Σ f over all actions of all demonstrations."""
        return self._features_taken().sum(0) * float(self.table.temperature)

    @torch.no_grad()
    def expected_features(self, weights: Tensor) -> Tensor:
        """(k,), the same where the demonstrator follows some weights, in the dynamics at η."""
        steps = list(self._sensitive.steps(self.features.rewards(self.table, weights)))
        _, g = self._values(steps)
        first, last = (self.seen.first, self.seen.starts), (self.seen.last, self.seen.stop)
        ahead = g[first] - self.seen.goes_on.double().unsqueeze(1) * g[last]
        return ahead.sum(0) * float(self.table.temperature)

    def _features_taken(self) -> Tensor:
        """(N, k), those of each action, over α."""
        at = self.seen.s, self.seen.a
        found = self._sensitive.f[at]
        arrival = self._sensitive.arrival
        return found if arrival is None else found + arrival[(*at, self.seen.outcome)]

    def _score(self, step: Step, found: ScoredDemonstrations) -> None:
        """Adds log π, and for paths log q, of the actions that belong to a step."""
        inside = self.seen.at(step.t)
        if inside.start == inside.stop:
            return
        who, s, a = (x[inside] for x in (self.seen.who, self.seen.s, self.seen.a))
        centred_q = centred(step)
        found.values.index_add_(0, who, step.at.log_policy[s, a])
        found.scores.index_add_(0, who, centred_q[s, a])
        if not self._potential:
            visits = torch.bincount(s, minlength=len(step.v)).double()
            found.information.add_(spread(step, centred_q, visits))
        if self.likelihood == "paths":
            self._score_outcomes(step, inside, found)

    def _score_outcomes(self, step: Step, inside: slice, found: ScoredDemonstrations) -> None:
        at, eta = step.at, self.eta
        columns = (self.seen.who, self.seen.s, self.seen.a, self.seen.outcome, self.seen.alive)
        who, s, a, o, alive = (x[inside] for x in columns)
        log_q = at.log_transitions[s, a, o]
        if at.table.discount < 1:
            log_alive = at.table.gather(bellman.survival(at.v_next, eta, at.table.discount))
            log_alive = log_alive.expand(at.log_transitions.shape)[s, a, o]
            log_q = log_q + torch.where(alive, log_alive, (-log_alive.expm1()).log())
        found.values.index_add_(0, who, log_q)
        if not eta:
            return
        successors = at.table.successors
        arrived = step.after[o if successors is None else successors[s, a, o]]
        reached = alive.unsqueeze(1) * arrived
        if self._sensitive.arrival is not None:
            reached = reached + self._sensitive.arrival[s, a, o]
        mean = step.g_q[s, a] - self._sensitive.f[s, a]
        found.scores.index_add_(0, who, eta * (reached - mean))
        if not self._potential:
            visits = torch.zeros_like(at.q).index_put((s, a), torch.ones_like(log_q), True)
            found.information.add_(self._sensitive.of_outcomes(step, visits))

    def _curvature(self, table: Table, steps: list[Step]) -> Tensor:
        """Minus the Hessian of Σ V_L(s_L) - V_0(s_0) over demonstrations, (k, k).

        That of V is a sum over the steps ahead of covariances, under the chain at η.
        """
        seen, S, weights = self.seen, table.num_states, self._ends_at()
        if table.horizon is None:
            mass = torch.zeros(S, dtype=torch.float64)
            mass.index_add_(0, seen.starts, torch.ones_like(weights))
            mass.index_add_(0, seen.stop, -weights)
            step = steps[0]
            moves = step.at.log_policy.exp().unsqueeze(-1) * step.at.survived
            counts = answering(table, moves) & (step.v > -torch.inf)
            return self._sensitive.spread_ahead(step, Transient(table, moves, counts).visits(mass))
        mass = torch.zeros(table.horizon + 1, S, dtype=torch.float64)
        mass.index_put_((seen.first, seen.starts), torch.ones_like(weights), True)
        mass.index_put_((seen.last, seen.stop), -weights, True)
        k = len(self.features.names)
        total = torch.zeros(k, k, dtype=torch.float64)
        for step in reversed(steps):
            total += self._sensitive.spread_ahead(step, mass[step.t])
            leaving = mass[step.t].unsqueeze(1) * step.at.log_policy.exp()
            mass[step.t + 1] += table.arrivals(leaving.unsqueeze(-1) * step.at.survived)
        return total

    def _ends_at(self) -> Tensor:
        """(n,), the weight of the value at the end of each demonstration."""
        seen = self.seen
        return seen.goes_on.double() * self._fade(seen.demonstrations.lengths)

    def _fade(self, steps: Tensor) -> Tensor:
        """γ^t for data that nothing terminated, else 1."""
        gamma = self.table.discount
        drawn = self.likelihood == "paths" or "terminated" in self.seen.demonstrations.ends
        return torch.ones(steps.shape, dtype=torch.float64) if drawn else gamma ** steps.double()

    def _matched(
        self, table: Table, steps: list[Step], found: ScoredDemonstrations
    ) -> ScoredDemonstrations:
        """(R(τ) + V_L(s_L) - V_0(s_0))/α, Ziebart's dual."""
        seen, at = self.seen, (self.seen.s, self.seen.a)
        fade, paid = self._fade(seen.step), table.reward[at]
        if table.arrival_reward is not None:
            paid = paid + table.arrival_reward[(*at, seen.outcome)]
        faded = fade.unsqueeze(1) * self._features_taken()
        values = found.values.index_add(0, seen.who, fade * paid / table.temperature)
        scores = found.scores.index_add(0, seen.who, faded)
        v, g = self._values(steps)
        first, last = (seen.first, seen.starts), (seen.last, seen.stop)
        weight = self._ends_at()
        ended = seen.demonstrations.ending("horizon") | seen.demonstrations.ending("own")
        final = ended.double() * self._fade(seen.demonstrations.lengths)
        values = values - v[first] + (weight + final) * v[last]
        scores = scores - g[first] + weight.unsqueeze(1) * g[last]
        return ScoredDemonstrations(values, scores, self._curvature(table, steps))

    def _values(self, steps: list[Step]) -> tuple[Tensor, Tensor]:
        """v (T+1, S) and g^V (T+1, S, k), from the steps, the last one first."""
        v, g = (torch.stack(x) for x in ([x.v for x in steps], [x.g_v for x in steps]))
        if self.table.horizon is None:
            return v, g
        end = self.table.final_reward / self.table.temperature
        v = torch.cat([v.flip(0), end.unsqueeze(0)])
        return v, torch.cat([g.flip(0), torch.zeros_like(g[:1])])
