"""Infinite horizons: the stationary solution at any optimism, or why there is none."""

from __future__ import annotations

import contextlib
import math

import torch
from torch import Tensor

from cai import checks
from cai.inference.infinite._approach import approach
from cai.inference.infinite._system import System, divergence
from cai.inference.infinite._transition_graph import transition_graph
from cai.inference.infinite.linear_system import linear_system
from cai.infinite.bellman_operator import Operator
from cai.infinite.continuation import Reach, continued
from cai.infinite.endings import (
    Diverges,
    Endings,
    Undetermined,
    endings,
    may_go_on,
    never_paid,
)
from cai.infinite.fixed_point import FixedPoint, fixed_point
from cai.infinite.stopping import values_by_stopping
from cai.infinite.transient import fills_in
from cai.solutions.stationary import Stationary
from cai.tables import bellman
from cai.tables.table import Table

_SMALL = 10**5  # numbers in a table up to which the critical optimism is found to six digits
_CLOSER = 16  # optimisms that are tried, each eight times nearer to 0


def stationary(table: Table, optimism: float, rule: bellman.Rule = "soft") -> Stationary:
    """The stationary solution of an infinite horizon, for ``soft_values``.

    Value iteration is tried first, as long as it settles quickly (``approach.py``). At η = 1 the
    soft rule is a linear system (``linear_system.py``), solved by one factorisation, while Newton's
    method takes one per step; its values are also the starting point for other η, since they
    reflect the distance to termination, unless a factorisation would fill in. Every result except
    that of the Boltzmann rule has a certificate.

    Args:
        table: a problem with an infinite horizon.
        optimism: η, any real number or ±inf.
        rule: how actions are chosen.

    Raises:
        ValueError: if values are not finite, naming the critical optimism, the spectral radius, or
            the state where going on for ever is profitable; if the evidence is zero; for a final
            reward, since there is no last step.
    """
    check_nothing_final(table)
    ends, valued = _check_evidence(table), bellman.rule_of_values(rule)
    start = approach(table, optimism) if rule == "soft" else None
    if start is None:
        start = _linear(table, optimism, valued)
    try:
        found = fixed_point(table, optimism, valued, start, ends=ends if optimism > 0 else None)
    except Diverges as reason:
        found = _followed(table, optimism, valued, reason, start)
    return Stationary.of(table, optimism, rule, found)


def check_nothing_final(table: Table) -> None:
    """Raises ValueError if there is a final reward, as an infinite horizon has no last step."""
    if (table.final_reward != 0).any():
        expected = "none, as an infinite horizon has no last step"
        advice = "pay it on arrival in an absorbing state, or take a finite horizon"
        checks.refuse("final_reward", expected, "one that is not zero", advice)


def _check_evidence(table: Table) -> Endings:
    """The endings at optimism 1, which are those at any above 0; raises ValueError if p(O) = 0."""
    operator = Operator.of(table, 1.0, "soft")
    known = operator.ends.live | operator.ends.ended
    if ((table.log_initial > -torch.inf) & known).any():
        return operator.ends
    with contextlib.suppress(Diverges):  # unless going on for ever is profitable
        operator.check_lost()
        raise ValueError(
            "evidence: p(O) = 0, from no initial state does a trajectory end without a reward of "
            "-inf; look for an absorbing state that can be reached, or take a discount below one"
        )
    return operator.ends


def factorises(table: Table) -> bool:
    """Whether a factorisation is fast, unlike that of a large random graph."""
    graph = transition_graph(table)
    return not fills_in(graph.matrix(graph.log_weights, ~graph.absorbing[graph.heads]))


def _linear(table: Table, eta: float, rule: bellman.Rule) -> Tensor | None:
    """Values at optimism 1; None if a factorisation would take minutes, or there are no values.

    Newton's method can start without them.
    """
    if not factorises(table):
        return None
    try:
        return linear_system(table).log_values
    except ValueError:
        if eta == 1 and rule == "soft":
            raise
        return None


def _followed(
    table: Table, eta: float, rule: bellman.Rule, reason: Diverges, start: Tensor | None
) -> FixedPoint:
    """The values that are followed from those at optimism 0, if Newton's method fails.

    Raises:
        ValueError: if there are none, with the reason and what to change.
    """
    if rule == "boltzmann":
        raise ValueError(
            f"rule: the Boltzmann rule has no stationary values at optimism {eta:g}: {reason}. It "
            "may cycle, since raising one action's value may lower the state's; take a higher "
            'temperature, a lower discount, or the rule "soft", which never cycles'
        ) from None

    if eta == 1 and rule == "soft" and start is None:
        graph = transition_graph(table).ending(never_paid(table).numpy())
        raise divergence(System.of(graph, table.discount)) from None
    careful = None if eta == 0 else _try(table, 0.0, rule, start)
    if -torch.inf < eta < 0:
        shape = table.reward.new_zeros(table.num_states) if careful is None else careful.log_values
        with contextlib.suppress(Diverges):
            v = values_by_stopping(table, eta, rule, shape)
            if v is not None:
                return fixed_point(table, eta, rule, v, near=True)
    first = _nearest(table, eta, rule, start) if careful is None else (0.0, careful)
    if first is None:
        raise _endless(table, rule) from None
    at, values = first
    tolerance = 10.0 ** -(_digits(table) + 1)
    reach = continued(table, eta, rule, values.log_values, tolerance, at)
    if reach.inside == eta:
        with contextlib.suppress(Diverges):
            return fixed_point(table, eta, rule, reach.log_values, near=True)
    if reach.outside is None and (reach.inside == eta or isinstance(reason, Undetermined)):
        raise _undetermined(eta, rule) from None
    raise _beyond(eta, rule, reach, _digits(table)) from None


def _try(table: Table, eta: float, rule: bellman.Rule, start: Tensor | None) -> FixedPoint | None:
    try:
        return fixed_point(table, eta, rule, start)
    except Diverges:
        return None


def _nearest(
    table: Table, eta: float, rule: bellman.Rule, start: Tensor | None
) -> tuple[float, FixedPoint] | None:
    """An optimism towards η with values, and these, if there are none at 0; None if not found.

    If a trajectory lasts for 1e15 steps the values at 0 are out of reach, but away from 0 nature or
    luck soon terminates it. Not tried if it need not terminate at all, or in large problems.
    """
    sure = ~may_go_on(table).any()
    if eta == 0 or not sure or table.log_dynamics.numel() > _SMALL:
        return None
    for k in range(_CLOSER):
        at = math.copysign(min(abs(eta) / 4, 1.0) / 8**k, eta)
        values = _try(table, at, rule, start)
        if values is not None:
            return at, values
    return None


def _digits(table: Table) -> int:
    return 6 if table.log_dynamics.numel() <= _SMALL else 2


def _undetermined(eta: float, rule: bellman.Rule) -> ValueError:
    return ValueError(
        f"optimism: at optimism {eta:g} with the rule {rule!r} the values of an infinite "
        "horizon are not determined in float64: up to rounding errors, it makes no difference "
        "whether a trajectory terminates. Either a cycle has next to no cost, or the optimism "
        "is just below the critical one. Give every step outside absorbing states a "
        "cost, or take an optimism nearer to 0"
    )


def _beyond(eta: float, rule: bellman.Rule, reach: Reach, digits: int) -> ValueError:
    """The error for an optimism beyond the critical one, which it names."""
    why = (
        "beyond it optimism about the dynamics outweighs the cost of going on"
        if eta > 0
        else "beyond it nature can afford to delay termination for ever"
    )
    found = f"beyond {reach.inside:g}"
    if reach.outside is not None:
        found = f"about {(reach.inside + reach.outside) / 2:.{digits}g}"
    return ValueError(
        f"optimism: an infinite horizon has no finite values at optimism {eta:g} with the rule "
        f"{rule!r}. The critical optimism of this problem, found by bisection, is {found}; {why}. "
        "Take an optimism nearer to 0, a lower discount, or another price for each step"
    )


def _endless(table: Table, rule: bellman.Rule) -> ValueError:
    """The error for true dynamics without values, since termination is not sought."""
    v, n = torch.zeros(table.num_states, dtype=torch.float64), 200
    for _ in range(n):
        v = bellman.backup(table, v, 0.0, rule)
    before = v
    for _ in range(n):
        v = bellman.backup(table, v, 0.0, rule)
    rise = torch.where(v.isfinite(), v - before, 0.0) / n
    size = torch.where(v.isfinite(), v.abs(), 0.0).max() / n
    growth, s = rise.max(0)
    live = endings(table, 0.0).live
    gains = growth > 1e-9 * size
    falls = not gains and (rise[live] < -1e-9 * size).any()
    if falls:
        growth, s = torch.where(live, rise, 0.0).min(0)
    if falls or (gains and not may_go_on(table)[s]):
        return ValueError(
            f"horizon: an infinite horizon terminates, but too late for its values to be known in "
            f"float64: from state {int(s)}, with the rule {rule!r}, they still "
            f"{'fall' if falls else 'rise'} by {table.temperature * growth.abs().item():.4g} in "
            f"reward per step after {2 * n} steps. Take a finite horizon or a lower discount, or "
            "make termination more probable"
        )
    what = (
        f"it gains {table.temperature * growth.item():.4g} in reward per step"
        if gains
        else "it can go on for ever at no cost, so that values are not determined"
    )
    return ValueError(
        f"horizon: without a discount an infinite horizon has no finite values here: from "
        f"{f'state {int(s)}' if gains else 'some states'}, with the rule {rule!r}, {what}. Give "
        "every step outside absorbing states a cost, take a discount below one, or "
        "inference.average_reward"
    )
