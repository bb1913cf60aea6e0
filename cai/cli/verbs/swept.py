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
from cai.evaluation.problem import as_problem
from cai.policies.neural import NeuralPolicy
from cai.policies.tabular import TabularPolicy

_CHANGES = ("horizon", "temperature", "discount")
EXACT = ("posterior", "soft_values", "hard")
METHODS = (*EXACT, "fit", "prior", *LEARNERS)


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
            Mistake: if there is none.
        """
        given = {name: getattr(self, name) for name in _CHANGES}
        given |= {name: value for name, value in point.items() if name in _CHANGES}
        option = [*self.option, *((k, v) for k, v in point.items() if k not in _CHANGES)]
        chosen = argparse.Namespace(model=self.model, option=option, quiet=True, **given)
        return loading.load_any(chosen)


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
        """A solution, a fit or a policy."""
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


def check_points(factory: ModelFactory, points: list[dict[str, Any]]) -> None:
    """Raises Mistake unless the model can be made at the first point or at the last one."""
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
