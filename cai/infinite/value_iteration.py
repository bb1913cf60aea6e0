"""Value iteration: where a step of Newton's method fails, and for the Boltzmann rule."""

from __future__ import annotations

import torch
from torch import Tensor

from cai.infinite.endings import Diverges, Endings, far, largest
from cai.infinite.linearisation import Linearisation
from cai.infinite.transient import Transient
from cai.tables import bellman
from cai.tables.table import Table

_WINDOW = 500  # sweeps within which value iteration must get closer
_SWEEPS = 20_000
_STILL = 4e-15  # a change of the values that is rounding errors, relative to the largest above one


def value_iteration(
    table: Table, v: Tensor, eta: float, rule: bellman.Rule, ends: Endings, n: int
) -> Linearisation:
    """T made linear where n sweeps lead from the values v (S,), nats.

    Raises:
        Diverges: if values leave every bound.
    """
    for _ in range(n):
        v = ends.filled(bellman.backup(table, v, eta, rule))
    if not v[ends.live].isfinite().all() or largest(v) > far(table):
        raise Diverges("value iteration leaves every bound")
    return Linearisation.at(table, v, eta, rule, ends)


def boltzmann(table: Table, v: Tensor, eta: float, ends: Endings) -> tuple[Tensor, float]:
    """Value iteration with the Boltzmann rule, watched for running in circles.

    Where it is slow, Newton's method says where it is going; that is the answer if value iteration
    has come closer to it by the next time.

    Returns:
        The values (S,), nats, and max |T v - v|.

    Raises:
        Diverges: if it does not settle.
    """
    goal, distance, before = None, torch.inf, torch.inf
    for _ in range(_SWEEPS // _WINDOW):
        closest = torch.inf
        for _ in range(_WINDOW):
            new = ends.filled(bellman.backup(table, v, eta, "boltzmann"))
            gap = torch.where(ends.live, new - v, 0.0).abs().max().item()
            v, closest = new, min(closest, gap)
            if gap <= _STILL * (1 + largest(v)):
                return v, Linearisation.at(table, v, eta, "boltzmann", ends).residual
        if goal is not None and (goal.v - v)[ends.live].abs().max().item() < 0.999 * distance:
            return goal.v, goal.residual
        if not closest < 0.999 * before or not largest(v) < far(table):
            break
        goal = _aim(table, v, eta, ends)
        distance = torch.inf if goal is None else (goal.v - v)[ends.live].abs().max().item()
        before = closest
    raise Diverges(f"after thousands of sweeps values still change by {gap:.3g} nats a sweep")


def _aim(table: Table, v: Tensor, eta: float, ends: Endings) -> Linearisation | None:
    """A fixed point near v by Newton's method with the Boltzmann rule; None where it fails."""
    step = Linearisation.at(table, v, eta, "boltzmann", ends)
    for _ in range(20):
        if step.residual <= 4 * _STILL * (1 + largest(step.v)):
            return step
        change = Transient(table, step.moves, ends.live).sums(step.gap)
        step = Linearisation.at(table, ends.filled(step.v + change), eta, "boltzmann", ends)
    return None
