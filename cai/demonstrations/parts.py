"""Random parts of demonstrations, some of which belong together."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cai import checks


def first_part(seen: Any, fraction: float, seed: int, by: str | None) -> Tensor:
    """(n,), boolean: which are in the first part; see :meth:`cai.Demonstrations.split`."""
    allowed = "between 0 and 1"
    checks.check_real("fraction", fraction, lambda x: 0 < x < 1, allowed, "for instance 0.8")
    checks.check_seed(seed)
    if by is not None:
        checks.check_one_of("by", by, ("group",), 'take "group" or None')
        if seen.groups is None:
            checks.refuse("by", "groups to split by", "none", "give groups=")
    of = seen.group_index if by else torch.arange(len(seen))
    count = int(of.max()) + 1
    first = round(fraction * count)
    if not 0 < first < count:
        expected = "at least one in each part"
        checks.refuse("fraction", expected, f"{first} of {count}", "take more, or another one")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(int(seed)))
    inside = torch.zeros(count, dtype=torch.bool)
    inside[order[:first]] = True
    return inside[of]
