"""The best policies of a table for rewards that change, and how often they visit what.

With a finite horizon or a discount by the hard Bellman recursion. An infinite horizon without a
discount is a linear program over expected visits x ≥ 0,

    max Σ r x    with    Σ_a x(s,a) - Σ p(s|s',a') x(s',a') = how many begin in s,

whose corners are policies that end, also where going round costs nothing. Going on for ever gains
if visits of one step that balance, with Σ x = 1 and nobody who begins, are worth more than zero.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import linprog
from scipy.sparse import csc_array, vstack
from torch import Tensor

from cai import checks
from cai.inference.exact.soft_values import soft_values
from cai.infinite.visits import of_policy
from cai.numerics.exclusive import cached_property
from cai.numerics.logspace import mean
from cai.rewards.linear_reward import FeatureArrays
from cai.rewards.places import endless, lasting
from cai.tables.table import Table

_TOGETHER = 2**20  # numbers of all steps of the copies of a table that are solved at once
_NOTHING = 1e-9  # of the largest reward
_ADVICE = "give every step a cost, and look for states that reach no absorbing one"


class Planned(NamedTuple):
    """A best policy.

    Attributes:
        value: reward units: what it is worth, final rewards included.
        visits: (T, S, A), how often it is expected to take each action; (1, S, A) if the horizon is
            infinite.
    """

    value: float
    visits: Tensor


class Planner:
    """Plans on a table.

    Args:
        table: the problem; its rewards, but for the final one, play no part.
    """

    def __init__(self, table: Table) -> None:
        self.table = table.holding(arrival_reward=None, program=None)
        self.steps = table.horizon or 1
        self._held: dict[int, Planner] = {}

    def best(self, reward: Tensor, begin: Tensor) -> Planned:
        """A policy with the highest sum of rewards.

        Args:
            reward: (S, A) or (T, S, A), reward units.
            begin: (T, S) or (1, S), how many trajectories begin where, at which step.

        Raises:
            ValueError: if none is the highest, since going on for ever gains.
        """
        if endless(self.table):
            return self._by_linear_program(reward, begin[0])
        values, visits = self._solved(reward, begin)
        return Planned(float(_worth(begin, values).sum()), visits)

    def best_of_each(self, rewards: list[Tensor], begin: Tensor) -> list[Planned]:
        """The best policies for several rewards, found together, by a table of copies side by side.

        Args:
            rewards: m of them, as for :meth:`best`.
            begin: (m, T, S) or (m, 1, S), for each of them.
        """
        if endless(self.table):
            return [self.best(*each) for each in zip(rewards, begin, strict=True)]
        found: list[Planned] = []
        most = max(1, _TOGETHER // (self.steps * self.table.num_outcomes))
        for some, begun in zip(_parts(rewards, most), begin.split(most), strict=True):
            m, S = len(some), self.table.num_states
            beside = begun.transpose(0, 1).reshape(self.steps, m * S)
            values, visits = self._copies(m)._solved(torch.cat(some, -2), beside)
            worth = _worth(beside, values).view(self.steps, m, S).sum((0, 2)).tolist()
            each = visits.view(len(visits), m, S, -1).unbind(1)
            found += [Planned(*both) for both in zip(worth, each, strict=True)]
        return found

    def _solved(self, reward: Tensor, begin: Tensor) -> tuple[Tensor, Tensor]:
        """V, (T, S) or (1, S), reward units, and the visits of the best policy."""
        if self.table.horizon is None:
            total = begin[0].sum()
            paid = self.table.holding(reward=reward, log_initial=(begin[0] / total).log())
            solution = soft_values(paid, rule="hard")
            visits = total * of_policy(paid, solution.policy.log_probs)[1]
            return solution.V.unsqueeze(0), visits.unsqueeze(0)
        solution = soft_values(self.table.holding(reward=reward), rule="hard")
        return solution.V[:-1], self.visits(solution.policy.log_probs, begin)

    def _copies(self, m: int) -> Planner:
        """Of m copies of the table side by side, which share no state."""
        if m not in self._held:
            table, S = self.table, self.table.num_states
            heads = table.successor_index.view(S, table.num_actions, -1)
            apart = S * torch.arange(m).view(-1, 1, 1, 1)
            beside = table.holding(
                log_initial=table.log_initial.repeat(m) - math.log(m),
                log_prior=torch.cat([table.log_prior] * m, -2),
                log_dynamics=torch.cat([table.log_dynamics] * m, -3),
                successors=(heads + apart).flatten(0, 1),
                reward=torch.cat([table.reward] * m, -2),
                final_reward=table.final_reward.repeat(m),
                layout=None,
            )
            self._held[m] = Planner(beside)
        return self._held[m]

    def visits(self, log_policy: Tensor, begin: Tensor) -> Tensor:
        """(T, S, A), how often a policy (T, S, A) takes each action, with a finite horizon."""
        table, choices = self.table, log_policy.exp()
        found, mass = torch.empty_like(choices), torch.zeros_like(begin[0])
        by_step = self._survival.dim() == 4
        with table.threads():
            for t in range(self.steps):
                found[t] = (mass + begin[t]).unsqueeze(-1) * choices[t]
                survived = self._survival[t] if by_step else self._survival
                mass = table.arrivals(found[t].unsqueeze(-1) * survived)
        return found

    @cached_property
    def _survival(self) -> Tensor:
        """(S, A, K) or (T, S, A, K), the probability of each successor, and of being alive."""
        return self.table.discount * self.table.log_dynamics.exp()

    def of_prior(self, begin: Tensor) -> Tensor:
        """(T, S, A) or (1, S, A), how often the action prior takes each action."""
        table, log_prior = self.table, self.table.log_prior
        if table.horizon is None:
            total = begin[0].sum()
            some = table.holding(log_initial=(begin[0] / total).log())
            return (total * of_policy(some, log_prior)[1]).unsqueeze(0)
        return self.visits(log_prior.expand(self.steps, -1, -1).clone(), begin)

    @cached_property
    def _flows(self) -> tuple[Any, Any, Any]:
        """States (m,) and pairs (n,) that count, and Σ_a x(s,a) - Σ p(s|s',a') x(s',a'), (m, n)."""
        table, last = self.table, lasting(self.table)
        among = last.unsqueeze(1) & (table.log_prior > -torch.inf)
        s, a = (x.numpy() for x in among.nonzero(as_tuple=True))
        p = table.log_dynamics.exp().numpy()[s, a]
        heads = table.successor_index.view(*table.log_dynamics.shape).numpy()[s, a]
        columns = np.arange(len(s)).repeat(p.shape[1])
        states = last.nonzero().squeeze(1).numpy()
        shape = (table.num_states, len(s))
        leaving = csc_array((np.ones(len(s)), (s, np.arange(len(s)))), shape=shape)
        arriving = csc_array((p.ravel(), (heads.ravel(), columns)), shape=shape)
        return states, (s, a), (leaving - arriving).tocsr()[states]

    def _by_linear_program(self, reward: Tensor, begin: Tensor) -> Planned:
        states, pairs, flows = self._flows
        r = reward.numpy()[pairs]
        found = linprog(-r, A_eq=flows, b_eq=begin.numpy()[states], method="highs")
        if found.status != 0:
            came = "none that is, as far as HiGHS can tell"
            checks.refuse("model", "a best way to the end from each start", came, _ADVICE)
        return Planned(-float(found.fun), self._spread(np.maximum(found.x, 0.0)))

    def gaining(self, reward: Tensor) -> Tensor | None:
        """(1, S, A), the visits in one step of what gains most for ever; None if nothing does."""
        if not endless(self.table):
            return None
        _, pairs, flows = self._flows
        r = reward.numpy()[pairs]
        A = vstack([flows, csc_array(np.ones((1, len(r))))])
        found = linprog(-r, A_eq=A, b_eq=np.r_[np.zeros(flows.shape[0]), 1.0], method="highs")
        if found.status != 0 or -found.fun <= _NOTHING * np.abs(r).max():  # no way round at all
            return None
        return self._spread(np.maximum(found.x, 0.0))

    def _spread(self, x: Any) -> Tensor:
        visits = torch.zeros(1, *self.table.reward.shape[-2:], dtype=torch.float64)
        visits[0][self._flows[1]] = torch.from_numpy(x)
        return visits


def _worth(begin: Tensor, values: Tensor) -> Tensor:
    """What those who begin somewhere are worth, where somebody does; values may be -inf."""
    return torch.where(begin > 0, begin * values, 0.0)


def _parts(rewards: list[Tensor], most: int) -> list[list[Tensor]]:
    return [rewards[i : i + most] for i in range(0, len(rewards), most)]


def expected_features(table: Table, features: FeatureArrays) -> Tensor:
    """(k, 1 or T, S, A): f + E[f⁺|s,a], zero where nothing is paid any more."""
    found = features.reward.unsqueeze(1)
    if features.arrival is not None:
        log_p = table.log_dynamics
        log_p = log_p if log_p.dim() == 4 else log_p.unsqueeze(0)
        found = found + mean(log_p, features.arrival.unsqueeze(1))
    return found * lasting(table).double().unsqueeze(-1)
