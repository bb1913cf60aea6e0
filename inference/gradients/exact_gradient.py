"""The ELBO of a table and its gradient without sampling, through occupancies."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from cai.inference.gradients.gradient import Estimator, checked, gains
from cai.numerics.logspace import product
from cai.numerics.matrices import Array
from cai.policies.as_table import policy_log_probs
from cai.tables.table import Table


def exact_gradient(table: Table, policy: nn.Module) -> Estimator:
    """The estimator of the ELBO through the occupancies of the policy, without sampling.

    ∂ELBO/∂log q_t(a|s) = occupancy_t(s) q_t(a|s) (advantage_t(s,a)), the policy gradient theorem
    for the objective of maximum entropy.
    """
    of_policy = advantages(table)

    def estimate() -> float:
        log_q = policy_log_probs(policy, table)
        with torch.no_grad():
            found = of_policy(log_q)
            checked(found.elbo)
            weight = occupancies(table, found.flow).unsqueeze(-1) * log_q.exp()
            slope = product(weight, found.advantages)
        log_q.backward(-slope)
        return -found.elbo

    return estimate


class Advantages(NamedTuple):
    """The values of a policy q in a table, and the advantage of each action.

    Attributes:
        elbo: the ELBO, nats.
        values: (T+1, S), v_t(s), nats: the ELBO from state s at step t on.
        advantages: (T, S, A), Q_t(s,a)/α + log p(a|s) - log q_t(a|s) - v_t(s), nats; NaN for
            actions of probability zero, and if v_t(s) is -inf.
        flow: (T, S, ...), the flow of q(a|s) p(s'|s,a) γ, see ``Table.flow``.
    """

    elbo: float
    values: Tensor
    advantages: Tensor
    flow: Tensor


def advantages(table: Table) -> Callable[[Tensor], Advantages]:
    """A function log q_t(a|s), (T, S, A), nats -> values and advantages of that policy."""
    gain, p = gains(table), table.log_dynamics.exp() * table.discount
    ahead, initial = _ahead(table, p), table.log_initial.exp()

    def of_policy(log_q: Tensor) -> Advantages:
        q, now = log_q.exp(), gain - log_q
        flow = table.flow(q.unsqueeze(-1) * p)
        v = _values(table, product(q, now).sum(-1), flow)
        gained = now + ahead(v[1:]) - v[:-1].unsqueeze(-1)
        return Advantages(product(initial, v[0]).sum().item(), v, gained, flow)

    return of_policy


def _ahead(table: Table, p: Tensor) -> Callable[[Tensor], Tensor]:
    """A function v -> Σ p v(s'), (..., S) -> (..., S, A), by one matrix product if possible."""
    weights = None
    if table.flows_in_matrices and p.dim() == 3:
        weights = table.dense(table.log_dynamics).flatten(0, 1) * table.discount

    def ahead(v: Tensor) -> Tensor:
        if not v.isfinite().all():  # states that are not reached may have the value -inf
            return product(p, table.gather(v)).sum(-1)
        if weights is not None:
            return (v @ weights.T).unflatten(-1, p.shape[-3:-1])
        return (p * table.gather(v)).sum(-1)

    return ahead


def _values(table: Table, gain: Tensor, flow: Tensor) -> Tensor:
    """v_t(s) of a policy, (T+1, S), nats: the ELBO from state s at step t on.

    Args:
        table: the problem.
        gain: (T, S), expected reward and entropy of one step, nats.
        flow: (T, S, ...), the flow of q(a|s) p(s'|s,a) γ.
    """
    T, S = gain.shape
    v = torch.empty(T + 1, S, dtype=torch.float64)
    v[T] = table.final_reward / table.temperature
    if table.flows_in_matrices and flow.is_cpu:
        # NumPy has less overhead for many small products. They turn values of -inf into NaN.
        with np.errstate(invalid="ignore"):
            _backward(flow.numpy(), gain.numpy(), v.numpy())
        if v.isfinite().all():
            return v
    for t in range(T - 1, -1, -1):
        torch.add(gain[t], table.pull(flow[t], v[t + 1]), out=v[t])
    return v


def _backward(flow: Array, gain: Array, v: Array) -> None:
    for t in range(len(gain) - 1, -1, -1):
        np.matmul(flow[t], v[t + 1], out=v[t])
        v[t] += gain[t]


def occupancies(table: Table, flow: Tensor) -> Tensor:
    """q(s_t=s, alive) for t = 0 … T-1, shape (T, S), from the flow of a policy."""
    states = torch.empty(len(flow), table.num_states, dtype=torch.float64)
    states[0] = table.log_initial.exp()
    if table.flows_in_matrices and flow.is_cpu:
        x, moves = states.numpy(), flow.numpy()
        for t in range(len(moves) - 1):
            np.matmul(x[t], moves[t], out=x[t + 1])
        return states
    for t in range(len(flow) - 1):
        states[t + 1] = table.push(states[t], flow[t])
    return states
