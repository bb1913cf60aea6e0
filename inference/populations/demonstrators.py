"""Demonstrations of one demonstrator, or of several with weights of their own."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from cai import checks
from cai.demonstrations.demonstrations import Demonstrations
from cai.inference.inverse.reward_fit import Likelihood
from cai.inference.inverse.tasks import check_demonstrations, check_demonstrator, task_of
from cai.inference.scoring.task import Task
from cai.roads.network import Streets
from cai.tables import bellman
from cai.tables.tabulation import enumerated


@dataclass(frozen=True, kw_only=True)
class Demonstrator:
    """How demonstrators choose.

    Attributes:
        optimism: η.
        likelihood: "actions" or "paths".
        rule: of action.
        goals: "own", or None.
        on_impossible: "error" or "drop".
    """

    optimism: float
    likelihood: Likelihood
    rule: bellman.Rule
    goals: Literal["own"] | None
    on_impossible: str

    def task(self, model: Any, demonstrations: Demonstrations, reward: Any) -> Task:
        """All demonstrations, as of one demonstrator.

        Raises:
            ValueError: if they do not fit the model.
        """
        eta, like = self.optimism, self.likelihood
        how = (eta, self.rule, like, self.on_impossible, self.goals)
        return task_of(model, demonstrations, reward, *how)


class Groups(NamedTuple):
    """Demonstrations by who produced them.

    Attributes:
        labels: D of them.
        tasks: D, None for one without demonstrations.
        whole: all demonstrations, as of one demonstrator.
    """

    labels: tuple[Hashable, ...]
    tasks: tuple[Task | None, ...]
    whole: Task


def demonstrator(
    demonstrations: Any, optimism: Any, likelihood: Any, rule: Any, goals: Any, on_impossible: Any
) -> Demonstrator:
    """The same, checked; and the demonstrations.

    Raises:
        ValueError: if an argument is not one of those that have a likelihood.
    """
    check_demonstrations(demonstrations)
    if likelihood == "matching":
        advice = '"actions" at optimism 0 is the likelihood of the same demonstrator'
        checks.refuse("likelihood", '"actions" or "paths"', '"matching", which is none', advice)
    eta = check_demonstrator(optimism, likelihood, rule, on_impossible)
    return Demonstrator(
        optimism=eta, likelihood=likelihood, rule=rule, goals=goals, on_impossible=on_impossible
    )


def by_groups(
    how: Demonstrator, model: Any, demonstrations: Demonstrations, reward: Any, groups: Any
) -> Groups:
    """Demonstrations by their groups.

    Args:
        how: the demonstrators choose.
        model: a model, its table, or a road network.
        demonstrations: with groups.
        reward: the reward whose weights are sought.
        groups: True for those that the demonstrations have; or all labels that there are.

    Raises:
        ValueError: if there are no groups, or one that is not listed.
    """
    problem = model if isinstance(model, Streets) else enumerated(model)
    whole = how.task(model, demonstrations, reward)
    seen = whole.demonstrations
    if seen.groups is None:
        advice = "give them groups=, or leave groups= out"
        checks.refuse("groups", "demonstrations with groups", "none", advice)
    there = list(dict.fromkeys(seen.groups))
    labels = there if groups is True else _listed(groups, there)
    places: dict[Hashable, list[int]] = {label: [] for label in labels}
    for i, label in enumerate(seen.groups):
        places[label].append(i)
    tasks = tuple(how.task(problem, seen[who], reward) if who else None for who in places.values())
    return Groups(tuple(labels), tasks, whole)


def _listed(groups: Any, there: list[Hashable]) -> list[Hashable]:
    advice = "True takes those that the demonstrations have"
    labels: list[Any] = checks.several("groups", groups, advice, "True or several labels")
    for label in labels:
        if not isinstance(label, Hashable):
            came = f"{label!r}, which is {type(label).__name__}"
            checks.refuse("groups", "labels such as texts or numbers", came, advice)
    if len(set(labels)) < len(labels):
        checks.refuse("groups", "labels that differ", "one twice", "list each one once")
    missing = [label for label in there if label not in labels]
    if missing:
        came = f"demonstrations of {missing[0]!r}, too"
        checks.refuse(
            "groups", "all groups of the demonstrations", came, "list it, or leave it out"
        )
    return labels
