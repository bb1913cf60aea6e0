"""What a bent chain costs and how uncertain it is: sums over its steps, in nats."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cai import bellman

if TYPE_CHECKING:
    from cai.solution import Solution

_CHUNK = 2**22  # numbers held at once when a field of shape (T, S, A, K) is walked through


def bend(solution: Solution, steps: slice) -> Tensor:
    """KL(q(s',alive|s,a) ‖ p(s',alive|s,a)) of each state and action, (steps, S, A), nats."""
    table = solution.table
    log_q = solution.log_transitions(steps)
    nats = bellman.kl(log_q, table.log_dynamics)
    if table.discount < 1:
        log_coin, x = solution.coin(steps)
        of_coin = bellman.kl(bellman.tilt(log_coin, x, solution.optimism), log_coin)
        nats = nats + (log_q.exp() * table.gather(of_coin)).sum(-1)
    return nats


def expected(solution: Solution, nats: Callable[[Solution, slice], Tensor]) -> float:
    """Σ_t E_q[nats_t(s_t, a_t)] while alive, of a function that gives (steps, S, A) at a time."""
    table = solution.table
    total = 0.0
    chunk = max(1, _CHUNK // table.log_dynamics.numel())
    with table.threads():
        for start in range(0, table.steps, chunk):
            steps = slice(start, min(start + chunk, table.steps))
            occupancy = solution.state_actions[steps]
            total += torch.where(occupancy > 0, occupancy * nats(solution, steps), 0.0).sum().item()
    return total


def surprise(solution: Solution, steps: slice) -> Tensor:
    """-log q(a|s) and the entropy of q(s',alive|s,a) after it, (steps, S, A), nats.

    In expectation over the actions, the entropy of one step.
    """
    table = solution.table
    log_q = solution.log_transitions(steps)
    nats = bellman.entropy(log_q) - solution.piece(steps).policy.log_probs
    if table.discount < 1:
        log_coin, x = solution.coin(steps)
        of_coin = bellman.entropy(bellman.tilt(log_coin, x, solution.optimism))
        nats = nats + (log_q.exp() * table.gather(of_coin)).sum(-1)
    return nats
