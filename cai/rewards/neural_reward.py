"""Rewards that are torch modules."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cai import checks, one_line
from cai.program.calling import call
from cai.program.trajectory import TrajectoryModel
from cai.rewards.places import endless, evaluated, pairs, possible, triples, value_at
from cai.rewards.reward_arrays import RewardArrays
from cai.tables.table import Table
from cai.tables.tabulation import replaced


@dataclass(frozen=True, eq=False)
class NeuralReward:
    """A reward with the parameters of torch modules.

        r(s,a) = offset(s,a) + module(s,a),    r⁺(s,a,s') = arrival(s,a,s')

    Args:
        module: a torch module of states and actions, integers of any batch shape, that returns one
            number for each; or None, if all is paid on arrival.
        arrival: a torch module of (s, a, s'), likewise, paid on arrival; or None.
        offset: the part without parameters: a function of (s, a), a tensor (S, A), or a number,
            reward units.
        unpaid: (S,), boolean: states in which nothing is paid but the offset; None for none.
            ``fit_reward`` sets it for absorbing states of an infinite horizon without a discount.

    Raises:
        ValueError: if there is no module, one is of another kind, or none has parameters.

    >>> import torch, cai
    >>> class Features(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.net = torch.nn.Sequential(
    ...             torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)
    ...         )
    ...
    ...     def forward(self, s, a):
    ...         s, a = torch.broadcast_tensors(s, a)
    ...         return self.net(torch.stack([s / 5, a.float()], -1)).squeeze(-1)
    >>> reward = cai.NeuralReward(Features())
    >>> reward(torch.arange(5), torch.tensor(1)).shape
    torch.Size([5])
    """

    module: nn.Module | None
    arrival: nn.Module | None = None
    offset: Any = 0.0
    unpaid: Tensor | None = None

    __repr__ = one_line.of_fields

    def __post_init__(self) -> None:
        held = {"module": self.module, "arrival": self.arrival}
        given = {name: x for name, x in held.items() if x is not None}
        for name, x in given.items():
            advice = "a function whose parameters are trained is the forward of a torch.nn.Module"
            checks.check_kind(name, x, nn.Module, "a torch.nn.Module", advice)
        if not any(p.requires_grad for x in given.values() for p in x.parameters()):
            came = "none" if given else "no module"
            checks.refuse("module", "parameters that require grad", came, "such as nn.Linear has")

    def __call__(self, s: Tensor, a: Tensor) -> Tensor:
        """r(s,a), reward units, with its graph."""
        known = value_at(self.offset, s, a)
        if self.module is None:
            return known + torch.zeros(torch.broadcast_shapes(s.shape, a.shape)).double()
        return known + self._where_paid(self.module(s, a).double(), s)

    def on_arrival(self, s: Tensor, a: Tensor, s_next: Tensor) -> Tensor:
        """r⁺(s,a,s'), reward units, with its graph."""
        if self.arrival is None:
            return torch.zeros((), dtype=torch.float64)
        return self._where_paid(self.arrival(s, a, s_next).double(), s)

    def given_to(self, model: TrajectoryModel) -> TrajectoryModel:
        """A model with these rewards in place of its own; its final reward stays."""
        arrival = None if self.arrival is None else self.on_arrival
        return replaced(model, reward=self, arrival_reward=arrival)

    def on(self, table: Table) -> RewardArrays:
        """The reward of all states and actions of a table, with a copy of the modules to train.

        Raises:
            ValueError: if a module raises, returns another shape, or is not finite.
        """
        arrays = _OfModules(self, table)
        arrays.check()
        return arrays

    def _where_paid(self, found: Tensor, s: Tensor) -> Tensor:
        return found if self.unpaid is None else torch.where(self.unpaid[s.long()], 0.0, found)


class _OfModules(RewardArrays):
    """Copies of modules, asked at all states and actions."""

    def __init__(self, reward: NeuralReward, table: Table) -> None:
        super().__init__(table, evaluated("offset", reward.offset, *pairs(table)))
        self.known = reward.offset
        self.module, self.arrival = copy.deepcopy((reward.module, reward.arrival))
        self.pairs, self.triples, self.possible = pairs(table), triples(table), possible(table)
        self.unpaid = ~self.lasting if endless(table) else reward.unpaid

    def paid(self) -> tuple[Tensor | None, Tensor | None]:
        """By one call of each; raises ValueError if a number is not finite."""
        reward = arrival = None
        if self.module is not None:
            reward = _finite("module", _asked("module", self.module, self.pairs))
        if self.arrival is not None:
            found = _asked("arrival", self.arrival, self.triples)
            arrival = _finite("arrival", torch.where(self.possible, found, 0.0))
        return reward, arrival

    def check(self) -> None:
        """Raises ValueError if the parameters change nothing."""
        if not any(found is not None and found.requires_grad for found in self.paid()):
            advice = "no detach(), no_grad() or item() in its forward"
            checks.refuse("module", "a reward that depends on parameters", "a constant one", advice)

    def trained(self) -> NeuralReward:
        """With the copies, as they are now."""
        return NeuralReward(self.module, self.arrival, self.known, self.unpaid)


def _asked(where: str, module: nn.Module, at: tuple[Tensor, ...]) -> Tensor:
    found: Any = call(where, module, *at)
    if not isinstance(found, Tensor) or found.shape != at[0].shape or found.is_complex():
        expected = f"one real number for each of shape {list(at[0].shape)}"
        advice = "end with squeeze(-1), and broadcast_tensors(s, a) at the beginning"
        came = f"{checks.described(found)}, {getattr(found, 'dtype', 'no tensor')}"
        checks.refuse(where, expected, came, advice)
    return found.double()


def _finite(where: str, found: Tensor) -> Tensor:
    """What a module pays; -inf for all actions would leave them as they are without a reward."""
    if not found.isfinite().all():
        advice = "look for 0/0 or a logarithm of zero in it"
        checks.refuse(where, "finite numbers", "others among them", advice)
    return found
