"""The bound and the policy as functions of optimism, and where the policy switches actions."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cai import checks
from cai.evaluation.exact_evaluation import of_log_policy
from cai.frames.data_frame import data_frame
from cai.inference.exact.soft_values import soft_values
from cai.inference.optimism.policy_switches import PolicySwitch, Sight, find_switches, unscaled
from cai.numerics import logspace
from cai.program.trajectory import TrajectoryModel
from cai.solutions.chain import Chain
from cai.tables import bellman
from cai.tables.table import Table
from cai.tables.tabulation import tabulate

_TIE = 1e-15  # tolerance of log-probabilities that tie, times max(1, |Q/α|), for each step and ten
_SMALL = 1e-16  # nats of KL below which the slope is computed from the variance


@dataclass(frozen=True, eq=False)
class OptimismCurve:
    """The bound, its slope, and the ELBO and return of the policy, at n optimisms.

    Attributes:
        optimism: (n,), η in ascending order.
        bound: (n,), nats; grows with η.
        tilt: (n,), nats: KL of start and dynamics q at η to the true ones, in expectation under q.
        slope: (n,), nats: d bound/dη = tilt/η²; at η = 0 half the variance of the outcomes,
            ½ (Var V_0/α + E_π Σ Var[(r⁺ + V_{t+1})/α | s,a]).
        elbo: (n,), nats: the ELBO of the policy in the true dynamics; highest at η = 0.
        expected_return: (n,), reward units: the return of the policy in the true dynamics.
        imagined_return: (n,), reward units: its return in the dynamics at η.
        changes: the switches of the most probable action, in the order of η.
        table: the problem.

    >>> from cai import inference, models
    >>> curve = inference.optimism_curve(models.ledge(), [-1.0, 0.0, 1.0])
    >>> curve.bound.shape, curve.elbo.argmax().item()  # the ELBO is highest at 0
    (torch.Size([3]), 1)
    """

    optimism: Tensor
    bound: Tensor
    tilt: Tensor
    slope: Tensor
    elbo: Tensor
    expected_return: Tensor
    imagined_return: Tensor
    changes: tuple[PolicySwitch, ...]
    table: Table

    def __repr__(self) -> str:
        low, high = self.optimism[0].item(), self.optimism[-1].item()
        n = len(self.changes)
        return (
            f"OptimismCurve({len(self.optimism)} optimisms from {low:g} to {high:g}, bound from "
            f"{self.bound[0]:.6g} to {self.bound[-1]:.6g} nats, "
            f"{n} policy switch{'' if n == 1 else 'es'})"
        )

    def __str__(self) -> str:
        endless = self.table.horizon is None
        minds = "".join(
            f"\n  optimism {change.optimism:.6g}: "
            f"{'' if endless else f'step {change.t}, '}{self._name('state', change.s)}: "
            f"{self._name('action', change.before)} -> {self._name('action', change.after)}"
            for change in self.changes
        )
        return f"{repr(self)[:-1]}{':' if minds else ''}{minds})"

    def to_dataframe(self) -> Any:
        """A pandas DataFrame, one row for each optimism, with the columns of the same names.

        Raises:
            ValueError: if pandas is not installed.
        """
        nats = dict.fromkeys(("bound", "tilt", "slope", "elbo"), "nats")
        units = nats | dict.fromkeys(("expected_return", "imagined_return"), "reward")
        columns = {name: getattr(self, name).tolist() for name in ("optimism", *units)}
        return data_frame(columns, units)

    def _repr_pretty_(self, printer: Any, _: bool) -> None:
        """All switches for IPython."""
        printer.text(str(self))

    def _name(self, kind: str, k: int) -> str:
        names = getattr(self.table.layout, f"{kind}s", None)
        return names[k] if names else f"{kind} {k}"


def optimism_curve(
    model: TrajectoryModel | Table,
    optimisms: Iterable[float] | None = None,
    *,
    steps: Iterable[int] = (0,),
    least_visit: float = 0.01,
    tolerance: float = 1e-9,
) -> OptimismCurve:
    """Bound, slope, ELBO and return at each η, and where the most probable actions change.

    A change is an η at which the most probable action of a state at a step switches. Each switch
    between two neighbouring η of the grid is found by bisection; an even number of switches back
    and forth in between is missed, and needs a finer grid. A tie is not a change: as long as one
    action is among the most probable ones throughout, there is none. Of tied actions the lowest
    index is named. Changes within ten tolerances of ±∞ are reported at ±∞. The model is solved once
    for each optimism, and about 30 times for each change.

    Args:
        model: a model with finitely many states and actions, or its table.
        optimisms: η, at least one, any real numbers and ±inf. If not given, 41 of them, evenly
            spaced and symmetric in η/(1 + |η|): 0, ±1, ±∞ and 36 others; with an infinite horizon
            those around 0 at which values exist.
        steps: the steps t at which to look for changes; only the first if not given. (With an
            infinite horizon all steps are alike.)
        least_visit: a change counts only if, in the true dynamics, the policy is in that state at
            that step with at least this probability; with an infinite horizon, if at least so many
            visits are expected. It may be missed if that does not hold between both neighbours in
            the grid.
        tolerance: accuracy of the η of a change, on the scale η/(1 + |η|).

    Returns:
        An :class:`OptimismCurve`, which ``plot.optimism_curve`` draws.

    Raises:
        ValueError: if an optimism is not a number or none is given, a step is outside the
            horizon, least_visit is not a probability, the evidence is zero, or with an infinite
            horizon at an optimism at which values do not exist.

    >>> from cai import inference, models
    >>> curve = inference.optimism_curve(models.ledge(), [-1.0, 0.0, 1.0])
    >>> bool((curve.bound.diff() >= 0).all())
    True
    """
    table = tabulate(model)
    T = 1 if table.horizon is None else table.steps
    if optimisms is None:
        etas = _grid(table)
    else:
        given = checks.several("optimisms", optimisms, "for instance [-1, 0, 1]")
        etas = sorted({checks.check_optimism(eta, "optimisms") for eta in given})
    given = checks.several("steps", steps, "for instance [0, 5]")
    if not etas:
        raise ValueError("optimisms: expected at least one, got none")
    for t in given:
        if not checks.within(t, lambda step: 0 <= step < T and step.is_integer()):
            checks.refuse("steps", f"steps in 0 … {T - 1}", repr(t), "the first is 0")
    steps = sorted({int(t) for t in given})
    checks.check_probability("least_visit", least_visit)
    checks.check_positive("tolerance", tolerance)
    solve = partial(_solve, table, steps)
    points, sights = zip(*(solve(eta) for eta in etas), strict=True)
    changes = find_switches(sights, lambda eta: solve(eta)[1], steps, least_visit, tolerance)
    numbers = torch.tensor(points, dtype=torch.float64)
    columns: Any = (*numbers.unbind(-1), changes, table)
    return OptimismCurve(torch.tensor(etas, dtype=torch.float64), *columns)


def _grid(table: Table) -> list[float]:
    etas = [unscaled(k / 20) for k in range(-20, 21)]
    if table.horizon is not None:
        return etas
    found = [0.0]
    for direction in (etas[19::-1], etas[21:]):
        for eta in direction:
            try:
                soft_values(table, eta)
            except ValueError:
                break
            found.append(eta)
    return sorted(found)


def _solve(table: Table, steps: list[int], eta: float) -> tuple[tuple[float, ...], Sight]:
    """The numbers of the curve at one η, in its order, and what is seen of the policy."""
    solution = soft_values(table, eta)
    policy = solution.policy.log_probs
    with table.threads():
        exact = of_log_policy(table, policy)
    assert exact.states is not None
    tilt = solution.total_tilt
    believed = solution.bound, tilt, _slope(solution, tilt)
    real = exact.elbo.item(), exact.expected_return.item()
    numbers = (*believed, *real, solution.imagined_return)
    q, visits = solution.Q, exact.states
    if table.horizon is None:  # every step is like the first
        policy, q, visits = policy.unsqueeze(0), q.unsqueeze(0), visits.unsqueeze(0)
    q = q[steps] / table.temperature
    scale = torch.where(q.isfinite(), q, 0.0).abs().amax(-1, keepdim=True).clamp(min=1)
    best = policy[steps].amax(-1, keepdim=True)
    tie = _TIE * ((table.horizon or 0) + 10) * scale
    return numbers, Sight(eta, policy[steps] >= best - tie, visits[steps])


def _slope(solution: Chain, tilt: float) -> float:
    """d bound/dη in nats."""
    eta = solution.optimism
    if math.isinf(eta):
        return 0.0
    if solution.bound == -math.inf:
        return math.inf if eta == 0 else 0.0  # -∞ up to η = 0, finite from there on
    if abs(eta) > 1e-6 or tilt > _SMALL:
        return tilt / eta / eta
    # Here the KL is ½ η² variance, which is below rounding errors.
    start = _variance(solution.log_initial, solution.first_values).item()
    return 0.5 * (start + solution.expected(partial(_variance_of_outcomes, solution)))


def _variance_of_outcomes(solution: Chain, steps: slice) -> Tensor:
    """Var[(r⁺ + V_{t+1})/α | s,a], termination included, (steps, S, A), nats²."""
    table, v = solution.table.at(steps), solution.termination(steps)[1][..., 0]
    log_q = solution.log_transitions(steps)
    variance = _variance(log_q, bellman.outcome_values(table, v, 0.0))
    if table.discount == 1:
        return variance
    v = torch.where(v.isfinite(), v, 0.0)  # as in a variance
    of_coin = table.discount * (1 - table.discount) * v.square()
    return variance + logspace.mean(log_q, table.gather(of_coin))


def _variance(log_p: Tensor, x: Tensor) -> Tensor:
    """Var_p[x] over the last axis; impossible outcomes do not count."""
    x = torch.where(x.isfinite(), x, 0.0)
    return logspace.mean(log_p, (x - logspace.mean(log_p, x).unsqueeze(-1)).square())
