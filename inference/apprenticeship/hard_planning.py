"""The best policies of a table for rewards that change, and how often they visit what.

With a finite horizon or a discount by the hard Bellman recursion. An infinite horizon without a
discount is a linear program over expected visits x ≥ 0,

    max Σ r x    with    Σ_a x(s,a) - Σ p(s|s',a') x(s',a') = how many begin in s,

whose corners are policies that end, also where going round costs nothing. Going on for ever gains
if visits of one step that balance, with Σ x = 1 and nobody who begins, are worth more than zero.
"""

from __future__ import annotations

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
        total = float(begin.sum())
        if self.table.horizon is None:
            paid = self.table.holding(reward=reward, log_initial=(begin[0] / total).log())
            solution = soft_values(paid, rule="hard")
            visits = total * of_policy(paid, solution.policy.log_probs)[1]
            return Planned(float((begin[0] * solution.V).sum()), visits.unsqueeze(0))
        solution = soft_values(self.table.holding(reward=reward), rule="hard")
        visits = self.visits(solution.policy.log_probs, begin)
        counts = begin > 0
        return Planned(float((begin[counts] * solution.V[:-1][counts]).sum()), visits)

    def visits(self, log_policy: Tensor, begin: Tensor) -> Tensor:
        """(T, S, A), how often a policy (T, S, A) takes each action, with a finite horizon."""
        table, found = self.table, torch.zeros_like(log_policy)
        mass = torch.zeros_like(begin[0])
        for t in range(self.steps):
            found[t] = (mass + begin[t]).unsqueeze(-1) * log_policy[t].exp()
            moves = found[t].unsqueeze(-1) * table.at(t).log_dynamics.exp()
            mass = table.discount * table.arrivals(moves)
        return found

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


def expected_features(table: Table, features: FeatureArrays) -> Tensor:
    """(k, 1 or T, S, A): f + E[f⁺|s,a], zero where nothing is paid any more."""
    found = features.reward.unsqueeze(1)
    if features.arrival is not None:
        log_p = table.log_dynamics
        log_p = log_p if log_p.dim() == 4 else log_p.unsqueeze(0)
        found = found + mean(log_p, features.arrival.unsqueeze(1))
    return found * lasting(table).double().unsqueeze(-1)
