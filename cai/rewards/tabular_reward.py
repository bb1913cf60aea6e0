"""Rewards that are free: one number for each state and action, each state, or each arrival."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from cai import checks, one_line
from cai.program.trajectory import TrajectoryModel
from cai.rewards.places import evaluated, pairs, possible, value_at
from cai.rewards.reward_arrays import RewardArrays
from cai.tables.table import Table
from cai.tables.tabulation import replaced

Of: TypeAlias = Literal["action", "state", "arrival"]


@dataclass(frozen=True, eq=False)
class TabularReward:
    r"""A reward without features: one free number for each state and action.

    ==========  ==================================================================
    ``of``      what is free
    ==========  ==================================================================
    "action"    r(s,a)
    "state"     r(s)
    "arrival"   r⁺(s,a,s'), paid on arrival; for each successor that is possible
    ==========  ==================================================================

    Actions never determine all of it, however many are seen. Any positive policy is explained by
    any values V: r = α log π/p + V - cont_η(V), where cont_η is the expectation of what follows, in
    Q. So of a free r(s,a) there remain unidentified, at every optimism η:

    * infinite horizon: one direction for each state that is not absorbing;
    * finite horizon T ≥ 2, the same reward at every step: in general the constant alone, since all
      trajectories have T actions;
    * T = 1: any function of the state.

    The likelihood of paths at η ≠ 0 takes next states for a choice, too. On stochastic dynamics it
    then claims to know the directions of an infinite horizon as well: by assumption.

    A fit therefore returns one of many rewards that explain the data equally well: that which is
    reached from zero, or the one that a ``prior`` prefers. Two of them may advise differently where
    dynamics change. Actions that nobody took have no finite maximum either: without a prior their
    rewards fall for ever, by less and less. There are no standard errors; for contrasts that are
    identified, take a :class:`cai.LinearReward` with few features.

    Args:
        of: what the reward is a function of, see above.
        offset: the part that is known: a function of (s, a), a tensor (S, A), or a number, reward
            units.
        values: reward units, (S, A), (S,) or (S, A, K); None until it is fitted.
        successors: (S, A, K), integers: for "arrival" which state each of the K is; None where they
            are all states in order.

    Raises:
        ValueError: if ``of`` is another word, or values are no tensor or have another shape.

    >>> import torch, cai
    >>> reward = cai.TabularReward(values=torch.tensor([[0.0, 1.0], [2.0, 3.0]]))
    >>> reward(torch.tensor(1), torch.tensor([0, 1])).tolist()
    [2.0, 3.0]
    """

    of: Of = "action"
    offset: Any = 0.0
    values: Tensor | None = None
    successors: Tensor | None = None

    __repr__ = one_line.of_fields

    def __post_init__(self) -> None:
        checks.check_one_of("of", self.of, get_args(Of), 'for instance "action"')
        dims = {"action": 2, "state": 1, "arrival": 3}[self.of]
        if self.values is not None:
            advice = "torch.as_tensor makes one"
            checks.check_kind("values", self.values, Tensor, "a tensor", advice)
        if self.values is not None and self.values.dim() != dims:
            shape = {"action": "(S, A)", "state": "(S,)", "arrival": "(S, A, K)"}[self.of]
            came = str(list(self.values.shape))
            checks.refuse("values", f"shape {shape} for of={self.of!r}", came, "see of=")

    def __call__(self, s: Tensor, a: Tensor) -> Tensor:
        """r(s,a), reward units.

        Raises:
            ValueError: if there are no values yet.
        """
        known, values = value_at(self.offset, s, a), self._fitted()
        if self.of == "arrival":
            return known + torch.zeros(torch.broadcast_shapes(s.shape, a.shape)).double()
        if self.of == "state":
            return known + values[s.long()] + torch.zeros(a.shape).double()
        return known + values[s.long(), a.long()]

    def on_arrival(self, s: Tensor, a: Tensor, s_next: Tensor) -> Tensor:
        """r⁺(s,a,s'), reward units; zero where s' cannot follow."""
        values = self._fitted()
        if self.of != "arrival":
            return torch.zeros((), dtype=torch.float64)
        s, a, s_next = (x.long() for x in torch.broadcast_tensors(s, a, s_next))
        if self.successors is None:
            return values[s, a, s_next]
        same = self.successors[s, a] == s_next.unsqueeze(-1)
        # A successor may be listed again with probability zero, where the value is zero.
        return torch.where(same, values[s, a], 0.0).sum(-1)

    def given_to(self, model: TrajectoryModel) -> TrajectoryModel:
        """A model with these rewards in place of its own; its final reward stays."""
        self._fitted()
        arrival = self.on_arrival if self.of == "arrival" else None
        return replaced(model, reward=self, arrival_reward=arrival)

    def on(self, table: Table) -> RewardArrays:
        """The reward of all states and actions of a table, whose numbers can be trained.

        Raises:
            ValueError: if the offset or the values do not fit the table.
        """
        return _Free(self, table)

    def _fitted(self) -> Tensor:
        if self.values is None:
            checks.refuse(
                "values", "some, to pay rewards", "none", "inference.fit_reward finds them"
            )
        return self.values


class _Free(RewardArrays):
    """The numbers of a tabular reward as a parameter."""

    def __init__(self, reward: TabularReward, table: Table) -> None:
        super().__init__(table, evaluated("offset", reward.offset, *pairs(table)))
        self.of, self.known = reward.of, reward
        may = possible(table)
        shape = {"action": may.shape[:2], "state": may.shape[:1], "arrival": may.shape}[self.of]
        values = reward.values
        if values is None:
            values = torch.zeros(shape, dtype=torch.float64)
        if values.shape != shape:
            came = str(list(values.shape))
            checks.refuse("values", f"shape {list(shape)}, as in the table", came, "see of=")
        if not values.isfinite().all():
            advice = "zeros to begin with; what is forbidden belongs in the action prior"
            checks.refuse("values", "finite numbers", "others among them", advice)
        self.values = nn.Parameter(values.detach().double().clone())
        self.possible, self.successors = may, table.successors

    def paid(self) -> tuple[Tensor | None, Tensor | None]:
        """Views of the parameter."""
        if self.of == "arrival":
            return None, torch.where(self.possible, self.values, 0.0)
        if self.of == "state":
            return self.values.unsqueeze(1).expand(self.possible.shape[:2]), None
        return self.values, None

    def trained(self) -> TabularReward:
        """With copies of the numbers; those of states without a way out stay as they were."""
        reward, arrival = (None if x is None else x.detach().clone() for x in self.paid())
        of_all = arrival if arrival is not None else reward
        assert of_all is not None
        if self.of == "state":
            of_all = of_all[:, 0].clone()
        successors = self.successors if self.of == "arrival" else None
        return dataclasses.replace(self.known, values=of_all, successors=successors)
