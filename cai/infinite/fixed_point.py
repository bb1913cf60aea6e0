"""Stationary values: the fixed point v = T v of an infinite horizon, T the backward recursion.

The soft and the hard rule by Newton's method, v + (I - J)⁻¹ (T v - v) with J = ∂T/∂v the policy
followed by the bent dynamics, alive: policy iteration, where the dynamics are chosen anew, too.
For η ≥ 0, T is convex, every step but the first goes up, and the last ones square the error. It
takes 5 to 10 steps from anywhere, each a sweep and a solve (``transient.py``). Value iteration
takes as many sweeps as the trajectory takes steps: it serves where it settles sooner
(``approach.py``), where Newton's method fails, and for the Boltzmann rule, whose T need not be
monotone and whose answer is what it leads to.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cai.infinite.certificate import certified, rounding
from cai.infinite.endings import Endings, endings, endings_at_worst
from cai.infinite.transient import Transient
from cai.numerics import logspace
from cai.tables import bellman
from cai.tables.table import Table

_STEPS = 100  # of Newton's method
_CLOSE = 1e-3  # nats: a residual from which on the derivative hardly changes any more
_LEAST = 1e-100  # |η| below which exp(ηv) says no more than v
_OVERFLOWS = 600.0  # of a logarithm
_FAR = 1e14  # rewards, or nats: nothing that converges gets there
_OUT = 1e-5  # of that: values on their way out
_RESCUES = 7  # times that 8, 16, 32, … sweeps stand in for a step that failed
_FEWER = 3  # where values can be followed from optimism 0, see ``continuation.py``
_WINDOW = 500  # sweeps within which value iteration must get closer
_SWEEPS = 20_000
_STILL = 4e-15  # a change of the values that is rounding errors, relative to the largest above one


class Diverges(ValueError):
    """There are no stationary values, or none was found."""


class Undetermined(Diverges):
    """Values repeat to rounding errors, but nothing bounds them: others may repeat as well."""


@dataclass(frozen=True, eq=False)
class FixedPoint:
    """v = T v.

    Attributes:
        log_values: (S,), nats.
        error: nats: how far ``log_values`` are from the fixed point at most; None for the Boltzmann
            rule, where nothing is promised.
        residual: nats, the largest |T v - v|.
    """

    log_values: Tensor
    error: float | None
    residual: float


@dataclass(frozen=True, eq=False)
class Step:
    """T at v, made linear.

    Attributes:
        v: (S,), nats.
        backed_up: (S,), T v.
        gap: (S,), T v - v; zero in states that are not live.
        moves: (S, A, K), ∂T/∂v: the policy and the bent dynamics, alive. (For the Boltzmann rule
            π(1 + q - v) in the place of π.)
        arrivals: (S, A, K), the same whether or not the move is survived.
    """

    v: Tensor
    backed_up: Tensor
    gap: Tensor
    moves: Tensor
    arrivals: Tensor

    @classmethod
    def at(
        cls,
        table: Table,
        v: Tensor,
        eta: float,
        rule: bellman.Rule,
        ends: Endings,
        greedy: bool = False,
    ) -> Step:
        """One application of T at v (S,), nats, with its derivative.

        Where T has a kink, as several actions or outcomes tie, the derivative is that of a mixture
        of all of them, or ``greedy`` that of the first of the best.
        """
        x = bellman.outcome_values(table, v, eta)
        q = table.reward / table.temperature + logspace.soft_mean(table.log_dynamics, x, eta)
        backed_up = bellman.state_values(table, q, rule)
        by_q = bellman.log_policy(table, q, rule).exp()
        if rule == "boltzmann":  # an action also counts by how much it beats the others
            by_q = by_q * (1 + torch.where(by_q > 0, q - backed_up.unsqueeze(-1), 0.0))
        bent = logspace.tilt(table.log_dynamics, x, eta).exp()
        if greedy and rule == "hard":
            by_q = _first_of_best(table.log_prior, q)
        if greedy and abs(eta) == torch.inf:
            bent = _first_of_best(table.log_dynamics, math.copysign(1.0, eta) * x)
        moves = arrivals = by_q.unsqueeze(-1) * bent
        if table.discount < 1:
            moves = moves * table.gather(bellman.survival(v, eta, table.discount).exp())
        return cls(v, backed_up, torch.where(ends.live, backed_up - v, 0.0), moves, arrivals)

    @property
    def residual(self) -> float:
        """max |T v - v|; NaN where v is."""
        return self.gap.abs().max().item()


def _first_of_best(log_p: Tensor, x: Tensor) -> Tensor:
    """All weight on one of the largest of what is possible, over the last axis; or p if none is."""
    x = torch.where(log_p > -torch.inf, x, -torch.inf)
    one = torch.zeros_like(x).scatter_(-1, x.argmax(-1, keepdim=True), 1.0)
    return torch.where(x.amax(-1, keepdim=True) > -torch.inf, one, log_p.exp())


def fixed_point(
    table: Table,
    eta: float,
    rule: bellman.Rule = "soft",
    start: Tensor | None = None,
    near: bool = False,
) -> FixedPoint:
    """The stationary values of an infinite horizon: the limit of those of ever longer ones.

    Args:
        table: the problem; its horizon does not matter, and its final reward is none.
        eta: the optimism η.
        rule: how actions are chosen.
        start: (S,), nats, a first guess; the closer, the quicker.
        near: whether the guess is close already, so that Newton's method needs no help.

    Raises:
        Diverges: where there are none.
    """
    guess = torch.zeros(table.num_states, dtype=torch.float64) if start is None else start
    guess = torch.where(guess.isfinite(), guess, 0.0)
    with table.threads(), torch.no_grad():
        if eta == -torch.inf:
            worst = endings_at_worst(table)
            if (worst.live | worst.ended)[table.log_initial > -torch.inf].all():
                with contextlib.suppress(Diverges):
                    return _solve(table, guess, eta, rule, worst, near)
        return _solve(table, guess, eta, rule, endings(table, eta), near)


def _solve(
    table: Table, guess: Tensor, eta: float, rule: bellman.Rule, ends: Endings, near: bool
) -> FixedPoint:
    v = ends.filled(guess)
    check_lost(table, ends, eta, rule)
    if rule == "boltzmann":
        return _by_value_iteration(table, v, eta, ends)
    if not near and (rule == "hard" or abs(eta) > 1e3):
        v = _way_out(table, v, eta, ends)
    step, chain = _newton(table, v, eta, rule, ends)
    v, error = certified(table, step, eta, rule, ends, chain)
    if error is None:  # far out a residual drowns in rounding errors
        lost = _largest(step.v) > _OUT * _far(table)
        raise (Diverges if lost else Undetermined)("no bracket")
    return FixedPoint(v, error, step.residual)


def _way_out(table: Table, v: Tensor, eta: float, ends: Endings) -> Tensor:
    """Where to start from if T has kinks: ties at zero would run in circles, soft values do not."""
    try:
        return _newton(table, v, max(-8.0, min(8.0, eta)), "soft", ends)[0].v
    except Diverges:  # for η < 0 the hard values may be finite all the same
        return v


def _newton(
    table: Table, v: Tensor, eta: float, rule: bellman.Rule, ends: Endings
) -> tuple[Step, Transient | None]:
    """Newton's method, with sweeps of value iteration where a step of it fails.

    Returns:
        Where it led, and the chain of the last step that made one.
    """
    step, chain = Step.at(table, v, eta, rule, ends), None
    best, stale, rescued = step, 0, 0
    for _ in range(_STEPS):
        if bool((step.gap.abs() <= rounding(table, step.v, eta, ends)).all()) or stale == 3:
            return best, chain
        ahead = None
        if chain is not None and step.residual < _CLOSE:  # the chain of the step before does, too
            ahead = _moved(table, step, chain.sums(step.gap), eta, rule, ends)
        if ahead is None or not ahead.residual < 0.01 * step.residual:
            chain, ahead = _ahead(table, step, eta, rule, ends)
        if ahead is None:
            if step.residual <= 1e-12 * (1 + _largest(step.v)):
                return best, chain
            if rescued == (_RESCUES if eta == 0 or math.isinf(eta) else _FEWER):
                raise Diverges("Newton's method fails")
            ahead = _sweeps(table, step.v, eta, rule, ends, 8 << rescued)
            rescued += 1
        step = ahead
        stale = 0 if step.residual < 0.9 * best.residual else stale + (best.residual < 1e-6)
        best = step if step.residual <= best.residual else best
    raise Diverges("Newton's method does not settle")


def followed(table: Table, eta: float, rule: bellman.Rule, start: Tensor) -> Tensor | None:
    """Values at η from those (S,), nats, at an optimism a little nearer to 0; None for none.

    Newton's method alone until it no longer moves: close, but not certified. That its last step is
    one in exp(ηv) shows that there are values. Where η ≤ 1, it shows at once that there are none:
    for η > 0 the second step begins at a sub-solution, from which it is a step up to the values;
    for η < 0 the policy of the start has none, and no better one is near unless the edge is.
    """
    ends = endings(table, eta)
    start = torch.where(start.isfinite(), start, 0.0)
    with table.threads(), torch.no_grad():
        try:
            check_lost(table, ends, eta, rule)
        except Diverges:
            return None
        if not ends.live.any():
            return ends.filled(start)
        step = Step.at(table, ends.filled(start), eta, rule, ends)
        for n in range(_STEPS):
            chain, ahead = _in_weights(table, step, eta, rule, ends)
            of_ends = None
            if chain is not None and ahead is not None:
                of_ends = chain.sums(_ending(table, step, eta, ends)).log() / eta
            if ahead is None and (eta > 1 or (eta > 0 and n == 0)):
                _, ahead = _in_values(table, step, eta, rule, ends)
            if ahead is None:
                return None
            change, step = ahead.v - step.v, ahead
            still = change.abs() <= 1e-6 / abs(eta) + 1e-12 * (1 + step.v.abs())
            if of_ends is not None and bool(still[ends.live].all()):
                # Far out, where ends drown in rounding errors, they do not add up to the weights.
                ends_count = (of_ends - change).abs() < 0.1 / abs(eta)
                return step.v if bool(ends_count[ends.live].all()) else None
    return None


def _ahead(
    table: Table, step: Step, eta: float, rule: bellman.Rule, ends: Endings
) -> tuple[Transient, Step | None]:
    """Newton's step, and the chain that it was made with; None where it leads astray.

    In w = exp(ηv) where that leads anywhere, else in v. For η ≥ 0 the residual may grow on the way.
    Else it must fall, which a part of the step brings about where all of it goes too far, unless T
    has a kink.
    """
    chain, ahead = _in_weights(table, step, eta, rule, ends)
    if chain is not None and ahead is not None:
        return chain, ahead
    return _in_values(table, step, eta, rule, ends)


def _in_values(
    table: Table, step: Step, eta: float, rule: bellman.Rule, ends: Endings
) -> tuple[Transient, Step | None]:
    """Newton's step in v, in which T is convex for η ≥ 0."""
    chain = Transient(table, step.moves, ends.live)
    change = chain.sums(step.gap)
    if eta >= 0:
        return chain, _moved(table, step, change, eta, rule, ends)
    for part in (1.0, 0.5, 0.25, 0.125, 0.03):
        ahead = _moved(table, step, part * change, eta, rule, ends)
        if ahead is not None and ahead.residual < (1 - part / 4) * step.residual:
            return chain, ahead
    return chain, None


def _in_weights(
    table: Table, step: Step, eta: float, rule: bellman.Rule, ends: Endings
) -> tuple[Transient | None, Step | None]:
    """Newton's step in w = exp(ηv), in which T is linear but for the choice of actions.

    The choice makes it concave for η < 0, convex for 0 < η ≤ 1 and for the hard rule. None where
    no weights above zero solve the linear system, or where floats do not take them.
    """
    if not _LEAST < abs(eta) < torch.inf or not (eta * step.gap).max() < _OVERFLOWS:
        return None, None
    grown = (eta * step.gap).exp()[:, None, None] * step.moves
    chain = Transient(table, grown, ends.live)
    change = _change_of_weights(table, step, chain, eta, ends)
    return chain, _moved(table, step, change, eta, rule, ends)


def _change_of_weights(
    table: Table, step: Step, chain: Transient, eta: float, ends: Endings
) -> Tensor:
    """Newton's step (S,), nats, in w = exp(ηv); NaN where no weights above zero solve it.

    With F(w) = exp(ηT v), which is homogeneous in w and in the weights of what ends, it solves
    (I - G J) u = G e for the factors u by which weights grow: G = exp(η (T v - v)), and e is how
    likely the next step is the last. Small changes u - 1 solve it for G - 1 in the place of G e. No
    positive u solves it where the spectral radius of G J is one or more.
    """
    growth = torch.expm1(eta * step.gap)
    change = chain.sums(growth)
    if growth.abs().max() < 1 and change.min() > -0.5:
        return change.log1p() / eta
    return chain.sums(_ending(table, step, eta, ends)).log() / eta


def _ending(table: Table, step: Step, eta: float, ends: Endings) -> Tensor:
    """G e (S,), how likely the next step is the last one, times exp(η (T v - v))."""
    last = (~ends.live).double()
    if table.discount < 1:
        log_coin, x = bellman.coin(step.v, table.discount)
        dies = logspace.tilt(log_coin, x, eta)[..., 1].exp()
        last = torch.where(ends.live, dies, last)
    return (eta * step.gap).exp() * (step.arrivals * table.gather(last)).sum((-2, -1))


def _moved(
    table: Table, step: Step, change: Tensor, eta: float, rule: bellman.Rule, ends: Endings
) -> Step | None:
    """T where a change (S,) leads; None where that is out of bounds."""
    new, far = torch.where(ends.live, step.v + change, step.v), _far(table)
    if new[ends.live].isfinite().all() and new[ends.live].abs().max() < far:
        ahead = Step.at(table, new, eta, rule, ends)
        return ahead if ahead.residual < far else None
    return None


def _far(table: Table) -> float:
    """What is too far to get to, nats, at the size of these rewards."""
    sizes = [table.reward] if table.arrival_reward is None else [table.reward, table.arrival_reward]
    return _FAR * max(1.0, *(_largest(x / table.temperature) for x in sizes))


def _largest(v: Tensor) -> float:
    return torch.where(v.isfinite(), v.abs(), 0.0).max().item()


def _sweeps(table: Table, v: Tensor, eta: float, rule: bellman.Rule, ends: Endings, n: int) -> Step:
    for _ in range(n):
        v = ends.filled(bellman.backup(table, v, eta, rule))
    if not v[ends.live].isfinite().all() or _largest(v) > _far(table):
        raise Diverges("value iteration leaves every bound")
    return Step.at(table, v, eta, rule, ends)


def _by_value_iteration(table: Table, v: Tensor, eta: float, ends: Endings) -> FixedPoint:
    """Value iteration with the Boltzmann rule, watched for running in circles.

    Where it is slow, Newton's method says where it is going; that is the answer if value iteration
    has come closer to it by the next time.
    """
    goal, distance, before = None, torch.inf, torch.inf
    for _ in range(_SWEEPS // _WINDOW):
        closest = torch.inf
        for _ in range(_WINDOW):
            new = ends.filled(bellman.backup(table, v, eta, "boltzmann"))
            gap = torch.where(ends.live, new - v, 0.0).abs().max().item()
            v, closest = new, min(closest, gap)
            if gap <= _STILL * (1 + _largest(v)):
                return FixedPoint(v, None, Step.at(table, v, eta, "boltzmann", ends).residual)
        if goal is not None and (goal.v - v)[ends.live].abs().max().item() < 0.999 * distance:
            return FixedPoint(goal.v, None, goal.residual)
        if not closest < 0.999 * before or not _largest(v) < _far(table):
            break
        goal = _aim(table, v, eta, ends)
        distance = torch.inf if goal is None else (goal.v - v)[ends.live].abs().max().item()
        before = closest
    raise Diverges(f"after thousands of sweeps values still change by {gap:.3g} nats a sweep")


def _aim(table: Table, v: Tensor, eta: float, ends: Endings) -> Step | None:
    """A fixed point near v by Newton's method with the Boltzmann rule; None where it fails."""
    step = Step.at(table, v, eta, "boltzmann", ends)
    for _ in range(20):
        if step.residual <= 4 * _STILL * (1 + _largest(step.v)):
            return step
        change = Transient(table, step.moves, ends.live).sums(step.gap)
        step = Step.at(table, ends.filled(step.v + change), eta, "boltzmann", ends)
    return None


def check_lost(table: Table, ends: Endings, eta: float, rule: bellman.Rule) -> None:
    """Raises where going on for ever does not cost more and more in the states that are lost.

    They have values of -inf if some w has T w < w, or T w = -inf, everywhere among them; what is
    outside counts as zero, which a bounded number stands for.
    """
    lost = ~(ends.live | ends.ended)
    if not lost.any():
        return
    w = torch.zeros(table.num_states, dtype=torch.float64)
    for _ in range(_WINDOW):
        backed_up = torch.where(lost, bellman.backup(table, w, eta, rule), 0.0)
        falls = (backed_up < w - 1e-12 * (1 + w.abs())) | (backed_up == -torch.inf)
        if bool(falls[lost].all()):
            return
        # Half a step: circles of an even length would oscillate.
        w = torch.where(backed_up > -torch.inf, (w + backed_up) / 2, -torch.inf)
        if w[lost].max() > _far(table):
            break
    raise Diverges("going on for ever costs nothing")
