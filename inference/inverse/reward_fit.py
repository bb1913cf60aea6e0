"""The result of fitting a reward: weights with their errors, as a table of estimates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cai import checks
from cai.evaluation.spelling import PrintedTable, data_size, number
from cai.frames.data_frame import data_frame
from cai.inference.exact.soft_values import soft_values
from cai.inference.inverse._scores import Likelihood as Likelihood
from cai.inference.inverse.trained_reward import how_fitted
from cai.inference.scoring.falls import spelt_falls
from cai.inference.scoring.normal_intervals import normal_intervals, standard_deviations
from cai.numerics.exclusive import cached_property
from cai.program.interfaces import Policy
from cai.program.trajectory import TrajectoryModel
from cai.rewards.linear_reward import LinearReward
from cai.roads.network import Streets
from cai.tables import bellman
from cai.tables.table import Table


@dataclass(frozen=True, eq=False, repr=False)
class RewardFit(PrintedTable):
    """A reward that was fitted to demonstrations.

    It prints as a table of estimates, and exports to HTML (in a notebook), a dict, JSON and
    Markdown. ``cai.compare`` takes it, since it has a policy.

    Attributes:
        reward: with its weights, reward units per unit of each feature.
        model: the model, or the table, with that reward: everything else runs on it.
        optimism: η of the demonstrator.
        rule: how it chooses actions.
        likelihood: what was maximised: "actions", "paths" or "matching".
        covariance: (k, k), of the weights; NaN where the data do not determine one.
        errors: how it was estimated: "information", "sandwich" or "clustered by group"; "none" with
            a penalty, which pulls the weights to zero.
        log_likelihood: nats, of all demonstrations: of their actions, for "paths" of their next
            states, too.
        log_likelihood_without: the same with all weights zero; None if that has no values.
        scores: (n, k), nats per unit of a weight: the gradient of each demonstration.
        information: (k, k), minus the Hessian, or the Fisher information of "actions".
        observed: (k,), the features of a demonstration, on average.
        expected: (k,), the same where the demonstrator follows the fitted reward.
        unidentified: combinations of weights, name -> number, that the data cannot tell from zero.
        separated: combinations whose likelihood grows for ever: their weights have no maximum.
        falls: name -> nats that are lost at one standard error below and above, infinite where the
            model has no values, for weights whose errors should not be trusted: where that is far
            from the half nat of a normal distribution.
        penalties: name -> nats per unit of the weight: λ of ``l1`` times the spread of the feature;
            empty without a penalty.
        demonstrations: n.
        actions: how many actions they have.
        goals: (n,), the state or segment where the problem of each one ends; None where all have
            the same problem.
        dropped: how many demonstrations were left out as impossible.
        steps: of the search.
        evaluations: of the likelihood.
        converged: whether a further step would gain less than 1e-10 nats.
        reason: why the search ended.

    >>> import cai
    >>> from cai import inference, models
    >>> model = models.ledge()
    >>> expert = inference.soft_values(model).policy
    >>> seen = cai.Demonstrations.from_trajectories(model.simulate(expert, 200, seed=0))
    >>> fitted = inference.fit_reward(model, seen, cai.LinearReward({"state": lambda s, a: s}))
    >>> fitted.converged, list(fitted.weights)
    (True, ['state'])
    """

    headings = ("", "weight", "std. error", "z", "95% interval")

    reward: LinearReward
    model: TrajectoryModel | Table | Streets
    optimism: float
    rule: bellman.Rule
    likelihood: Likelihood
    covariance: Tensor
    errors: str
    log_likelihood: float
    log_likelihood_without: float | None
    scores: Tensor
    information: Tensor
    observed: Tensor
    expected: Tensor
    unidentified: tuple[dict[str, float], ...]
    separated: tuple[dict[str, float], ...]
    falls: dict[str, tuple[float, float]]
    penalties: dict[str, float]
    demonstrations: int
    actions: int
    goals: Tensor | None
    dropped: int
    steps: int
    evaluations: int
    converged: bool
    reason: str

    @property
    def weights(self) -> dict[str, float]:
        """Name -> ψ, reward units per unit of the feature."""
        return dict(self.reward.weights or {})

    @property
    def std_errors(self) -> dict[str, float]:
        """Name -> standard error; NaN where the data do not determine the weight."""
        return standard_deviations(self.reward.names, self.covariance)

    @property
    def z(self) -> dict[str, float]:
        """Name -> weight over standard error."""
        errors = self.std_errors
        return {name: x / errors[name] for name, x in self.weights.items()}

    def intervals(self, level: float = 0.95) -> dict[str, tuple[float, float]]:
        """Name -> the ends of a normal interval.

        Args:
            level: how often it covers the truth in large samples.

        Raises:
            ValueError: if the level is not between 0 and 1.
        """
        return normal_intervals(self.weights, self.std_errors, level)

    @property
    def aic(self) -> float | None:
        """Akaike's criterion, 2 k - 2 log L; None for "matching", which maximises no likelihood."""
        return None if self.likelihood == "matching" else 2 * (self._free - self.log_likelihood)

    @property
    def bic(self) -> float | None:
        """Schwarz's criterion, k log n - 2 log L; None for "matching"."""
        if self.likelihood == "matching":
            return None
        return self._free * math.log(self.demonstrations) - 2 * self.log_likelihood

    @property
    def _free(self) -> int:
        if self.penalties:  # as many as are not zero (Zou, Hastie and Tibshirani 2007)
            return sum(x != 0 for x in self.weights.values())
        return len(self.reward.names) - len(self.unidentified) - len(self.separated)

    @cached_property
    def policy(self) -> Policy:
        """The policy of the demonstrator with the fitted reward, (t, s) -> distribution.

        Raises:
            ValueError: where each goal has another policy, as on a road network.
        """
        if isinstance(self.model, Streets):
            expected, came = "a model, which has a policy", "a road network, one for each goal"
            checks.refuse("model", expected, came, "take inference.routes(fitted, goals)")
        if self.goals is not None:
            came = "goals of their own, each with another policy"
            advice = "take soft_values(cai.with_goal(fitted.model, goal), …).policy"
            checks.refuse("goals", "one problem for all demonstrations", came, advice)
        return soft_values(self.model, self.optimism, self.rule).policy

    def to_dict(self) -> dict[str, Any]:
        """Weights, errors, likelihoods and the state of the search, as plain values."""
        low_high = self.intervals()
        return {
            "likelihood": self.likelihood,
            "optimism": self.optimism,
            "rule": self.rule,
            "errors": self.errors,
            "weights": {
                name: {
                    "weight": x,
                    "std_error": _finite(self.std_errors[name]),
                    "z": _finite(self.z[name]),
                    "interval": [_finite(end) for end in low_high[name]],
                }
                for name, x in self.weights.items()
            },
            "log_likelihood": self.log_likelihood,
            "log_likelihood_without": self.log_likelihood_without,
            "aic": self.aic,
            "bic": self.bic,
            "unidentified": list(self.unidentified),
            "separated": list(self.separated),
            "falls": {name: [_finite(x) for x in lost] for name, lost in self.falls.items()},
            "penalties": self.penalties,
            "demonstrations": self.demonstrations,
            "actions": self.actions,
            "dropped": self.dropped,
            "steps": self.steps,
            "evaluations": self.evaluations,
            "converged": self.converged,
            "reason": self.reason,
        }

    def to_dataframe(self) -> Any:
        """A pandas DataFrame, one row for each weight; what there is not is NaN.

        Its columns are "weight", "std_error", "z", and the 95% interval, "low" and "high".

        Raises:
            ValueError: if pandas is not installed.
        """
        low_high = [*self.intervals().values()]
        columns = {
            "weight": [*self.weights.values()],
            "std_error": [*self.std_errors.values()],
            "z": [*self.z.values()],
            "low": [low for low, _ in low_high],
            "high": [high for _, high in low_high],
        }
        return data_frame(columns, index=list(self.reward.names))

    def _title(self) -> str:
        on_roads = isinstance(self.model, Streets)
        many = data_size(self.demonstrations, self.actions, on_roads)
        if on_roads:  # where all objectives and optimisms are one
            return f"Utilities by the likelihood of routes: {many}"
        to = "" if self.goals is None else ", each to its goal"
        return f"{how_fitted(self.likelihood, self.optimism, self.rule)}{to}: {many}"

    def _cells(self) -> list[list[str]]:
        errors, z, ends = self.std_errors, self.z, self.intervals()
        rows = []
        for name, weight in self.weights.items():
            if math.isnan(errors[name]):
                rows.append([name, number(weight), "none", "", ""])
                continue
            low, high = ends[name]
            numbers = [number(weight), number(errors[name]), f"{z[name]:.1f}"]
            rows.append([name, *numbers, f"{number(low)} … {number(high)}"])
        return rows

    def _notes(self) -> list[str]:
        without = self.log_likelihood_without
        by = {"none": "no errors, since a penalty pulls weights to zero"}
        by |= {"clustered by group": "errors by scores clustered by group"}
        notes = [
            f"log-likelihood {round(self.log_likelihood, 1) + 0.0} nats"  # no minus zero
            + ("" if without is None else f", {without:.1f} without a reward")
            + ("" if self.aic is None else f"; AIC {self.aic:.1f}, BIC {self.bic:.1f}")
            + f"; {by.get(self.errors, f'errors by the {self.errors}')}."
        ]
        notes += [
            f"Not identified: {_spelt(combination)}; no error is given for it."
            for combination in self.unidentified
        ]
        notes += [
            f"No finite maximum: {_spelt(combination)}; what it rewards never occurs in the data, "
            "or always does. Give a prior, or leave the feature out."
            for combination in self.separated
        ]
        notes += [spelt_falls(name, *lost) for name, lost in self.falls.items()]
        if self.dropped:
            notes.append(f"{self.dropped} impossible demonstrations were left out.")
        if not self.converged:
            notes.append(f"Not converged: {self.reason}.")
        return notes


def _spelt(combination: dict[str, float]) -> str:
    """A combination of weights as a sum."""
    words = " ".join(f"{'-' if x < 0 else '+'} {abs(x):.3g} {k}" for k, x in combination.items())
    return words.removeprefix("+ ")


def _finite(x: float) -> float | None:
    return x if math.isfinite(x) else None
