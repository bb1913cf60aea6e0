"""Road networks from files: .graphml, .tntp and .csv."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import networkx as nx

from cai import models
from cai.cli.failure import Mistake, naming
from cai.demonstrations import reading
from cai.roads.network import Streets

_ENDS = (("u", "v"), ("tail", "head"), ("from", "to"))  # columns of the nodes of a segment
_OF_TURNS = ("angle", "left", "right", "u_turn")


def load_network(options: argparse.Namespace, features: list[str] | None) -> Streets:
    """The road network of a file, with some features; None for all that its kind offers.

    Of a .graphml file these are attributes of its edges, by default "length" and "travel_time";
    "minutes" is a sixtieth of "travel_time" where there is none. Of a .tntp or .csv file they are
    its columns of numbers. "segment" is one for each segment where there is none.

    Raises:
        Mistake: if there is no such file, or it cannot be read.
    """
    path, nodes = options.network, options.nodes
    for file in (path, nodes):
        if file is not None and not file.is_file():
            raise Mistake(f"{file}: there is no such file")
    with naming(path):
        streets = _network(path, nodes, features, True if options.degrees else None)
        for name in features or []:
            streets.feature(name)
    return streets


def _network(
    path: Path, nodes: Path | None, features: list[str] | None, degrees: bool | None
) -> Streets:
    if path.suffix == ".graphml":
        graph = nx.read_graphml(path, force_multigraph=True)
        known = {name for *_, data in graph.edges(data=True) for name in data}
        return models.streets(graph, _of_network(features, known), degrees=degrees)
    if path.suffix == ".tntp":
        read = models.streets_from_tntp(path, nodes, degrees=degrees)
        made = _of_network(features, set(read.segment_features))
        return models.streets_from_tntp(path, nodes, made, degrees=degrees)
    return _from_columns(path, nodes, features, degrees)


def _from_columns(
    path: Path, nodes: Path | None, features: list[str] | None, degrees: bool | None
) -> Streets:
    columns = reading.csv_columns(path)
    ends = next((x for x in _ENDS if set(x) <= columns.keys()), None)
    if ends is None:
        there = ", ".join(columns)
        raise ValueError(f"expected columns u and v, or tail and head, got {there}")
    key, line = (x if x in columns else None for x in ("key", "geometry"))
    known = {x for x in columns if x not in (*ends, key, line) and _numeric(columns[x])}
    chosen = [x for x in columns if x in known] if features is None else features
    return models.streets_from_columns(
        columns,
        _of_network(chosen, known),
        tail=ends[0],
        head=ends[1],
        key=key,
        geometry=line,
        nodes=None if nodes is None else reading.csv_columns(nodes),
        degrees=degrees,
    )


def _of_network(features: list[str] | None, known: set[str]) -> dict[str, Any] | None:
    """What the library makes features of, by name; those of turns are made by itself."""
    if features is None:
        return None
    instead: dict[str, Any] = {"segment": 1.0}
    if "travel_time" in known:  # in seconds, as OSMnx has it
        instead["minutes"] = lambda edge: edge["travel_time"] / 60
    chosen = [name for name in features if name in known or name not in _OF_TURNS]
    for name in chosen:
        if name not in known and name not in instead:
            there = ", ".join(sorted({*known, *instead, *_OF_TURNS}))
            raise ValueError(f"expected names of features, got {name}; there are {there}")
    return {name: name if name in known else instead[name] for name in chosen}


def _numeric(texts: list[str]) -> bool:
    try:
        return all(math.isfinite(float(text)) for text in texts)
    except ValueError:
        return False
