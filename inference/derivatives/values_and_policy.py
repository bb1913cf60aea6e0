"""Values and the log-policy at given actions, from one solution that torch differentiates."""

from __future__ import annotations

from torch import Tensor

from cai.inference.derivatives._linearised import Visits
from cai.inference.derivatives._pullback import eager
from cai.inference.derivatives._solve import solve
from cai.tables import bellman
from cai.tables.table import Table


@eager
def values_and_policy(
    table: Table, optimism: float, rule: bellman.Rule, t: Tensor, s: Tensor, a: Tensor
) -> tuple[Tensor, Tensor]:
    """V/α everywhere and log π_t(a|s) at N actions, of one solution.

    Args:
        table: a problem, as for :func:`differentiable_values`.
        optimism: η.
        rule: how actions are chosen.
        t: (N,), steps in ascending order; zeros for an infinite horizon.
        s: (N,), states.
        a: (N,), actions.

    Returns:
        Values, (T+1, S), or (S,) with an infinite horizon, and (N,) log-probabilities, nats.

    Raises:
        ValueError: as :func:`differentiable_values`.
    """
    v, _, log_policy = solve(table, optimism, rule, Visits(t, s, a))
    return v, log_policy
