"""Derivatives at a fixed point: infinite horizons by one transposed linear solve.

v = T(v), so that the mass λ that arrives anywhere, however late, solves λ (I - J) = ∂loss/∂v, with
J = ∂T/∂v the policy followed by the bent dynamics, alive. How v was found does not matter, and
nothing of it is taped: the factorisation that gave v serves its derivative, too. Second derivatives
take a dense solve, (S, S).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cai.endings import never_paid
from cai.inference.linear_system import LinearValues, linear_system
from cai.inference.linearised import Chain, Problem, chain, gradients, observed, slopes
from cai.table import Table

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
        if problem.eta != 1 or problem.rule != "soft":
            raise ValueError(
                "horizon: without an end there are derivatives at optimism 1 with the soft rule, "
                f"got optimism {problem.eta:g} and rule {problem.rule!r}; take a long horizon, "
                "dataclasses.replace(table, horizon=1000)"
            )
        solved = linear_system(table)
        v = solved.log_values
        ctx.problem, ctx.linear = problem, solved
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
            mass = _mass(table, at, by_q, source, answers, ctx.linear)
            mass = mass.reshape(1, -1, 1)
            passing = mass * by_q, mass * by_prior
            reward, arrival, *rest = gradients(problem, table, at, passing, asked, needed)
        found = reward, arrival, torch.zeros_like(v), *rest
        return None, *(grad if wanted else None for grad, wanted in zip(found, needed, strict=True))


def _mass(
    table: Table,
    at: Chain,
    by_q: Tensor,
    source: Tensor,
    answers: Tensor,
    linear: LinearValues,
) -> Tensor:
    """λ (S,) with λ (I - J) = source; nothing in states whose value is fixed."""
    source = torch.where(answers, source, 0.0)
    if not torch.is_grad_enabled():
        return linear.expected_visits(source)
    weights = torch.where(answers[:, None, None], by_q[0].unsqueeze(-1) * at.moves[0], 0.0)
    S = table.num_states
    J = weights.new_zeros(S, S).scatter_add(1, table.successor_index, weights.flatten(1))
    mass = torch.linalg.solve(torch.eye(S, dtype=J.dtype) - J.T, source)
    return torch.where(answers, mass, 0.0)
