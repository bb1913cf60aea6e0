"""What is fitted: the objective of demonstrations of a model, or of trips on a road network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from cai import checks
from cai.demonstrations.demonstrations import Demonstrations
from cai.demonstrations.scored_demonstrations import ScoredDemonstrations
from cai.evaluation.problem import as_problem
from cai.inference.inverse._objective import Objective
from cai.inference.inverse._scores import Likelihood, Likelihoods
from cai.inference.inverse._trip_task import TripTask
from cai.inference.inverse.observed import Part, observed, to_goals
from cai.inference.scoring.fisher_scoring import Maximum
from cai.inference.scoring.task import Task
from cai.inference.searches.search_file import digest, of_demonstrations, of_dynamics
from cai.program.trajectory import TrajectoryModel
from cai.rewards.linear_reward import LinearReward
from cai.roads.network import Streets
from cai.tables import bellman
from cai.tables.table import Table
from cai.tables.tabulation import enumerated


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

    @torch.no_grad()
    def total(self, weights: Tensor) -> Tensor:
        """Without a derivative."""
        return self.values(weights).sum()

    @torch.no_grad()
    def totals(self, weights: Tensor) -> Tensor:
        """All at once where tables are small."""
        objectives = [Objective(part.table, part.seen, *self._how) for part in self._parts]
        if not all(x.takes_many for x in objectives):
            return super().totals(weights)
        found = torch.zeros(len(weights), dtype=torch.float64)
        for objective, part in zip(objectives, self._parts, strict=True):
            found += objective.many(part.features, weights)
        return found.where(found.isfinite(), -torch.inf)

    def gradient(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """By torch's tape, of the gradient in all rewards."""
        with torch.enable_grad():
            at = weights.detach().requires_grad_()
            total = self.values(at).sum()
            (slope,) = torch.autograd.grad(total, at)
        return total.detach(), slope

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
        found = self.nearer(lambda weights: self._scored(matching, weights), zeros)
        if self.interrupted:
            raise KeyboardInterrupt
        if found is not None:
            yield found.weights

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


def check_demonstrator(optimism: Any, likelihood: Any, rule: Any, on_impossible: Any) -> float:
    """How demonstrators choose, and what becomes of impossible ones; returns η.

    Raises:
        ValueError: if an argument is not one of those, or two of them do not fit.
    """
    eta = checks.check_optimism(optimism)
    checks.check_one_of("likelihood", likelihood, get_args(Likelihood), 'for instance "actions"')
    if not abs(eta) < torch.inf:
        advice = "weights have no likelihood that is smooth at ±inf"
        checks.refuse("optimism", "a finite number", str(eta), advice)
    if likelihood == "matching" and eta != 0:
        advice = 'for optimism 1 take "paths", which matches features, too'
        checks.refuse("optimism", '0 for likelihood="matching"', f"{eta:g}", advice)
    checks.check_one_of("rule", rule, ("soft", "boltzmann", "planned"), 'for instance "soft"')
    if rule != "soft" and likelihood != "actions":
        advice = 'take likelihood="actions"'
        checks.refuse("rule", f'"soft" for likelihood={likelihood!r}', repr(rule), advice)
    checks.check_one_of("on_impossible", on_impossible, ("error", "drop"), 'try "drop"')
    return eta


def check_demonstrations(demonstrations: Any) -> None:
    """Raises ValueError unless they are some."""
    kind, advice = "Demonstrations", "cai.Demonstrations.from_trajectories(…) makes some"
    checks.check_kind("demonstrations", demonstrations, Demonstrations, kind, advice)


def task_of(
    model: TrajectoryModel | Table | Streets,
    demonstrations: Demonstrations,
    reward: Any,
    eta: float,
    rule: bellman.Rule,
    likelihood: Likelihood,
    on_impossible: str,
    goals: Literal["own"] | None,
) -> Task:
    """Demonstrations of a model with finitely many states and actions, or trips on a network.

    Raises:
        ValueError: see :func:`cai.inference.fit_reward`.
    """
    if goals is not None:
        checks.check_one_of("goals", goals, ("own",), 'take "own" or None')
    if isinstance(model, Streets):
        return of_trips(model, demonstrations, reward, rule)
    kinds = "a LinearReward, a TabularReward, a NeuralReward or a torch module"
    checks.check_kind("reward", reward, LinearReward, kinds, "for instance cai.LinearReward({…})")
    return _OfModel(model, demonstrations, reward, eta, rule, likelihood, on_impossible, goals)


def of_trips(streets: Streets, trips: Demonstrations, reward: Any, rule: bellman.Rule) -> Task:
    """Trips on a road network, by the names of its features, or a reward with such features.

    Raises:
        ValueError: see :func:`cai.inference.fit_reward`.
    """
    if rule != "soft":
        checks.refuse("rule", '"soft" on a road network', repr(rule), "leave it out")
    names = list(reward.names) if _is_of_network(reward, streets) else reward
    if not isinstance(names, list | tuple):
        expected, came = "a list of names of features", type(names).__name__
        checks.refuse("reward", expected, came, 'on a road network such as ["minutes", "left"]')
    twice = [name for i, name in enumerate(names) if name in names[:i]]
    if twice:
        checks.refuse("reward", "different names", f"{twice[0]!r} twice", "name each of them once")
    return TripTask(streets, trips, names)


def _is_of_network(reward: Any, streets: Streets) -> bool:
    """Whether it is the reward of a fit on this network, of features that the network has."""
    if not isinstance(reward, LinearReward) or reward.arrival:
        return False
    known = {*streets.segment_features, *streets.turn_features}
    return all(
        isinstance(f, Tensor) and name in known and torch.equal(f, streets.feature(name))
        for name, f in reward.features.items()
    )
