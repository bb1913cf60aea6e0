"""What is fitted: the objective of demonstrations of a model, or of trips on a road network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from cai import checks
from cai.demonstrations.demonstrations import Demonstrations
from cai.demonstrations.scored_demonstrations import ScoredDemonstrations
from cai.evaluation.problem import as_problem
from cai.inference.inverse._fisher_scoring import Maximum, maximise
from cai.inference.inverse._objective import Objective
from cai.inference.inverse._observed import observed
from cai.inference.inverse._scores import Likelihood, Likelihoods
from cai.inference.searches.search_file import digest, of_demonstrations, of_dynamics
from cai.inference.trips.trip_likelihoods import TripLikelihoods
from cai.program.trajectory import TrajectoryModel
from cai.rewards.linear_reward import FeatureArrays, LinearReward
from cai.roads.network import Streets
from cai.tables import bellman
from cai.tables.table import Table
from cai.tables.tabulation import enumerated

_STEPS = 30  # towards a second start


class Task(ABC):
    """Demonstrations, and what is to be maximised.

    Attributes:
        names: of k features.
        scale: (k,), the spread of each.
        demonstrations: those that are possible.
        dropped: how many were not.
    """

    names: tuple[str, ...]
    scale: Tensor
    demonstrations: Demonstrations
    dropped: int = 0

    @property
    @abstractmethod
    def identity(self) -> dict[str, str]:
        """What tells the problem and its data from others, for a checkpoint."""

    @abstractmethod
    def score(self, weights: Tensor) -> ScoredDemonstrations:
        """The objective, its gradients and its information at some weights (k,)."""

    @abstractmethod
    def values(self, weights: Tensor) -> Tensor:
        """(n,), nats: the objective of each demonstration, differentiable in the weights (k,)."""

    @abstractmethod
    def starts(self, given: Tensor | None) -> list[Tensor]:
        """Weights (k,) to start from; several where the objective may have several maxima."""

    @abstractmethod
    def log_likelihood(self, weights: Tensor) -> float:
        """Of all demonstrations, nats."""

    @abstractmethod
    def features(self, found: Maximum) -> tuple[Tensor, Tensor]:
        """(k,) each, summed over demonstrations: as observed, and as expected at the maximum."""

    @abstractmethod
    def fitted(self, weights: Tensor) -> tuple[LinearReward, Any]:
        """The reward with its weights, and the model with the reward."""


class _OfModel(Task):
    """Demonstrations of a table."""

    def __init__(
        self,
        model: TrajectoryModel | Table,
        demonstrations: Demonstrations,
        reward: LinearReward,
        eta: float,
        rule: bellman.Rule,
        likelihood: Likelihood,
        on_impossible: str,
    ) -> None:
        self._program = as_problem(model).program
        table = self._table = enumerated(model)
        features = self._features = reward.on(table)
        self._reward, self.names = reward, features.names
        seen, self.dropped = observed(table, demonstrations, on_impossible)
        self.demonstrations, self.scale = seen.demonstrations, _scale(table, features)
        self._objective = Likelihoods(table, features, seen, eta, rule, likelihood)
        self._by_gradient = Objective(table, seen, eta, rule, likelihood)
        self._likelihood = self._objective
        if likelihood == "matching":  # which is none
            self._likelihood = Likelihoods(table, features, seen, eta, rule, "actions")
        sure = bool((table.log_dynamics.amax(-1) == 0).all()) and table.discount == 1
        self._concave = likelihood == "matching" or (likelihood == "paths" and eta == 1) or sure
        self._seen = seen

    @property
    def identity(self) -> dict[str, str]:
        """Of the demonstrations, the features and the table without its own rewards."""
        held = self._features.reward, self._features.arrival, self._features.offset
        known = {"features": digest(self.names, *held), "dynamics": of_dynamics(self._table)}
        return {"demonstrations": of_demonstrations(self.demonstrations)} | known

    def score(self, weights: Tensor) -> ScoredDemonstrations:
        """See :class:`Likelihoods`."""
        return self._objective(weights)

    def values(self, weights: Tensor) -> Tensor:
        """See :class:`Objective`."""
        return self._by_gradient(self._features.rewards(self._table, weights))

    def starts(self, given: Tensor | None) -> list[Tensor]:
        """Zeros; and where nothing is concave, the maximum of "matching", which is."""
        if given is not None:
            return [given]
        zeros = torch.zeros_like(self.scale)
        if self._concave:
            return [zeros]
        matching = Likelihoods(self._table, self._features, self._seen, 0.0, "soft", "matching")
        try:
            found = maximise(matching, zeros, self.scale, None, _STEPS)
        except ValueError:  # no values at zero
            return [zeros]
        return [zeros, found.weights]

    def log_likelihood(self, weights: Tensor) -> float:
        """Of actions, or of paths."""
        return float(self._likelihood(weights).values.sum())

    def features(self, found: Maximum) -> tuple[Tensor, Tensor]:
        """Those expected are in the dynamics at η."""
        objective = self._objective
        return objective.observed_features(), objective.expected_features(found.weights)

    def fitted(self, weights: Tensor) -> tuple[LinearReward, Any]:
        """A program for a program, a table for a table."""
        paid = self._reward.weighted(weights)
        if self._program is None:
            return paid, self._features.rewards(self._table, weights)
        return paid, paid.given_to(self._program)


class _OfTrips(Task):
    """Trips on a road network."""

    def __init__(self, streets: Streets, trips: Demonstrations, names: Any) -> None:
        features = streets.features(names)
        self.names, self.demonstrations = tuple(names), trips
        self.scale = spread(features.T)
        self._streets, self._features = streets, features
        self._objective = TripLikelihoods(streets, features, trips)

    @property
    def identity(self) -> dict[str, str]:
        """Of the trips, and the features of turns."""
        trips = of_demonstrations(self.demonstrations)
        return {"demonstrations": trips, "features": digest(self.names, self._features)}

    def score(self, weights: Tensor) -> ScoredDemonstrations:
        """See :class:`TripLikelihoods`."""
        return self._objective(weights)

    def values(self, weights: Tensor) -> Tensor:
        """Not to be had of trips, whose scores cost next to nothing."""
        advice = 'leave it out: it is "scoring"'
        checks.refuse("method", "another one on a road network", '"lbfgs"', advice)

    def starts(self, given: Tensor | None) -> list[Tensor]:
        """Costs at which no cycle gains."""
        return [self._objective.start(given)]

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


def of_model(
    model: TrajectoryModel | Table,
    demonstrations: Demonstrations,
    reward: Any,
    eta: float,
    rule: bellman.Rule,
    likelihood: Likelihood,
    on_impossible: str,
) -> Task:
    """Demonstrations of a model with finitely many states and actions.

    Raises:
        ValueError: see :func:`cai.inference.fit_reward`.
    """
    checks.check_kind("reward", reward, LinearReward, "a LinearReward", "cai.LinearReward({…})")
    return _OfModel(model, demonstrations, reward, eta, rule, likelihood, on_impossible)


def of_trips(streets: Streets, trips: Demonstrations, names: Any, rule: bellman.Rule) -> Task:
    """Trips on a road network, by the names of its features.

    Raises:
        ValueError: see :func:`cai.inference.fit_reward`.
    """
    if rule != "soft":
        checks.refuse("rule", '"soft" on a road network', repr(rule), "leave it out")
    if not isinstance(names, list | tuple):
        expected, came = "a list of names of features", type(names).__name__
        checks.refuse("reward", expected, came, 'on a road network such as ["minutes", "left"]')
    return _OfTrips(streets, trips, names)


def _scale(table: Table, features: FeatureArrays) -> Tensor:
    """(k,), the spread of each feature over actions that are allowed; of constants their size."""
    allowed = table.log_prior > -torch.inf
    allowed = allowed if allowed.dim() == 2 else allowed.any(0)
    each = features.reward[:, allowed]
    if features.arrival is not None:
        each = torch.cat([each.unsqueeze(-1), features.arrival[:, allowed]], -1).flatten(1)
    return spread(each)


def spread(each: Tensor) -> Tensor:
    """(k,), the standard deviation of each of k rows; of a constant its size."""
    deviation, size = each.std(1, correction=0), each.abs().amax(1)
    found = torch.where(deviation > 1e-12 * size, deviation, size)
    return torch.where(found > 0, found, 1.0)
