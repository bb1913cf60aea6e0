"""Trips on a road network, as what is fitted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from cai import checks
from cai.demonstrations.demonstrations import Demonstrations
from cai.demonstrations.scored_demonstrations import ScoredDemonstrations
from cai.inference.scoring.fisher_scoring import Maximum, inverse
from cai.inference.scoring.secant_steps import secant_steps
from cai.inference.scoring.task import Task
from cai.inference.searches.search_file import digest, of_demonstrations
from cai.inference.trips.trip_likelihoods import TripLikelihoods
from cai.rewards.linear_reward import LinearReward, spread
from cai.roads.network import Streets

_EVERY = 64, 8  # the search begins with trips to one goal of so many,
_LEAST = 6  # where these are so many goals at least,
_ROUGHLY = 0.1  # nats from their maximum
_PRECISE = 2e-10  # nats: twice the gain of a further step where gradients alone may end


class TripTask(Task):
    """Trips on a road network."""

    dear = True

    def __init__(self, streets: Streets, trips: Demonstrations, names: Any) -> None:
        features = streets.features(names)
        self.names, self.demonstrations = tuple(names), trips
        self.goals = trips.destinations
        self.scale = spread(features.T)
        self._streets, self._features = streets, features
        self._objective = TripLikelihoods(streets, features, trips)
        self._last: tuple[Tensor, ScoredDemonstrations] | None = None

    @property
    def identity(self) -> dict[str, str]:
        """Of the trips, and the features of turns."""
        trips = of_demonstrations(self.demonstrations)
        features = digest(self.names, self._features, self._streets.turns)
        return {"demonstrations": trips, "features": features}

    def score(self, weights: Tensor) -> ScoredDemonstrations:
        """See :class:`TripLikelihoods`; the last ones are kept."""
        if self._last is None or not torch.equal(self._last[0], weights):
            self._last = weights, self._objective(weights)
        return self._last[1]

    def values(self, weights: Tensor) -> Tensor:
        """Not to be had of trips, whose scores cost next to nothing."""
        advice = 'leave it out: it is "scoring"'
        checks.refuse("method", "another one on a road network", '"lbfgs"', advice)

    def total(self, weights: Tensor) -> Tensor:
        """By one solve for each goal."""
        return self._objective.values(weights).sum()

    def gradient(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """By two solves for each goal."""
        return self._objective.summed(weights)

    def starts(self, given: Tensor | None) -> Iterator[Tensor]:
        """Costs at which no cycle gains, or what the trips to some of many goals say."""
        found = self._by_some() if given is None else None
        yield self._objective.start(given) if found is None else found

    def _by_some(self) -> Tensor | None:
        """Weights near the maximum by trips to some of many goals, and by gradients for all.

        None if the goals are not many, or some are no start for all.
        """
        destinations = self.demonstrations.destinations
        goals, found = destinations.unique(), None
        levels = [every for every in _EVERY if len(goals) >= _LEAST * every]
        try:
            for every in levels:
                who = torch.isin(destinations, goals[::every])
                some = TripLikelihoods(self._streets, self._features, self.demonstrations[who])
                start = some.start() if found is None else found.weights
                found = self.nearer(some, start, slope=some.summed, enough=_ROUGHLY) or found
            if found is None or self.interrupted:
                return None if found is None else found.weights
            climb = inverse(found.scored.information, self.scale, 0.0) / levels[-1]
            first = self.gradient(found.weights)
            ahead = secant_steps(self.gradient, found.weights, *first, climb, _PRECISE)
            return ahead.weights if self.score(ahead.weights).values.isfinite().all() else None
        except KeyboardInterrupt:
            if found is None:
                raise
            self.interrupted = True
            return found.weights
        except ValueError:  # no finite sum over the routes to another goal
            return None

    def log_likelihood(self, weights: Tensor) -> float:
        """Of the routes, given where trips begin and end."""
        if self._last is not None and torch.equal(self._last[0], weights):
            return float(self._last[1].values.sum())
        return float(self._objective.values(weights).sum())

    def features(self, found: Maximum) -> tuple[Tensor, Tensor]:
        """A score is what was observed less what is expected."""
        taken = torch.from_numpy(self._objective.taken).sum(0)
        return taken, taken - found.scored.scores.sum(0)

    def fitted(self, weights: Tensor) -> tuple[LinearReward, Any]:
        """The reward of turns, and the network."""
        columns = dict(zip(self.names, self._features.T, strict=True))
        return LinearReward(columns).weighted(weights), self._streets
