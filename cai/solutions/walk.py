"""Occupancies and return of a solution's own chain, by a forward pass."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from cai.solutions.chain import Chain
from cai.sweeps import sweeps


def forward(tilted: Chain, stretches: Iterable[slice], log_policy: Tensor) -> tuple[Tensor, float]:
    """Occupancies (T+1, S) and expected return of a policy in a solution's own dynamics.

    Args:
        tilted: the solution that gives start and dynamics.
        stretches: the steps 0 … T-1 in order, in slices that fit into memory.
        log_policy: (T, S, A).
    """
    table, (T, S, _) = tilted.table, log_policy.shape
    states = torch.empty(T + 1, S, dtype=torch.float64)
    states[0] = tilted.initial
    policy = log_policy.exp()
    arrival = 0.0
    for steps in stretches:
        transitions = policy[steps].unsqueeze(-1) * tilted.log_transitions(steps).exp()
        survival: Tensor | float = 1.0
        if table.discount < 1:
            survival = table.gather(tilted.log_survival(steps).exp())
        flow = table.flow(transitions * survival)
        for t in range(steps.start, steps.stop):
            states[t + 1] = table.push(states[t], flow[t - steps.start])
        if (reward := table.at(steps).arrival_reward) is not None:
            arrival += sweeps.over_steps(states[steps, :, None, None] * transitions, reward)
    acting = sweeps.over_steps(states[:-1].unsqueeze(-1) * policy, table.reward)
    return states, acting + arrival + sweeps.final(table, states[T])
