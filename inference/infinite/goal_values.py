"""Values of many goals on one network, by as few factorisations as possible."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cai import checks, one_line
from cai.inference.infinite._factors import RESIDUAL, solve
from cai.inference.infinite._potentials import shortest_distances
from cai.inference.infinite._system import System, row_logsumexp
from cai.inference.infinite._transition_graph import transition_graph
from cai.numerics import arrays
from cai.numerics.sparse_lu import factorise
from cai.program.trajectory import TrajectoryModel
from cai.tables.table import Table
from cai.tables.tabulation import tabulate

_SHIFTS = (600.0, -600.0)  # nats by which G is scaled: far goals underflow, many ties overflow


@dataclass(frozen=True, eq=False)
class GoalValues:
    """The value of each of D goals from each state.

    Attributes:
        goals: (D,), the goals, in the order given.
        log_values: (D, S), nats: log p(O until the goal, goal reached | s_0=s); 0 in the goal
            itself, -inf where it cannot be reached.
        residual: (), nats: max |T V - V|/α over all goals, computed in log space for each.
        factorisations: how many it took; one if the first reached every goal.

    >>> from cai import inference, models
    >>> roads = models.road_network([0, 1, 2], [1, 2, 0], [-1.0, -1.0, -1.0], goals=[2])
    >>> inference.goal_values(roads, [0, 2]).log_values.shape
    torch.Size([2, 3])
    """

    goals: Tensor
    log_values: Tensor
    residual: float
    factorisations: int

    __repr__ = one_line.of_fields


def goal_values(model: TrajectoryModel | Table, goals: Any) -> GoalValues:
    """The log-probability of optimality until each goal is reached, and of reaching it.

    With G = (I - M)⁻¹ over all states, M = Σ_a p(a|s) γ p(s'|s,a) exp((r + r⁺)/α), a goal d has
    z_d(s) = G(s,d)/G(d,d): one factorisation serves many goals, as long as G(s,d) stays in the
    range of floats, some 600 to 1200 nats around the goal that gave the potential. That is checked
    for each goal by the residual of its values in log space; a goal out of range gets a
    factorisation of its own, which also serves the goals around it.

    With a discount of 1, z_d is the result of :func:`linear_system` if d is the only absorbing
    state. Other absorbing states of the model, and termination, miss the goal and have weight zero.

    Args:
        model: a discrete model with an infinite horizon, or its table. Its goals need not absorb.
        goals: (D,), integers, the goals.

    Returns:
        A :class:`GoalValues`: log-probabilities for each state and each goal.

    Raises:
        ValueError: if a goal is not a state, or the spectral radius of M without the goal is not
            below one.

    >>> from cai import inference, models
    >>> roads = models.road_network([0, 1, 2], [1, 2, 0], [-1.0, -1.0, -1.0], goals=[2])
    >>> inference.goal_values(roads, [2]).log_values.flatten().tolist()
    [-2.0, -1.0, 0.0]
    """
    table = tabulate(model)
    asked = _checked(goals, table.num_states)
    graph = transition_graph(table)
    nothing = np.full(table.num_states, -np.inf)
    weights = graph.log_weights + (np.log(table.discount) if table.discount < 1 else 0.0)
    system = System(graph.matrix(weights), nothing)
    found: dict[int, tuple[Any, float]] = {}
    factorisations = 0
    for goal in asked.tolist():
        if goal not in found:
            waiting = [d for d in asked.tolist() if d not in found]
            found |= _around(system, goal, waiting)
            factorisations += 1
        if goal not in found:
            found[goal] = _alone(system, goal)
            factorisations += 1
    values, residuals = zip(*(found[goal] for goal in asked.tolist()), strict=True)
    return GoalValues(asked, torch.from_numpy(np.stack(values)), max(residuals), factorisations)


def _checked(goals: Any, S: int) -> Tensor:
    expected = f"at least one state of 0 … {S - 1}"
    asked = arrays.integers("goals", goals, expected).reshape(-1)
    if not (len(asked) and asked.min() >= 0 and asked.max() < S):
        checks.refuse("goals", expected, f"{asked.tolist()}", "give states by their number")
    return asked


def _around(system: System, center: int, goals: list[int]) -> dict[int, tuple[Any, float]]:
    """Values and residual of the goals within range of the potential of one of them."""
    at_center = system.log_ends.copy()
    at_center[center] = 0.0
    distance = shortest_distances(System(system.log_on, at_center))
    live = np.isfinite(distance)
    inside = system.restricted(live)
    h = np.where(live, -distance, 0.0)
    scaled = inside.scaled(h)
    if scaled.max(initial=0.0) > -_SHIFTS[-1]:
        return {}
    try:
        lu = factorise(inside.with_weights(np.exp(scaled)))
    except RuntimeError:  # singular: without absorbing states the spectral radius may be one
        return {}
    found = {}
    for goal in goals:
        for shift in _SHIFTS if live[goal] else ():
            one = np.zeros(len(h))
            one[goal] = np.exp(shift)
            with np.errstate(divide="ignore", invalid="ignore"):
                u = np.log(lu.solve(one))
                v = (u - u[goal]) + (h - h[goal])
            residual = _residual(system, goal, v)
            if residual < RESIDUAL:
                found[goal] = v, residual
                break
    return found


def _alone(system: System, goal: int) -> tuple[Any, float]:
    only = system.towards(goal)
    try:
        factors = solve(only, shortest_distances(only))
    except ValueError as error:
        raise ValueError(f"goals: {goal} cannot be solved for. {error}") from None
    v = factors.log_values.copy()
    v[goal] = 0.0
    return v, factors.residual


def _residual(system: System, goal: int, v: Any) -> float:
    """max |T v - v| in log space, nats; +inf if only one of the two is -inf."""
    if np.isnan(v).any():
        return np.inf
    on = system.log_on
    then = row_logsumexp(system.with_weights(on.data + v[on.indices]), system.log_ends)
    then[goal] = v[goal]
    differ = then != v  # -inf minus -inf is NaN
    return float(np.abs(then[differ] - v[differ]).max(initial=0.0))
