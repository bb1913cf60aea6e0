"""The dial from end to end: what luck is worth, and where the policy changes its mind."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from cai import checks
from cai.evaluation.evaluate import evaluate_table
from cai.inference.exact.soft_values import soft_values
from cai.numerics import logspace
from cai.program.trajectory import TrajectoryModel
from cai.solutions.chain import Chain
from cai.tables import bellman
from cai.tables.table import Table
from cai.tables.tabulation import tabulate

_TIE = 1e-15  # of |Q/α| or of one, a step and ten more: log-probabilities this close are a tie
_SMALL = 1e-16  # nats of bending below which the slope is taken from the variance


@dataclass(frozen=True)
class Change:
    """The policy changes its mind: beyond an optimism, another action is the most probable.

    Attributes:
        optimism: η.
        t: the step.
        s: the state.
        before: the most probable action below η.
        after: the most probable action above.
    """

    optimism: float
    t: int
    s: int
    before: int
    after: int


@dataclass(frozen=True, eq=False)
class OptimismCurve:
    """The bound, its slope, and the worth of the policy, at n optimisms.

    Attributes:
        optimism: (n,), η in ascending order.
        bound: (n,), nats; grows with η.
        bend: (n,), nats: KL of the bent start and dynamics to the true ones, under the bent chain.
        slope: (n,), nats: d bound/dη = bend/η²; at η = 0 half the variance of luck,
            ½ (Var V_0/α + E_π Σ Var[(r⁺ + V_{t+1})/α | s,a]).
        elbo: (n,), nats: of the policy, in the true dynamics; highest at η = 0.
        expected_return: (n,), reward units: of the policy, in the true dynamics.
        imagined_return: (n,), reward units: of the policy, in the bent dynamics.
        changes: where the policy changes its mind, in the order of η.
        table: the problem.
    """

    optimism: Tensor
    bound: Tensor
    bend: Tensor
    slope: Tensor
    elbo: Tensor
    expected_return: Tensor
    imagined_return: Tensor
    changes: tuple[Change, ...]
    table: Table

    def __repr__(self) -> str:
        low, high = self.optimism[0].item(), self.optimism[-1].item()
        endless = self.table.horizon is None
        minds = "".join(
            f"\n  optimism {change.optimism:.6g}: "
            f"{'' if endless else f'step {change.t}, '}{self._state(change.s)}: "
            f"{self._action(change.before)} -> {self._action(change.after)}"
            for change in self.changes
        )
        return (
            f"OptimismCurve({len(self.optimism)} optimisms from {low:g} to {high:g}, bound from "
            f"{self.bound[0]:.6g} to {self.bound[-1]:.6g} nats, "
            f"{len(self.changes)} changes of mind{':' if minds else ''}{minds})"
        )

    def _state(self, s: int) -> str:
        names = self.table.layout.states if self.table.layout else None
        return names[s] if names else f"state {s}"

    def _action(self, a: int) -> str:
        names = self.table.layout.actions if self.table.layout else None
        return names[a] if names else f"action {a}"


def optimism_curve(
    model: TrajectoryModel | Table,
    optimisms: Iterable[float] | None = None,
    *,
    steps: Iterable[int] = (0,),
    least_visit: float = 0.01,
    tolerance: float = 1e-9,
) -> OptimismCurve:
    """Turns the dial: bound(η), its slope, what each policy is worth, where it changes its mind.

    The policy changes its mind where the most probable action of a state flips at a step. Each
    flip between two neighbours of the grid is found by bisection; of an even number of flips back
    and forth between them nothing is seen, which a finer grid mends. Ties are no change:
    nothing happens as long as some action has been a favourite throughout, and of several the
    lowest index is named. What changes within ten tolerances of ±∞ is said to change there. The
    model is solved once for each optimism, and 30 times or so for each change.

    Args:
        model: a model with finitely many states and actions, or its table.
        optimisms: η, at least one, any real numbers and ±inf. If not given, 41 of them, evenly
            spaced and symmetric in η/(1 + |η|): 0, ±1, ±∞ and 36 others; without an end those
            around 0 at which values exist.
        steps: at which t to look for changes; the first alone if not given. (Without an end all
            are like the first.)
        least_visit: a state counts at a step only if the policy is there in the true dynamics,
            on either side of the change, with at least this probability; without an end, if so
            many visits are expected.
        tolerance: of the η of a change, on the scale η/(1 + |η|).

    Raises:
        ValueError: where an optimism is not a number or there is none, a step is outside the
            horizon, least_visit is no probability, the evidence is zero, or without an end at an
            optimism at which values do not exist.
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
    changes = _changes(sights, lambda eta: solve(eta)[1], steps, least_visit, tolerance)
    numbers = torch.tensor(points, dtype=torch.float64)
    bound, bend, slope, elbo, expected_return, imagined_return = numbers.unbind(-1)
    return OptimismCurve(
        torch.tensor(etas, dtype=torch.float64),
        bound,
        bend,
        slope,
        elbo,
        expected_return,
        imagined_return,
        changes,
        table,
    )


class _Sight(NamedTuple):
    """What can be seen of the policy at one η: its favourite actions, and where it is."""

    eta: float
    favourites: Tensor  # (steps, S, A), booleans: the most probable action, or several in a tie
    visits: Tensor  # (steps, S): q(s_t=s, alive) in the true dynamics


def _grid(table: Table) -> list[float]:
    etas = [_unscaled(k / 20) for k in range(-20, 21)]
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


def _scaled(eta: float) -> float:
    """η/(1 + |η|), from -1 at -∞ to 1 at +∞."""
    return math.copysign(1.0, eta) if math.isinf(eta) else eta / (1 + abs(eta))


def _unscaled(u: float) -> float:
    return math.copysign(math.inf, u) if abs(u) == 1 else u / (1 - abs(u))


def _solve(table: Table, steps: list[int], eta: float) -> tuple[tuple[float, ...], _Sight]:
    """The numbers of the curve at one η, and what is seen of the policy."""
    solution = soft_values(table, eta)
    policy = solution.policy.log_probs
    with table.threads():
        worth = evaluate_table(table, policy)
    assert worth.states is not None
    bend = solution.total_bend
    numbers = (
        solution.bound,
        bend,
        _slope(solution, bend),
        worth.elbo,
        worth.expected_return,
        solution.imagined_return,
    )
    q, visits = solution.Q, worth.states
    if table.horizon is None:  # every step is like the first
        policy, q, visits = policy.unsqueeze(0), q.unsqueeze(0), visits.unsqueeze(0)
    q = q[steps] / table.temperature
    scale = torch.where(q.isfinite(), q, 0.0).abs().amax(-1, keepdim=True).clamp(min=1)
    best = policy[steps].amax(-1, keepdim=True)
    tie = _TIE * ((table.horizon or 0) + 10) * scale
    return numbers, _Sight(eta, policy[steps] >= best - tie, visits[steps])


def _slope(solution: Chain, bend: float) -> float:
    """d bound/dη in nats."""
    eta = solution.optimism
    if math.isinf(eta):
        return 0.0
    if solution.bound == -math.inf:
        return math.inf if eta == 0 else 0.0  # -∞ up to η = 0, finite from there on
    if abs(eta) > 1e-6 or bend > _SMALL:
        return bend / eta / eta
    # Here the bend is ½ η² variance, which rounding errors would drown.
    start = _variance(solution.log_initial, solution.first_values).item()
    return 0.5 * (start + solution.expected(partial(_luck, solution)))


def _luck(solution: Chain, steps: slice) -> Tensor:
    """Var[(r⁺ + V_{t+1})/α | s,a], the coin of death included, (steps, S, A), nats²."""
    table, v = solution.table, solution.termination(steps)[1][..., 0]
    log_q = solution.log_transitions(steps)
    variance = _variance(log_q, bellman.outcome_values(table, v, 0.0))
    if table.discount == 1:
        return variance
    v = torch.where(v.isfinite(), v, 0.0)  # as in a variance
    of_coin = table.discount * (1 - table.discount) * v.square()
    return variance + logspace.mean(log_q, table.gather(of_coin))


def _variance(log_p: Tensor, x: Tensor) -> Tensor:
    """Var_p[x] over the last axis; what cannot happen does not vary."""
    x = torch.where(x.isfinite(), x, 0.0)
    return logspace.mean(log_p, (x - logspace.mean(log_p, x).unsqueeze(-1)).square())


def _changes(
    sights: Sequence[_Sight],
    look: Callable[[float], _Sight],
    steps: list[int],
    least_visit: float,
    tolerance: float,
) -> tuple[Change, ...]:
    """Where the favourites flip between neighbouring sights, each found by bisection."""
    found: list[Change] = []
    open_ends: dict[tuple[int, int], int] = {}  # (step, state) -> which change has no after yet

    def settle(mind: Tensor, flips: Tensor) -> None:
        """Names the new favourite, once those that only tied with it are off the mind."""
        for (i, s), k in list(open_ends.items()):
            if flips[i, s]:
                found[k] = replace(found[k], after=_lowest(mind[i, s]))
                del open_ends[i, s]

    def walk(low: _Sight, high: _Sight, mind: Tensor) -> Tensor:
        """What is on the mind (steps, S, A) beyond high: the favourites of all η so far, if any."""
        still = mind & high.favourites
        stays = still.any(-1)
        seen = ~stays & (torch.maximum(low.visits, high.visits) >= least_visit)
        ends = _scaled(low.eta), _scaled(high.eta)
        middle = sum(ends) / 2
        if seen.any() and ends[1] - ends[0] > tolerance and ends[0] < middle < ends[1]:
            between = look(_unscaled(middle))
            return walk(between, high, walk(low, between, mind))
        settle(mind, ~stays)
        eta = _unscaled(middle if 1 - abs(middle) > 10 * tolerance else math.copysign(1, middle))
        for i, s in seen.nonzero().tolist():
            open_ends[i, s] = len(found)
            found.append(Change(eta, steps[i], s, _lowest(mind[i, s]), -1))
        return torch.where(stays.unsqueeze(-1), still, high.favourites)

    mind = sights[0].favourites
    for low, high in itertools.pairwise(sights):
        mind = walk(low, high, mind)
    settle(mind, torch.ones_like(mind[..., 0]))
    return tuple(found)


def _lowest(actions: Tensor) -> int:
    """The lowest index of a mask (A,)."""
    return int(actions.int().argmax())
