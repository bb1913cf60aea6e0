"""Stationary values: the fixed point v = T v of an infinite horizon, T the backward recursion.

The soft and the hard rule by Newton's method, v + (I - J)⁻¹ (T v - v), where J = ∂T/∂v is the
policy followed by the dynamics at η, while alive: policy iteration that re-optimises the dynamics
as well. For η ≥ 0, T is convex: every step but the first increases v, and the last steps square the
error. It takes 5 to 10 steps from anywhere, each a sweep and a solve (``transient.py``). Value
iteration takes as many sweeps as the trajectory has steps: it is used where it settles sooner
(``approach.py``), where Newton's method fails, and for the Boltzmann rule, whose T need not be
monotone and whose solution is defined as the limit of value iteration.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cai.infinite.bellman_operator import Linearisation, Operator
from cai.infinite.certificate import certified
from cai.infinite.endings import (
    Diverges,
    Endings,
    Undetermined,
    endings,
    endings_at_worst,
    far,
    largest,
)
from cai.infinite.transient import Transient
from cai.infinite.value_iteration import boltzmann, value_iteration
from cai.tables import bellman
from cai.tables.table import Table

_STEPS = 100  # of Newton's method
_CLOSE = 1e-3  # nats: with a smaller residual the derivative hardly changes any more
_LEAST = 1e-100  # |η| below which a step in exp(ηv) is one in v
_OVERFLOWS = 600.0  # logarithms whose exp may overflow
_OUT = 1e-5  # fraction of ``far`` at which values are diverging
_RESCUES = 7  # times that 8, 16, 32, … sweeps replace a step that failed
_FEWER = 3  # the same where values can be followed from optimism 0, see ``continuation.py``


@dataclass(frozen=True, eq=False)
class FixedPoint:
    """v = T v.

    Attributes:
        log_values: (S,), nats.
        error: nats: a bound of the distance of ``log_values`` from the fixed point; None for the
            Boltzmann rule, where there is no bound.
        residual: nats, the largest |T v - v|.
    """

    log_values: Tensor
    error: float | None
    residual: float


def fixed_point(
    table: Table,
    eta: float,
    rule: bellman.Rule = "soft",
    start: Tensor | None = None,
    near: bool = False,
    ends: Endings | None = None,
) -> FixedPoint:
    """The stationary values of an infinite horizon: the limit of ever longer finite ones.

    Args:
        table: the problem; its horizon does not matter, and it has no final reward.
        eta: the optimism η.
        rule: how actions are chosen.
        start: (S,), nats, a first guess; the closer, the faster.
        near: whether the guess is close already, so that Newton's method can start at once.
        ends: which values are known, if that was found out already.

    Raises:
        Diverges: if there are none.
    """
    guess = torch.zeros(table.num_states, dtype=torch.float64) if start is None else start
    guess = torch.where(guess.isfinite(), guess, 0.0)
    with table.threads(), torch.no_grad():
        if eta == -torch.inf:
            worst = endings_at_worst(table)
            if (worst.live | worst.ended)[table.log_initial > -torch.inf].all():
                with contextlib.suppress(Diverges):
                    return _solve(Operator(table, eta, rule, worst), guess, near)
        return _solve(Operator(table, eta, rule, ends or endings(table, eta)), guess, near)


def _solve(operator: Operator, guess: Tensor, near: bool) -> FixedPoint:
    v = operator.ends.filled(guess)
    operator.check_lost()
    if operator.rule == "boltzmann":
        v, residual = boltzmann(operator, v)
        return FixedPoint(v, None, residual)
    if not near and (operator.rule == "hard" or abs(operator.eta) > 1e3):
        v = _way_out(operator, v)
    step, chain = _newton(operator, v)
    v, error = certified(step, chain)
    if error is None:  # at large values a residual is lost in rounding errors
        lost = largest(step.v) > _OUT * far(operator.table)
        raise (Diverges if lost else Undetermined)("no bracket")
    return FixedPoint(v, error, step.residual)


def _way_out(operator: Operator, v: Tensor) -> Tensor:
    """Soft values to start from if T has kinks: from ties at zero, Newton's method may cycle."""
    try:
        return _newton(replace(operator, eta=max(-8.0, min(8.0, operator.eta)), rule="soft"), v)[
            0
        ].v
    except Diverges:  # for η < 0 the hard values may be finite nevertheless
        return v


def _newton(operator: Operator, v: Tensor) -> tuple[Linearisation, Transient | None]:
    """Newton's method, with sweeps of value iteration in place of steps that fail.

    Returns:
        The last linearisation, and the last chain that was made.
    """
    step, chain = operator.linear(v), None
    best, stale, rescued = step, 0, 0
    for _ in range(_STEPS):
        if step.settled or stale == 3:
            return best, chain
        ahead = None
        if chain is not None and step.residual < _CLOSE:  # the previous chain is close enough
            ahead = _moved(step, chain.sums(step.gap))
        if ahead is None or not (ahead.residual < 0.01 * step.residual or ahead.settled):
            chain, ahead = _ahead(step)
        if ahead is None:
            if step.residual <= 1e-12 * (1 + largest(step.v)):
                return best, chain
            if rescued == (_RESCUES if operator.eta in (0, math.inf, -math.inf) else _FEWER):
                raise Diverges("Newton's method fails")
            ahead = value_iteration(operator, step.v, 8 << rescued)
            rescued += 1
        step = ahead
        stale = 0 if step.residual < 0.9 * best.residual else stale + (best.residual < 1e-6)
        best = step if step.residual <= best.residual else best
    raise Diverges("Newton's method does not settle")


def followed(table: Table, eta: float, rule: bellman.Rule, start: Tensor) -> Tensor | None:
    """Values at η from those (S,), nats, at an optimism slightly nearer to 0; None if none exist.

    Newton's method alone until it settles: close, but not certified. A last step in exp(ηv) shows
    that values exist. For η ≤ 1 a failed step shows that there are none: for η > 0 the second step
    starts from a sub-solution, from which it must go up to the values; for η < 0 the policy at the
    start has no finite values, and no other is near unless the critical optimism is.
    """
    operator = Operator.of(table, eta, rule)
    live, start = (
        operator.ends.live,
        operator.ends.filled(torch.where(start.isfinite(), start, 0.0)),
    )
    with table.threads(), torch.no_grad():
        try:
            operator.check_lost()
        except Diverges:
            return None
        if not live.any():
            return start
        step = operator.linear(start)
        for n in range(_STEPS):
            chain, ahead = _in_weights(step)
            of_ends = None
            if chain is not None and ahead is not None:
                of_ends = chain.sums((eta * step.gap).exp() * step.ending).log() / eta
            if ahead is None and (eta > 1 or (eta > 0 and n == 0)):
                _, ahead = _in_values(step)
            if ahead is None:
                return None
            change, step = ahead.v - step.v, ahead
            still = change.abs() <= 1e-6 / abs(eta) + 1e-12 * (1 + step.v.abs())
            if of_ends is not None and bool(still[live].all()):
                # At large values, where exits are lost in rounding errors, the sums are wrong.
                ends_count = (of_ends - change).abs() < 0.1 / abs(eta)
                return step.v if bool(ends_count[live].all()) else None
    return None


def _ahead(step: Linearisation) -> tuple[Transient, Linearisation | None]:
    """The chain of a Newton step, and the linearisation after the step; None if it fails.

    The step is in w = exp(ηv) where that works, else in v. For η ≥ 0 the residual may grow. For
    η < 0 it must fall, if need be by a partial step, unless T has a kink.
    """
    chain, ahead = _in_weights(step)
    if chain is not None and ahead is not None:
        return chain, ahead
    return _in_values(step)


def _in_values(step: Linearisation) -> tuple[Transient, Linearisation | None]:
    """Newton's step in v, in which T is convex for η ≥ 0."""
    chain = step.chain()
    change = chain.sums(step.gap)
    if step.operator.eta >= 0:
        return chain, _moved(step, change)
    for part in (1.0, 0.5, 0.25, 0.125, 0.03):
        ahead = _moved(step, part * change)
        if ahead is not None and ahead.residual < (1 - part / 4) * step.residual:
            return chain, ahead
    return chain, None


def _in_weights(step: Linearisation) -> tuple[Transient | None, Linearisation | None]:
    """Newton's step in w = exp(ηv), in which T is linear but for the choice of actions.

    The choice makes it concave for η < 0, convex for 0 < η ≤ 1 and for the hard rule. None if no
    positive weights solve the linear system, or if they overflow.
    """
    operator, eta = step.operator, step.operator.eta
    if not _LEAST < abs(eta) < torch.inf or not (eta * step.gap).max() < _OVERFLOWS:
        return None, None
    growth = (eta * step.gap).exp()
    left = growth * step.ending - (eta * step.gap).expm1()
    chain = Transient(operator.table, growth[:, None, None] * step.moves, operator.ends.live, left)
    return chain, _moved(step, _change_of_weights(step, chain))


def _change_of_weights(step: Linearisation, chain: Transient) -> Tensor:
    """Newton's step (S,), nats, in w = exp(ηv); NaN if no positive weights solve it.

    With F(w) = exp(ηT v), which is homogeneous in w and in the weights of terminal outcomes, it
    solves (I - G J) u = G e for the factors u by which weights grow: G = exp(η (T v - v)), and e is
    the probability that the next step is the last. Small changes u - 1 solve it with G - 1 in the
    place of G e. No positive u solves it if the spectral radius of G J is one or more.
    """
    eta = step.operator.eta
    growth = torch.expm1(eta * step.gap)
    change = chain.sums(growth)
    if growth.abs().max() < 1 and change.min() > -0.5:
        return change.log1p() / eta
    return chain.sums((eta * step.gap).exp() * step.ending).log() / eta


def _moved(step: Linearisation, change: Tensor) -> Linearisation | None:
    """T at v plus a change (S,); None if that is out of bounds."""
    live, bound = step.operator.ends.live, far(step.operator.table)
    new = torch.where(live, step.v + change, step.v)
    if new[live].isfinite().all() and new[live].abs().max() < bound:
        ahead = step.operator.linear(new)
        return ahead if ahead.residual < bound else None
    return None
