"""Turns the argument of a learner, a model, an environment or a source, into a source."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from cai import checks
from cai.stepping.model_source import ModelSource
from cai.stepping.source import Source
from cai.stepping.vector_source import VectorSource


class Stepped(NamedTuple):
    """A problem to learn from, and copies of it.

    Attributes:
        problem: an object with ``initial``, ``prior``, ``horizon``, ``temperature`` and
            ``discount``.
        copies: the copies, stepped side by side.
        horizon: T if episodes terminate at T, so that the time is part of the state; None if they
            do not, or are only truncated.
    """

    problem: Any
    copies: Source
    horizon: int | None

    def settings(self) -> dict[str, Any]:
        """What a run must have in common to go on from the checkpoint of another."""
        problem, copies = self.problem, self.copies
        found = {
            "num_envs": copies.num_envs,
            "horizon": int(problem.horizon or 0),
            "discount": float(problem.discount),
            "temperature": float(problem.temperature),
        }
        if isinstance(copies, ModelSource):
            return found | {"time_limit": copies.time_limit, "terminates": copies.terminates}
        return found | {"environment": repr(problem)}


def stepped(source: Any, num_envs: int) -> Stepped:
    """Copies of a model or an environment side by side; a source is taken as it is.

    Raises:
        ValueError: if it is none of them.
    """
    checks.check_count("num_envs", num_envs)
    if isinstance(source, ModelSource):
        return Stepped(source.model, source, source.model.horizon)
    if hasattr(source, "make"):
        copies = VectorSource(source.make(num_envs), int(torch.randint(2**31, ())))
        return Stepped(source, copies, None)
    if not hasattr(source, "transition"):
        advice = "for instance cai.models.ledge()"
        came = type(source).__name__
        checks.refuse("source", "a model, or what models.environment returns", came, advice)
    return Stepped(source, ModelSource(source, num_envs), source.horizon)
