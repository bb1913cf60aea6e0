"""A road network without a goal: a state for each segment, an action for each turn."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cai import checks
from cai.demonstrations.demonstrations import Demonstrations
from cai.numerics import arrays
from cai.numerics.exclusive import cached_property
from cai.program.layout import Layout
from cai.roads import network_checks
from cai.roads.closing import closed
from cai.roads.segment_index import SegmentIndex
from cai.roads.trips import trips


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Streets:
    """A road network: one state for each of E segments, one action for each of N turns.

    A segment is driven one way; a street that can be driven both ways is two. A turn leads from a
    segment to one that leaves its end. There is no goal and no reward in it, so a network is built
    and checked once, and all weights and destinations are tried on it. Features are numbers of the
    segment that is entered, or of the turn, in the units of the user. Made by
    :func:`cai.models.streets`, ``streets_from_columns``, ``streets_from_tntp`` and ``city``; a
    feature of one's own is added by ``dataclasses.replace(streets, turn_features={...})``.

    A segment is named ``(u, v, key)``, as an edge of a networkx multigraph is; the key is 0 where
    the source has none. Names are compared as texts, so 42, as pandas reads it, finds "42", as
    GraphML stores it.

    A destination is a set of segments: a trip ends when it first enters one of them. For a node
    these are the segments that lead to it, :meth:`destination`.

    Attributes:
        segments: (E, 2), the nodes that each segment leads from and to, as numbers 0 … V-1.
        turns: (N, 2), the segments that each turn leads from and to, in ascending order.
        segment_features: name -> (E,), float64.
        turn_features: name -> (N,), float64: what is known of turns. Where angles are known:
            "angle" in degrees, right is positive, and "left", "right", "u_turn", which are 0 or 1.
        segment_names: E names (u, v, key).
        node_names: V names.
        coordinates: (V, 2), x and y of the nodes, or None.
        degrees: whether coordinates are longitude and latitude in degrees.
        points: (P, 2), x and y along all segments, one after the other, or None.
        bounds: (E + 1,), the points of segment e are those from bounds[e] to bounds[e + 1].

    Raises:
        ValueError: if shapes do not fit together, a turn joins segments that do not meet, turns are
            not in ascending order, a feature is not finite, or a name occurs twice.

    >>> from cai import models
    >>> streets = models.streets_from_columns({"tail": "ab", "head": "ba", "minutes": [2.0, 3.0]})
    >>> streets
    Streets(2 segments, 2 turns, 2 nodes; of segments: minutes; of turns: none)
    >>> streets.segment("b", "a"), streets.feature("minutes").tolist()
    (1, [3.0, 2.0])
    """

    segments: Tensor
    turns: Tensor
    segment_features: Mapping[str, Tensor]
    turn_features: Mapping[str, Tensor] = field(default_factory=dict)
    segment_names: tuple[tuple[Any, Any, Any], ...]
    node_names: tuple[Any, ...]
    coordinates: Tensor | None = None
    degrees: bool = False
    points: Tensor | None = None
    bounds: Tensor | None = None

    def __post_init__(self) -> None:
        put = functools.partial(object.__setattr__, self)
        for names in ("segment_names", "node_names"):
            put(names, network_checks.names_that_differ(names, getattr(self, names)))
        V, E = len(self.node_names), len(self.segment_names)
        put("segments", network_checks.pairs("segments", self.segments, V))
        put("turns", network_checks.pairs("turns", self.turns, E))
        triples = all(isinstance(x, tuple) and len(x) == 3 for x in self.segment_names)
        if len(self.segments) != E or not triples:
            came = f"{E} names of {len(self.segments)} segments"
            checks.refuse("segment_names", "(u, v, key) of each segment", came, "tuples of three")
        network_checks.check_turns(self.turns, self.segments, self.segment_names)
        for names, n in (("segment_features", E), ("turn_features", len(self.turns))):
            put(names, network_checks.feature_columns(names, getattr(self, names), n))
        for name in self.segment_features.keys() & self.turn_features.keys():
            checks.refuse("features", "different names", f"{name} twice", "rename one of them")
        found = network_checks.places(self.coordinates, self.points, self.bounds, V, E)
        for names, value in zip(("coordinates", "points", "bounds"), found, strict=True):
            put(names, value)
        checks.check_flag("degrees", self.degrees)

    def __repr__(self) -> str:
        E, N, V = len(self.segments), len(self.turns), len(self.node_names)
        own = [", ".join(x) or "none" for x in (self.segment_features, self.turn_features)]
        text = f"{E} segments, {N} turns, {V} nodes; of segments: {own[0]}; of turns: {own[1]}"
        ends = len(self.dead_ends)
        return f"Streets({text}{f'; dead ends: {ends}' if ends else ''})"

    def feature(self, name: str) -> Tensor:
        """One feature at each turn: of the segment that it enters, or its own.

        Args:
            name: of a feature of segments or of turns.

        Returns:
            (N,), float64, in the units of the user.

        Raises:
            ValueError: if there is none of that name.
        """
        checks.check_kind("feature", name, str, "the name of a feature", "features are named")
        if name in self.turn_features:
            return self.turn_features[name]
        if name in self.segment_features:
            return self.segment_features[name][self.turns[:, 1]]
        known = ", ".join([*self.segment_features, *self.turn_features]) or "none"
        advice = f"there are {known}"
        if name in ("angle", "left", "right", "u_turn"):
            advice += "; turns have angles where coordinates, geometries or angles are given"
        checks.refuse("feature", "the name of a feature", repr(name), advice)

    def features(self, names: Sequence[str]) -> Tensor:
        """Several features at each turn, side by side.

        Args:
            names: k names.

        Returns:
            (N, k), float64. A warning says if their scales differ a millionfold, as of seconds
            beside years: a sum of them is hardly what is meant.

        Raises:
            ValueError: if there is no feature of such a name, or no name at all.
        """
        names = checks.several("features", names, 'such as ["minutes"]', "a list of names")
        if not names:
            checks.refuse("features", "at least one name", "none", 'for instance ["minutes"]')
        columns = {name: self.feature(name) for name in names}
        network_checks.tell_scales(columns)
        return torch.stack([columns[name] for name in names], -1)

    def segment(self, u: Any, v: Any, key: Any = None) -> int:
        """The number of the segment (u, v, key); the key is needed only if several join u and v.

        Raises:
            ValueError: if there is no such segment, or several and no key.
        """
        return int(self.locate([u], [v], None if key is None else [key]))

    def locate(self, u: Any, v: Any, key: Any = None) -> Tensor:
        """The numbers of n segments, from columns of names.

        Args:
            u: n names of the nodes that they lead from: a list, an array, a column of a frame.
            v: n names of the nodes that they lead to.
            key: n keys; not needed where one segment joins u and v.

        Returns:
            (n,), int64.

        Raises:
            ValueError: if there is no such segment, or several and no key; the row is named.
        """
        return self._index.locate(u, v, key)

    def locate_turns(self, before: Tensor, after: Tensor) -> Tensor:
        """The numbers of the turns between segments: the actions of a trip.

        Args:
            before: (n,), the segments that the turns lead from.
            after: (n,), the segments that they lead to.

        Returns:
            (n,), int64, rows of ``turns``.

        Raises:
            ValueError: if there is no turn between two of them; the row is named.
        """
        E = len(self.segments)
        one, other = arrays.integers("before", before), arrays.integers("after", after)
        if one.dim() != 1 or one.shape != other.shape:
            came = f"shapes {list(one.shape)} and {list(other.shape)}"
            checks.refuse("before, after", "two of shape (n,)", came, "numbers of segments")
        asked = one * E + other
        codes = self.turns[:, 0] * E + self.turns[:, 1]
        found = torch.searchsorted(codes, asked).clamp(max=max(len(codes) - 1, 0))
        inside = (one >= 0) & (one < E) & (other >= 0) & (other < E)
        wrong = ~inside | (codes[found] != asked) if len(codes) else torch.ones_like(inside)
        if wrong.any():
            row = int(wrong.nonzero()[0])
            pair = [one[row].item(), other[row].item()]
            names = [self.segment_names[e] if 0 <= e < E else e for e in map(int, pair)]
            advice = "a segment may be missing in between, or the turn may be closed"
            came = f"{names[0]} and {names[1]}"
            checks.refuse(f"row {row}", "segments that a turn joins", came, advice)
        return found

    def destination(self, node: Any) -> Tensor:
        """The segments that lead to a node: a trip to the node ends when it first enters one.

        Args:
            node: its name.

        Returns:
            (k,), int64, numbers of segments.

        Raises:
            ValueError: if there is no such node, or no segment leads to it.
        """
        return self._at(node, 1)

    def origin(self, node: Any) -> Tensor:
        """The segments that leave a node, where its trips begin; else as :meth:`destination`."""
        return self._at(node, 0)

    def without(self, segments: Any = None, turns: Any = None) -> Streets:
        """The network without some segments, which are closed, or some turns, which are forbidden.

        Args:
            segments: (E,), true where a segment is closed. The others are numbered anew.
            turns: (N,), true where a turn is forbidden, ``streets.feature("u_turn") > 0`` perhaps.

        Returns:
            A new :class:`Streets`.

        Raises:
            ValueError: if a mask has another shape, or no segment is left.
        """
        found: Streets = closed(self, segments, turns)
        return found

    def demonstrations(
        self,
        source: Any,
        *,
        trip: str = "trip",
        segment: Sequence[str] = ("u", "v", "key"),
        group: str | None = None,
    ) -> Demonstrations:
        """Trips as demonstrations: states are segments, actions are turns, goals the last segments.

        Args:
            source: the path of a file of comma-separated values, a dict of columns or a data frame:
                a row for each segment of a trip, in order, the last one its destination.
            trip: the column that tells trips apart.
            segment: the columns of the names of segments, u and v, and the key if there are some.
            group: the column of who drove, or None.

        Raises:
            ValueError: naming the row, if a segment is unknown, no turn joins two, a trip has only
                one segment, or rows of a trip do not follow each other.
        """
        return trips(self, source, trip, segment, group)

    @cached_property
    def offsets(self) -> Tensor:
        """(E + 1,): the turns from segment e are the rows offsets[e] to offsets[e + 1]."""
        return torch.searchsorted(
            self.turns[:, 0].contiguous(), torch.arange(len(self.segments) + 1)
        )

    @property
    def dead_ends(self) -> Tensor:
        """(k,), the segments from which no turn leads on."""
        return (self.offsets.diff() == 0).nonzero().flatten()

    @property
    def lines(self) -> tuple[Tensor, ...] | None:
        """The points (P, 2) along each of E segments; None if no places are known."""
        if self.points is None or self.bounds is None:
            return None
        return torch.split(self.points, self.bounds.diff().tolist())

    @property
    def layout(self) -> Layout:
        """The names of the segments as texts."""
        return Layout(states=tuple(f"{u} → {v} ({key})" for u, v, key in self.segment_names))

    @cached_property
    def _index(self) -> SegmentIndex:
        return SegmentIndex(self.segment_names)

    @cached_property
    def _nodes(self) -> dict[str, int]:
        return {str(name): k for k, name in enumerate(self.node_names)}

    def _at(self, node: Any, end: int) -> Tensor:
        number = self._nodes.get(str(node), -1)
        found = (self.segments[:, end] == number).nonzero().flatten()
        if not len(found):
            expected = f"a node that segments {'lead to' if end else 'leave'}"
            checks.refuse("node", expected, repr(node), "names are those of streets.node_names")
        return found
