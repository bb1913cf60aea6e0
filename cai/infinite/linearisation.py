"""T at v, made linear: what a step of Newton's method is made from, see ``fixed_point.py``."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cai.infinite.endings import Endings, largest
from cai.infinite.gap import Gap
from cai.numerics import logspace
from cai.tables import bellman
from cai.tables.table import Table

_ROUGH = 1e-8  # of a gap, relative to values, from which on it is told to all its digits


@dataclass(frozen=True, eq=False)
class Linearisation:
    """T at v, made linear.

    Attributes:
        v: (S,), nats.
        gap: (S,), nats, T v - v; zero in states that are not live.
        moves: (S, A, K), ∂T/∂v: the policy and the bent dynamics, alive. (For the Boltzmann rule
            π(1 + q - v) in the place of π.)
        ending: (S,), how likely, in the bent dynamics, the next step is the last one.
    """

    v: Tensor
    gap: Tensor
    moves: Tensor
    ending: Tensor
    _found: Gap | None
    _live: Tensor

    @classmethod
    def at(
        cls,
        table: Table,
        v: Tensor,
        eta: float,
        rule: bellman.Rule,
        ends: Endings,
        greedy: bool = False,
        exact: bool = False,
    ) -> Linearisation:
        """One application of T at v (S,), nats, with its derivative.

        Where T has a kink, as several actions or outcomes tie, the derivative is that of a mixture
        of all of them, or ``greedy`` that of the first of the best. The gap is that of ``gap.py``
        where it is small, or where it has to be ``exact``.
        """
        x = bellman.outcome_values(table, v, eta)
        q = table.reward / table.temperature + logspace.soft_mean(table.log_dynamics, x, eta)
        backed_up, log_pi = bellman.state_values(table, q, rule), None
        gap, found = torch.where(ends.live, backed_up - v, 0.0), None
        if exact or not gap.abs().max() > _ROUGH * (1 + largest(v)):
            found = Gap.at(table, v, eta, rule)
            gap, log_pi = torch.where(ends.live, found.values, 0.0), found.log_policy()
        by_q = (bellman.log_policy(table, q, rule) if log_pi is None else log_pi).exp()
        if rule == "boltzmann":  # an action also counts by how much it beats the others
            by_q = by_q * (1 + torch.where(by_q > 0, q - backed_up.unsqueeze(-1), 0.0))
        bent = logspace.tilt(table.log_dynamics, x, eta).exp()
        if greedy and rule == "hard":
            by_q = _first_of_best(table.log_prior, q)
        if greedy and abs(eta) == torch.inf:
            bent = _first_of_best(table.log_dynamics, math.copysign(1.0, eta) * x)
        moves, last = by_q.unsqueeze(-1) * bent, (~ends.live).double()
        alive = torch.ones_like(v)
        if table.discount < 1:
            log_coin, of_coin = bellman.coin(v, table.discount)
            alive, dead = logspace.tilt(log_coin, of_coin, eta).exp().unbind(-1)
            last = torch.where(ends.live, dead, last)
        ending = (moves * table.gather(last)).sum((-2, -1))
        moves = moves * table.gather(alive) if table.discount < 1 else moves
        return cls(v, gap, moves, ending, found, ends.live)

    @property
    def residual(self) -> float:
        """max |T v - v|; NaN where v is."""
        return self.gap.abs().max().item()

    @property
    def noise(self) -> Tensor:
        """(S,), nats, how far the gap may be off for rounding errors; infinite where not exact."""
        if self._found is None:
            return torch.where(self._live, torch.inf, 0.0)
        return torch.where(self._live, self._found.noise, 0.0)

    @property
    def settled(self) -> bool:
        """Whether the gap is rounding errors."""
        return self._found is not None and bool((self.gap.abs() <= self.noise).all())


def _first_of_best(log_p: Tensor, x: Tensor) -> Tensor:
    """All weight on one of the largest of what is possible, over the last axis; or p if none is."""
    x = torch.where(log_p > -torch.inf, x, -torch.inf)
    one = torch.zeros_like(x).scatter_(-1, x.argmax(-1, keepdim=True), 1.0)
    return torch.where(x.amax(-1, keepdim=True) > -torch.inf, one, log_p.exp())
