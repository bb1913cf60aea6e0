"""Cutting planes for a margin: the worst policy of each example, then the program, and again."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cai.inference.margins._quadratic_program import with_slacks
from cai.inference.searches.rounds import Rounds

_ENOUGH = 1e-9  # of the largest violation, by which a policy must be better than those before
_PRECISE = 1e-6  # of the objective: by how much it may be above its bound at the end


class Cut(NamedTuple):
    """What holds the weights back, for each of m examples: row·ψ + constant ≤ its slack.

    Attributes:
        rows: (m, k), the features of the worst policy less those of the demonstration.
        constants: (m,), reward units: the same of what has no weight, and the loss.
    """

    rows: Tensor
    constants: Tensor


class GainsForEver(Exception):
    """There is a way to go on for ever that gains, unless row·ψ + constant ≤ 0.

    Args:
        row: (k,).
        constant: reward units.
    """

    def __init__(self, row: Tensor, constant: float) -> None:
        super().__init__("going on for ever gains")
        self.row, self.constant = row, constant


class MarginTask(ABC):
    """Examples, and how to plan against them.

    Attributes:
        names: of k features.
        scale: (k,), the spread of each.
        counts: (m,), how many demonstrations each example stands for.
        owners: (n,), which example each demonstration is part of.
        taken: (n, k), the features of each demonstration, summed.
        actions: how many there are in all.
    """

    names: tuple[str, ...]
    scale: Tensor
    counts: Tensor
    owners: Tensor
    taken: Tensor
    actions: int
    remarks: tuple[str, ...] = ()

    @property
    @abstractmethod
    def identity(self) -> dict[str, str]:
        """What tells the problem and its data from others, for a checkpoint."""

    @abstractmethod
    def worst(self, weights: Tensor) -> Cut:
        """What the best policies that are also paid for being different have more.

        Raises:
            GainsForEver: if there are none.
        """

    @abstractmethod
    def expected(self, weights: Tensor) -> Tensor:
        """(k,), the features of the best policies from where demonstrations begin, on average."""

    @abstractmethod
    def paying(self, weights: Tensor) -> tuple[Any, Any]:
        """The reward with its weights, and what pays it."""


class CuttingPlanes(Rounds):
    """The weights of the largest margin.

    Args:
        task: what is to be told apart from all other policies.
        slack: the price C of a unit of slack.
        steps: rounds, at most.

    Attributes:
        history: the objective at the weights of each round; inf where going on for ever gains.
        weights: (k,), those of the lowest objective.
        slacks: (m,), of the examples there.
        objective: there.
        bound: below the minimum.
    """

    held = (
        *("weights", "slacks", "objective", "bound"),
        *("_rows", "_rays", "_constants", "_gains", "_owners"),
    )

    def __init__(self, task: MarginTask, slack: float, steps: int) -> None:
        super().__init__("max_margin", steps)
        k, m = len(task.names), len(task.counts)
        self.task, self._prices = task, slack * task.counts.numpy()
        self.weights, self.slacks = torch.zeros(k).double(), torch.zeros(m).double()
        self.objective, self.bound = math.inf, 0.0
        self._scale = task.scale.numpy()
        self._rows, self._rays = np.empty((0, k)), np.empty((0, k))
        self._constants, self._gains = np.empty(0), np.empty(0)
        self._owners = np.empty(0, dtype=np.int64)

    def step(self) -> None:
        """Solves the program of all policies so far, and looks for worse ones.

        Raises:
            ValueError: if clarabel is not installed, or going on for ever gains whatever is paid.
        """
        theta, xi, self.bound = with_slacks(
            *(self._rows, self._constants, self._owners, self._prices),
            *(self._rays, self._gains),
        )
        weights = torch.from_numpy(theta / self._scale)
        self.done += 1
        try:
            rows, constants = self.task.worst(weights)
        except GainsForEver as found:
            self.history.append(math.inf)
            self._forbid(found.row.numpy() / self._scale, found.constant)
            return
        short = (rows @ weights + constants).clamp(min=0.0).numpy()
        value = 0.5 * float(theta @ theta) + float(self._prices @ short)
        self.history.append(value)
        if value < self.objective:
            self.weights, self.objective = weights, value
            self.slacks = torch.from_numpy(short)
        self._add(rows.numpy() / self._scale, constants.numpy(), short - xi, short)

    def _forbid(self, ray: Any, gain: float) -> None:
        size = max(float(np.abs(ray).max()), abs(gain))
        if size == 0:
            self.end("going round costs nothing that the program could see")
            return
        self._rays = np.vstack([self._rays, ray / size])
        self._gains = np.r_[self._gains, gain / size]

    def _add(self, rows: Any, constants: Any, above: Any, short: Any) -> None:
        """The policies that violate the margin by more than those before."""
        which = np.flatnonzero(above > _ENOUGH * max(1.0, float(short.max())))
        held = {(j, *row) for j, row in zip(self._owners, self._rounded(), strict=True)}
        new = np.column_stack([rows, constants])[which].round(9)
        which = which[[(j, *row) not in held for j, row in zip(which, new.tolist(), strict=True)]]
        if not len(which):
            gap, size = self.objective - self.bound, max(1.0, abs(self.objective))
            said = "no policy comes nearer than those in the program"
            if gap > _PRECISE * size:
                said += f", which clarabel solved to {gap:.2g} only"
            self.end(said, gap <= _PRECISE * size)
            return
        self._rows = np.vstack([self._rows, rows[which]])
        self._constants = np.r_[self._constants, constants[which]]
        self._owners = np.r_[self._owners, which]

    def _rounded(self) -> list[list[float]]:
        return np.column_stack([self._rows, self._constants]).round(9).tolist()
