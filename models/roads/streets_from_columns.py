"""Road networks from columns: mappings of lists or arrays, data frames of any library."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from cai import checks
from cai.roads.assembly import assemble
from cai.roads.network import Streets
from cai.roads.readings import column, column_names, numeric


def streets_from_columns(
    columns: Any,
    features: Mapping[str, Any] | None = None,
    *,
    tail: str = "tail",
    head: str = "head",
    key: str | None = None,
    geometry: str | None = None,
    nodes: Any = None,
    turns: Any = None,
    zones: Any = (),
    degrees: bool | None = None,
    limits: tuple[float, float] = (40.0, 150.0),
) -> Streets:
    """A road network from columns: a segment for each row.

    Angles and the limits of turns are those of :func:`cai.models.streets`.

    Args:
        columns: name -> column: a mapping, or a frame of pandas, polars or another library.
        features: name -> the name of a column, a function of the mapping of columns as arrays, or a
            number. If not given, every column that has no other use, which must hold numbers.
        tail: the column of the nodes that segments lead from, under any names.
        head: the column of the nodes that they lead to.
        key: the column that tells apart segments that join the same two nodes in the same
            direction; not needed where there are none.
        geometry: the column of lines: WKT, or objects with ``.coords``.
        nodes: columns "node", "x" and "y", the places of the nodes.
        turns: columns "from" and "to", the rows of the segments that can be driven one after the
            other; those of another name are features of turns, an "angle" in degrees (positive to
            the right) perhaps. If not given, all segments that join make a turn.
        zones: nodes where trips begin and end, which nobody drives through.
        degrees: whether coordinates are longitude and latitude in degrees.
        limits: degrees from which on a turn is left or right, and beyond which it is a U-turn.

    Returns:
        The network, a :class:`cai.Streets`.

    Raises:
        ValueError: if there is no row or a column is missing, a number is missing, not finite or a
            negative length or time, two rows join the same nodes and have no key, turns do not
            join, a geometry does not lead from the one node to the other, some nodes only have
            coordinates, or these look like degrees and nobody said so.

    >>> from cai import models
    >>> columns = {"tail": ["a", "b", "b"], "head": ["b", "c", "a"], "minutes": [2.0, 1.5, 2.0]}
    >>> streets = models.streets_from_columns(columns)
    >>> streets.turns.tolist(), streets.feature("minutes").tolist()
    ([[0, 1], [0, 2], [2, 0]], [1.5, 2.0, 2.0])
    >>> streets.dead_ends.tolist()
    [1]
    """

    def where(row: int) -> str:
        return f"row {row}"

    parts = {"tail": tail, "head": head, "key": key, "geometry": geometry}
    read = {part: column(columns, name, part) for part, name in parts.items() if name is not None}
    E = len(read["tail"])
    for part, values in read.items():
        if len(values) != E:
            checks.refuse(part, f"{E} rows, as of tail", f"{len(values)}", "one for each segment")
    if features is None:
        used = set(parts.values())
        features = {name: name for name in column_names(columns, "columns") if name not in used}
    checks.check_kind("features", features, Mapping, "a mapping", '{"minutes": "time"}')
    made = {
        str(name): _feature(str(name), given, columns, E, where) for name, given in features.items()
    }
    return assemble(
        list(zip(read["tail"], read["head"], read.get("key", [0] * E), strict=True)),
        made,
        where=where,
        keyed=key is not None,
        places=None if nodes is None else _places(nodes),
        geometry=read.get("geometry"),
        turns=turns,
        zones=zones,
        degrees=degrees,
        limits=limits,
    )


class _Arrays(Mapping[str, Any]):
    """Columns as arrays, those of numbers as floats."""

    def __init__(self, columns: Any) -> None:
        self._columns = columns

    def __getitem__(self, name: str) -> Any:
        values = column(self._columns, name, "features")
        try:
            return np.array(values, dtype=np.float64)
        except (TypeError, ValueError):
            return np.array(values)

    def __iter__(self) -> Any:
        return iter(column_names(self._columns, "columns"))

    def __len__(self) -> int:
        return len(column_names(self._columns, "columns"))


def _feature(name: str, made: Any, columns: Any, E: int, where: Callable[[int], str]) -> Any:
    if isinstance(made, str):
        values: Any = column(columns, made, "features")
    elif callable(made):
        values = made(_Arrays(columns))
    else:
        values = [made] * E
    if np.shape(values)[:1] != (E,):
        came = f"shape {list(np.shape(values))}"
        checks.refuse(f"features: {name}", f"{E} numbers", came, "one for each segment")
    return numeric(values, made if isinstance(made, str) else name, where)


def _places(nodes: Any) -> dict[str, tuple[float, float]]:
    """Node, as a text -> (x, y)."""
    names = column(nodes, "node", "nodes")
    x, y = (
        numeric(column(nodes, axis, "nodes"), axis, lambda row: f"nodes, row {row}").tolist()
        for axis in "xy"
    )
    return dict(zip(map(str, names), zip(x, y, strict=True), strict=True))
