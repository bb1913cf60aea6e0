"""Derivatives at a fixed point: infinite horizons by one transposed linear solve.

v = T(v), so that the mass λ that arrives at any later time solves λ (I - J) = ∂loss/∂v, with
J = ∂T/∂v: for the soft and the hard rule the policy followed by the dynamics at η, while alive; for
the Boltzmann rule π(1 + q - v) in the place of the policy π. How v was found does not matter, and
nothing of it is taped; at η = 1 with the soft rule, a linear system, the factorisation that gave v
is reused for its derivative. Second derivatives take a dense solve, (S, S).
"""

from __future__ import annotations

import torch
from torch import Tensor

from cai.inference.derivatives._linearised import Recursion, gradients, observed
from cai.inference.derivatives._pullback import Gradients, Needed, Operation, Tensors, chosen, taped
from cai.inference.infinite.linear_system import LinearValues, linear_system
from cai.inference.infinite.stationary_values import check_nothing_final, factorises, stationary
from cai.infinite.transient import Transient
from cai.infinite.visits import answering
from cai.tables import bellman
from cai.tables.bellman import Linearised
from cai.tables.table import Table

_NOW = slice(0, 1)  # a stationary solution is one step of its own


def fixed_point(problem: Recursion, *tensors: Tensor | None) -> tuple[Tensor, Tensor]:
    """v(s) and log π(a|s) at the visits, in nats, (S,) and (N,), differentiable.

    Args:
        problem: the part without derivatives, with an infinite horizon.
        tensors: reward, arrival reward or None and final reward in nats, log prior, log dynamics.

    Raises:
        ValueError: if there are no stationary values, see :func:`soft_values`; in the backward
            pass if they have no derivative, which can happen with the Boltzmann rule.
    """
    seen: list[LinearValues | None] = []

    def solve(*tensors: Tensor) -> Tensors:
        *nats, log_initial, alpha = tensors
        table = problem.checked(tuple(nats))
        # Errors should be about the rewards in the user's units.
        v, linear = solved(_in_units(table, log_initial, alpha), problem.eta, problem.rule)
        seen.append(linear)
        if problem.visits is None:
            return v, v.new_zeros(0)
        _, index = problem.visits.within(_NOW)
        with table.threads():
            return v, problem.linearised(table, v.unsqueeze(0)).log_policy[index]

    def pullback(needed: Needed) -> Operation:
        def tape(*tensors: Tensor) -> Tensors:
            linear = seen[0] if len(seen) == 1 else None  # not in a batch
            *nats, log_initial, alpha, v, _, on_v, on_log_policy = tensors
            table = problem.with_tensors(tuple(nats))
            with table.threads():
                at = problem.linearised(table, v.unsqueeze(0))
                found = _gradients(problem, at, (on_v, on_log_policy), needed[:5], linear)
            # v does not depend on these, but forward mode may ask for their gradients as well.
            rest = torch.zeros_like(log_initial), torch.zeros_like(alpha)
            return chosen((*found, *rest), needed)

        return taped(tape)

    fixed = problem.table.log_initial.detach(), problem.alpha.detach()
    v, log_policy = Operation(solve, pullback)(*tensors, *fixed)
    return v, log_policy


def _in_units(table: Table, log_initial: Tensor, alpha: Tensor) -> Table:
    """A table in nats with its rewards multiplied by a temperature α, and with a start."""
    arrival = None if table.arrival_reward is None else table.arrival_reward * alpha
    return table.holding(
        log_initial=log_initial,
        reward=table.reward * alpha,
        arrival_reward=arrival,
        final_reward=table.final_reward * alpha,
        temperature=alpha.item(),
    )


def _gradients(
    problem: Recursion, at: Linearised, on: Tensors, needed: Needed, linear: LinearValues | None
) -> Gradients:
    """Of reward, arrival and final reward, log prior and log dynamics, all in nats."""
    table, v = at.table, at.v_next[0]
    by_q, by_prior = bellman.slopes(at, v.unsqueeze(0))
    moves = by_q[0].unsqueeze(-1) * at.survived[0]
    answers = answering(table.detached(), moves)
    (source, on_log_policy), asked = on, None
    if problem.visits is not None:
        on_prior, on_q = observed(problem, _NOW, at, v.unsqueeze(0), on_log_policy)
        asked = on_prior, torch.where(answers.unsqueeze(-1), on_q, 0.0)
        flow = table.flow(asked[1].unsqueeze(-1) * at.survived)
        source = source + table.push(torch.ones_like(v), flow[0])
    mass = _mass(table, moves, source, answers & (v > -torch.inf), linear)
    mass = mass.reshape(1, -1, 1)
    passing = mass * by_q, mass * by_prior
    reward, arrival, *rest = gradients(at, passing, asked, needed)
    return reward, arrival, torch.zeros_like(v), *rest


def solved(table: Table, eta: float, rule: bellman.Rule) -> tuple[Tensor, LinearValues | None]:
    """v (S,), nats, and the factorisation that gave it, if its derivative can reuse one.

    Args:
        table: a problem with an infinite horizon, plain numbers.
        eta: the optimism η.
        rule: how actions are chosen.
    """
    if eta != 1 or rule != "soft" or not factorises(table):
        return stationary(table, eta, rule).log_values, None
    check_nothing_final(table)
    linear = linear_system(table)
    # With a discount, states of value zero have visits as well, counted until termination.
    serves = table.discount == 1 or not linear.graph.absorbing.any()
    return linear.log_values, linear if serves else None


def _mass(
    table: Table, moves: Tensor, source: Tensor, answers: Tensor, linear: LinearValues | None
) -> Tensor:
    """λ (S,) with λ (I - J) = source, J from moves (S, A, K); zero where the value is fixed."""
    source = torch.where(answers, source, 0.0)
    if linear is not None and not torch.is_grad_enabled():
        return linear.expected_visits(source)
    if torch.is_grad_enabled():
        weights = torch.where(answers[:, None, None], moves, 0.0)
        S = table.num_states
        J = weights.new_zeros(S, S).scatter_add(1, table.successor_index, weights.flatten(1))
        mass, singular = torch.linalg.solve_ex(torch.eye(S, dtype=J.dtype) - J.T, source)
        mass = torch.where(answers, mass, 0.0)
    else:
        mass, singular = Transient(table, moves, answers).visits(source), None
    if singular or not mass.isfinite().all():
        raise ValueError(
            "rule: the values are a fixed point v = T v that has no derivative, as I - ∂T/∂v is "
            "singular there; the solution of the Boltzmann rule jumps at this temperature; "
            "try another"
        )
    return mass
