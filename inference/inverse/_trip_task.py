"""Trips on a road network, as what is fitted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from cai import checks
from cai.demonstrations.demonstrations import Demonstrations
from cai.demonstrations.scored_demonstrations import ScoredDemonstrations
from cai.inference.searches.fisher_scoring import Maximum
from cai.inference.searches.search_file import digest, of_demonstrations
from cai.inference.searches.task import Task
from cai.inference.trips.trip_likelihoods import TripLikelihoods
from cai.rewards.linear_reward import LinearReward, spread
from cai.roads.network import Streets

_MANY = 80  # goals of trips from which on the search begins with those to some of them,
_EVERY = 8  # one of so many


class TripTask(Task):
    """Trips on a road network."""

    def __init__(self, streets: Streets, trips: Demonstrations, names: Any) -> None:
        features = streets.features(names)
        self.names, self.demonstrations = tuple(names), trips
        self.goals = trips.destinations
        self.scale = spread(features.T)
        self._streets, self._features = streets, features
        self._objective = TripLikelihoods(streets, features, trips)

    @property
    def identity(self) -> dict[str, str]:
        """Of the trips, and the features of turns."""
        trips = of_demonstrations(self.demonstrations)
        features = digest(self.names, self._features, self._streets.turns)
        return {"demonstrations": trips, "features": features}

    def score(self, weights: Tensor) -> ScoredDemonstrations:
        """See :class:`TripLikelihoods`."""
        return self._objective(weights)

    def values(self, weights: Tensor) -> Tensor:
        """Not to be had of trips, whose scores cost next to nothing."""
        advice = 'leave it out: it is "scoring"'
        checks.refuse("method", "another one on a road network", '"lbfgs"', advice)

    def total(self, weights: Tensor) -> Tensor:
        """By one solve for each goal."""
        return self._objective.values(weights).sum()

    def gradient(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """By two solves for each goal."""
        values, slope = self._objective.gradient(weights)
        return values.sum(), slope

    def starts(self, given: Tensor | None) -> Iterator[Tensor]:
        """Costs at which no cycle gains, or what the trips to some of many goals say."""
        start = self._objective.start(given)
        goals, found = self.demonstrations.destinations.unique(), None
        if given is None and len(goals) >= _MANY:
            who = torch.isin(self.demonstrations.destinations, goals[::_EVERY])
            some = TripLikelihoods(self._streets, self._features, self.demonstrations[who])
            found = self.nearer(some, start)
        try:
            if found is not None and self.log_likelihood(found) > self.log_likelihood(start):
                start = found
        except ValueError:  # no finite sum over the routes to another goal
            pass
        yield start

    def log_likelihood(self, weights: Tensor) -> float:
        """Of the routes, given where trips begin and end."""
        return float(self._objective.values(weights).sum())

    def features(self, found: Maximum) -> tuple[Tensor, Tensor]:
        """A score is what was observed less what is expected."""
        taken = torch.from_numpy(self._objective.taken).sum(0)
        return taken, taken - found.scored.scores.sum(0)

    def fitted(self, weights: Tensor) -> tuple[LinearReward, Any]:
        """The reward of turns, and the network."""
        columns = dict(zip(self.names, self._features.T, strict=True))
        return LinearReward(columns).weighted(weights), self._streets
