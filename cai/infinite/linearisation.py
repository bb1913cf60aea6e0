"""One step of the recursion at given values and its derivative, as Newton's method takes them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cai.infinite.endings import Endings
from cai.numerics import logspace
from cai.tables import bellman
from cai.tables.table import Table


@dataclass(frozen=True, eq=False)
class Linearisation:
    """T at v, made linear.

    Attributes:
        v: (S,), nats.
        backed_up: (S,), T v.
        gap: (S,), T v - v; zero in states that are not live.
        moves: (S, A, K), ∂T/∂v: the policy and the bent dynamics, alive. (For the Boltzmann rule
            π(1 + q - v) in the place of π.)
        arrivals: (S, A, K), the same whether or not the move is survived.
    """

    v: Tensor
    backed_up: Tensor
    gap: Tensor
    moves: Tensor
    arrivals: Tensor

    @classmethod
    def at(
        cls,
        table: Table,
        v: Tensor,
        eta: float,
        rule: bellman.Rule,
        ends: Endings,
        greedy: bool = False,
    ) -> Linearisation:
        """One application of T at v (S,), nats, with its derivative.

        Where T has a kink, as several actions or outcomes tie, the derivative is that of a mixture
        of all of them, or ``greedy`` that of the first of the best.
        """
        x = bellman.outcome_values(table, v, eta)
        q = table.reward / table.temperature + logspace.soft_mean(table.log_dynamics, x, eta)
        backed_up = bellman.state_values(table, q, rule)
        by_q = bellman.log_policy(table, q, rule).exp()
        if rule == "boltzmann":  # an action also counts by how much it beats the others
            by_q = by_q * (1 + torch.where(by_q > 0, q - backed_up.unsqueeze(-1), 0.0))
        bent = logspace.tilt(table.log_dynamics, x, eta).exp()
        if greedy and rule == "hard":
            by_q = _first_of_best(table.log_prior, q)
        if greedy and abs(eta) == torch.inf:
            bent = _first_of_best(table.log_dynamics, math.copysign(1.0, eta) * x)
        moves = arrivals = by_q.unsqueeze(-1) * bent
        if table.discount < 1:
            moves = moves * table.gather(bellman.survival(v, eta, table.discount).exp())
        return cls(v, backed_up, torch.where(ends.live, backed_up - v, 0.0), moves, arrivals)

    @property
    def residual(self) -> float:
        """max |T v - v|; NaN where v is."""
        return self.gap.abs().max().item()


def _first_of_best(log_p: Tensor, x: Tensor) -> Tensor:
    """All weight on one of the largest of what is possible, over the last axis; or p if none is."""
    x = torch.where(log_p > -torch.inf, x, -torch.inf)
    one = torch.zeros_like(x).scatter_(-1, x.argmax(-1, keepdim=True), 1.0)
    return torch.where(x.amax(-1, keepdim=True) > -torch.inf, one, log_p.exp())
