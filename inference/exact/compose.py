"""Composition: the solution of a mixture of goals from those of each, where that is linear."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from cai import checks
from cai.numerics import arrays
from cai.numerics.differences import differs
from cai.solutions.chain import Chain
from cai.tables.table import Table

Some = TypeVar("Some", bound=Chain)


def compose(solutions: Sequence[Some], weights: Sequence[float]) -> Some:
    """The solution for a mixture of goals, exp(r_T/α) = Σ_i w_i exp(r_T,i/α), from those of each.

    Where the backup is linear in z = exp(V/α), the mixture of the solutions is the solution of the
    mixture, V = α log Σ_i w_i exp(V_i/α) (Todorov 2009, compositionality of optimal control laws).
    The policy is then a mixture as well, in each state with weights ∝ w_i z_i(s). The backup is
    linear at η = 1, and at every η if dynamics are deterministic and there is no discount. The
    goals may differ in their final rewards, or in arrival rewards of states in which all values
    agree, such as absorbing exits.

    Args:
        solutions: solutions at one optimism of problems that differ in their goals alone.
        weights: w_i > 0. They must sum to one with a discount or an infinite horizon, since
            termination and absorption have fixed values, and if arrival rewards differ.

    Returns:
        The solution of the mixture; with an infinite horizon its ``error`` is the largest of the
        parts plus rounding errors, or None if a part has none.

    Raises:
        ValueError: if the problems differ in more than their goals, the weights do not fit, or
            the backup is not linear, so that the mixture would not be a solution.

    >>> import dataclasses, torch
    >>> from cai import inference, models
    >>> P, cost = torch.eye(3).roll(1, 1) / 2 + torch.eye(3) / 2, torch.ones(3)
    >>> goals = [torch.tensor([0.0, -9.0, -9.0]), torch.tensor([-9.0, -9.0, 0.0])]
    >>> solved = [
    ...     inference.posterior(models.linearly_solvable(P, cost, horizon=4, final_cost=-goal))
    ...     for goal in goals
    ... ]
    >>> mixture = inference.compose(solved, [0.5, 0.5])
    >>> direct = torch.stack(goals).exp().mean(0).log()
    >>> model = models.linearly_solvable(P, cost, horizon=4, final_cost=-direct)
    >>> torch.allclose(mixture.V, inference.posterior(model).V)
    True
    """
    solutions = listed(solutions)
    w = arrays.numbers("weights", weights, "numbers above 0, one for each solution")
    check_weights(len(solutions), w)
    tables = [solution.table for solution in solutions]
    _check_same(tables)
    _check_linear(solutions)
    differ = _arrivals_differ(tables)
    if differ is not None or tables[0].discount < 1 or tables[0].horizon is None:
        _check_sum(w)
        w = w / w.sum()  # exactly, or absorbing states would get a value
    log_w = w.log()

    def mix(parts: list[Tensor]) -> Tensor:
        stacked = torch.stack(parts)
        return (stacked + log_w.view(-1, *(1,) * (stacked.dim() - 1))).logsumexp(0)

    alpha = tables[0].temperature
    arrival = tables[0].arrival_reward
    if differ is not None:
        _check_exits(solutions, differ)
        assert arrival is not None
        each = torch.broadcast_tensors(*(_arrival(t) / alpha for t in tables))
        arrival = torch.where(differ, alpha * mix(list(each)), arrival)
    table = dataclasses.replace(
        tables[0],
        arrival_reward=arrival,
        final_reward=alpha * mix([t.final_reward / alpha for t in tables]),
    )
    log_values = mix([s.log_values for s in solutions])
    sizes = (x[x.isfinite()].abs().max().item() for x in (log_values, log_w))
    rounding = 8 * torch.finfo(torch.float64).eps * alpha * (1 + sum(sizes))
    return solutions[0].mixed(solutions, table, log_values, rounding)


def listed(solutions: Sequence[Some]) -> list[Some]:
    """The solutions as a list; raises ValueError unless they are those of tables."""
    found = list(solutions) if isinstance(solutions, Sequence) else [solutions]
    expected = "a list of solutions of tables, at least one"
    advice = "take what inference.posterior or soft_values returns for each goal"
    for part in found:
        checks.check_kind("solutions", part, Chain, expected, advice)
    if not isinstance(solutions, Sequence) or not found:
        came = f"{type(solutions).__name__} of {len(found)}"
        checks.refuse("solutions", expected, came, advice)
    return found


def check_weights(n: int, w: Tensor) -> None:
    """Raises ValueError unless there are n finite weights above zero."""
    if w.shape != (n,) or not ((w > 0) & w.isfinite()).all():
        checks.refuse(
            "weights",
            f"{n} finite numbers above 0, one for each solution",
            f"{w.tolist()}",
            "leave out solutions without weight",
        )


def _check_sum(w: Tensor) -> None:
    if abs(w.sum().item() - 1) > 1e-9:
        raise ValueError(
            f"weights: expected a sum of one, got {w.sum().item():g}; with a discount, an infinite "
            "horizon, or different arrival rewards, only means of goals compose: divide by the "
            "sum"
        )


def _check_same(tables: list[Table]) -> None:
    names = ("log_initial", "log_prior", "log_dynamics", "successors", "reward")
    for table in tables[1:]:
        if name := differs(tables[0], table, names):
            raise ValueError(
                f"solutions: expected problems that differ in their goals alone, but their {name} "
                "differ; only final rewards, and arrival rewards of exits, can be mixed"
            )
    check_one_setting(tables)


def check_one_setting(tables: Sequence[Table]) -> None:
    """Raises ValueError unless horizon, temperature and discount are the same in all tables."""
    for name in ("horizon", "temperature", "discount"):
        if len({getattr(table, name) for table in tables}) > 1:
            raise ValueError(f"solutions: expected one {name} for all, got several")


def _check_linear(solutions: Sequence[Chain]) -> None:
    if any(solution.conditioned for solution in solutions):
        raise ValueError(
            "solutions: expected none with observations, which are not goals and do not mix, got "
            "one; solve the problems without observations"
        )
    if any(solution.rule != "soft" for solution in solutions):
        raise ValueError(
            "solutions: expected the soft rule, whose values are logarithms of sums, got another, "
            "under which the backup is not linear in exp(V/α): solve the mixture itself"
        )
    etas = {solution.optimism for solution in solutions}
    table = solutions[0].table
    random = table.discount < 1 or ((table.log_dynamics > -torch.inf).sum(-1) > 1).any()
    if len(etas) > 1 or (random and etas != {1.0}):
        raise ValueError(
            f"solutions: at optimism {', '.join(f'{eta:g}' for eta in sorted(etas))} the backup is "
            "not linear in exp(V/α) if the dynamics or termination are random: "
            "a mixture of solutions is not a solution; take optimism 1 for all, or solve the "
            "mixed problem"
        )


def _arrival(table: Table) -> Tensor:
    none = torch.zeros_like(table.log_dynamics)
    return none if table.arrival_reward is None else none + table.arrival_reward


def _arrivals_differ(tables: list[Table]) -> Tensor | None:
    """The transitions, (S, A, K), whose arrival rewards differ; None if none do."""
    first = _arrival(tables[0])
    apart = torch.broadcast_tensors(*(_arrival(table) != first for table in tables))
    differ = torch.stack(apart).any(0)
    return differ if differ.any() else None


def _check_exits(solutions: Sequence[Chain], differ: Tensor) -> None:
    """Raises ValueError if values differ where arrival rewards differ."""
    values = torch.stack([s.log_values for s in solutions])
    apart = (values != values[0]).any(0)
    apart = apart[1:].any(0) if apart.dim() == 2 else apart
    if (solutions[0].table.gather(apart) & differ).any():
        raise ValueError(
            "solutions: arrival rewards differ for a state whose values differ as well; such goals "
            "do not mix: put them into the final reward, or the arrival rewards of absorbing exits"
        )
