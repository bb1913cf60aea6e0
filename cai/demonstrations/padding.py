"""Sequences of different lengths as one array each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cai import checks
from cai.numerics import arrays


def check_shapes(states: Any, actions: Any) -> tuple[int, int]:
    """n and L; raises ValueError unless shapes are (n, L+1) and (n, L)."""
    shapes = [tuple(getattr(x, "shape", ())) for x in (states, actions)]
    n, L = shapes[1] if len(shapes[1]) == 2 else (0, 0)
    if not n or not L or shapes[0] != (n, L + 1):
        came = f"{list(shapes[0])} and {list(shapes[1])}"
        expected = "states (n, L+1) and actions (n, L) of at least one trajectory"
        checks.refuse("demonstrations", expected, came, "single integers, not vectors")
    return n, L


def joined(s: Sequence[Any], a: Sequence[Any], ends: Any, groups: Any, goals: Any) -> Any:
    """The fields of demonstrations, from a sequence of states and one of actions for each."""
    lengths = torch.tensor([len(x) for x in a])
    states = torch.nn.utils.rnn.pad_sequence([torch.as_tensor(x) for x in s], batch_first=True)
    actions = torch.nn.utils.rnn.pad_sequence([torch.as_tensor(x) for x in a], batch_first=True)
    return padded(states, actions, lengths, words(ends, len(lengths)), groups, goals)


def padded(
    states: Tensor, actions: Tensor, lengths: Tensor, ends: tuple[str, ...], groups: Any, goals: Any
) -> tuple[Tensor, Tensor, Tensor, tuple[str, ...], Any, Any]:
    """The fields of demonstrations: after its end a trajectory repeats its state, and action 0."""
    L = int(lengths.max()) if len(lengths) else 0
    place = torch.minimum(torch.arange(L + 1), lengths.unsqueeze(1))
    actions = torch.where(torch.arange(L) < lengths.unsqueeze(1), actions[:, :L], 0)
    goals = None if goals is None else arrays.integers("goals", goals)
    if groups is not None:
        groups = tuple(checks.several("groups", groups, "one for each", "labels"))
    return states.gather(1, place), actions, lengths, ends, groups, goals


def words(ends: Any, n: int) -> tuple[str, ...]:
    """One word for all, or n words."""
    if isinstance(ends, str):
        return (ends,) * n
    return tuple(checks.several("ends", ends, "one for each, or one for all", "words"))
