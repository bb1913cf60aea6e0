"""What the command ``sweep`` sends to other processes: the model of a point, and its methods."""

from __future__ import annotations

import argparse
import contextlib
from dataclasses import dataclass
from typing import Any

import torch

from cai import checks, inference
from cai.cli import loading, train_command
from cai.cli.failure import Mistake
from cai.cli.learners import LEARNERS
from cai.cli.verbs.facts import methods
from cai.cli.verbs.model_names import CHANGES, source_of
from cai.distributions.exact_scores import support_size
from cai.evaluation.problem import as_problem
from cai.experiments.error_words import CellError
from cai.policies.neural import NeuralPolicy
from cai.policies.tabular import TabularPolicy

EXACT = ("posterior", "soft_values", "hard")
METHODS = (*EXACT, "fit", "prior", *LEARNERS)


class CellMistake(Mistake, CellError):
    """A mistake in what a cell was given, or in the user's file."""


@dataclass(frozen=True)
class ModelFactory:
    """A model by its name, with arguments that are the same in all cells.

    Attributes:
        model: its name, as the command line takes it.
        option: pairs of an argument and its value.
        horizon: T, "infinite", or None for the model's own.
        temperature: α, or None.
        discount: γ, or None.
    """

    model: str
    option: tuple[tuple[str, Any], ...] = ()
    horizon: int | str | None = None
    temperature: float | None = None
    discount: float | None = None

    def __call__(self, **point: Any) -> Any:
        """The model of a point.

        Raises:
            CellMistake: if there is none.
        """
        given = {name: getattr(self, name) for name in CHANGES}
        given |= {name: value for name, value in point.items() if name in CHANGES}
        option = [*self.option, *((k, v) for k, v in point.items() if k not in CHANGES)]
        chosen = argparse.Namespace(
            model=self.model, option=option, swept=[*point], quiet=True, **given
        )
        try:
            return loading.load_any(chosen)
        except Mistake as mistake:
            raise CellMistake(self._without_folder(str(mistake))) from mistake

    @property
    def name(self) -> str:
        """The name of the model, without the folder of its file."""
        return self._without_folder(self.model)

    def _without_folder(self, words: str) -> str:
        file = source_of(self.model)
        known = file is not None and file.is_file()
        return words.replace(str(file), file.name) if file is not None and known else words


@dataclass(frozen=True)
class SweptMethod:
    """A method by its name.

    Attributes:
        name: one of ``METHODS``.
        steps: of a training, or of a learner: transitions; None for a method without one.
    """

    name: str
    steps: int | None = None

    def __call__(self, model: Any, seed: int) -> Any:
        """A solution, a fit or a policy.

        Raises:
            CellMistake: if the method does not take such a model.
        """
        try:
            return self._of(model, seed)
        except Mistake as mistake:
            raise CellMistake(str(mistake)) from mistake

    def _of(self, model: Any, seed: int) -> Any:
        if self.name == "posterior":
            return inference.posterior(model)
        if self.name in EXACT:
            return inference.soft_values(model, rule="hard" if self.name == "hard" else "soft")
        if self.name == "prior":
            return lambda t, s: model.prior(s, t)
        torch.manual_seed(seed)  # a network starts at random
        if self.name == "fit":
            finite = as_problem(model).table is not None
            policy = TabularPolicy(model) if finite else NeuralPolicy(model)
            return inference.fit(model, policy, steps=self.steps or 1, seed=seed, progress=False)
        learner, arguments = train_command.learner_of(self.name, model, seed)
        return learner(model, **arguments, steps=self.steps, seed=seed, progress=False).policy


def usual_methods(factory: ModelFactory, points: list[dict[str, Any]]) -> list[str]:
    """Those of posterior, soft_values and fit that take the first model that can be made.

    Raises:
        Mistake: if there is none.
    """
    for point in (points[0], points[-1]):
        with contextlib.suppress(Mistake):
            model = factory(**point)
            sampled = checks.can_only_be_sampled(model)
            taken = methods(model, None if sampled else as_problem(model).table)
            found = [name for name in taken if name in ("posterior", "soft_values", "fit")]
            if found:
                return found
    words = f"none of posterior, soft_values and fit takes {factory.model}"
    raise Mistake(f"--methods: {words}; name learners, as {', '.join(LEARNERS)}")


def check_points(
    factory: ModelFactory, points: list[dict[str, Any]], named: list[str] | None = None
) -> None:
    """Refuses what no cell can do.

    Args:
        factory: makes the models.
        points: those of the grid.
        named: methods that were named; None for those that take the model.

    Raises:
        Mistake: unless the model can be made at the first point or at the last one, and each method
            takes the model of some point.
    """
    _check_models(factory, points)
    left, said = list(named or ()), ""
    for point in (points[0], *points[:0:-1]):
        if not left:
            return
        with contextlib.suppress(Exception):  # which the cells of this point will tell
            model = factory(**point)
            table = None if _without_table(model, left) else as_problem(model).table
            taken = _taken(model, table)
            lacking = [name for name in left if name not in taken]
            if lacking and not said:
                said = f"{_why(lacking[0], model, table)}; take {', '.join(taken)}"
            left = lacking
    if left and said:
        names = " and ".join(left)
        raise Mistake(f"--methods: {names} cannot take {factory.name}, {said}")


def _check_models(factory: ModelFactory, points: list[dict[str, Any]]) -> None:
    try:
        factory(**points[0])
    except Mistake:
        if len(points) == 1:
            raise
        try:
            factory(**points[-1])
            return
        except Mistake:
            pass
        raise


def _without_table(model: Any, named: list[str]) -> bool:
    """Whether there is no table, or no method that is named would need it."""
    return checks.can_only_be_sampled(model) or {*named} <= {"prior", *LEARNERS}


def _taken(model: Any, table: Any) -> list[str]:
    """The methods, of ``METHODS``, that take a model."""
    found = {*methods(model, table), "prior"}
    if "soft_values" in found:
        found.add("hard")
    finite = _has_finite_actions(model)
    found |= {name for name, x in LEARNERS.items() if (x.discrete if finite else x.continuous)}
    return [name for name in METHODS if name in found]


def _why(name: str, model: Any, table: Any) -> str:
    """Why a method does not take a model."""
    if name in LEARNERS:
        kind = "finitely many" if _has_finite_actions(model) else "continuous"
        return f"whose actions are {kind}"
    if checks.can_only_be_sampled(model):
        return "an environment, of which only samples can be had"
    if model.horizon is None and (table is not None or name == "fit"):
        return "whose horizon is infinite"
    return "whose states or actions are continuous"


def _has_finite_actions(model: Any) -> bool:
    return support_size(model.prior(model.initial.sample(), 0)) is not None
