"""Whether two problems are the same, number for number."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def differs(one: object, other: object, names: Iterable[str]) -> str | None:
    """The first of some attributes in which two objects differ; None if they agree in all.

    Args:
        one: with these attributes: tensors, numbers or None.
        other: the same.
        names: the names of the attributes.
    """
    for name in names:
        x, y = getattr(one, name), getattr(other, name)
        if isinstance(x, Tensor) and isinstance(y, Tensor):
            equal = torch.equal(x, y)
        else:
            equal = x is y or (not (isinstance(x, Tensor) or isinstance(y, Tensor)) and x == y)
        if not equal:
            return name
    return None
