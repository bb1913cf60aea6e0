"""Finite-horizon sweeps by matrix products, backward and forward.

The recursion is that of bellman.py, one product per step: ``one_step.py`` says how, and why no
digits are lost. Forward, a mass x on the rows of a step flows to w(s') Σ_i W(i,s') x(i)/E(i), by
the dynamics at η. Policies and sums are not kept from the backward sweep but recomputed from the
values, several steps in one product: memory is that of the values and of one table. Exact inference
takes many steps at once (``linear_steps.py``) as long as that is accurate.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cai.numerics import logspace, memory, threads
from cai.numerics.logspace import product
from cai.numerics.matrices import Array
from cai.sweeps import linear_steps
from cai.sweeps.one_step import SoftBackup
from cai.sweeps.push import ForwardSteps, forward_steps, push
from cai.tables import bellman
from cai.tables.table import Table

_LOG = logging.getLogger("cai.sweeps")
_CHUNK = 2**18  # numbers at a time when several steps are done at once, to fit into a cache
_KEPT = 2**25  # numbers that a backward sweep may keep for the forward one: 256 MiB
_STRETCH = 16  # single steps before many at once are tried again
_MATRICES = 4  # how many matrices a table keeps

QUIET: Any = {"divide": "ignore", "invalid": "ignore", "under": "ignore"}
"""No warnings of NumPy about log 0 and underflow."""


def by_products(table: Table, eta: float) -> bool:
    """Whether sweeps use matrix products: not if numbers like ηx would over- or underflow.

    Nor if each step needs matrices of its own, as its dynamics or arrival rewards differ.
    """
    own = {"log_dynamics"} if eta == 0 else {"log_dynamics", "arrival_reward"}
    return own.isdisjoint(table.by_step) and (eta == 0 or 1e-200 < abs(eta) < 1e6)


def backward(table: Table, eta: float, rule: bellman.Rule = "soft") -> Tensor:
    """v_t(s) = V_t(s)/α for t = 0 … T, shape (T+1, S), nats.

    By matrix products if possible, else in log space; the two agree up to rounding errors.
    """
    if rule == "soft" and by_products(table, eta):
        return backward_from(table, eta, table.final_reward / table.temperature, table.steps)
    _LOG.info("values at optimism %g in log space, not by products, by the rule %s", eta, rule)
    return bellman.backward(table, eta, rule)


def backward_from(table: Table, eta: float, last: Tensor, steps: int) -> Tensor:
    """v_t(s) = V_t(s)/α at a finite η, from the last values back, (steps + 1, S), nats.

    Args:
        table: the problem.
        eta: η, finite.
        last: (S,), nats, the values of the last step.
        steps: the number of steps before it.
    """
    return _backward(table, eta, last, steps, keeps=False)[0]


def backward_with_weights(
    table: Table, eta: float, last: Tensor, steps: int
) -> tuple[Tensor, Array | None]:
    """As :func:`backward_from`, with the rows' weights π(a|s)/E, which make :func:`forward` faster.

    Returns:
        The values (steps + 1, S), and the weights (steps, R); None if these would be too many
        numbers, or if plain products do not suffice.
    """
    return _backward(table, eta, last, steps, keeps=True)


def _backward(
    table: Table, eta: float, last: Tensor, steps: int, keeps: bool
) -> tuple[Tensor, Array | None]:
    step = step_of(table, eta)
    memory.check_values(steps, len(last))
    v = np.empty((steps + 1, len(last)))
    v[-1] = last.numpy()
    redone = step.redone
    R, linear, t = step.num_rows, step.linear, steps
    keeps = keeps and step.plain and not linear and steps * R <= _KEPT
    weights = np.empty((steps, R)) if keeps else None
    with threads.suited_to(table.num_outcomes), np.errstate(**QUIET):
        while t > 0:
            if linear and not (t := linear_steps.backward(step, v, t)):
                break
            stretch = range(t - 1, max(t - _STRETCH, 0) - 1, -1)
            for i in stretch:
                v[i] = step.back(v[i + 1], i, None if weights is None else weights[i])
            t = stretch[-1]
    if step.redone > redone:
        again = step.redone - redone, steps * R
        _LOG.info("values at optimism %g: %d of %d products redone in log space", eta, *again)
    if weights is not None and np.isnan(weights[:, 0]).any():
        weights = None
    return torch.from_numpy(v), weights


def forward(
    table: Table, eta: float, log_values: Tensor, initial: Tensor, weights: Array | None = None
) -> Tensor:
    """q(s_t=s, alive) under the chain at η that given values imply.

    Args:
        table: the problem.
        eta: η, finite.
        log_values: (n+1, S), nats, the values of consecutive steps.
        initial: (S,), the distribution at the first of them.
        weights: (n, R), from :func:`backward_with_weights` with these values.

    Returns:
        (n+1, S).
    """
    step, v = step_of(table, eta), log_values.numpy()
    x = np.empty(v.shape)
    x[0] = initial.numpy()
    linear, t, T = step.linear, 0, len(v) - 1
    with threads.suited_to(table.num_outcomes), np.errstate(**QUIET):
        while t < T:
            if linear and (t := linear_steps.forward(step, v, x, t)) == T:
                break
            n = min(_STRETCH, T - t) if linear else T - t
            for start, ahead in _forward_steps(step, v[t : t + n + 1], weights):
                for i in range(t + start, t + start + len(ahead.v)):
                    x[i + 1] = push(step, x[i], ahead, i - t - start)
            t += n
    return torch.from_numpy(x)


def action_values(table: Table, eta: float, log_values: Tensor) -> Tensor:
    """q_t(s,a) = Q_t(s,a)/α of consecutive steps, (n+1, S) -> (n, S, A), nats."""
    step, v = step_of(table, eta, joint=False), log_values.numpy()
    q = np.empty((len(v) - 1, table.num_actions, table.num_states))
    with threads.suited_to(table.num_outcomes), np.errstate(**QUIET):
        for t, after in parts(step, v):
            rows = step.log_rows(after, t, prior=False)[0]
            q[t : t + len(after)] = rows.reshape(-1, *q.shape[1:])
    return torch.from_numpy(q).transpose(1, 2).contiguous()


def imagined(table: Table, eta: float, log_values: Tensor, states: Tensor) -> float:
    """(), reward units: E[Σ r + r⁺] over consecutive steps under the chain at η, without r_T.

    Args:
        table: the problem.
        eta: η, finite.
        log_values: (n+1, S), nats.
        states: (n+1, S), from :func:`forward`.
    """
    step, x = step_of(table, eta), states.numpy()
    total = 0.0
    with threads.suited_to(table.num_outcomes), np.errstate(**QUIET):
        for t, ahead in _forward_steps(step, log_values.numpy()):
            total += _earned(step, x[t : t + len(ahead.v)], ahead, t)
    return total


def visits(table: Table, eta: float, log_values: Tensor, states: Tensor) -> Tensor:
    """Σ_t q(s_t=s, a_t=a, alive) over consecutive steps, (S, A); arguments as :func:`imagined`."""
    step, x, v = step_of(table, eta, joint=False), states.numpy(), log_values.numpy()
    total = np.zeros((table.num_actions, table.num_states))
    with threads.suited_to(table.num_outcomes), np.errstate(**QUIET):
        for t, after in parts(step, v):
            policy = step.policy(step.log_rows(after, t)[0], t)
            total += np.einsum("nas,ns->as", policy, x[t : t + len(after)])
    return torch.from_numpy(total).T.contiguous()


def follow(table: Table, log_policy: Tensor) -> tuple[Tensor, float]:
    """Occupancies and expected return of a policy in the true dynamics.

    Args:
        table: the problem.
        log_policy: (T, S, A), log q(a_t|s_t).

    Returns:
        q(s_t=s, alive), (T+1, S), and E[Σ rewards] in reward units.
    """
    if "log_dynamics" in table.by_step:
        return _follow_steps(table, log_policy.exp())
    step, T = step_of(table, 0.0), len(log_policy)
    x = np.empty((T + 1, table.num_states))
    x[0] = table.log_initial.exp().numpy()
    total, n = 0.0, max(1, _CHUNK // (table.num_actions * table.num_states))
    with threads.suited_to(table.num_outcomes), np.errstate(**QUIET):
        for first in range(0, T, n):
            policy = log_policy[first : first + n].exp().transpose(1, 2).contiguous().numpy()
            for t, now in enumerate(policy, first):
                now *= x[t]
                x[t + 1] = table.discount * step.W.transposed_times(now.ravel())
            total += _paid(table.expected_reward, policy, first)
    states = torch.from_numpy(x)
    return states, total + final(table, states[-1])


def _follow_steps(table: Table, policy: Tensor) -> tuple[Tensor, float]:
    """As :func:`follow`, where each step has dynamics of its own."""
    states = torch.empty(len(policy) + 1, table.num_states, dtype=torch.float64)
    states[0] = table.log_initial.exp()
    with table.threads():
        for t, now in enumerate(policy):
            moves = now.unsqueeze(-1) * table.at(t).log_dynamics.exp()
            states[t + 1] = table.discount * table.push(states[t], table.flow(moves))
        total = over_steps(states[:-1].unsqueeze(-1) * policy, table.expected_reward)
    return states, total + final(table, states[-1])


def over_steps(counts: Tensor, x: Tensor) -> float:
    """Σ counts · x, counts (steps, …) being probabilities and x the same at each step or not."""
    return product(counts if x.dim() == counts.dim() else counts.sum(0), x).sum().item()


def final(table: Table, states: Tensor) -> float:
    """(), reward units: E[r_T] under the probabilities (S,) of the last state."""
    return product(states, table.final_reward).sum().item()


def _paid(reward: Tensor, counts: Array, t: int) -> float:
    """(), reward units: the sum of rewards (S, A), or (T, S, A), over expected counts.

    Args:
        reward: reward units.
        counts: (n, A, S), of the steps from t on.
        t: the first step.
    """
    here = torch.from_numpy(counts).mT
    return over_steps(here, reward if reward.dim() == 2 else reward[t : t + len(counts)])


def step_of(table: Table, eta: float, joint: bool | None = None) -> SoftBackup:
    """The matrices of one step, which the table caches for the last few η.

    Args:
        table: the problem.
        eta: η, finite.
        joint: whether actions are summed with the successors; if not given, when η = 1 and all
            steps are alike.
    """
    key = eta, (eta == 1 and not table.by_step) if joint is None else joint
    kept: dict[Any, SoftBackup] = vars(table).setdefault("matrices", {})
    step = kept.get(key)
    if step is None:
        while len(oldest := list(kept)) >= _MATRICES:
            kept.pop(oldest[0], None)  # another thread may have done so
        step = kept[key] = SoftBackup(table, *key)
    return step


def parts(step: SoftBackup, v: Array) -> Iterator[tuple[int, Array]]:
    """The first t and the next values of blocks of steps that fit into a cache."""
    T, n = len(v) - 1, max(1, _CHUNK // step.num_rows)
    for t in range(0, T, n):
        yield t, v[t + 1 : min(t + n, T) + 1]


def _forward_steps(
    step: SoftBackup, v: Array, weights: Array | None = None
) -> Iterator[tuple[int, ForwardSteps]]:
    """Blocks of forward factors with their first t; recomputed unless weights are given."""
    for t, after in parts(step, v):
        if weights is None:
            yield t, forward_steps(step, after, *step.log_rows(after, t), t)
        else:
            own = weights[t : t + len(after)].reshape(len(after), -1, v.shape[-1])
            yield t, ForwardSteps(after, own, w=step.w(after), survival=step.survival(after))


def _earned(step: SoftBackup, x: Array, ahead: ForwardSteps, t: int) -> float:
    """Σ E[r + r⁺] of the steps from t on, from the states (n, S) before them."""
    table, total = step.table, 0.0
    if ahead.policy is not None:
        reward = table.expected_reward if ahead.w is None else table.reward
        total = _paid(reward, ahead.policy * x[:, None, :], t)
        if ahead.w is None:
            return total
    if step.earnings is None:
        return total
    assert ahead.w is not None
    total += float(np.vdot(ahead.flows(x), step.earnings.times(ahead.w)))
    if ahead.alone is not None:
        for i in np.flatnonzero(ahead.alone.any(1)).tolist():
            mass = ahead.mass_alone(x[i], i)
            for rows in step.blocks(np.flatnonzero(mass)):
                log_p, outcomes, _ = step.alone(rows, ahead.v[i])
                each = product(logspace.tilt(log_p, outcomes, step.eta).exp(), step.paid(rows)).sum(
                    -1
                )
                total += float(each @ torch.from_numpy(mass[rows]))
    return total
