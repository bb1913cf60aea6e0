"""Turns the argument of a learner, a model, an environment or a source, into a source."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cai import checks
from cai.distributions.exact_scores import log_probs, support_size
from cai.distributions.support import check_support
from cai.inference.learning.records import History
from cai.program.episode import policy_at
from cai.program.handlers import draw
from cai.stepping.model_source import ModelSource
from cai.stepping.source import Source, Transition
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

    @property
    def prior(self) -> Any:
        """p(a|s) where the copies are."""
        return self.problem.prior(self.copies.s, self.copies.t)

    @property
    def num_actions(self) -> int | None:
        """A, or None if actions are not finitely many."""
        return support_size(self.prior)

    def finitely_many_actions(self, advice: str) -> int:
        """A.

        Raises:
            ValueError: if actions are not finitely many.
        """
        actions = self.num_actions
        if actions is None:
            came = f"{self.prior.support} actions"
            checks.refuse("source", "finitely many actions", came, advice)
        return actions

    def most_nats(self) -> float:
        """The largest KL from the prior that a policy can have where the copies are, nats."""
        if self.num_actions is None:
            return math.inf
        log_prior = log_probs(self.prior, self.num_actions)
        return float(-log_prior.where(log_prior.isfinite(), 0.0).min())

    def check(self, policy: Any, name: str = "policy") -> None:
        """Raises ValueError unless a policy returns distributions on the support of the prior."""
        check_support(self.distribution(policy, name), self.prior, name)

    def distribution(self, policy: Any, name: str = "policy") -> Any:
        """π(a|s) where the copies are, without a graph of gradients."""
        with torch.no_grad():
            return policy_at(policy, self.copies.t, self.copies.s, name=name)

    def draw(self, q: Any, name: str = "policy") -> Tensor:
        """An action in each copy, of a distribution in their states."""
        return draw(q, torch.Size() if q.batch_shape else self.copies.s.shape[:1], name)

    def drawn(self, policy: Any, name: str = "policy") -> Tensor:
        """An action of a policy in each copy, without a graph of gradients."""
        return self.draw(self.distribution(policy, name), name)

    def rolled_out(self, policy: Any, length: int, history: History | None) -> list[Transition]:
        """So many transitions of each copy, recorded in the history."""
        taken = []
        for _ in range(length):
            taken.append(self.copies.step(self.drawn(policy)))
            if history is not None:
                history.add(taken[-1])
        return taken

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
