"""Transitions that were demonstrated, one in a row, and how long demonstrations are over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cai import checks
from cai.demonstrations.demonstrations import Demonstrations
from cai.inference.searches.search_file import digest
from cai.program.trajectories import Trajectories
from cai.stepping.source import Transition


@dataclass(frozen=True, eq=False)
class Shown:
    """N transitions of n demonstrations.

    Attributes:
        s: (N,) + event shape.
        t: (N,), the step within the demonstration.
        a: (N,) + event shape.
        s_next: (N,) + event shape.
        ended: (N,), boolean: the episode terminated with it, before any horizon.
        count: n.
        over: how many steps demonstrations stay in the absorbing state, as a share of all steps.
    """

    s: Tensor
    t: Tensor
    a: Tensor
    s_next: Tensor
    ended: Tensor
    count: int
    over: float

    def drawn(self, n: int) -> Shown:
        """n of the transitions, at random."""
        i = torch.randint(len(self.t), (n,))
        held = (self.s[i], self.t[i], self.a[i], self.s_next[i], self.ended[i])
        return Shown(*held, self.count, self.over)

    def joined(self, other: Transition, ended: Tensor) -> Shown:
        """These, and others that were taken."""
        return Shown(
            s=torch.cat([self.s, other.s.to(self.s.dtype)]),
            t=torch.cat([self.t, other.t]),
            a=torch.cat([self.a, other.a.to(self.a.dtype)]),
            s_next=torch.cat([self.s_next, other.s_next.to(self.s.dtype)]),
            ended=torch.cat([self.ended, ended]),
            count=self.count,
            over=self.over,
        )

    def digest(self) -> str:
        """What tells them from others."""
        return f"{self.count} of {len(self.t)} transitions, {digest(self.s, self.a, self.ended)}"


def stay(t: Tensor, limit: int | None, discount: float) -> Tensor:
    """How many steps episodes that terminated after step t stay in the absorbing state.

    Up to the limit of all episodes, so that these have equally many steps; without one for ever, so
    many as count under the discount.
    """
    if limit is not None:
        return (limit - 1 - t).clamp(min=0).double()
    return torch.full(t.shape, discount / (1 - discount), dtype=torch.float64)


def share_over(t: Tensor, ended: Tensor, limit: int | None, discount: float) -> float:
    """The share of steps in the absorbing state, of transitions (N,) and those that follow them."""
    after = float(stay(t[ended], limit, discount).sum())
    return after / (after + len(t)) if len(t) else 0.0


def shown(given: Any, horizon: int | None, limit: int | None, discount: float) -> Shown:
    """The transitions of demonstrations.

    Args:
        given: Demonstrations of states and actions that are numbers, or Trajectories of any.
        horizon: T of the problem, at which all episodes end; or None.
        limit: after how many steps episodes are truncated at the latest; or None.
        discount: γ.

    Raises:
        ValueError: if they are neither.
    """
    if isinstance(given, Demonstrations):
        states, actions, taken = given.states, given.actions, given.taken
        over = given.ending("absorbed")
        lengths, n = given.lengths, len(given)
    elif isinstance(given, Trajectories):
        states, actions, taken = given.states, given.actions, given.alive[:, :-1]
        over, lengths, n = ~given.alive.all(1), taken.sum(1), len(taken)
    else:
        expected = "cai.Demonstrations, or Trajectories such as environment.simulate returns"
        advice = "cai.Demonstrations.from_paths([[0, 1]], [[1]]) makes some"
        checks.refuse("demonstrations", expected, type(given).__name__, advice)
    who, t = taken.nonzero(as_tuple=True)
    last = t == lengths[who] - 1
    ended = last & over[who]
    if horizon is not None:
        ended = ended & (t + 1 < horizon)
    share = share_over(t, ended, horizon or limit, discount)
    return Shown(states[who, t], t, actions[who, t], states[who, t + 1], ended, n, share)
