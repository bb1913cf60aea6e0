"""The result of training a reward with many parameters, and how one is trained."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cai import checks, one_line
from cai.evaluation.spelling import counted, spell
from cai.inference.exact.soft_values import soft_values
from cai.inference.inverse._scores import Likelihood
from cai.numerics.exclusive import cached_property
from cai.program.interfaces import Policy
from cai.program.trajectory import TrajectoryModel
from cai.rewards.neural_reward import NeuralReward
from cai.rewards.tabular_reward import TabularReward
from cai.tables import bellman
from cai.tables.table import Table


@dataclass(frozen=True, kw_only=True)
class RewardTraining:
    """How Adam trains a reward, for ``fit_reward(…, training=…)``.

    Attributes:
        rate: of Adam.
        batch: demonstrations in a step, drawn at random; None for all of them. A solution of the
            model serves all demonstrations, so that fewer of them save little time.
        held_out: the share of demonstrations, or of their groups where there are groups, that are
            not trained on, but tell when to stop; 0 for none.
        patience: steps after which it ends if the likelihood of those held out has not risen.
        seed: of what is held out, and of the batches.

    Raises:
        ValueError: if one is out of range.

    >>> from cai import inference
    >>> inference.RewardTraining(held_out=0.1).patience
    100
    """

    rate: float = 0.01
    batch: int | None = None
    held_out: float = 0.2
    patience: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        checks.check_positive("rate", self.rate)
        if self.batch is not None:
            checks.check_count("batch", self.batch)
        allowed = "at least 0 and below 1"
        checks.check_real("held_out", self.held_out, lambda x: 0 <= x < 1, allowed, "such as 0.2")
        checks.check_count("patience", self.patience)
        checks.check_seed(self.seed)


@dataclass(frozen=True, eq=False, repr=False)
class TrainedReward:
    """A reward with many parameters that was fitted to demonstrations.

    ``cai.compare`` takes it, since it has a policy. It has no standard errors: a free reward is not
    identified, see :class:`cai.TabularReward`, nor are the parameters of a network.

    Attributes:
        reward: with the parameters that were found.
        model: the model, or the table, with that reward: everything else runs on it.
        optimism: η of the demonstrator.
        rule: how it chooses actions.
        likelihood: what was maximised: "actions", "paths" or "matching".
        method: how, "L-BFGS" or "Adam".
        log_likelihood: nats, of all demonstrations, those held out included: of their actions, for
            "paths" of their next states, too.
        log_likelihood_without: the same with the offset alone; None if that has no values.
        means: (m,), nats a demonstration: the objective of those trained on, at each step.
        held_out_means: (m,), the same of those held out; NaN where none were, empty for L-BFGS.
        parameters: how many there are.
        demonstrations: n.
        held_out: how many of them were held out.
        actions: how many actions they have.
        dropped: how many demonstrations were left out as impossible.
        steps: of the search.
        evaluations: of the likelihood.
        converged: whether the search ended since nothing more was to be gained.
        reason: why it ended.

    >>> import cai
    >>> from cai import inference, models
    >>> model = models.ledge()
    >>> expert = inference.soft_values(model).policy
    >>> seen = cai.Demonstrations.from_trajectories(model.simulate(expert, 200, seed=0))
    >>> fitted = inference.fit_reward(model, seen, cai.TabularReward(), progress=False)
    >>> fitted.log_likelihood > fitted.log_likelihood_without
    True
    """

    reward: TabularReward | NeuralReward
    model: TrajectoryModel | Table
    optimism: float
    rule: bellman.Rule
    likelihood: Likelihood
    method: str
    log_likelihood: float
    log_likelihood_without: float | None
    means: Tensor
    held_out_means: Tensor
    parameters: int
    demonstrations: int
    held_out: int
    actions: int
    dropped: int
    steps: int
    evaluations: int
    converged: bool
    reason: str

    @cached_property
    def policy(self) -> Policy:
        """The policy of the demonstrator with this reward, (t, s) -> distribution."""
        return soft_values(self.model, self.optimism, self.rule).policy

    def to_dict(self) -> dict[str, Any]:
        """Likelihoods and the state of the search, as plain values."""
        plain = {name: getattr(self, name) for name in _PLAIN}
        each = {"means": self.means, "held_out_means": self.held_out_means}
        lists = {name: [_finite(y) for y in x.tolist()] for name, x in each.items()}
        return {"reward": type(self.reward).__name__, **plain, **lists}

    def to_json(self) -> str:
        """to_dict as JSON; numbers that there are not are null."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False)

    def to_text(self, encoding: str = "utf-8") -> str:
        """A few lines.

        Args:
            encoding: that of the output; symbols that it lacks are spelt.
        """
        without = self.log_likelihood_without
        ended = "converged" if self.converged else "not converged"
        aside = f", {self.held_out} of them held out" if self.held_out else ""
        lines = [
            f"{how_fitted(self.likelihood, self.optimism, self.rule)}: "
            f"{counted(self.demonstrations, 'demonstration')}{aside}, "
            f"{counted(self.actions, 'action')}",
            f"{type(self.reward).__name__} with {self.parameters} parameters, by {self.method}: "
            f"{ended} after {self.steps} steps, {self.reason}",
            f"log-likelihood {round(self.log_likelihood, 1) + 0.0} nats"
            + ("" if without is None else f", {without:.1f} without it"),
            "There are no errors: parameters of such a reward are not identified.",
        ]
        if self.dropped:
            lines.append(f"{self.dropped} impossible demonstrations were left out.")
        return spell("\n".join(lines), encoding)

    def __str__(self) -> str:
        return self.to_text()

    def __repr__(self) -> str:
        return one_line.named("TrainedReward", *str(self).splitlines()[:2])

    def _repr_pretty_(self, printer: Any, _: bool) -> None:
        """All lines for IPython."""
        printer.text(str(self))


_PLAIN = (
    *("likelihood", "optimism", "rule", "method", "log_likelihood", "log_likelihood_without"),
    *("parameters", "demonstrations", "held_out", "actions", "dropped", "steps", "evaluations"),
    *("converged", "reason"),
)


def _finite(x: float) -> float | None:
    return x if math.isfinite(x) else None


def how_fitted(likelihood: Likelihood, optimism: float, rule: bellman.Rule) -> str:
    """What was maximised, as a title."""
    how = {"actions": "likelihood of actions", "paths": "likelihood of paths"}
    how |= {"matching": "matched features"}
    by = "" if rule == "soft" else f", rule {rule}"
    return f"Reward by {how[likelihood]}, optimism {optimism:g}{by}"
