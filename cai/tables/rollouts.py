"""Trajectories of a policy on a table, in the true dynamics."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cai.numerics import inverse_cdf, memory
from cai.tables.table import Table


@dataclass(frozen=True, eq=False)
class Rollouts:
    """n trajectories of T steps on a table.

    Attributes:
        states: (n, T+1).
        actions: (n, T).
        outcomes: (n, T), which of the K successors followed.
        alive: (n, T+1), boolean: whether the discount has not terminated it yet.
    """

    states: Tensor
    actions: Tensor
    outcomes: Tensor
    alive: Tensor

    def log_probs(self, log_p: Tensor) -> Tensor:
        """(n,), nats: Σ_t log p(a_t|s_t) while alive, of log p (T, S, A), or (S, A)."""
        T = self.actions.shape[1]
        at = (self.states[:, :-1], self.actions)
        each = log_p[at] if log_p.dim() == 2 else log_p[(torch.arange(T), *at)]
        return torch.where(self.alive[:, :-1], each, 0.0).sum(1)

    def joined(self, other: Rollouts) -> Rollouts:
        """These and others."""
        return Rollouts(
            *(torch.cat(pair) for pair in zip(_fields(self), _fields(other), strict=True))
        )


def roll_out(table: Table, log_policy: Tensor, starts: Tensor) -> Rollouts:
    """Trajectories of a policy from given first states, drawn from torch's generator.

    Args:
        table: of a finite horizon T.
        log_policy: (T, S, A).
        starts: (n,), the first states.
    """
    n, T = len(starts), table.steps
    memory.check_fits("samples", f"{n} trajectories", n * (3 * T + 1), "draw fewer at a time")
    policy = inverse_cdf.cumulative(log_policy.exp())
    by_step = "log_dynamics" in table.by_step
    moves = inverse_cdf.cumulative(table.log_dynamics.exp())
    states, alive = [starts], [torch.ones(n, dtype=torch.bool)]
    actions, outcomes = [], []
    for t in range(T):
        s, uniform = states[-1], torch.rand(3, n, dtype=torch.float64)
        a = inverse_cdf.draw(policy[t, s], uniform[0, :, None])
        rows = moves[t, s, a] if by_step else moves[s, a]
        k = inverse_cdf.draw(rows, uniform[1, :, None])
        states.append(k if table.successors is None else table.successors[s, a, k])
        actions.append(a)
        outcomes.append(k)
        alive.append(alive[-1] & (uniform[2] < table.discount))
    held = torch.stack(actions, 1), torch.stack(outcomes, 1)
    return Rollouts(torch.stack(states, 1), *held, torch.stack(alive, 1))


def _fields(x: Rollouts) -> tuple[Tensor, ...]:
    return x.states, x.actions, x.outcomes, x.alive
