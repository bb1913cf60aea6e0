"""Solutions that add up: where the messages are linear, mixtures of goals need no new solving."""

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
    """The solution for a mixture of goals, exp(r_T/α) = Σ_i w_i exp(r_T,i/α), without solving it.

    Where the backup is linear in z = exp(V/α), the mixture of the solutions is the solution of the
    mixture, V = α log Σ_i w_i exp(V_i/α) (Todorov 2009, compositionality of optimal control laws).
    The policy is then a mixture too, in each state with weights ∝ w_i z_i(s). It is linear at
    η = 1, and at every η where nothing is random: deterministic dynamics and no discount. The
    goals may differ in their final rewards; or in what they pay on arrival, where all values
    agree, as on absorbing exits.

    Args:
        solutions: of problems that differ in their goals alone, all at one optimism.
        weights: w_i > 0. They must sum to one with a discount or an infinite horizon, since
            termination and absorption have values of their own, and where rewards on arrival
            differ.

    Returns:
        The solution of the mixture; of an infinite horizon with the largest ``error`` of the parts,
        and what rounding errors add; None where a part has none.

    Raises:
        ValueError: if the problems differ in more than their goals, the weights do not fit, or
            the backup is not linear, so that the mixture would solve nothing.

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
        w = w / w.sum()  # the last digits, which would give absorbing states a value
    log_w = w.log()

    def mix(parts: list[Tensor]) -> Tensor:
        stacked = torch.stack(parts)
        return (stacked + log_w.view(-1, *(1,) * (stacked.dim() - 1))).logsumexp(0)

    alpha = tables[0].temperature
    arrival = tables[0].arrival_reward
    if differ is not None:
        _check_exits(solutions, differ)
        assert arrival is not None
        arrival = torch.where(differ, alpha * mix([_arrival(t) / alpha for t in tables]), arrival)
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
            "leave out what has no weight",
        )


def _check_sum(w: Tensor) -> None:
    if abs(w.sum().item() - 1) > 1e-9:
        raise ValueError(
            f"weights: expected a sum of one, got {w.sum().item():g}; with a discount, without an "
            "end, or where rewards on arrival differ, only means of goals compose: divide by the "
            "sum"
        )


def _check_same(tables: list[Table]) -> None:
    names = ("log_initial", "log_prior", "log_dynamics", "successors", "reward")
    for table in tables[1:]:
        if name := differs(tables[0], table, names):
            raise ValueError(
                f"solutions: expected problems that differ in their goals alone, but their {name} "
                "differ; only final rewards, and rewards on arrival in exits, can be mixed"
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
            "one; solve the problems without them"
        )
    if any(solution.rule != "soft" for solution in solutions):
        raise ValueError(
            "solutions: expected the soft rule, whose values are logarithms of sums; under another "
            "one the backup is not linear in exp(V/α), and a mixture would solve no problem"
        )
    etas = {solution.optimism for solution in solutions}
    table = solutions[0].table
    random = table.discount < 1 or ((table.log_dynamics > -torch.inf).sum(-1) > 1).any()
    if len(etas) > 1 or (random and etas != {1.0}):
        raise ValueError(
            f"solutions: at optimism {', '.join(f'{eta:g}' for eta in sorted(etas))} the backup is "
            "not linear in exp(V/α) where something is random, the dynamics or termination: "
            "a mixture of solutions would solve no problem; take optimism 1 for all, or solve the "
            "mixed problem"
        )


def _arrival(table: Table) -> Tensor:
    none = torch.zeros_like(table.log_dynamics)
    return none if table.arrival_reward is None else table.arrival_reward


def _arrivals_differ(tables: list[Table]) -> Tensor | None:
    """The transitions, (S, A, K), on which the rewards on arrival differ; None where none do."""
    first = _arrival(tables[0])
    differ = torch.stack([_arrival(table) != first for table in tables]).any(0)
    return differ if differ.any() else None


def _check_exits(solutions: Sequence[Chain], differ: Tensor) -> None:
    """Where rewards on arrival differ, what comes after must not."""
    values = torch.stack([s.log_values for s in solutions])
    apart = (values != values[0]).any(0)
    apart = apart[1:].any(0) if apart.dim() == 2 else apart
    if (solutions[0].table.gather(apart) & differ).any():
        raise ValueError(
            "solutions: rewards on arrival differ on the way to a state whose value differs, too; "
            "such goals do not mix: pay them in the final reward, or on arrival in absorbing exits"
        )
