"""How the states and actions of a finite model are named and where they lie on a map."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Names and places, for pictures and tables only; no inference reads them.

    Attributes:
        states: a name for each of the S states, or None.
        actions: a name for each of the A actions, or None.
        map: the rows of a text map, all of one length, or None where there is no map.
        cells: (row, column) of each of the S states on the map; several may share a cell.
        moves: (rows, columns) that each of the A actions aims at, for arrows; (0, 0) for none.
    """

    states: tuple[str, ...] | None = None
    actions: tuple[str, ...] | None = None
    map: tuple[str, ...] | None = None
    cells: tuple[tuple[int, int], ...] | None = None
    moves: tuple[tuple[int, int], ...] | None = None
