"""Stationary values for η < 0 by policy iteration, from a policy with finite values.

Below zero optimism nature delays termination, and a policy has finite values only if the delay
costs nature more than it gains: if the spectral radius of M in w = M w + b, w = exp(ηv), is below
one. Newton's method is policy iteration, so it fails if its first policy has no finite values,
though another has; and that one need not show at an optimism nearer to 0, since it may become the
best only after the values of the first have fallen by thousands of nats, just before it diverges.

So stopping is allowed for a while, in every state, at a prohibitive price. Stopping at once has
finite values, policy iteration keeps them finite, and w falls with every step (Howard 1960). If the
final policy never stops, its values are those without stopping; if it stops at any price, no policy
has finite values.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cai.infinite.bellman_operator import Linearisation, Operator
from cai.infinite.endings import largest
from cai.numerics import logspace
from cai.numerics.matrices import Array
from cai.tables import bellman
from cai.tables.table import Table

_MOST = 400  # states, as every step eliminates them one by one
_STEPS = 1000  # of policy iteration; each may spread going on by one state only
_DEARER = 64.0  # factor of the price when some state stops
_LOST = 80.0  # nats of w per state, beyond which exits are lost in rounding errors


def stops_tell(table: Table) -> bool:
    """Whether a table is small enough for this method, so that None is an answer."""
    return table.num_states <= _MOST


def values_by_stopping(
    table: Table, eta: float, rule: bellman.Rule, shape: Tensor
) -> Tensor | None:
    """Values at η, (S,), nats, close but not certified; None if no policy has finite values.

    Args:
        table: the problem; its horizon does not matter. None for one of more than 400 states.
        eta: the optimism η, finite and below zero.
        rule: "soft" or "hard".
        shape: (S,), nats: the values below which the price of stopping is counted; those at a
            higher optimism need the fewest steps.
    """
    operator = Operator.of(table, eta, rule)
    if not stops_tell(table) or not operator.ends.live.any():
        return None
    with table.threads(), torch.no_grad():
        shape = torch.where(shape.isfinite(), shape, 0.0)
        costs = bellman.action_values(table, torch.zeros_like(shape), eta)
        cost = largest(costs)
        price = cost + _LOST / abs(eta) + (shape.max() - shape.min()).item()
        most = table.num_states * (cost + _LOST / abs(eta))
        while True:
            v = _best_stopping(operator, operator.ends.filled(shape - price))
            if v is not None or price > most:
                return v
            price *= _DEARER


def _best_stopping(operator: Operator, stopped: Tensor) -> Tensor | None:
    """Values if each state may stop at a given value (S,); None if some state does stop."""
    v, live = stopped, operator.ends.live
    going = torch.zeros_like(live)
    for _ in range(_STEPS):
        step = operator.linear(v)
        for margin in (-step.noise, step.noise):  # to go on at a tie saves steps, unless for ever
            on = going | (live & (step.gap > margin))
            change = _change(step, on)
            if change is not None:
                break
        else:
            return None
        small = 1e-9 / abs(operator.eta) + 1e-12 * (1 + v.abs())
        if bool((change.abs() <= small).all()) and torch.equal(on, going):
            return v if torch.equal(going, live) else None
        v, going = v + change, on
    return None


def _change(step: Linearisation, on: Tensor) -> Tensor | None:
    """The change of the values (S,), nats, under the policy at v, which goes on in some states.

    As in Newton's method, exp(η · change) = u solves u = G (J u + e), G = exp(η (T v - v)); in log
    space, since the price of stopping is out of the range of floats. None if no u solves it.
    """
    table, eta = step.operator.table, step.operator.eta
    at = bellman.linearised(table, step.v, eta, step.operator.rule)
    log_moves = at.log_policy.unsqueeze(-1) + at.log_transitions
    log_moves = log_moves + eta * torch.where(on, step.gap, 0.0)[:, None, None]
    alive, dead = torch.zeros_like(step.v), torch.full_like(step.v, -torch.inf)
    if table.discount < 1:
        log_p, x = bellman.termination(step.v, table.discount)
        alive, dead = logspace.tilt(log_p, x, eta).unbind(-1)
    alive, dead = torch.where(on, alive, -torch.inf), torch.where(on, dead, 0.0)
    here = on.nonzero().squeeze(1)
    into = (log_moves + table.gather(alive))[here].flatten(1).numpy()
    away = (log_moves + table.gather(dead))[here].flatten(1).logsumexp(-1).numpy()
    place = torch.cumsum(on, 0).sub(1).clamp(min=0)
    heads = place[table.successor_index[here]].numpy()
    log_chain = np.full((len(here), len(here)), -np.inf)
    np.logaddexp.at(log_chain, (np.arange(len(here))[:, np.newaxis], heads), into)
    with np.errstate(over="ignore", invalid="ignore"):  # what leaves the floats is not needed
        left = np.exp(away) - np.expm1(eta * step.gap[here].numpy())  # as rows sum to exp(η gap)
        log_u = _log_solution(log_chain, away, left)
    if log_u is None:
        return None
    change = torch.zeros_like(step.v)
    change[here] = torch.from_numpy(log_u) / eta
    return change


def _log_solution(log_chain: Array, log_b: Array, left: Array) -> Array | None:
    """log u (n,) with u = M u + b, u > 0, by elimination; None if there is none.

    A pivot 1 - M_kk that is near zero is the sum of all ways out of k, where that loses fewer
    digits than the difference (``numerics.state_reduction``).

    Args:
        log_chain: log M, (n, n).
        log_b: log b, (n,).
        left: 1 - Σ_j M_ij, (n,).
    """
    n = len(log_b)
    for k in range(n - 1, -1, -1):
        ways_out = np.exp(log_chain[k, :k]).sum()
        pivot = -np.expm1(log_chain[k, k])
        if ways_out + abs(left[k]) < 0.5:
            pivot = ways_out + left[k]
        if not pivot > 0:  # the spectral radius is one or more
            return None
        again = -np.log(pivot)
        log_chain[k, :k] += again
        log_b[k] += again
        share = log_chain[:k, k]
        left[:k] += np.exp(share + again) * left[k]
        log_chain[:k, :k] = np.logaddexp(log_chain[:k, :k], share[:, np.newaxis] + log_chain[k, :k])
        log_b[:k] = np.logaddexp(log_b[:k], share + log_b[k])
    log_u = log_b
    for k in range(1, n):
        log_u[k] = np.logaddexp(log_b[k], np.logaddexp.reduce(log_chain[k, :k] + log_u[:k]))
    return log_u if np.isfinite(log_u).all() else None
