"""Derivatives at a fixed point: infinite horizons by one transposed linear solve.

v = T(v), so that the mass λ that arrives anywhere, however late, solves λ (I - J) = ∂loss/∂v, with
J = ∂T/∂v the policy followed by the bent dynamics, alive. How v was found does not matter, and
nothing of it is taped. At η = 1 the factorisation that gave v serves its derivative, too.
"""

from __future__ import annotations

from typing import Any

import torch
from scipy.sparse import csr_array, eye_array
from scipy.sparse.linalg import splu
from torch import Tensor

from cai.inference.linear_system import LinearValues, linear_system
from cai.inference.linearised import Chain, Problem, chain, gradients, observed, slopes
from cai.inference.moves import never_paid
from cai.inference.soft_values import soft_values
from cai.inference.system import factorise
from cai.table import Table

_DENSE = 256  # states, up to which a dense solve is as quick as a sparse one
_NOW = slice(0, 1)  # a stationary solution is one step of its own


def fixed_point(problem: Problem, *tensors: Tensor | None) -> tuple[Tensor, Tensor]:
    """v(s) and log π(a|s) at the visits, in nats, (S,) and (N,), differentiable.

    Args:
        problem: what has no derivative, with an infinite horizon.
        tensors: reward, arrival reward or None and final reward in nats, log prior, log dynamics.
    """
    return _FixedPoint.apply(problem, *tensors)


class _FixedPoint(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, problem: Problem, *tensors: Tensor | None) -> tuple[Tensor, Tensor]:
        table = problem.with_tensors(tensors).detached()
        ctx.problem, ctx.linear = problem, None
        if problem.eta == 1 and problem.rule == "soft" and table.discount == 1:
            ctx.linear = linear_system(table)
            v = ctx.linear.log_values
        else:
            v = soft_values(table, problem.eta, problem.rule).log_values
        ctx.save_for_backward(v, *tensors)
        if problem.visits is None:
            return v, v.new_zeros(0)
        _, index = problem.visits.within(_NOW)
        with table.threads():
            return v, chain(problem, table, v.unsqueeze(0)).log_pi[index]

    @staticmethod
    def backward(ctx: Any, on_v: Tensor, on_log_policy: Tensor) -> tuple[Tensor | None, ...]:
        v, *tensors = ctx.saved_tensors
        problem, needed = ctx.problem, ctx.needs_input_grad[1:]
        table = problem.with_tensors(tuple(tensors))
        with table.threads():
            at = chain(problem, table, v.unsqueeze(0))
            by_q, by_prior = slopes(problem, at, v.unsqueeze(0))
            paid = torch.from_numpy(~never_paid(table.detached())) | (table.discount < 1)
            source, asked = on_v, None
            if problem.visits is not None:
                on_prior, on_q = observed(problem, _NOW, at, v.unsqueeze(0), on_log_policy)
                asked = on_prior, torch.where(paid.unsqueeze(-1), on_q, 0.0)
                flow = table.flow(asked[1].unsqueeze(-1) * at.moves)
                source = source + table.push(torch.ones_like(v), flow[0])
            answers = paid & (v > -torch.inf)
            mass = _mass(problem, table, at, by_q, source, answers, ctx.linear)
            mass = mass.reshape(1, -1, 1)
            passing = mass * by_q, mass * by_prior
            reward, arrival, *rest = gradients(problem, table, at, passing, asked, needed)
        found = reward, arrival, torch.zeros_like(v), *rest
        return None, *(grad if wanted else None for grad, wanted in zip(found, needed, strict=True))


def _mass(
    problem: Problem,
    table: Table,
    at: Chain,
    by_q: Tensor,
    source: Tensor,
    answers: Tensor,
    linear: LinearValues | None,
) -> Tensor:
    """λ (S,) with λ (I - J) = source; nothing in states whose value is fixed."""
    source = torch.where(answers, source, 0.0)
    if linear is not None and not torch.is_grad_enabled():
        return linear.expected_visits(source)
    weights = torch.where(answers[:, None, None], by_q[0].unsqueeze(-1) * at.moves[0], 0.0)
    S, heads = table.num_states, table.successor_index
    if S <= _DENSE or torch.is_grad_enabled():
        J = weights.new_zeros(S, S).scatter_add(1, heads, weights.flatten(1))
        mass = torch.linalg.solve(torch.eye(S, dtype=J.dtype) - J.T, source)
        return torch.where(answers, mass, 0.0)
    starts = torch.arange(0, heads.numel() + 1, heads.shape[1])
    entries = [x.int().numpy() for x in (heads.flatten(), starts)]
    J = csr_array((weights.flatten().numpy(), *entries), shape=(S, S))
    J.sum_duplicates()
    J.eliminate_zeros()
    lu = splu((eye_array(S) - J).tocsc()) if problem.rule == "boltzmann" else factorise(J)
    return torch.where(answers, torch.from_numpy(lu.solve(source.numpy(), trans="T")), 0.0)
