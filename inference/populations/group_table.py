"""The weights of several demonstrators, one by one and as a table."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cai.evaluation.spelling import PrintedTable, number
from cai.inference.scoring.normal_intervals import normal_intervals
from cai.rewards.linear_reward import LinearReward


@dataclass(frozen=True, eq=False, kw_only=True)
class GroupWeights:
    """The weights of one demonstrator.

    Attributes:
        reward: with its weights.
        covariance: (k, k), of these.
        std_devs: name -> standard deviation.
        demonstrations: how many there are of it.
    """

    reward: LinearReward
    covariance: Tensor
    std_devs: dict[str, float]
    demonstrations: int

    @property
    def weights(self) -> dict[str, float]:
        """Name -> ψ, reward units per unit of the feature."""
        return dict(self.reward.weights or {})

    def intervals(self, level: float = 0.95) -> dict[str, tuple[float, float]]:
        """Name -> the ends of a normal interval.

        Raises:
            ValueError: if the level is not between 0 and 1.
        """
        return normal_intervals(self.weights, self.std_devs, level)


@dataclass(frozen=True, eq=False, repr=False)
class GroupTable(PrintedTable):
    """Demonstrators and their weights, a row for each.

    Attributes:
        groups: label -> its weights.
        dropped: how many demonstrations were left out as impossible.
        remarks: what to know of the weights, a sentence each.
    """

    headings = ("group", "demonstrations")

    groups: dict[Hashable, GroupWeights]
    dropped: int
    remarks: list[str]

    def _heading(self) -> tuple[str, ...]:
        names = next(iter(self.groups.values())).weights
        return (*self.headings, *(x for name in names for x in (name, "95% interval")))

    def to_dict(self) -> dict[str, Any]:
        """Each demonstrator, as plain values; labels as texts."""
        found = {}
        for label, one in self.groups.items():
            ends = one.intervals()
            weights = {
                name: {"weight": x, "std_dev": one.std_devs[name], "interval": list(ends[name])}
                for name, x in one.weights.items()
            }
            found[str(label)] = {"demonstrations": one.demonstrations, "weights": weights}
        return {"groups": found}

    def _title(self) -> str:
        return f"Weights of {len(self.groups)} demonstrators, each drawn to the population"

    def _cells(self) -> list[list[str]]:
        rows = []
        for label, one in self.groups.items():
            ends, cells = one.intervals(), [str(label), str(one.demonstrations)]
            for name, x in one.weights.items():
                cells += [number(x), spelt_interval(ends[name])]
            rows.append(cells)
        return rows

    def _notes(self) -> list[str]:
        none = [str(label) for label, one in self.groups.items() if not one.demonstrations]
        if not none:
            return self.remarks
        named = f"Without demonstrations, so with the population's weights: {', '.join(none)}."
        return [named, *self.remarks]


def spelt_interval(ends: tuple[float, float]) -> str:
    """Both ends of an interval, for a table."""
    return " … ".join(map(number, ends))
