"""Trips on a road network, from tables of the segments that they follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from cai import checks
from cai.demonstrations import reading
from cai.demonstrations.demonstrations import Demonstrations


class Network(Protocol):
    """What is asked of a road network."""

    def locate(self, u: Any, v: Any, key: Any = None) -> Tensor:
        """The numbers of segments, by names."""

    def locate_turns(self, before: Tensor, after: Tensor) -> Tensor:
        """The numbers of the turns between segments."""


def trips(
    network: Network, source: Any, trip: str, segment: Sequence[str], group: str | None
) -> Demonstrations:
    """As :meth:`cai.Streets.demonstrations`."""
    columns = source if isinstance(source, Mapping) else _table(source)
    names = checks.several("segment", segment, 'such as ("u", "v")', "names of columns")
    if len(names) not in (2, 3):
        came = f"{len(names)} names"
        checks.refuse("segment", "the columns of u, v and perhaps key", came, "two or three")
    who = reading.column(columns, trip)
    of = None if group is None else reading.column(columns, group)
    segments = network.locate(*(reading.column(columns, name) for name in names))
    if not len(segments) or len(segments) != len(who):
        checks.refuse("source", "rows of segments", f"{len(who)} rows", "one row for each")
    starts = reading.starts(who, trip)
    lengths = np.diff(np.r_[starts, len(who)])
    if (lengths < 2).any():
        row = int(starts[np.flatnonzero(lengths < 2)[0]])
        came, advice = f"one in trip {who[row]}, row {row}", "leave out trips without a turn"
        checks.refuse("source", "at least two segments in a trip", came, advice)
    inside = torch.ones(len(segments), dtype=torch.bool)
    inside[torch.from_numpy(starts)] = False  # no turn leads to the first segment of a trip
    after = inside.nonzero().squeeze(1)
    turns = _turns(network, segments[after - 1], segments[after], after, who)
    sizes = lengths.tolist()
    paths = segments.split(sizes)
    return Demonstrations.from_paths(
        paths,
        turns.split([size - 1 for size in sizes]),
        ends="absorbed",
        groups=None if of is None else [x.item() if hasattr(x, "item") else x for x in of[starts]],
        goals=torch.stack([path[-1] for path in paths]),
    )


def _table(source: Any) -> Any:
    """Columns of a file, or a data frame as it is."""
    return source if hasattr(source, "columns") else reading.csv_columns(source)


def _turns(network: Network, before: Tensor, after: Tensor, rows: Tensor, who: Any) -> Tensor:
    try:
        return network.locate_turns(before, after)
    except ValueError:
        pass  # which names a pair, where a reader looks for a row of the table
    right, wrong = 0, len(before)  # all pairs before the one are turns, up to the other not all
    while wrong - right > 1:
        half = (right + wrong) // 2
        try:
            network.locate_turns(before[right:half], after[right:half])
            right = half
        except ValueError:
            wrong = half
    row = int(rows[right])
    try:
        return network.locate_turns(before[right:wrong], after[right:wrong])
    except ValueError as error:
        words = str(error).removeprefix("row 0: ")
        raise ValueError(f"trip {who[row]}, row {row}: {words}") from None
