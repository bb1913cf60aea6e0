"""Derivatives at a fixed point: infinite horizons by one transposed linear solve.

v = T(v), so that the mass λ that arrives anywhere, however late, solves λ (I - J) = ∂loss/∂v, with
J = ∂T/∂v: for the soft and the hard rule the policy followed by the bent dynamics, alive, and with
the Boltzmann rule π(1 + q - v) in the place of the policy π. How v was found does not matter, and
nothing of it is taped; at η = 1 with the soft rule, a linear system, the factorisation that gave v
serves its derivative, too. Second derivatives take a dense solve, (S, S).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from cai.inference.linear_system import LinearValues, linear_system
from cai.inference.linearised import Problem, chain, gradients, observed, slopes
from cai.inference.stationary import check_nothing_final, factorises, stationary
from cai.table import Table
from cai.transient import Transient
from cai.visits import counted

_NOW = slice(0, 1)  # a stationary solution is one step of its own


def fixed_point(problem: Problem, *tensors: Tensor | None) -> tuple[Tensor, Tensor]:
    """v(s) and log π(a|s) at the visits, in nats, (S,) and (N,), differentiable.

    Args:
        problem: what has no derivative, with an infinite horizon.
        tensors: reward, arrival reward or None and final reward in nats, log prior, log dynamics.

    Raises:
        ValueError: where there are no stationary values, as :func:`stationary` says; on the way
            back where they have no derivative, which the Boltzmann rule alone allows.
    """
    return _FixedPoint.apply(problem, *tensors)


class _FixedPoint(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, problem: Problem, *tensors: Tensor | None) -> tuple[Tensor, Tensor]:
        v, linear = solved(problem, tensors[-1])
        ctx.problem, ctx.linear = problem, linear
        ctx.save_for_backward(v, *tensors)
        if problem.visits is None:
            return v, v.new_zeros(0)
        _, index = problem.visits.within(_NOW)
        table = problem.with_tensors(tensors).detached()
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
            paid = counted(table.detached())
            source, asked = on_v, None
            if problem.visits is not None:
                on_prior, on_q = observed(problem, _NOW, at, v.unsqueeze(0), on_log_policy)
                asked = on_prior, torch.where(paid.unsqueeze(-1), on_q, 0.0)
                flow = table.flow(asked[1].unsqueeze(-1) * at.moves)
                source = source + table.push(torch.ones_like(v), flow[0])
            moves = by_q[0].unsqueeze(-1) * at.moves[0]
            mass = _mass(table, moves, source, paid & (v > -torch.inf), ctx.linear)
            mass = mass.reshape(1, -1, 1)
            passing = mass * by_q, mass * by_prior
            reward, arrival, *rest = gradients(problem, table, at, passing, asked, needed)
        found = reward, arrival, torch.zeros_like(v), *rest
        return None, *(grad if wanted else None for grad, wanted in zip(found, needed, strict=True))


def solved(problem: Problem, log_dynamics: Tensor | None) -> tuple[Tensor, LinearValues | None]:
    """v (S,), nats, and the factorisation that gave it, if one did that serves its derivative.

    Args:
        problem: with an infinite horizon.
        log_dynamics: (S, A, K), those of the problem, normalised.
    """
    assert log_dynamics is not None
    # Not the table in nats: an error should speak of the rewards that the user knows.
    table = dataclasses.replace(problem.table, log_dynamics=log_dynamics).detached()
    if problem.eta != 1 or problem.rule != "soft" or not factorises(table):
        return stationary(table, problem.eta, problem.rule).log_values, None
    check_nothing_final(table)
    linear = linear_system(table)
    # What it takes for the end has visits, too, where they are counted until death.
    serves = table.discount == 1 or not linear.graph.absorbing.any()
    return linear.log_values, linear if serves else None


def _mass(
    table: Table, moves: Tensor, source: Tensor, answers: Tensor, linear: LinearValues | None
) -> Tensor:
    """λ (S,) with λ (I - J) = source, J from moves (S, A, K); none where the value is fixed."""
    source = torch.where(answers, source, 0.0)
    if torch.is_grad_enabled():
        weights = torch.where(answers[:, None, None], moves, 0.0)
        S = table.num_states
        J = weights.new_zeros(S, S).scatter_add(1, table.successor_index, weights.flatten(1))
        mass = torch.linalg.solve(torch.eye(S, dtype=J.dtype) - J.T, source)
        return torch.where(answers, mass, 0.0)
    if linear is not None:
        return linear.expected_visits(source)
    mass = Transient(table, moves, answers).visits(source)
    if not mass.isfinite().all():
        raise ValueError(
            "rule: the values are a fixed point v = T v that has no derivative, as I - ∂T/∂v is "
            "singular there; the Boltzmann rule changes its mind at this temperature, try another"
        )
    return mass
