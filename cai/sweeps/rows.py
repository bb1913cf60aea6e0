"""The weights of one step in matrices, at one η: those of rows i, over successors.

If joint, i is a state and actions are summed; else i is an action and a state, and neither the
reward nor the action prior is in them.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from cai.numerics import logspace
from cai.numerics.logspace import product
from cai.numerics.matrices import Array, LogMatrix
from cai.tables.table import Table

_KEPT = 4  # optimisms of which a table keeps the rows
_NEAR_ZERO = 0.1  # below this |η| the logarithm is taken around one


def rows_by_action(table: Table, eta: float) -> LogMatrix:
    """log p(s'|s,a) + η r⁺/α, (A·S, K); near η = 0, rows near one are taken around one.

    The table and its views keep them for the last few η.
    """
    kept: dict[float, LogMatrix] = vars(table).setdefault("rows", {})
    if eta not in kept:
        while len(kept) >= _KEPT:
            kept.pop(next(iter(kept)), None)  # another thread may have done so
        kept[eta] = _rows_by_action(table, eta)
    return kept[eta]


def _rows_by_action(table: Table, eta: float) -> LogMatrix:
    near_one, excess = None, None
    index = None if table.successors is None else by_action(table.successors)
    if eta == 0:
        near_one = np.ones(table.num_states * table.num_actions, dtype=bool)
    elif abs(eta) < _NEAR_ZERO:
        near_one, excess = _near_one(table, eta)
    log_w = log_weights(table, eta)
    return LogMatrix(log_w, index, table.num_states, table.precision, near_one, excess)


def _near_one(table: Table, eta: float) -> tuple[Array, Array]:
    """Whether exp(η r⁺/α) is near one, or zero, and E[exp(η r⁺/α) - 1], (R,) each."""
    R = table.num_states * table.num_actions
    if table.arrival_reward is None:
        return np.ones(R, dtype=bool), np.zeros(R)
    change = eta * table.arrival_reward / table.temperature
    near = ((change.abs() <= 1) | change.isneginf()).all(-1)
    excess = product(table.log_dynamics.exp(), change.expm1()).sum(-1)
    return by_action(near).numpy(), by_action(excess).numpy()


def log_weights(table: Table, eta: float) -> Tensor:
    """log p(s'|s,a) + η r⁺/α, (A·S, K)."""
    log_w = table.log_dynamics
    if table.arrival_reward is not None and eta != 0:
        log_w = logspace.scaled(log_w, table.arrival_reward / table.temperature, eta)
    return by_action(log_w)


def by_action(x: Tensor) -> Tensor:
    """(S, A, ...) -> (A·S, ...)."""
    return x.transpose(0, 1).flatten(0, 1)
