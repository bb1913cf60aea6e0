"""Road networks from graphs of networkx, by OSMnx or of one's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from cai import checks
from cai.roads.assembly import assemble
from cai.roads.network import Streets
from cai.roads.readings import Attributes, numeric

_OSMNX = ("length", "travel_time")
_GEOGRAPHIC = {"epsg:4326", "epsg:4269", "epsg:4258", "ogc:crs84", "wgs84"}


def streets(
    graph: Any,
    features: Mapping[str, Any] | None = None,
    *,
    coordinates: tuple[str, str] = ("x", "y"),
    geometry: str = "geometry",
    zones: Any = (),
    degrees: bool | None = None,
    limits: tuple[float, float] = (40.0, 150.0),
) -> Streets:
    """A road network from a directed graph of networkx: a segment for each edge.

    Every edge can be followed by each edge that leaves its end, back to where it came from
    included; ``streets.without(turns=...)`` forbids turns.

    The angle of a turn is that between the last leg of the one line and the first leg of the next,
    positive to the right. Without a geometry a segment is a straight line between its nodes: where
    a graph was simplified and its geometries were dropped, the angles are lost. A turn is a
    ``u_turn`` beyond ±150 degrees, or if it leads back to the node where the segment began; else
    ``left`` from -40 on and ``right`` from 40 on. In degrees x is first multiplied by the cosine of
    the mean latitude.

    Args:
        graph: a ``DiGraph`` or ``MultiDiGraph``, with any names of nodes and of attributes.
        features: name -> the name of an attribute of edges, a function of the mapping of an edge's
            attributes, or a number. Texts of numbers, as in GraphML, are numbers. If not given,
            "length" (m) and "travel_time" (s), those of the two that edges have, as OSMnx does.
        coordinates: the names of the attributes of nodes with x and y. If no node has them, and no
            edge a geometry, nothing is known of angles.
        geometry: the name of the attribute of edges with their lines: WKT, or objects with
            ``.coords``.
        zones: nodes where trips begin and end, which nobody drives through.
        degrees: whether coordinates are longitude and latitude in degrees. If not given, the
            graph's attribute "crs" says so.
        limits: degrees from which on a turn is left or right, and beyond which it is a U-turn.

    Returns:
        The network, a :class:`cai.Streets`.

    Raises:
        ValueError: if the graph is empty or undirected, an attribute is missing, not a number, not
            finite or a negative length or time, a geometry does not lead from the one node to the
            other, some nodes only have coordinates, or these look like degrees and nobody said so.

    >>> import networkx as nx
    >>> from cai import models
    >>> graph = nx.DiGraph()
    >>> graph.add_nodes_from([("a", {"x": 0, "y": 0}), ("b", {"x": 0, "y": 90})])
    >>> graph.add_node("c", x=-80, y=90)
    >>> graph.add_edge("a", "b", metres="90")
    >>> graph.add_edge("b", "c", metres="80")
    >>> streets = models.streets(graph, {"length": "metres", "km": lambda e: e["metres"] / 1000})
    >>> streets.feature("left").tolist(), streets.feature("km").tolist()
    ([1.0], [0.08])
    """
    if not callable(getattr(graph, "is_directed", None)):
        advice = 'for instance nx.read_graphml("drive.graphml", force_multigraph=True)'
        checks.refuse("graph", "a directed graph of networkx", type(graph).__name__, advice)
    names_of_two = isinstance(coordinates, tuple | list) and len(coordinates) == 2
    if not names_of_two or not all(isinstance(name, str) for name in coordinates):
        expected = "the names of two attributes of nodes"
        checks.refuse("coordinates", expected, repr(coordinates), '("x", "y") for instance')
    checks.check_kind("geometry", geometry, str, "the name of an attribute", '"geometry" perhaps')
    if not graph.is_directed():
        advice = "take graph.to_directed() if every street can be driven both ways"
        checks.refuse("graph", "a directed graph", "an undirected one", advice)
    if graph.is_multigraph():
        edges = list(graph.edges(keys=True, data=True))
    else:
        edges = [(u, v, 0, data) for u, v, data in graph.edges(data=True)]
    names = [edge[:3] for edge in edges]
    data = [edge[3] for edge in edges]

    def where(e: int) -> str:
        return f"edge {names[e]}"

    if features is None:
        features = {name: name for name in _OSMNX if any(name in each for each in data)}
    checks.check_kind("features", features, Mapping, "a mapping", '{"minutes": "travel_time"}')
    lines = [each.get(geometry) for each in data]
    return assemble(
        names,
        {str(name): _feature(str(name), made, data, where) for name, made in features.items()},
        where=where,
        places=_places(graph, names, coordinates),
        geometry=lines if any(line is not None for line in lines) else None,
        zones=zones,
        degrees=_geographic(graph) if degrees is None else degrees,
        limits=limits,
    )


def _feature(
    name: str, made: Any, data: list[Mapping[str, Any]], where: Callable[[int], str]
) -> Any:
    if isinstance(made, str):
        return numeric([each.get(made) for each in data], made, where)
    if not callable(made):
        return numeric([made] * len(data), name, where)
    values = []
    for e, each in enumerate(data):
        try:
            values.append(made(Attributes(each)))
        except Exception as error:  # whatever a user's function raises
            came = f"{type(error).__name__}: {error}"
            advice = f"this edge has {', '.join(map(str, each)) or 'no attributes'}"
            checks.refuse(f"{where(e)}: {name}", "a function of its attributes", came, advice)
    return numeric(values, name, where)


def _places(
    graph: Any, names: list[tuple[Any, Any, Any]], coordinates: tuple[str, str]
) -> dict[str, tuple[float, float]] | None:
    """Node, as a text -> (x, y), of all that have both; None if none has."""
    nodes = list(dict.fromkeys(node for u, v, _ in names for node in (u, v)))
    placed = [x for x in nodes if all(graph.nodes[x].get(axis) is not None for axis in coordinates)]
    x, y = (
        numeric(
            [graph.nodes[node][axis] for node in placed], axis, lambda k: f"node {placed[k]!r}"
        ).tolist()
        for axis in coordinates
    )
    return dict(zip(map(str, placed), zip(x, y, strict=True), strict=True)) or None


def _geographic(graph: Any) -> bool | None:
    """Whether a graph says that its coordinates are degrees; None if it says nothing."""
    crs = graph.graph.get("crs")
    if crs is None:
        return None
    if isinstance(getattr(crs, "is_geographic", None), bool | np.bool_):
        return bool(crs.is_geographic)
    text = str(crs).lower()
    return True if text in _GEOGRAPHIC else False if text.startswith("epsg:") else None
