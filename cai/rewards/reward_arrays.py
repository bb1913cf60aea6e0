"""Rewards with parameters, on the states and actions of a table."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from cai.rewards.places import lasting
from cai.tables.table import Table


class RewardArrays(nn.Module, ABC):
    """A reward with parameters that can be trained, on a table.

    Args:
        table: the problem.
        offset: (S, A), reward units, the part without parameters.
    """

    def __init__(self, table: Table, offset: Tensor) -> None:
        super().__init__()
        self.offset = offset
        self.lasting = lasting(table)

    @abstractmethod
    def paid(self) -> tuple[Tensor | None, Tensor | None]:
        """r (S, A) without the offset, and r⁺ (S, A, K), differentiable; None where zero."""

    @abstractmethod
    def trained(self) -> Any:
        """The reward with the parameters as they are now, as a function of states and actions."""

    def rewards(self, table: Table) -> Table:
        """A table with these rewards, which require grad."""
        reward, arrival = self.paid()
        pays = self.lasting.unsqueeze(1)
        found = self.offset
        if reward is not None:
            found = found + torch.where(pays, reward, 0.0)
        if arrival is not None:
            arrival = torch.where(pays.unsqueeze(-1), arrival, 0.0)
        return table.holding(reward=found, arrival_reward=arrival, program=None)
