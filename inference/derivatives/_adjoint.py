"""The derivative of the backward recursion: one forward sweep of mass, whatever the horizon.

With everything in nats and mass λ_t(s) = ∂loss/∂v_t(s), the chain rule through

    q_t(s,a) = r + (1/η) log Σ_k p_k exp(η x_k),    x_k = r⁺_k + c(v_{t+1}(s'_k)),
    v_t(s)   = log Σ_a p(a|s) exp(q_t(s,a))

runs forward in time. Mass moves by the policy and the dynamics q at η, termination included:

    m_t(s,a)      = λ_t(s) π_t(a|s)
    λ_{t+1}(s')   = ∂loss/∂v_{t+1}(s') + Σ_{s,a} m_t(s,a) q(s', alive|s,a)

so that, if the loss is the bound, λ are occupancies. Rewards collect the mass that passes,
∂loss/∂r = Σ_t m_t, and dynamics its change, ∂loss/∂log p_k = Σ_t m_t (q_k - p_k)/η, which at η = 0
is p_k (x_k - E x). That is the derivative along the simplex: rows that require grad are normalised
first. (Counts under q over η p, the derivative for unnormalised rows, differ by a constant per row
and have no limit at η = 0.) Nothing is taped: the sweep keeps v, (T+1, S), recomputes policy and
dynamics from it, and holds a few steps of (S, A, K) at once. With the soft rule, unless derivatives
are differentiated, matrix products are used (``_mass.py``), for which the weights of one step, as
many as the dynamics, are kept.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cai.inference.derivatives import _mass
from cai.inference.derivatives._linearised import Recursion, gradients, observed
from cai.inference.derivatives._pullback import Gradients, Needed, Operation, Tensors, chosen, taped
from cai.sweeps import sweeps
from cai.tables import bellman
from cai.tables.table import Table

_CHUNK = 2**20  # numbers of shape (steps, S, A, K) held at once


def sweep(problem: Recursion, *tensors: Tensor | None) -> tuple[Tensor, Tensor]:
    """v_t(s) and log π_t(a|s) at the visits, in nats, (T+1, S) and (N,), differentiable.

    Args:
        problem: the part without derivatives.
        tensors: reward, arrival reward or None and final reward in nats, log prior, log dynamics.
    """
    seen: list[Table] = []

    def solve(*tensors: Tensor | None) -> tuple[Tensor, Tensor]:
        table = problem.checked(tensors)
        seen.append(table)
        v = sweeps.backward(table, problem.eta, problem.rule)
        return v, _log_policy_at_visits(problem, table, v)

    def pullback(needed: Needed) -> Operation:
        def tape(*tensors: Tensor) -> Tensors:
            *inputs, v, _, on_v, on_log_policy = tensors
            table = problem.with_tensors(tuple(inputs))
            with table.threads():
                found = _collected(problem, table, v, (on_v, on_log_policy), needed)
            return chosen(found, needed)

        def quick(*tensors: Tensor) -> Tensors:
            if not _mass.suits(problem, needed[-1]):
                return tape(*tensors)
            *inputs, v, _, on_v, on_log_policy = tensors
            # The table of the forward pass has the matrices, unless it belongs to a batch.
            table = seen[0] if len(seen) == 1 else problem.with_tensors(tuple(inputs))
            found = _mass.gradients(problem, table, v, (on_v, on_log_policy), needed)
            return chosen(found, needed)

        return taped(tape, quick)

    v, log_policy = Operation(solve, pullback)(*tensors)
    return v, log_policy


def chunks(table: Table) -> list[slice]:
    """The steps 0 … T-1 in slices of a bounded size."""
    T, width = table.steps, max(1, _CHUNK // table.num_outcomes)
    return [slice(start, min(start + width, T)) for start in range(0, T, width)]


def _log_policy_at_visits(problem: Recursion, table: Table, v: Tensor) -> Tensor:
    """log π_t(a|s) at the visits, (N,)."""
    visits = problem.visits
    if visits is None:
        return v.new_zeros(0)
    if _mass.suits(problem, dynamics=False):
        return _mass.log_policy_at_visits(problem, table, v)
    found = []
    for steps in chunks(table):
        _, index = visits.within(steps)
        found.append(problem.linearised(table.at(steps), v[1:][steps]).log_policy[index])
    return torch.cat(found)


def _collected(
    problem: Recursion, table: Table, v: Tensor, on: Tensors, needed: Needed
) -> Gradients:
    """The gradients of reward, arrival and final reward, log prior and log dynamics."""
    on_v, on_log_policy = on
    ones = v.new_ones(table.num_states)
    arriving = on_v[0]
    names = "reward", "arrival_reward", "log_prior", "log_dynamics"
    parts: list[list[Tensor]] = [[] for _ in names]
    for steps in chunks(table):
        at = problem.linearised(table.at(steps), v[1:][steps])
        by_q, by_prior = bellman.slopes(at, v[steps])
        flow = table.flow(by_q.unsqueeze(-1) * at.survived)
        asked = None
        if problem.visits is not None:
            asked = observed(problem, steps, at, v[steps], on_log_policy)
            extra = table.flow(asked[1].unsqueeze(-1) * at.survived)
        masses = []
        for i, t in enumerate(range(steps.start, steps.stop)):
            masses.append(torch.where(v[t] > -torch.inf, arriving, 0.0))
            arriving = on_v[t + 1] + table.push(masses[-1], flow[i])
            if asked is not None:
                arriving = arriving + table.push(ones, extra[i])
        present = torch.stack(masses).unsqueeze(-1)
        found = gradients(at, (present * by_q, present * by_prior), asked, needed)
        for each, x in zip(parts, found, strict=True):
            each += [] if x is None else [x]
    total = [
        (torch.cat(each) if name in table.by_step else sum(each[1:], each[0])) if each else None
        for name, each in zip(names, parts, strict=True)
    ]
    final = torch.where(table.final_reward > -torch.inf, arriving, 0.0)
    return total[0], total[1], final, total[2], total[3]
