"""A road network with some segments closed, or some turns forbidden."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from cai.roads.network_checks import mask


def closed(streets: Any, segments: Any, turns: Any) -> Any:
    """As :meth:`cai.Streets.without`."""
    E, N = len(streets.segments), len(streets.turns)
    keep, stay = ~mask("segments", segments, E), ~mask("turns", turns, N)
    stay &= keep[streets.turns].all(-1)
    number = keep.cumsum(0) - 1
    points, bounds = streets.points, streets.bounds
    if points is not None and bounds is not None:
        sizes = bounds.diff()
        points = points[keep.repeat_interleave(sizes)]
        bounds = torch.cat([torch.zeros(1, dtype=torch.int64), sizes[keep].cumsum(0)])
    return dataclasses.replace(
        streets,
        segments=streets.segments[keep],
        turns=number[streets.turns[stay]],
        segment_features={name: x[keep] for name, x in streets.segment_features.items()},
        turn_features={name: x[stay] for name, x in streets.turn_features.items()},
        segment_names=tuple(streets.segment_names[e] for e in keep.nonzero().flatten().tolist()),
        points=points,
        bounds=bounds,
    )
