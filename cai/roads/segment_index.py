"""Segments by name: (u, v, key), or (u, v) where it is the only one between two nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cai import checks


class SegmentIndex:
    """Finds segments by names, which are compared as texts.

    Args:
        names: E names (u, v, key).
    """

    def __init__(self, names: Sequence[tuple[Any, Any, Any]]) -> None:
        texts = [tuple(map(str, name)) for name in names]
        self._numbers: dict[tuple[str, ...], int] = {name: e for e, name in enumerate(texts)}
        self._parallel: dict[tuple[str, ...], list[str]] = {}
        for e, (u, v, key) in enumerate(texts):
            other = self._numbers.setdefault((u, v), e)
            if other != e:
                self._numbers[u, v] = -1
                first = [] if other < 0 else [texts[other][2]]
                self._parallel.setdefault((u, v), first).append(key)

    def locate(self, u: Any, v: Any, key: Any = None) -> Tensor:
        """As :meth:`cai.Streets.locate`."""
        columns = [_texts(column) for column in ((u, v) if key is None else (u, v, key))]
        if len({len(column) for column in columns}) > 1:
            came = f"{' and '.join(str(len(column)) for column in columns)} rows"
            checks.refuse("u, v, key", "columns of one length", came, "a name for each row")
        asked = list(zip(*columns, strict=True))
        found = [self._numbers.get(name, -1) for name in asked]
        if -1 in found:
            row = found.index(-1)
            advice = "names are those of streets.segment_names, compared as texts"
            if asked[row] in self._parallel:
                keys = ", ".join(self._parallel[asked[row]])
                advice = f"several segments join these nodes; give the key, one of {keys}"
            came = f"({', '.join(asked[row])})"
            checks.refuse(f"row {row}", "the name of one segment", came, advice)
        return torch.tensor(found, dtype=torch.int64)


def _texts(column: Any) -> list[str]:
    try:
        return [str(x) for x in (column.tolist() if hasattr(column, "tolist") else column)]
    except (TypeError, RuntimeError):
        advice = "a list, an array or a column of a frame"
        checks.refuse("u, v, key", "columns of names", type(column).__name__, advice)
