"""What was seen of each trajectory, with integers or with vectors, and at which step it began."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cai import checks
from cai.demonstrations.demonstrations import Demonstrations
from cai.program.trajectories import Trajectories


@dataclass(frozen=True, eq=False)
class Prefixes:
    """The beginnings of n trajectories, of up to L actions.

    Attributes:
        states: (n, L+1) + event shape; after the end of each anything.
        actions: (n, L) + event shape.
        lengths: (n,), the number of actions of each.
        own: (n,), boolean: those that are whole, with their length as horizon.
        terminated: (n,), boolean: those that the discount terminated after their last action.
    """

    states: Tensor
    actions: Tensor
    lengths: Tensor
    own: Tensor
    terminated: Tensor

    @property
    def taken(self) -> Tensor:
        """(n, L), boolean: which steps were seen."""
        return torch.arange(self.actions.shape[1]) < self.lengths.unsqueeze(1)

    @property
    def survived(self) -> Tensor:
        """(n, L), boolean: the steps after which nothing had terminated it."""
        last = torch.arange(self.actions.shape[1]) == self.lengths.unsqueeze(1) - 1
        return ~(last & self.terminated.unsqueeze(1))

    @property
    def integers(self) -> bool:
        """Whether states and actions are numbers of a table."""
        return not (self.states.is_floating_point() or self.actions.is_floating_point())

    def at(self, horizon: int | None) -> Tensor:
        """(n, L), the step of the problem that each action belongs to; 0 if all are alike."""
        L = self.actions.shape[1]
        if horizon is None:
            return torch.zeros(len(self.lengths), L, dtype=torch.int64)
        first = torch.where(self.own, horizon - self.lengths, 0)
        return first.unsqueeze(1) + torch.arange(L)


def prefixes(given: Any) -> Prefixes:
    """What was seen, of demonstrations or of simulated trajectories.

    Raises:
        ValueError: if it is neither.
    """
    if isinstance(given, Trajectories):
        if not given.states.is_floating_point() and not given.actions.is_floating_point():
            return prefixes(Demonstrations.from_trajectories(given))
        lengths = given.alive[:, :-1].sum(1)
        never = torch.zeros(len(lengths), dtype=torch.bool)
        return Prefixes(given.states, given.actions, lengths, never, ~given.alive.all(1))
    advice = "cai.Demonstrations.from_paths([[0, 1, 2]], [[1, 1]]) is one of two actions"
    kinds = "cai.Demonstrations or trajectories"
    checks.check_kind("prefix", given, Demonstrations, kinds, advice)
    ends = given.ending("own"), given.ending("terminated")
    return Prefixes(given.states, given.actions, given.lengths, *ends)
