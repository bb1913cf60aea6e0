"""Values of many goals in a few segments, each from a factorisation that is in range of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from cai.inference.trips.factorised import LOST, Factorised, solved


def log_values(first: Factorised, utility: Any, segments: Tensor, goals: Tensor) -> Tensor:
    """log z_d(s) of m segments for D goals.

    Args:
        first: the factorisation for the potential of all of the goals.
        utility: (N,), nats, of all turns, which are all open.
        segments: (m,), where one is.
        goals: (D,), segments.

    Returns:
        (m, D), nats; -inf if the goal is not reached.

    Raises:
        ValueError: if a sum over routes is infinite.
    """
    places, ends = (first.solver.place[x.numpy()] for x in (segments, goals))
    every = np.ones(len(utility), dtype=bool)
    found = np.empty((len(places), len(ends)))

    def seen_from(some: Any, x: Any) -> Any:
        least = x[places].min(0)
        for i in np.flatnonzero(least < LOST * x[ends[some], np.arange(len(some))]):
            reach = first.solver.reached(ends[some[i : i + 1]], backwards=True)[places]
            least[i] = np.min(x[places, i], where=reach, initial=np.inf)
        return least

    with np.errstate(all="ignore"):
        for here, blocks in solved(first, utility, every, ends, seen_from):
            for some, x in blocks:
                there = x[ends[some], np.arange(len(some))]
                log_x = np.log(x[places] / there)
                found[:, some] = log_x + here.h[places][:, None] - here.h[ends[some]]
    return torch.from_numpy(found)
