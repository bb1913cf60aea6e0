"""What is fitted: the objective of demonstrations of a model, or of trips on a road network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from cai import checks
from cai.demonstrations.demonstrations import Demonstrations
from cai.demonstrations.scored_demonstrations import ScoredDemonstrations
from cai.evaluation.problem import as_problem
from cai.inference.inverse._fisher_scoring import INTERRUPTED, Maximum, maximise
from cai.inference.inverse._objective import Objective
from cai.inference.inverse._scores import Likelihood, Likelihoods
from cai.inference.inverse.observed import Part, observed, to_goals
from cai.inference.searches.search_file import digest, of_demonstrations, of_dynamics
from cai.inference.trips.trip_likelihoods import TripLikelihoods
from cai.program.trajectory import TrajectoryModel
from cai.rewards.linear_reward import LinearReward, spread
from cai.roads.network import Streets
from cai.tables import bellman
from cai.tables.table import Table
from cai.tables.tabulation import enumerated

_STEPS = 30  # towards a second start
_MANY = 80  # goals of trips from which on the search begins with those to some of them,
_EVERY = 8  # one of so many


class Task(ABC):
    """Demonstrations, and what is to be maximised.

    Attributes:
        names: of k features.
        scale: (k,), the spread of each.
        demonstrations: those that are possible.
        goals: (n,), where each ends; None where all have the same problem.
        dropped: how many were not.
        interrupted: whether the search for a start was.
    """

    names: tuple[str, ...]
    scale: Tensor
    demonstrations: Demonstrations
    goals: Tensor | None = None
    dropped: int = 0
    interrupted: bool = False

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
    def starts(self, given: Tensor | None) -> Iterator[Tensor]:
        """Weights (k,) to start from; several where the objective may have several maxima."""

    def _nearer(
        self, score: Callable[[Tensor], ScoredDemonstrations], start: Tensor
    ) -> Tensor | None:
        """Where a search for the maximum of another objective ends; None without values there."""
        try:
            found = maximise(score, start, self.scale, None, _STEPS)
        except ValueError:
            return None
        self.interrupted = found.reason == INTERRUPTED
        return found.weights

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
        goals: Literal["own"] | None,
    ) -> None:
        self._program = as_problem(model).program
        table = self._table = enumerated(model)
        features = self._features = reward.on(table)
        self._reward, self.names = reward, features.names
        seen, self.dropped = observed(table, demonstrations, on_impossible)
        self.demonstrations, self.scale = seen.demonstrations, features.spread(table)
        every = torch.arange(len(self.demonstrations))
        self._parts = [Part(every, table, features, seen)]
        if goals is not None:
            self.goals = self.demonstrations.destinations
            self._parts = to_goals(table, features, self.demonstrations)
        self._how = eta, rule, likelihood
        self._objective = self._likelihoods(*self._how)
        self._likelihood = self._objective
        if likelihood == "matching":  # which is none
            self._likelihood = self._likelihoods(eta, rule, "actions")
        sure = bool((table.log_dynamics.amax(-1) == 0).all()) and table.discount == 1
        self._concave = likelihood == "matching" or (likelihood == "paths" and eta == 1) or sure

    def _likelihoods(
        self, eta: float, rule: bellman.Rule, likelihood: Likelihood
    ) -> list[Likelihoods]:
        """Those of the parts."""
        return [
            Likelihoods(part.table, part.features, part.seen, eta, rule, likelihood)
            for part in self._parts
        ]

    def _scored(self, parts: list[Likelihoods], weights: Tensor) -> ScoredDemonstrations:
        """All demonstrations."""
        n, k = len(self.demonstrations), len(weights)
        values, scores = weights.new_zeros(n), weights.new_zeros(n, k)
        information = weights.new_zeros(k, k)
        for (who, *_), objective in zip(self._parts, parts, strict=True):
            values[who], scores[who], more = objective(weights)
            information += more
        return ScoredDemonstrations(values, scores, information)

    @property
    def identity(self) -> dict[str, str]:
        """Of the demonstrations, the features and the table without its own rewards."""
        held = self._features.reward, self._features.arrival, self._features.offset
        known = {
            "goals": digest(self.goals),
            "features": digest(self.names, *held),
            "dynamics": of_dynamics(self._table),
        }
        return {"demonstrations": of_demonstrations(self.demonstrations)} | known

    def score(self, weights: Tensor) -> ScoredDemonstrations:
        """See :class:`Likelihoods`."""
        return self._scored(self._objective, weights)

    def values(self, weights: Tensor) -> Tensor:
        """See :class:`Objective`."""
        found = weights.new_zeros(len(self.demonstrations))
        for who, table, features, seen in self._parts:
            objective = Objective(table, seen, *self._how)
            found = found.index_add(0, who, objective(features.rewards(table, weights)))
        return found

    def starts(self, given: Tensor | None) -> Iterator[Tensor]:
        """Zeros; and where nothing is concave, the maximum of "matching", which is.

        That is looked for when the search from zeros has ended, so that an interrupt loses nothing.

        Raises:
            KeyboardInterrupt: if it comes meanwhile.
        """
        zeros = torch.zeros_like(self.scale)
        yield zeros if given is None else given
        if self._concave or given is not None:
            return
        matching = self._likelihoods(0.0, "soft", "matching")
        found = self._nearer(lambda weights: self._scored(matching, weights), zeros)
        if self.interrupted:
            raise KeyboardInterrupt
        if found is not None:
            yield found

    def log_likelihood(self, weights: Tensor) -> float:
        """Of actions, or of paths."""
        return float(self._scored(self._likelihood, weights).values.sum())

    def features(self, found: Maximum) -> tuple[Tensor, Tensor]:
        """Those expected are in the dynamics at η."""
        zero = torch.zeros_like(found.weights)
        return (
            sum((x.observed_features() for x in self._objective), zero),
            sum((x.expected_features(found.weights) for x in self._objective), zero),
        )

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

    def starts(self, given: Tensor | None) -> Iterator[Tensor]:
        """Costs at which no cycle gains, or what the trips to some of many goals say."""
        start = self._objective.start(given)
        goals, found = self.demonstrations.destinations.unique(), None
        if given is None and len(goals) >= _MANY:
            who = torch.isin(self.demonstrations.destinations, goals[::_EVERY])
            some = TripLikelihoods(self._streets, self._features, self.demonstrations[who])
            found = self._nearer(some, start)
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


def of_model(
    model: TrajectoryModel | Table,
    demonstrations: Demonstrations,
    reward: Any,
    eta: float,
    rule: bellman.Rule,
    likelihood: Likelihood,
    on_impossible: str,
    goals: Literal["own"] | None,
) -> Task:
    """Demonstrations of a model with finitely many states and actions.

    Raises:
        ValueError: see :func:`cai.inference.fit_reward`.
    """
    kinds = "a LinearReward, a TabularReward, a NeuralReward or a torch module"
    checks.check_kind("reward", reward, LinearReward, kinds, "for instance cai.LinearReward({…})")
    return _OfModel(model, demonstrations, reward, eta, rule, likelihood, on_impossible, goals)


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
    twice = [name for i, name in enumerate(names) if name in names[:i]]
    if twice:
        checks.refuse("reward", "different names", f"{twice[0]!r} twice", "name each of them once")
    return _OfTrips(streets, trips, names)
