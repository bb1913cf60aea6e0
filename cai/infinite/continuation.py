"""Follows stationary values from optimism 0 to where they end, the critical optimism.

If values exist at η they exist at every optimism between 0 and η. At an optimism a little further
out, Newton's method starts from the last values: for η > 0 they are a sub-solution, from which it
rises to the values, or beyond every bound; for η < 0 their policy still has finite values there
unless its own critical optimism is close, so that one solve detects a step too far
(``fixed_point.followed``). Right behind the critical optimism of one policy another policy may have
finite values: ``stopping.py`` decides whether one does, and the values are followed from there. If
such points lie close together, bisection with that decision alone finds where values end.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from cai.infinite.fixed_point import followed
from cai.infinite.stopping import stops_tell, values_by_stopping
from cai.tables import bellman
from cai.tables.table import Table

_FAR = 2.0**20  # |η| at which the search stops
_POLICIES = 30  # policies whose critical optimism is passed, for η < 0
_STRIDES = 200  # steps of one walk for η < 0; about forty unless those points lie close together


class Reach(NamedTuple):
    """How far values were followed.

    Attributes:
        log_values: (S,), nats, at the last optimism that has values, close but not certified.
        inside: that optimism; the requested one, if it has values.
        outside: an optimism without values; None if none was met.
    """

    log_values: Tensor
    inside: float
    outside: float | None


def continued(
    table: Table, eta: float, rule: bellman.Rule, start: Tensor, tolerance: float, at: float = 0.0
) -> Reach:
    """Follows stationary values from one optimism, usually 0, away from 0, in adaptive steps.

    Args:
        table: the problem; its horizon does not matter.
        eta: the target η, any number but 0, or ±inf.
        rule: "soft" or "hard".
        start: (S,), nats, the values at the start.
        tolerance: relative distance of the last optimism with values and the first one without.
        at: the optimism of the start, 0 or one of the sign of η.
    """
    far, found = min(abs(eta), _FAR), Reach(start, at, None)
    for _ in range(_POLICIES):
        found, arrived = _walked(table, eta, rule, found, far, tolerance)
        if not arrived:
            break
        if found.outside is None or eta > 0:
            return found
        v = values_by_stopping(table, found.outside, rule, found.log_values)
        if v is None:
            return found
        found = Reach(v, found.outside, None)
    return _bisected(table, eta, rule, found, far, tolerance)


def _bisected(
    table: Table, eta: float, rule: bellman.Rule, found: Reach, far: float, tolerance: float
) -> Reach:
    """The same for η < 0 by bisection: whether any policy has values in the middle."""
    high = math.copysign(far, eta)
    v = values_by_stopping(table, high, rule, found.log_values)
    if v is not None:
        return Reach(v, high, None)
    low, values = found.inside, found.log_values
    while abs(high - low) > 2 * tolerance * abs(high):
        middle = -math.sqrt(low * high) if low else high / 2
        v = values_by_stopping(table, middle, rule, values)
        low, high, values = (low, middle, values) if v is None else (middle, high, v)
    return Reach(values, low, high)


def _walked(
    table: Table, eta: float, rule: bellman.Rule, found: Reach, far: float, tolerance: float
) -> tuple[Reach, bool]:
    """As :func:`continued`, up to |η| = far at most.

    Returns:
        How far it went, and whether it finished within the largest number of steps.
    """
    most = _STRIDES if eta < 0 and stops_tell(table) else math.inf
    size = abs(found.inside)
    step, successes = far - size, 0
    if math.isinf(eta):
        step = min(step, max(size, 1.0))
    strides = 0
    while size < far and step > tolerance * (size + step):
        if strides >= most:
            return found, False
        strides += 1
        ahead = min(size + step, far)
        v = followed(table, math.copysign(ahead, eta), rule, found.log_values)
        if v is None:
            found = found._replace(outside=math.copysign(ahead, eta))
            step, successes = step / 2, 0
        else:
            size, successes = ahead, successes + 1
            found = Reach(v, math.copysign(size, eta), found.outside)
            step = 2 * step if successes > 1 else step
    if size == far:
        found = found._replace(outside=None)
    return found, True
