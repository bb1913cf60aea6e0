"""The course of segments as polylines, and the angles at which one follows another."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cai import checks

Array = NDArray[Any]

_LINE = re.compile(r"\s*LINESTRING\s*Z?M?\s*\(([^()]*)\)\s*", re.IGNORECASE)


def read_line(geometry: Any, where: str) -> Array | None:
    """The points (P, 2) of a line: WKT, or an object with ``.coords``, as shapely's have.

    Args:
        geometry: the line; None and NaN are none.
        where: whose it is, for messages.

    Raises:
        ValueError: if it is neither, or has fewer than two points.
    """
    if geometry is None or isinstance(geometry, float):
        return None
    try:
        if isinstance(geometry, str):
            match = _LINE.fullmatch(geometry)
            rows: Any = [pair.split() for pair in match[1].split(",")] if match else ()
        else:
            rows = [tuple(point) for point in geometry.coords]
        points = np.array(rows, dtype=np.float64)
    except (AttributeError, TypeError, ValueError):
        points = np.empty(0)
    if points.ndim != 2 or len(points) < 2 or points.shape[1] < 2 or not np.isfinite(points).all():
        expected = "LINESTRING (x y, x y, …) or an object with .coords, of finite numbers"
        advice = "merge a line of several parts first"
        checks.refuse(f"{where}: geometry", expected, repr(geometry), advice)
    return points[:, :2]


def courses(
    segments: Array,
    nodes: Array | None,
    geometry: Sequence[Any] | None,
    where: Callable[[int], str],
) -> tuple[Array, Array]:
    """Points (P, 2) along all segments, and the bounds (E + 1,) of each.

    Args:
        segments: (E, 2), nodes.
        nodes: (V, 2), their places, for segments without a geometry; or None.
        geometry: E lines as :func:`read_line` takes them, or None.
        where: the name of segment e, for messages.

    Raises:
        ValueError: if a line cannot be read, or segments that meet in a node end or begin
            elsewhere, by more than half the length of the line.
    """
    E = len(segments)
    if geometry is None:
        assert nodes is not None
        return nodes[segments].reshape(-1, 2), np.arange(0, 2 * E + 1, 2)
    read = [read_line(line, where(e)) for e, line in enumerate(geometry)]
    places = np.full((segments.max() + 1, 2), np.nan) if nodes is None else nodes
    if nodes is None:
        for (tail, head), line in zip(segments.tolist(), read, strict=True):
            if line is not None:
                places[tail], places[head] = line[0], line[-1]
    found = [places[ends] if x is None else x for ends, x in zip(segments, read, strict=True)]
    points, bounds = np.concatenate(found), np.cumsum([0, *map(len, found)])
    lost = np.isnan(points).any(-1)
    if lost.any():
        e = int(np.searchsorted(bounds, np.argmax(lost), side="right")) - 1
        advice = "give the coordinates of nodes, or the geometry of every segment"
        checks.refuse(f"{where(e)}: geometry", "a line", "nothing", advice)
    first, last = points[bounds[:-1]], points[bounds[1:] - 1]
    tail, head = places[segments.T]
    gap = np.maximum(np.hypot(*(first - tail).T), np.hypot(*(last - head).T))
    apart = gap > line_lengths(points, bounds) / 2
    if apart.any():
        e = int(np.argmax(apart))
        expected = "a line from the place of its first node to that of its second"
        came = f"one that begins at {first[e].tolist()} and ends at {last[e].tolist()}, nodes at "
        came += f"{tail[e].tolist()} and {head[e].tolist()}"
        advice = "reverse it if it runs the other way"
        checks.refuse(f"{where(e)}: geometry", expected, came, advice)
    return points, bounds


def line_lengths(points: Array, bounds: Array) -> Array:
    """The length of each line, (E,), in the unit of the points."""
    strides = np.hypot(*np.diff(points, axis=0).T)
    strides[bounds[1:-1] - 1] = 0.0  # from the end of one line to the beginning of the next
    return np.add.reduceat(strides, bounds[:-1])


def turn_angles(points: Array, bounds: Array, turns: Array, squeeze: float) -> tuple[Array, Array]:
    """The angle of each turn: from the last leg of one segment to the first leg of the next.

    Args:
        points: (P, 2), along all segments.
        bounds: (E + 1,), of each segment.
        turns: (N, 2), segments.
        squeeze: by which x is multiplied first: the cosine of the latitude, if in degrees.

    Returns:
        (N,), degrees in (-180, 180], positive to the right, 0 where a segment has no length; and
        (N,), whether it is known.
    """
    steps = np.diff(points, axis=0) * [squeeze, 1.0]
    legs = np.hypot(*steps.T) > 0
    at = np.flatnonzero(legs)  # those between two segments are neither first nor last of one
    first, last = np.searchsorted(at, bounds[:-1]), np.searchsorted(at, bounds[1:] - 1) - 1
    long = first <= last
    bearing = np.append(np.degrees(np.arctan2(*steps[at].T)), 0.0)  # from north, clockwise
    before, after = turns.T
    known = long[before] & long[after]
    turned = bearing[first[after]] - bearing[last[before]]
    return np.where(known, 180.0 - (180.0 - turned) % 360.0, 0.0), known
