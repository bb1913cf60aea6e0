"""How models of routes did on trips that they had not seen, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cai.evaluation.spelling import PrintedTable, number
from cai.inference.inverse.reward_fit import RewardFit

_ENOUGH = 0.9 - 1e-9  # of the length of a trip


@dataclass(frozen=True, eq=False, repr=False)
class RouteTable(PrintedTable):
    """Models of routes, a row each, on n trips that they were not fitted to.

    It prints as a table, and exports to HTML (in a notebook), a dict, JSON and Markdown.

    Attributes:
        shares: name of the row -> (n,), the share of the length of each trip that is on the most
            probable route; a segment that is driven twice is shared once.
        log_probabilities: name of the row -> (n,), nats: log P of each trip; None for "shortest"
            and "max margin".
        weights: name of the row -> name of the feature -> weight, of the models that have some.
        cost: the feature that "shortest" minimises.
        measured: what lengths are.
        train: to how many trips models were fitted.
        fitted: the fit of MaxEnt.

    >>> from cai import inference, models
    >>> town = models.streets_from_columns(
    ...     {"tail": list("oaabc"), "head": list("abccd"), "minutes": [1.0, 1.0, 2.5, 1.0, 1.0]}
    ... )
    >>> rows = {"trip": [0] * 4 + [1] * 3, "u": list("oabcoac"), "v": list("abcdacd")}
    >>> trips = town.demonstrations(rows, segment=("u", "v"))
    >>> inference.route_table(town, trips, trips).matched_90["shortest"]
    0.5
    """

    headings = ("", "matched distance", "90% matched", "log probability")

    shares: Mapping[str, Tensor]
    log_probabilities: Mapping[str, Tensor | None]
    weights: Mapping[str, Mapping[str, float]]
    cost: str
    measured: str
    train: int
    fitted: RewardFit

    @property
    def matched(self) -> dict[str, float]:
        """Name of the row -> the mean share of the length that is matched."""
        return {name: float(x.mean()) for name, x in self.shares.items()}

    @property
    def matched_90(self) -> dict[str, float]:
        """Name of the row -> the share of trips of which at least 90% is matched."""
        return {name: float((x >= _ENOUGH).double().mean()) for name, x in self.shares.items()}

    @property
    def log_probability(self) -> dict[str, float | None]:
        """Name of the row -> nats, the mean log P of a trip; None where there is none."""
        each = self.log_probabilities.items()
        return {name: None if x is None else float(x.mean()) for name, x in each}

    @property
    def test(self) -> int:
        """How many trips were predicted."""
        return len(next(iter(self.shares.values())))

    def to_dict(self) -> dict[str, Any]:
        """{"rows": {name: {column: number or None}}, "weights", …}, as plain values."""
        columns: dict[str, Mapping[str, float | None]] = {
            "matched": self.matched,
            "matched_90": self.matched_90,
            "log_probability": self.log_probability,
        }
        return {
            "rows": {name: {k: x[name] for k, x in columns.items()} for name in self.shares},
            "weights": {name: dict(x) for name, x in self.weights.items()},
            "cost": self.cost,
            "measured": self.measured,
            "train": self.train,
            "test": self.test,
        }

    def _title(self) -> str:
        return f"Predicted routes of {self.test} trips, by models of {self.train} others"

    def _cells(self) -> list[list[str]]:
        matched, most, log_p = self.matched, self.matched_90, self.log_probability
        return [
            [name, f"{matched[name]:.1%}", f"{most[name]:.1%}", number(log_p[name])]
            for name in self.shares
        ]

    def _notes(self) -> list[str]:
        widest = " max margin: largest utility;" if "max margin" in self.shares else ""
        return [
            "matched distance: share of a trip that is on the most probable route "
            f"({self.measured});",
            "90% matched: share of trips with at least 90%; log probability: nats a trip, given",
            f"where it begins and ends. shortest: least {self.cost};{widest}",
            "action: turns by counts, without the goal; action's costs: Boltzmann in Q*;",
            "MaxEnt: whole routes.",
        ]
