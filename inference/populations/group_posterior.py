"""The result for several demonstrators: their population, and the weights of each one."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cai import checks
from cai.evaluation.spelling import PrintedTable, data_size, number
from cai.frames.data_frame import data_frame
from cai.inference.inverse.reward_fit import Likelihood
from cai.inference.populations.group_table import (
    GroupTable,
    GroupWeights,
    spelt_interval,
)
from cai.inference.scoring.normal_intervals import normal_intervals, standard_deviations
from cai.program.trajectory import TrajectoryModel
from cai.rewards.linear_reward import LinearReward
from cai.roads.network import Streets
from cai.tables import bellman
from cai.tables.table import Table


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class GroupPosterior(PrintedTable):
    """Demonstrators with weights ψ_d ~ N(μ, Σ): the population, and each of them.

    It prints as a table of the population; ``by_group`` is that of the demonstrators. Both export
    to HTML (in a notebook), a dict, JSON and Markdown. ``found[label]`` is one demonstrator;
    :func:`cai.plot.estimates` draws it, and the population, and :func:`cai.plot.by_group` all of
    them.

    μ and Σ are those of empirical Bayes. Their errors are part of all intervals, to first order
    (Kass and Steffey 1989); with a handful of demonstrators these are still somewhat too short.

    Attributes:
        reward: with the mean μ as its weights, reward units per unit of each feature.
        model: the model, or the table, with that reward; or the road network.
        labels: D, of the demonstrators.
        optimism: η of the demonstrators.
        rule: how they choose actions.
        likelihood: "actions" or "paths".
        mean: (k,), μ.
        covariance: (k, k), Σ.
        mean_covariance: (k, k), of the estimate of μ.
        group_weights: (D, k), the mode of each demonstrator under N(μ, Σ).
        group_covariances: (D, k, k), of the weights of each one, the errors of μ and Σ included.
        counts: (D,), how many demonstrations of each; one with none has the population's weights.
        history: (steps,), nats, up to a constant: the log-probability of μ, Σ and the
            demonstrations at each step, by Laplace's approximation.
        actions: how many actions the demonstrations have.
        dropped: how many demonstrations were left out as impossible.
        steps: of EM.
        converged: whether a further step would change next to nothing.
        reason: why it ended.
        falls: label -> name -> nats that the posterior of a demonstrator loses at one standard
            deviation below and above its mode, where that is far from the half nat of a normal
            distribution: Laplace's approximation does not hold there.

    >>> import torch, cai
    >>> from cai import inference, models
    >>> model = models.ledge()
    >>> paths = model.simulate(lambda t, s: model.prior(s), 40, seed=0)
    >>> who = ["Ann", "Bob", "Cy", "Dee"] * 10
    >>> seen = cai.Demonstrations.from_trajectories(paths, groups=who)
    >>> reward = cai.LinearReward({"state": lambda s, a: s})
    >>> found = inference.reward_posterior(model, seen, reward, groups=[*"ABC", *who[:4]])
    >>> found["A"].weights == found.weights  # without demonstrations
    True
    """

    headings = ("", "mean", "std. error", "95% interval", "spread")

    reward: LinearReward
    model: TrajectoryModel | Table | Streets
    labels: tuple[Hashable, ...]
    optimism: float
    rule: bellman.Rule
    likelihood: Likelihood
    mean: Tensor
    covariance: Tensor
    mean_covariance: Tensor
    group_weights: Tensor
    group_covariances: Tensor
    counts: Tensor
    history: Tensor
    actions: int
    dropped: int
    steps: int
    converged: bool
    reason: str
    falls: dict[Hashable, dict[str, tuple[float, float]]]

    @property
    def weights(self) -> dict[str, float]:
        """Name -> μ, reward units per unit of the feature."""
        return dict(zip(self.reward.names, self.mean.tolist(), strict=True))

    @property
    def std_errors(self) -> dict[str, float]:
        """Name -> the standard error of μ."""
        return standard_deviations(self.reward.names, self.mean_covariance)

    @property
    def spreads(self) -> dict[str, float]:
        """Name -> the standard deviation of the weight in the population, √Σ."""
        return standard_deviations(self.reward.names, self.covariance)

    def intervals(self, level: float = 0.95) -> dict[str, tuple[float, float]]:
        """Name -> the ends of a normal interval of μ.

        Args:
            level: how often it covers the mean of the population in large samples.

        Raises:
            ValueError: if the level is not between 0 and 1.
        """
        return normal_intervals(self.weights, self.std_errors, level)

    @property
    def by_group(self) -> GroupTable:
        """The demonstrators, as a table."""
        return GroupTable(
            {label: self[label] for label in self.labels}, self.dropped, self._irregular()
        )

    def __getitem__(self, label: Hashable) -> GroupWeights:
        """One demonstrator.

        Raises:
            ValueError: if there is none of that name.
        """
        if label not in self.labels:
            there = ", ".join(map(repr, self.labels[:5])) + (", …" if len(self.labels) > 5 else "")
            checks.refuse("found[…]", "the label of a group", repr(label), f"there are {there}")
        d = self.labels.index(label)
        names, x = self.reward.names, self.group_weights[d]
        return GroupWeights(
            reward=self.reward.weighted(x),
            covariance=self.group_covariances[d],
            demonstrations=int(self.counts[d]),
            std_devs=standard_deviations(names, self.group_covariances[d]),
        )

    def to_dict(self) -> dict[str, Any]:
        """The population and the demonstrators, as plain values."""
        errors, spread, ends = self.std_errors, self.spreads, self.intervals()
        return {
            "likelihood": self.likelihood,
            "optimism": self.optimism,
            "rule": self.rule,
            "population": {
                name: {
                    "mean": x,
                    "std_error": errors[name],
                    "interval": list(ends[name]),
                    "spread": spread[name],
                }
                for name, x in self.weights.items()
            },
            "covariance": self.covariance.tolist(),
            "groups": self.by_group.to_dict()["groups"],
            "demonstrations": int(self.counts.sum()),
            "actions": self.actions,
            "dropped": self.dropped,
            "steps": self.steps,
            "converged": self.converged,
            "reason": self.reason,
            "not_normal": {str(label): sorted(falls) for label, falls in self.falls.items()},
        }

    def to_dataframe(self) -> Any:
        """A pandas DataFrame, one row for each demonstrator and weight.

        Its columns are "group", "feature", "demonstrations", "weight", "std_dev", "low", "high".

        Raises:
            ValueError: if pandas is not installed.
        """
        columns = ["group", "feature", "demonstrations", "weight", "std_dev", "low", "high"]
        rows = []
        for label in self.labels:
            one = self[label]
            ends = one.intervals()
            for name, x in one.weights.items():
                known = (one.demonstrations, x, one.std_devs[name])
                rows.append((label, name, *known, *ends[name]))
        return data_frame(rows, columns=columns)

    def _irregular(self) -> list[str]:
        """What to say of demonstrators around whose mode the posterior is not normal."""
        if not self.falls:
            return []
        names = ", ".join(dict.fromkeys(name for falls in self.falls.values() for name in falls))
        there = [str(label) for label in self.falls]
        who = ", ".join(there[:5]) + (", …" if len(there) > 5 else "")
        return [
            f"Do not trust {names} of {len(there)} of {len(self.labels)} demonstrators ({who}): "
            "their posterior is not normal around its mode, which perhaps lies near weights for "
            "which the model has no values. Take other features, or fewer groups."
        ]

    def _title(self) -> str:
        on_roads = isinstance(self.model, Streets)
        many = data_size(int(self.counts.sum()), self.actions, on_roads)
        return f"Population of {len(self.labels)} demonstrators: {many}"

    def _cells(self) -> list[list[str]]:
        errors, spread, ends = self.std_errors, self.spreads, self.intervals()
        return [
            [
                name,
                number(x),
                number(errors[name]),
                spelt_interval(ends[name]),
                number(spread[name]),
            ]
            for name, x in self.weights.items()
        ]

    def _notes(self) -> list[str]:
        notes = ["spread: the standard deviation of the weight from one demonstrator to another."]
        if none := int((self.counts == 0).sum()):
            notes.append(
                f"{none} of them without demonstrations: they get the population's weights."
            )
        if self.dropped:
            notes.append(f"{self.dropped} impossible demonstrations were left out.")
        notes += self._irregular()
        if not self.converged:
            notes.append(f"Not converged: {self.reason}.")
        return notes
