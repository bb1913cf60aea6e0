"""Margins on a table: the policies that are worst for demonstrations, by planning."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cai import checks
from cai.demonstrations.demonstrations import Demonstrations
from cai.inference.apprenticeship.examples import Examples
from cai.inference.margins._cutting_planes import Cut, GainsForEver, MarginTask
from cai.inference.searches.search_file import digest
from cai.numerics import arrays
from cai.program.trajectory import TrajectoryModel
from cai.rewards.linear_reward import LinearReward
from cai.tables.table import Table


class TableMargins(MarginTask):
    """Demonstrations of a table, each against all policies from where it begins.

    Args:
        model: a model, or its table.
        demonstrations: of it.
        reward: a linear one.
        loss: what it is worth to take a demonstrated action, a number or (S, A).
        by_start: whether those that begin alike are one example.
        on_impossible: "error" or "drop".
    """

    def __init__(
        self,
        model: TrajectoryModel | Table,
        demonstrations: Demonstrations,
        reward: Any,
        loss: Any,
        by_start: bool,
        on_impossible: str,
    ) -> None:
        self._of = of = Examples(model, demonstrations, reward, on_impossible)
        self._loss = losses(loss, (of.table.num_states, of.table.num_actions))
        self.names, self.scale, self.taken = of.names, of.scale, of.taken
        self.actions = int(of.demonstrations.lengths.sum())
        self.remarks = of.remarks
        self._groups = of.groups(by_start)
        self.counts = torch.tensor([len(who) for who in self._groups], dtype=torch.float64)
        self.owners = torch.empty(len(of), dtype=torch.long)
        for j, who in enumerate(self._groups):
            self.owners[who] = j

    @property
    def identity(self) -> dict[str, str]:
        """See :meth:`MarginTask.identity`."""
        return self._of.identity | {"loss": digest(self._loss, self.owners)}

    def worst(self, weights: Tensor) -> Cut:
        """See :meth:`MarginTask.worst`."""
        of = self._of
        worth, own = of.worth(weights), of.counted(self._loss)
        if (around := of.planner.gaining(worth)) is not None:
            raise GainsForEver(of.features_of(around), float((around[0] * of.offset).sum()))
        lowered = [worth - self._loss * share for share in of.demonstrated(self._groups)]
        begin = torch.stack([of.begin(who[:1]) for who in self._groups])
        rows, constants = [], []
        found = of.planner.best_of_each(lowered, begin)
        for who, (value, visits) in zip(self._groups, found, strict=True):
            f = of.features_of(visits)
            rows.append(f - of.taken[who].mean(0))
            constants.append(value - f @ weights - (of.known - own)[who].mean())
        return Cut(torch.stack(rows), torch.stack(constants))

    def expected(self, weights: Tensor) -> Tensor:
        """See :meth:`MarginTask.expected`."""
        of = self._of
        if of.planner.gaining(of.worth(weights)) is not None:
            return torch.full_like(weights, torch.nan)
        visits = of.planner.best(of.worth(weights), of.begin()).visits
        return of.features_of(visits) / len(of)

    def paying(self, weights: Tensor) -> tuple[LinearReward, Any]:
        """See :meth:`Examples.paying`."""
        return self._of.paying(weights)


def losses(loss: Any, shape: tuple[int, ...]) -> Tensor:
    """What it is worth to take each demonstrated action, of a shape.

    Raises:
        ValueError: if it is not one number for each, finite and not negative.
    """
    found = arrays.numbers("loss", loss, "a number, or one for each action")
    if found.shape not in ((), shape):
        advice = "one number, or one for each"
        checks.refuse("loss", f"shape {list(shape)}", checks.described(found), advice)
    if not found.isfinite().all() or (found < 0).any() or not found.any():
        advice = "1 counts actions that differ; a margin of zero has weights of zero"
        checks.refuse("loss", "finite numbers of at least 0, not all 0", "others", advice)
    return found.expand(shape)
