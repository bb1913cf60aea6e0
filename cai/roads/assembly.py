"""Builds a road network from names, numbers and places, and says what is wrong with them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cai import checks
from cai.roads.lines import courses, line_lengths, turn_angles
from cai.roads.network import Streets
from cai.roads.readings import column, column_names, numeric

Array = NDArray[Any]

_LONG_IN_DEGREES = 0.1  # 11 km: streets in degrees are shorter, those in metres longer


def assemble(
    names: Sequence[tuple[Any, Any, Any]],
    features: Mapping[str, Array],
    *,
    where: Callable[[int], str],
    keyed: bool = True,
    places: Mapping[str, tuple[float, float]] | None = None,
    geometry: Sequence[Any] | None = None,
    turns: Any = None,
    zones: Any = (),
    degrees: bool | None = None,
    limits: tuple[float, float] = (40.0, 150.0),
) -> Streets:
    """A network of segments that are joined where one begins at the node in which another ends.

    Args:
        names: E names (u, v, key).
        features: name -> (E,).
        where: the name of segment e, for messages.
        keyed: whether the keys are the user's.
        places: node, as a text -> (x, y); or None.
        geometry: E lines, or None.
        turns: columns "from" and "to" of segments by their number, further ones are features of
            turns; None for all turns that are possible.
        zones: nodes that nobody drives through.
        degrees: whether coordinates are longitude and latitude; None if that is not known.
        limits: from which angle on a turn is left or right, and beyond which it is a U-turn.

    Returns:
        The network.

    Raises:
        ValueError: as :func:`cai.models.streets_from_columns`.
    """
    if degrees is not None:
        checks.check_flag("degrees", degrees)
    if not len(names):
        checks.refuse("segments", "at least one", "none", "is the file or the graph empty?")
    _check_twice(names, where, keyed)
    nodes = list(dict.fromkeys(node for u, v, _ in names for node in (u, v)))
    number = {node: k for k, node in enumerate(nodes)}
    segments = np.array([(number[u], number[v]) for u, v, _ in names])
    closed = _closed(zones, nodes)
    pairs, turn_features = _turns(segments, closed, turns)
    sharp, back = _limits(limits)
    xy = None if places is None else _placed(places, nodes)
    points = bounds = None
    squeeze = 1.0
    if xy is not None or geometry is not None:
        points, bounds = courses(segments, xy, geometry, where)
        if xy is None:
            xy = np.zeros((len(nodes), 2))
            xy[segments[:, 1]], xy[segments[:, 0]] = points[bounds[1:] - 1], points[bounds[:-1]]
        degrees = _degrees(degrees, xy, segments)
        squeeze = float(np.cos(np.radians(xy[:, 1].mean()))) if degrees else 1.0
        _check_lengths(features.get("length"), points, bounds, degrees)
    if "angle" not in turn_features and points is not None and bounds is not None:
        angle, known = turn_angles(points, bounds, pairs, squeeze)
        if not known.all():
            n = int(np.argmin(known))
            one, other = (names[e] for e in pairs[n])
            warnings.warn(
                f"angle: {(~known).sum()} turns lead from or to a segment without length, such as "
                f"that from {one} to {other}; they are taken as straight on",
                stacklevel=3,
            )
        turn_features["angle"] = angle
    if "angle" in turn_features:
        angle = turn_features["angle"]
        again = segments[pairs[:, 1], 1] == segments[pairs[:, 0], 0]
        u_turn = (np.abs(angle) > back) | again
        turn_features["left"] = (~u_turn & (angle <= -sharp)).astype(np.float64)
        turn_features["right"] = (~u_turn & (angle >= sharp)).astype(np.float64)
        turn_features["u_turn"] = u_turn.astype(np.float64)
    return Streets(
        segments=torch.from_numpy(segments),
        turns=torch.from_numpy(pairs),
        segment_features={name: torch.from_numpy(x) for name, x in features.items()},
        turn_features={name: torch.from_numpy(x) for name, x in turn_features.items()},
        segment_names=tuple(names),
        node_names=tuple(nodes),
        coordinates=None if xy is None else torch.from_numpy(xy),
        degrees=bool(degrees),
        points=None if points is None else torch.from_numpy(points),
        bounds=None if bounds is None else torch.from_numpy(bounds),
    )


def _check_twice(
    names: Sequence[tuple[Any, Any, Any]], where: Callable[[int], str], keyed: bool
) -> None:
    first: dict[tuple[Any, Any, Any], int] = {}
    if len(set(names)) == len(names):
        return
    for e, name in enumerate(names):
        if name in first:
            what = name if keyed else name[:2]
            advice = "drop one of them, or give them different keys"
            came = f"{what}, as {where(first[name])} is"
            checks.refuse(where(e), "a segment of its own", came, advice)
        first[name] = e


def _closed(zones: Any, nodes: list[Any]) -> Array:
    texts = {
        str(zone) for zone in checks.several("zones", zones, "such as [1, 2]", "names of nodes")
    }
    unknown = texts - {str(node) for node in nodes}
    if unknown:
        advice = "zones are nodes that nobody drives through"
        checks.refuse("zones", "nodes that segments join", min(unknown), advice)
    return np.array([str(node) in texts for node in nodes]) if texts else np.zeros(len(nodes), bool)


def _turns(segments: Array, closed: Array, given: Any) -> tuple[Array, dict[str, Array]]:
    """Turns (N, 2) in ascending order, and the features that come with those that were given."""
    tail, head = segments.T
    if given is None:
        order = np.argsort(tail, kind="stable")
        degree = np.bincount(tail, minlength=len(closed))
        first = np.cumsum(degree) - degree
        count = np.where(closed, 0, degree)[head]
        before = np.repeat(np.arange(len(tail)), count)
        k = np.arange(len(before)) - np.repeat(np.cumsum(count) - count, count)
        return np.stack([before, order[first[head[before]] + k]], -1), {}
    columns = {
        name: numeric(column(given, name, "turns"), name, lambda n: f"turns, row {n}")
        for name in ["from", "to", *column_names(given, "turns")]
    }
    rows = np.stack([columns.pop("from"), columns.pop("to")], -1)
    outside = ((rows < 0) | (rows >= len(tail)) | (rows % 1 > 0)).any(-1)
    pairs = rows.astype(np.int64)
    apart = outside | (head[pairs[:, 0] * ~outside] != tail[pairs[:, 1] * ~outside])
    if apart.any():
        n = int(np.argmax(apart))
        advice = "a turn leads to a segment that begins in the node where the first one ends"
        checks.refuse(f"turns, row {n}", "two segments that join", f"{rows[n].tolist()}", advice)
    order = np.lexsort(pairs.T[::-1])
    order = order[~closed[head[pairs[order, 0]]]]
    return pairs[order], {name: x[order] for name, x in columns.items()}


def _limits(limits: Any) -> tuple[float, float]:
    found = list(limits) if isinstance(limits, tuple | list) else []
    fine = len(found) == 2 and all(checks.within(x, lambda y: 0 < y <= 180) for x in found)
    if not fine or float(found[0]) > float(found[1]):
        advice = "a turn is left or right from the first on, and a U-turn beyond the second"
        checks.refuse("limits", "two angles, 0 < first ≤ second ≤ 180", repr(limits), advice)
    return float(found[0]), float(found[1])


def _placed(places: Mapping[str, tuple[float, float]], nodes: list[Any]) -> Array:
    missing = [node for node in nodes if str(node) not in places]
    if missing:
        advice = "give those of all nodes, or of none"
        checks.refuse(f"node {missing[0]!r}", "coordinates", "none", advice)
    return np.array([places[str(node)] for node in nodes], dtype=np.float64)


def _degrees(degrees: bool | None, xy: Array, segments: Array) -> bool:
    """Whether coordinates are degrees; raises ValueError if that has to be said, or cannot be."""
    globe = bool((np.abs(xy) <= [180.0, 90.0]).all())
    extent = f"x from {xy[:, 0].min():.6g} to {xy[:, 0].max():.6g}, "
    extent += f"y from {xy[:, 1].min():.6g} to {xy[:, 1].max():.6g}"
    if degrees and not globe:
        advice = "x is the longitude; for metres, degrees=False"
        checks.refuse("coordinates", "degrees within ±180 and ±90", extent, advice)
    if degrees is None:
        tail, head = xy[segments.T]
        typical = float(np.median(np.hypot(*(head - tail).T)))
        if globe and 0 < typical < _LONG_IN_DEGREES:
            advice = "say degrees=True for longitude and latitude, degrees=False for another unit"
            came = f"{extent}, which look like degrees"
            checks.refuse("coordinates", "metres or the like", came, advice)
        return False
    return degrees


def _check_lengths(length: Array | None, points: Array, bounds: Array, degrees: bool) -> None:
    """Warns if lengths were measured in degrees: they are about those of lines in degrees."""
    if not degrees or length is None:
        return
    along = line_lengths(points, bounds).sum()
    if along / 2 < length.sum() < along * 2:
        warnings.warn(
            f"length: {length.sum():.3g} in all, on lines of {along:.3g} degrees: are they degrees "
            "taken for metres? A degree of latitude is 111 km",
            stacklevel=4,
        )
