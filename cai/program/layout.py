"""Names of the states and actions of a finite model, and their places on a map."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Any

from cai import one_line
from cai.checks import refuse


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Names and places of states and actions, for pictures and tables; inference ignores them.

    Attributes:
        states: a name for each of the S states, or None.
        actions: a name for each of the A actions, or None.
        map: the rows of a text map, all of one length, or None.
        cells: (row, column) of each of the S states on the map; several may share a cell.
        moves: (rows, columns) by which each of the A actions moves, for arrows; (0, 0) for none.

    Raises:
        ValueError: if a field is not a sequence, a name not a text, or a place not two integers.

    >>> import cai
    >>> cai.Layout(actions=("stay", "go"), map=("..",), cells=((0, 0), (0, 1))).actions
    ('stay', 'go')
    """

    states: tuple[str, ...] | None = None
    actions: tuple[str, ...] | None = None
    map: tuple[str, ...] | None = None
    cells: tuple[tuple[int, int], ...] | None = None
    moves: tuple[tuple[int, int], ...] | None = None

    __repr__ = one_line.of_fields

    def __post_init__(self) -> None:
        for field in ("states", "actions", "map"):
            object.__setattr__(self, field, _sequence(field, getattr(self, field), _text, "texts"))
        for field in ("cells", "moves"):
            pairs = _sequence(field, getattr(self, field), _pair, "pairs of integers")
            object.__setattr__(self, field, pairs)


def _sequence(field: str, entries: Any, read: Callable[[Any], Any], what: str) -> Any:
    """A new tuple, since the caller may change the original list later."""
    if entries is None:
        return None
    try:
        if isinstance(entries, str | bytes | Set | Mapping):
            raise TypeError
        return tuple(map(read, entries))
    except (TypeError, ValueError):
        refuse(
            f"layout.{field}", f"a sequence of {what}", repr(entries), "a tuple keeps their order"
        )


def _text(entry: Any) -> str:
    if not isinstance(entry, str):
        raise TypeError
    return str(entry)


def _pair(entry: Any) -> tuple[int, int]:
    first, second = map(operator.index, entry)
    return first, second
