"""Where rewards are paid on a table, and what functions and tensors pay there."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from cai import checks
from cai.program.calling import call
from cai.tables.absorbing import absorbing
from cai.tables.finite import all_pairs
from cai.tables.table import Table


def pairs(table: Table) -> tuple[Tensor, Tensor]:
    """Every state and action, (S, A) each."""
    if table.program is not None:
        return all_pairs(table.program)
    numbers = torch.arange(table.num_states), torch.arange(table.num_actions)
    s, a = torch.meshgrid(*numbers, indexing="ij")
    return s, a


def triples(table: Table) -> tuple[Tensor, Tensor, Tensor]:
    """Every state, action and successor, (S, A, K) each."""
    s, a = pairs(table)
    shape = possible(table).shape
    after = torch.arange(shape[-1]) if table.successors is None else table.successors
    s, a = (x.unsqueeze(-1).expand(shape) for x in (s, a))
    return s, a, after.expand(shape).to(s.dtype)


def possible(table: Table) -> Tensor:
    """(S, A, K), boolean: which successors may follow, at some step."""
    found = table.log_dynamics > -torch.inf
    return found if found.dim() == 3 else found.any(0)


def endless(table: Table) -> bool:
    """Whether trajectories go on until a state in which nothing is paid any more."""
    return table.horizon is None and table.discount == 1


def lasting(table: Table) -> Tensor:
    """(S,), boolean: the states that an endless trajectory can leave; of any other table all."""
    if not endless(table):
        return torch.ones(table.num_states, dtype=torch.bool)
    return ~absorbing(table)


def value_at(feature: Any, *at: Tensor) -> Tensor:
    """A feature of states and actions of any batch shape."""
    if callable(feature):
        return torch.as_tensor(feature(*at))
    if not isinstance(feature, Tensor) or not feature.dim():
        return torch.as_tensor(feature, dtype=torch.float64)
    last = torch.zeros_like(at[1]) if feature.shape[1] == 1 else at[1]
    return feature[(at[0].long(), last.long(), *(x.long() for x in at[2:]))]


def evaluated(where: str, feature: Any, *at: Tensor, possible: Tensor | None = None) -> Tensor:
    """What a function or a tensor pays in some places.

    Args:
        where: of the argument, for the message.
        feature: a function, a tensor or a number.
        at: states, actions and, for what is paid on arrival, successors, of one shape.
        possible: what can happen, in the same shape; None for everything. Elsewhere it may be
            anything, and is zero.

    Raises:
        ValueError: if it raises, has another shape, or is not finite.
    """
    found: Any = call(where, partial(value_at, feature), *at)
    try:
        numbers = torch.as_tensor(found, dtype=torch.float64).expand(at[0].shape)
    except (RuntimeError, TypeError, ValueError):
        expected = f"one number for each of shape {list(at[0].shape)}"
        checks.refuse(where, expected, checks.described(found), "it must broadcast")
    if possible is not None:  # what cannot happen may be anything
        numbers = torch.where(possible, numbers, 0.0)
    if not numbers.isfinite().all():
        place = [x[~numbers.isfinite()][0].item() for x in at]
        checks.refuse(where, "finite numbers", f"another one at {place}", "see there")
    return numbers
