"""What routes are made of, checked before anything is solved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from cai import checks
from cai.numerics import arrays
from cai.roads.network import Streets


def checked_goals(streets: Streets, goals: Any) -> Tensor:
    """(D,), int64: segments where trips may end.

    Raises:
        ValueError: if there are none, one is no segment, or one is given twice.
    """
    found, E = arrays.integers("goals", goals), len(streets.segments)
    advice = "streets.segment finds one by name"
    if found.dim() != 1 or not len(found):
        came = "none" if not found.numel() else f"shape {list(found.shape)}"
        checks.refuse("goals", f"segments 0 … {E - 1}", came, advice)
    low, high = int(found.min()), int(found.max())
    if low < 0 or high >= E:
        checks.refuse("goals", f"segments 0 … {E - 1}", f"{low} … {high}", advice)
    if len(found.unique()) < len(found):
        checks.refuse("goals", "each segment once", "one of them twice", "take goals.unique()")
    return found


def checked_weights(streets: Streets, names: Sequence[str], weights: Any) -> Tensor:
    """(k,), float64: a weight for each feature.

    Raises:
        ValueError: if a feature is unknown, or there is not one finite weight for each.
    """
    for name in names:
        streets.feature(name)
    found = arrays.numbers("weights", weights)
    if tuple(found.shape) != (len(names),) or not found.isfinite().all():
        came = f"shape {list(found.shape)}{'' if found.isfinite().all() else ', not finite'}"
        checks.refuse("weights", f"{len(names)} finite numbers", came, "one for each name")
    return found.double()
