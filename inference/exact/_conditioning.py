"""Exact smoothing given other observations than the optimality of all steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from cai.program import sites
from cai.solutions.conditioned import Conditioned
from cai.tables import evidence, messages
from cai.tables.evidence import Evidence
from cai.tables.table import Table


def conditioned(table: Table, observed: Mapping[str, Any], optimal: Any) -> Conditioned:
    """p(τ | observed, O_observed) of a table, as :func:`cai.inference.posterior` documents it.

    Raises:
        ValueError: if the horizon is infinite, a site is unknown, a value is out of range, the
            mask has another length, or the observations are impossible (naming one).
    """
    found = _solve(table, evidence.observe(table, observed, optimal))
    if found.bound == -math.inf:
        raise ValueError(impossible(table, observed, optimal))
    return found


def _solve(table: Table, known: Evidence) -> Conditioned:
    return Conditioned(table, 1.0, messages.backward(table, known, messages.SUM), evidence=known)


def impossible(table: Table, observed: Mapping[str, Any], optimal: Any) -> str:
    """Why p(observed, O) = 0: the first observation, in order of time, that excludes it."""
    kinds = ("s", "alive", "a")
    order = {name: sites.parse("observed", name, table.steps, table.discount) for name in observed}
    names = sorted(observed, key=lambda name: (order[name].t, kinds.index(order[name].kind)))

    def agree(n: int) -> bool:
        some = {name: observed[name] for name in names[:n]}
        return _solve(table, evidence.observe(table, some, optimal)).bound > -math.inf

    if not agree(0):
        return (
            "evidence: p(O) = 0, no trajectory has a reward above -inf at the steps that are "
            "observed to be optimal, so there is nothing to condition on; look for rewards of -inf "
            "that cannot be avoided, or leave those steps out with optimal="
        )
    low, high = 0, len(names)  # the first `low` agree with optimality, the first `high` do not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if agree(middle) else (low, middle)
    before = ", ".join(f"{name} = {int(observed[name])}" for name in names[:low][-3:])
    given = f"optimality and {'…, ' if low > 3 else ''}{before}" if low else "optimality"
    name = names[low]
    return (
        f"evidence: p(observed, O) = 0, observed {name} = {int(observed[name])} is impossible "
        f"given {given}; look for transitions, actions and starts of probability zero, and for "
        "rewards of -inf"
    )
