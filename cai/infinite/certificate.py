"""A rigorous bound of the distance between values and the fixed point of a monotone recursion.

If T u ≤ u and T l ≥ l, with l ≤ u, a fixed point lies between them, since T is monotone. Both are
checked in floating point with a margin for its rounding errors. If both hold strictly, the chain
between them terminates (the spectral radius of ∂T/∂v is below one), and for η ≥ 0, where T is
convex, no fixed point is lower: it is the limit of finite horizons, if they have one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cai.infinite.bellman_operator import Linearisation, Operator
from cai.infinite.endings import Endings, largest
from cai.infinite.transient import Transient
from cai.numerics import logspace
from cai.tables import bellman
from cai.tables.table import Table

_EPSILON = torch.finfo(torch.float64).eps
_TRIES = 6  # each with a bracket four times as wide as the last
_WIDE = 1e-10  # a bracket this wide, relative to max(1, largest value), needs the chain at v itself
_CHOICES = 30  # rounds of policy iteration among ties
_DISCOUNT = 0.999  # from here on rounding errors over 1/(1-γ) steps may widen MacQueen's bracket


def certified(step: Linearisation, near: Transient | None = None) -> tuple[Tensor, float | None]:
    """Values and a bound of their error, nats; None if no bracket holds.

    At η = 0 with a discount γ by MacQueen's bounds (1966): with δ = T v - v, the fixed point is
    T v + γ/(1-γ) [min δ, max δ]; the values are moved to the middle of that bracket. Else by a sub-
    and a super-solution v ± d, where d is twice the sum of rounding errors and residuals over all
    future steps, under the chain at v; a nearby chain that is already solved is tried first and
    kept unless its bracket is wide. With a discount close to one the narrowest of all is taken,
    since absorption may come long before termination. That chain mixes tied actions and outcomes,
    but where T takes a maximum or a minimum the worst of them counts: see ``_side``.
    """
    operator, v, ends = step.operator, step.v, step.operator.ends
    if not ends.live.any():
        return v, 0.0
    found: tuple[Tensor, float | None] = v, None
    discount = operator.table.discount
    if operator.eta == 0 and discount < 1:
        found = _macqueen(step, discount)
        if discount < _DISCOUNT:
            return found
    source = torch.where(ends.live, 2 * (step.gap.abs() + 2 * step.noise), 0.0)
    held = False
    wide = _WIDE * (1 + largest(v))
    for chain in (near, None):
        d = (chain or step.chain()).sums(source)
        for _ in range(_TRIES if (d.isfinite() & (d >= source)).all() else 0):
            if _holds(operator, v, d):
                held, error = True, _width(v, d, ends)
                found = found if found[1] is not None and found[1] < error else (v, error)
                break
            d = 4 * d
        if near is None or (held and found[1] is not None and found[1] <= wide):
            break
    if held:
        return found
    sides = [_side(step, source, sign) for sign in (1, -1)]
    errors = [_width(v, d, ends) for d in sides if d is not None]
    if len(errors) < 2 or (found[1] is not None and found[1] < max(errors)):
        return found
    return v, max(errors)


def _width(v: Tensor, d: Tensor, ends: Endings) -> float:
    """The largest distance of v ± d, as rounded, from v."""
    return (d + _EPSILON * ends.filled(v).abs())[ends.live].max().item()


def _holds(operator: Operator, v: Tensor, d: Tensor) -> bool:
    """Whether v - d is a sub-solution and v + d a super-solution, strictly."""
    return all(_on_one_side(operator, v, sign * d) for sign in (1, -1))


def _on_one_side(operator: Operator, v: Tensor, change: Tensor) -> bool:
    """Whether v + change ≥ T (v + change) strictly where it goes up, ≤ where it goes down."""
    live, sign = operator.ends.live, torch.sign(change)
    for found in operator.gaps(operator.ends.filled(v + change)):
        below = sign[found.states] * found.values <= -2 * found.noise
        if not below[live[found.states]].all():
            return False
    return True


def _side(step: Linearisation, source: Tensor, sign: int) -> Tensor | None:
    """d (S,), nats: v + d a super-solution (sign 1), v - d a sub-solution (-1); None if not found.

    By Newton's method for the fixed point of T ± source, where a maximum or a minimum picks among
    ties the one that is best at v ± d: policy iteration among the ties, a mixture of which would
    sum to less than the worst of them.
    """
    operator, ends, d = step.operator, step.operator.ends, torch.zeros_like(source)
    for _ in range(_CHOICES):
        ahead = operator.linear(ends.filled(step.v + sign * d), greedy=True)
        due = torch.where(ends.live, source + sign * ahead.gap, 0.0)
        d = d + ahead.chain().sums(due)
        if not (d.isfinite() & (d >= 0)).all():
            return None
        if _on_one_side(operator, step.v, sign * d):
            return d
    return None


def _macqueen(step: Linearisation, discount: float) -> tuple[Tensor, float]:
    ends = step.operator.ends
    gap = step.gap[ends.live]
    if ends.ended.any():  # where δ = 0
        gap = torch.cat([gap, gap.new_zeros(1)])
    ahead = discount / (1 - discount)
    lowest, highest = ahead * gap.min(), ahead * gap.max()
    v = ends.filled(step.v + step.gap + (lowest + highest) / 2)
    noise = step.noise.max() / (1 - discount) + 2 * _EPSILON * v[ends.live].abs().max()
    return v, ((highest - lowest) / 2 + 2 * noise).item()


def rounding(table: Table, v: Tensor, eta: float) -> Tensor:
    """(S,), nats: a bound of the rounding error of T v.

    A sum of n terms errs by n ε of its size, exp and log by ε of theirs; the log-probability of an
    outcome enters a soft mean divided by η and weighted by the outcome's probability in the
    dynamics at η. Sizes are taken state by state.
    """
    outcomes = bellman.outcome_values(table, v, eta)
    x = _size(outcomes, table.log_dynamics).amax(-1)
    own = _size(table.reward / table.temperature, table.log_prior)
    prior = torch.where(table.log_prior > -torch.inf, table.log_prior.abs(), 0.0)
    logs = torch.where(table.log_dynamics > -torch.inf, table.log_dynamics.abs(), 0.0)
    dynamics = logs.amax(-1)
    if abs(eta) >= 0.1:
        dynamics = dynamics / abs(eta)
    elif eta != 0 and (spread := 2 * x * abs(eta) > 1).any():  # else it is taken around the mean
        met = logspace.product(logspace.tilt(table.log_dynamics, outcomes, eta).exp(), logs).sum(-1)
        dynamics = torch.where(spread, (1 + met) / abs(eta), dynamics)
    size = torch.where(table.log_prior > -torch.inf, x + own + prior + dynamics, 0.0).amax(-1)
    n = int((table.log_dynamics > -torch.inf).sum(-1).max()) + table.num_actions
    return (n + 8) * _EPSILON * (10 + size)


def _size(x: Tensor, log_p: Tensor) -> Tensor:
    """|x|, zero where it is infinite or impossible."""
    return torch.where((log_p > -torch.inf) & x.isfinite(), x.abs(), 0.0)
