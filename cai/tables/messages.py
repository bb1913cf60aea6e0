"""Messages along the chain p(τ, O) given evidence: sums for marginals, maxima for the mode.

One step is a table of log-weights, log p(a|s) + log p(s'|s,a) + (r + r⁺)/α, without rewards if o_t
is not observed and with a single action if a_t is; then the trajectory survives or terminates.
Forward and backward messages (Levine 2018, section 2.3) are products with these tables, in log
space.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cai.numerics.logspace import logsumexp_by_group
from cai.tables.evidence import Evidence
from cai.tables.table import Table


class Total(NamedTuple):
    """How alternatives are combined, by sum or maximum: over an axis, and of two tensors."""

    over: Callable[..., Any]
    pair: Callable[[Tensor, Tensor], Tensor]


SUM = Total(torch.logsumexp, torch.logaddexp)
MAX = Total(torch.amax, torch.maximum)


def weights(table: Table, optimal: bool, action: int) -> Tensor:
    """Log-weights of one step, (S, A, K) in nats; (S, 1, K) if an action is observed, not -1."""
    log_w = table.log_weights if optimal else table.log_prior.unsqueeze(-1) + table.log_dynamics
    return log_w if action < 0 else log_w[:, action : action + 1]


def row_weights(table: Table, s: int, optimal: bool, action: int) -> Tensor:
    """``weights`` of one state, (A, K) or (1, K)."""
    log_w = table.log_prior[s].unsqueeze(-1) + table.log_dynamics[s]
    if optimal:
        reward = table.reward[s].unsqueeze(-1)
        if table.arrival_reward is not None:
            reward = reward + table.arrival_reward[s]
        log_w = log_w + reward / table.temperature
    return log_w if action < 0 else log_w[action : action + 1]


def successors(table: Table, action: int) -> Tensor | None:
    """The successors that belong to ``weights``; None where dense."""
    listed = table.successors
    return listed if listed is None or action < 0 else listed[:, action : action + 1]


def _kept(table: Table) -> Callable[[Any], Any]:
    """A decorator: keeps what a function said, unless each step has something else to say."""
    return lru_cache(maxsize=1 if table.by_step else None)


def backward(table: Table, evidence: Evidence, total: Total) -> Tensor:
    """The sum or the maximum over all continuations: (T+1, S), nats.

    With SUM, log p(observations at s_t and later | s_t=s, alive); with MAX, the log-probability of
    the best continuation, until the end or until termination.
    """

    @_kept(table)
    def step(t: int, optimal: bool, action: int) -> tuple[Tensor, Tensor | None]:
        log_w, listed = weights(table.at(t), optimal, action), successors(table, action)
        if listed is None:
            return total.over(log_w, 1), None
        return log_w.flatten(1), listed.flatten()

    optimal, actions = evidence.optimal.tolist(), evidence.actions.tolist()
    v = torch.empty(table.steps + 1, table.num_states, dtype=torch.float64)
    v[-1] = table.final_reward / table.temperature if optimal[-1] else 0.0
    restrict(v[-1], evidence, table.steps)
    informed = informative(evidence).tolist()
    with table.threads():
        for t in range(table.steps - 1, -1, -1):
            u = arrive(table, evidence, v[t + 1], t + 1, total)
            log_w, listed = step(t if table.by_step else 0, optimal[t], actions[t])
            if listed is not None:
                u = u.index_select(0, listed).view_as(log_w)
            v[t] = total.over(log_w + u, -1)
            if informed[t]:
                restrict(v[t], evidence, t)
    return v


def arrive(table: Table, evidence: Evidence, v: Tensor, t: int, total: Total) -> Tensor:
    """The value of arriving in step t, before termination, from the value of being alive."""
    if table.discount == 1:
        return v
    v = v + math.log(table.discount)
    if not evidence.dead[t]:
        return v
    return total.pair(v, torch.full_like(v, math.log1p(-table.discount)))


def informative(evidence: Evidence) -> Tensor:
    """(T+1,), boolean: whether the state or survival is observed."""
    return (evidence.states >= 0) | ~evidence.living


def restrict(v: Tensor, evidence: Evidence, t: int) -> None:
    """Sets to -inf, in place, the states (S,) that contradict the observation of s_t."""
    s = int(evidence.states[t])
    if not evidence.living[t]:
        v.fill_(-torch.inf)
    elif s >= 0:
        here = v[s].clone()
        v.fill_(-torch.inf)
        v[s] = here


def forward(table: Table, evidence: Evidence) -> Tensor:
    """log p(s_t=s, alive, observations before s_t), (T+1, S), nats."""

    @_kept(table)
    def step(t: int, optimal: bool, action: int) -> tuple[Tensor, Tensor | None]:
        log_w, listed = weights(table.at(t), optimal, action), successors(table, action)
        if listed is None:
            return log_w.logsumexp(1) + math.log(table.discount), None
        return log_w.flatten(1) + math.log(table.discount), listed.flatten()

    optimal, actions = evidence.optimal.tolist(), evidence.actions.tolist()
    informed = informative(evidence).tolist()
    log_alpha = torch.empty(table.steps + 1, table.num_states, dtype=torch.float64)
    log_alpha[0] = table.log_initial
    with table.threads():
        for t in range(table.steps):
            here = log_alpha[t]
            if informed[t]:
                here = here.clone()
                restrict(here, evidence, t)
            log_w, listed = step(t if table.by_step else 0, optimal[t], actions[t])
            arrived = here.unsqueeze(1) + log_w
            if listed is None:
                log_alpha[t + 1] = arrived.logsumexp(0)
            else:
                arrived = arrived.flatten()
                log_alpha[t + 1] = logsumexp_by_group(arrived, listed, table.num_states)
    return log_alpha
