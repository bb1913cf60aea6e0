"""The bent chain, walked forward: where it is, what it earns, costs and leaves uncertain."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cai.numerics import logspace
from cai.tables import sweeps

if TYPE_CHECKING:
    from cai.solutions.solution import Solution

_CHUNK = 2**22  # numbers held at once when a field of shape (T, S, A, K) is walked through


def bend(solution: Solution, steps: slice) -> Tensor:
    """KL(q(s',alive|s,a) ‖ p(s',alive|s,a)) of each state and action, (steps, S, A), nats."""
    table = solution.table
    log_q = solution.log_transitions(steps)
    nats = logspace.kl(log_q, table.log_dynamics)
    if table.discount < 1:
        log_coin, x = solution.coin(steps)
        of_coin = logspace.kl(logspace.tilt(log_coin, x, solution.optimism), log_coin)
        nats = nats + (log_q.exp() * table.gather(of_coin)).sum(-1)
    return nats


def expected(solution: Solution, nats: Callable[[Solution, slice], Tensor]) -> float:
    """Σ_t E_q[nats_t(s_t, a_t)] while alive, of a function that gives (steps, S, A) at a time."""
    table = solution.table
    if table.horizon is None:
        with table.threads():
            each = nats(solution, slice(0, 1))[0]
            return logspace.product(solution.state_actions, each).sum().item()
    total = 0.0
    chunk = max(1, _CHUNK // table.log_dynamics.numel())
    with table.threads():
        for start in range(0, table.steps, chunk):
            steps = slice(start, min(start + chunk, table.steps))
            occupancy = solution.state_actions[steps]
            total += logspace.product(occupancy, nats(solution, steps)).sum().item()
    return total


def surprise(solution: Solution, steps: slice) -> Tensor:
    """-log q(a|s) and the entropy of q(s',alive|s,a) after it, (steps, S, A), nats.

    In expectation over the actions, the entropy of one step.
    """
    table = solution.table
    log_q = solution.log_transitions(steps)
    nats = logspace.entropy(log_q) - solution.piece(steps).policy.log_probs
    if table.discount < 1:
        log_coin, x = solution.coin(steps)
        of_coin = logspace.entropy(logspace.tilt(log_coin, x, solution.optimism))
        nats = nats + (log_q.exp() * table.gather(of_coin)).sum(-1)
    return nats


def forward(bent: Solution, log_policy: Tensor) -> tuple[Tensor, float]:
    """Occupancies (T+1, S) and expected return of a policy (T, S, A) in bent dynamics."""
    table, (T, S, _) = bent.table, log_policy.shape
    states = torch.empty(T + 1, S, dtype=torch.float64)
    states[0] = bent.initial
    policy = log_policy.exp()
    arrival = 0.0
    chunk = max(1, _CHUNK // table.log_dynamics.numel())
    for start in range(0, T, chunk):
        steps = slice(start, min(start + chunk, T))
        moves = policy[steps].unsqueeze(-1) * bent.log_transitions(steps).exp()
        survivors: Tensor | float = 1.0
        if table.discount < 1:
            survivors = table.gather(bent.log_survival(steps).exp())
        flow = table.flow(moves * survivors)
        for t in range(start, steps.stop):
            states[t + 1] = table.push(states[t], flow[t - start])
        if table.arrival_reward is not None:
            visits = (states[steps, :, None, None] * moves).sum(0)
            arrival += logspace.product(visits, table.arrival_reward).sum().item()
    occupancy = (states[:-1].unsqueeze(-1) * policy).sum(0)
    acting = logspace.product(occupancy, table.reward).sum().item()
    return states, acting + arrival + sweeps.final(table, states[T])
