"""The result that all methods beside likelihood share: a reward, and which exact answer it has."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from cai import checks
from cai.evaluation.spelling import PrintedTable, data_size, number
from cai.inference.exact.soft_values import soft_values
from cai.numerics.exclusive import cached_property
from cai.program.interfaces import Policy
from cai.program.trajectory import TrajectoryModel
from cai.rewards.linear_reward import LinearReward
from cai.roads.network import Streets
from cai.tables.table import Table


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class LearnedReward(PrintedTable):
    """A linear reward that was learnt by another method than likelihood.

    It prints as a table of weights and moments, and exports to HTML (in a notebook), a dict, JSON
    and Markdown. ``cai.compare`` takes it, since it has a policy.

    Attributes:
        reward: with its weights, reward units per unit of each feature.
        model: the model, or the table, with that reward; or the road network.
        method: its name in the literature.
        converges_to: which exact answer it should come to, and when.
        observed: (k,), the features of a demonstration, summed, on average.
        expected: (k,), the same where the policy of the learnt reward is followed; NaN where this
            was not computed.
        history: (m,), what was minimised or maximised, at each step.
        history_name: what that is, with its unit.
        demonstrations: n.
        actions: how many actions they have.
        steps: of the search.
        converged: whether it ended since nothing more was to be gained.
        reason: why it ended.
        remarks: what a reader should know of this run, a sentence each.
    """

    headings: ClassVar[tuple[str, ...]] = ("", "weight", "observed", "expected")

    reward: LinearReward
    model: TrajectoryModel | Table | Streets
    method: str
    converges_to: str
    observed: Tensor
    expected: Tensor
    history: Tensor
    history_name: str
    demonstrations: int
    actions: int
    steps: int
    converged: bool
    reason: str
    remarks: tuple[str, ...] = ()

    @property
    def weights(self) -> dict[str, float]:
        """Name -> ψ, reward units per unit of the feature."""
        return dict(self.reward.weights or {})

    @cached_property
    def policy(self) -> Policy:
        """The soft policy with the true dynamics for this reward, (t, s) -> distribution.

        Raises:
            ValueError: on a road network, where each goal has another one.
        """
        return soft_values(self._one_model()).policy

    def _one_model(self) -> TrajectoryModel | Table:
        """The model, which has one policy.

        Raises:
            ValueError: for a road network, where each goal has another one.
        """
        if isinstance(self.model, Streets):
            expected, came = "a model, which has a policy", "a road network, one for each goal"
            checks.refuse("model", expected, came, "inference.route_table predicts routes")
        return self.model

    def to_dict(self) -> dict[str, Any]:
        """Weights, moments and the state of the search, as plain values."""
        moments = {"observed": self.observed, "expected": self.expected}
        found = {
            name: dict(zip(self.weights, _plain(x), strict=True)) for name, x in moments.items()
        }
        return {
            "method": self.method,
            "converges_to": self.converges_to,
            "weights": self.weights,
            **found,
            self.history_name: _plain(self.history),
            "demonstrations": self.demonstrations,
            "actions": self.actions,
            "steps": self.steps,
            "converged": self.converged,
            "reason": self.reason,
            "remarks": list(self.remarks),
        }

    def _title(self) -> str:
        on_roads = isinstance(self.model, Streets)
        many = data_size(self.demonstrations, self.actions, on_roads)
        return f"Reward by {self.method}: {many}"

    def _cells(self) -> list[list[str]]:
        moments = torch.stack([self.observed, self.expected], 1).tolist()
        return [
            [name, number(weight), *(number(None if math.isnan(x) else x) for x in row)]
            for (name, weight), row in zip(self.weights.items(), moments, strict=True)
        ]

    def _notes(self) -> list[str]:
        notes = [f"Converges to {self.converges_to}.", *self.remarks]
        if not self.converged:
            notes.append(f"Not converged: {self.reason}.")
        return notes


def _plain(x: Tensor) -> list[float | None]:
    return [y if math.isfinite(y) else None for y in x.tolist()]
