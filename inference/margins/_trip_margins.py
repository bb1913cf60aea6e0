"""Margins of trips on a road network: the routes that are worst for them, by shortest paths."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra
from torch import Tensor

from cai import checks
from cai.demonstrations.demonstrations import Demonstrations
from cai.inference.margins._cutting_planes import Cut, GainsForEver, MarginTask
from cai.inference.margins._table_margins import losses
from cai.inference.searches.search_file import digest, of_demonstrations
from cai.inference.trips.best_routes import LEFT, BestRoutes, GainingCycle, route
from cai.inference.trips.trip_likelihoods import TripLikelihoods
from cai.numerics.exclusive import cached_property
from cai.rewards.linear_reward import LinearReward, spread
from cai.roads.network import Streets

_BEYOND = 1 + 1e-9  # of what the trip itself costs: no worse route is looked for


class TripMargins(MarginTask):
    """Trips, each against all routes from where it begins to where it ends.

    Args:
        streets: the network of E segments and N turns.
        trips: states are segments and actions are turns, the last state is the goal.
        names: of features.
        loss: what it is worth to take a turn of the trip, a number or (N,).

    Raises:
        ValueError: naming the trip, if it does not follow turns, or passes its goal.
    """

    def __init__(self, streets: Streets, trips: Demonstrations, names: Any, loss: Any) -> None:
        kind, advice = "Demonstrations", "streets.demonstrations reads trips"
        checks.check_kind("demonstrations", trips, Demonstrations, kind, advice)
        if not isinstance(names, list | tuple):
            expected, came = "a list of names of features", type(names).__name__
            checks.refuse("reward", expected, came, 'on a road network such as ["minutes", "left"]')
        twice = [name for i, name in enumerate(names) if name in names[:i]]
        if twice:
            came = f"{twice[0]!r} twice"
            checks.refuse("reward", "different names", came, "name each of them once")
        self._streets, self.names = streets, tuple(names)
        self._trips = of_demonstrations(trips)
        self._features = streets.features(self.names)
        self.scale = spread(self._features.T)
        self.taken = torch.from_numpy(TripLikelihoods(streets, self._features, trips).taken)
        self.actions = int(trips.lengths.sum())
        self._loss: Any = losses(loss, (len(streets.turns),)).numpy()
        turns = [tuple(x[m].tolist()) for x, m in zip(trips.actions, trips.taken, strict=True)]
        alike: dict[Any, int] = {}
        self.owners = torch.tensor([alike.setdefault(one, len(alike)) for one in turns])
        self.counts = torch.bincount(self.owners).double()
        self._turns = [np.array(one) for one in alike]
        E = len(streets.segments)
        tails, heads = streets.turns.numpy().T
        self._ends = [(int(tails[one[0]]), int(heads[one[-1]])) for one in self._turns]
        self._codes, self._size = tails * E + heads, E

    @property
    def identity(self) -> dict[str, str]:
        """See :meth:`MarginTask.identity`."""
        features = digest(self.names, self._features, self._streets.turns)
        loss = digest(torch.from_numpy(self._loss))
        return {"demonstrations": self._trips, "features": features, "loss": loss}

    def worst(self, weights: Tensor) -> Cut:
        """See :meth:`MarginTask.worst`."""
        tails, heads = self._streets.turns.numpy().T
        costs = self._best(weights).costs
        graph = csr_array((costs.copy(), (tails, heads)), shape=(self._size, self._size))
        graph.sort_indices()  # turns are in this order already
        f = self._features.numpy()
        rows, constants = np.empty((len(self._turns), f.shape[1])), np.empty(len(self._turns))
        for j, (own, (start, goal)) in enumerate(zip(self._turns, self._ends, strict=True)):
            once = np.unique(own)
            graph.data[once] += self._loss[once]
            limit = graph.data[own].sum() * _BEYOND + 1e-300
            before = dijkstra(graph, indices=start, limit=limit, return_predecessors=True)[1]
            graph.data[once] = costs[once]
            other = self._between(route(before, goal, start)[::-1]) if before[goal] >= 0 else own
            rows[j] = f[other].sum(0) - f[own].sum(0)
            shared = other[np.isin(other, once)]
            constants[j] = self._loss[own].sum() - self._loss[shared].sum()
        return Cut(torch.from_numpy(rows), torch.from_numpy(constants))

    def _best(self, weights: Tensor) -> BestRoutes:
        """Raises GainsForEver if a cycle gains."""
        utility = (self._features @ weights).numpy()
        try:
            return BestRoutes(self._streets, utility, LEFT)
        except GainingCycle as cycle:
            around = self._between([*cycle.segments, cycle.segments[0]])
            raise GainsForEver(self._features[around].sum(0), 0.0) from None

    def _between(self, path: list[int]) -> Any:
        """The turns of a path of segments."""
        on = np.array(path)
        return np.searchsorted(self._codes, on[:-1] * self._size + on[1:])

    def expected(self, weights: Tensor) -> Tensor:
        """See :meth:`MarginTask.expected`."""
        try:
            best = self._best(weights)
        except GainsForEver:
            return torch.full_like(weights, torch.nan)
        total, after = torch.zeros_like(weights), {d: best.after(d) for d in self._goals}
        for many, (start, goal) in zip(self.counts.tolist(), self._ends, strict=True):
            total += many * self._features[self._between(route(after[goal], start, goal))].sum(0)
        return total / len(self.taken)

    @cached_property
    def _goals(self) -> set[int]:
        return {goal for _, goal in self._ends}

    def paying(self, weights: Tensor) -> tuple[LinearReward, Any]:
        """The reward of turns, and the network."""
        columns = dict(zip(self.names, self._features.T, strict=True))
        return LinearReward(columns).weighted(weights), self._streets
