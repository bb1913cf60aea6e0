"""Value iteration: where a step of Newton's method fails, and for the Boltzmann rule."""

from __future__ import annotations

import torch
from torch import Tensor

from cai.infinite.bellman_operator import Linearisation, Operator
from cai.infinite.endings import Diverges, far, largest
from cai.infinite.transient import Transient

_WINDOW = 500  # sweeps within which value iteration must get closer
_SWEEPS = 20_000
_STILL = 4e-15  # a change of rounding errors only, relative to the largest value above one


def value_iteration(operator: Operator, v: Tensor, n: int) -> Linearisation:
    """The linearisation of T after n sweeps from the values v (S,), nats.

    Raises:
        Diverges: if the values exceed every bound.
    """
    for _ in range(n):
        v = operator(v)
    if not v[operator.ends.live].isfinite().all() or largest(v) > far(operator.table):
        raise Diverges("value iteration leaves every bound")
    return operator.linear(v)


def boltzmann(operator: Operator, v: Tensor) -> tuple[Tensor, float]:
    """Value iteration with the Boltzmann rule, with a check for cycles.

    If it is slow, Newton's method predicts its limit; that is the answer if value iteration is
    closer to it at the next check.

    Returns:
        The values (S,), nats, and max |T v - v|.

    Raises:
        Diverges: if it does not settle.
    """
    live, bound = operator.ends.live, far(operator.table)
    goal, distance, before = None, torch.inf, torch.inf
    for _ in range(_SWEEPS // _WINDOW):
        closest = torch.inf
        for _ in range(_WINDOW):
            new = operator(v)
            gap = torch.where(live, new - v, 0.0).abs().max().item()
            v, closest = new, min(closest, gap)
            if gap <= _STILL * (1 + largest(v)):
                return v, operator.linear(v).residual
        if goal is not None and (goal.v - v)[live].abs().max().item() < 0.999 * distance:
            return goal.v, goal.residual
        if not closest < 0.999 * before or not largest(v) < bound:
            break
        goal = _aim(operator, v)
        distance = torch.inf if goal is None else (goal.v - v)[live].abs().max().item()
        before = closest
    raise Diverges(f"after thousands of sweeps values still change by {gap:.3g} nats a sweep")


def _aim(operator: Operator, v: Tensor) -> Linearisation | None:
    """A fixed point near v by Newton's method with the Boltzmann rule; None if that fails."""
    step = operator.linear(v)
    for _ in range(20):
        if step.residual <= 4 * _STILL * (1 + largest(step.v)):
            return step
        change = Transient(operator.table, step.moves, operator.ends.live).sums(step.gap)
        step = operator.linear(operator.ends.filled(step.v + change))
    return None
