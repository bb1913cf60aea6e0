"""Values of many goals in a few segments, and how probable the beginnings of trips are by them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from cai.demonstrations.demonstrations import Demonstrations
from cai.inference.trips.factorised import LOST, Factorised, solved
from cai.roads.network import Streets


def log_beginnings(
    streets: Streets, first: Factorised, utility: Any, trips: Demonstrations, goals: Tensor
) -> Tensor:
    """Σ utility + log z_d(s_t) - log z_d(s_0) after the first 0 … L turns of n trips.

    Args:
        streets: the network.
        first: the factorisation for the potential of all of the goals.
        utility: (N,), nats, of all turns, which are all open.
        trips: n of them.
        goals: (D,), segments.

    Returns:
        (n, L+1, D), nats; -inf for a goal that was passed or is not reached. After its end a trip
        keeps its last numbers.

    Raises:
        ValueError: naming the trip, if it does not follow turns, or if a sum over routes is
            infinite.
    """
    states, taken = trips.states, trips.taken
    driven = torch.zeros(taken.shape, dtype=torch.float64)
    driven[taken] = torch.from_numpy(utility)[_turns(streets, trips)]
    driven = torch.nn.functional.pad(driven.cumsum(1), (1, 0))
    segments, place = states.unique(return_inverse=True)
    values = log_values(first, utility, segments, goals)[place]
    left = (states[:, :-1, None] == goals) & taken.unsqueeze(-1)
    passed = torch.nn.functional.pad(left.cumsum(1) > 0, (0, 0, 1, 0))
    found = driven.unsqueeze(-1) + (values - values[:, :1])
    return torch.where(~passed & (values > -torch.inf), found, -torch.inf)


def _turns(streets: Streets, trips: Demonstrations) -> Tensor:
    """The turns of all trips, one after the other; raises ValueError, naming the trip."""
    pairs = trips.states[:, :-1], trips.states[:, 1:]
    try:
        return streets.locate_turns(*(x[trips.taken] for x in pairs))
    except ValueError:
        for i, taken in enumerate(trips.taken):
            try:
                streets.locate_turns(*(x[i][taken] for x in pairs))
            except ValueError as error:
                raise ValueError(f"prefix {i}: {error}") from None
        raise


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
