"""What a policy sees of the state: observe(s), any function of it, invertible or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from cai import checks
from cai.support import log_prior_table, require_finite

if TYPE_CHECKING:
    from cai.trajectory import TrajectoryModel

Observe: TypeAlias = Callable[[Tensor], Tensor]
"""s -> what is seen of it: numbers or vectors, for states of any batch shape."""


def classes(model: TrajectoryModel, observe: Observe | None) -> Tensor:
    """Which observation each state gives, (S,), numbered 0, 1, …; all 0 where nothing is seen.

    Raises:
        ValueError: where the states are not finitely many, or observe does not broadcast.
    """
    S, _ = require_finite(model)
    if observe is None:
        return torch.zeros(S, dtype=torch.long)
    s = torch.arange(S)
    seen = look(observe, s, S)
    for i in (0, S - 1):
        if not torch.equal(look(observe, s[i], None), seen[i]):
            checks.refuse(
                "observe",
                "what a state gives alone also where it is one of many",
                f"something else for state {i}",
                "treat each element on its own: torch.where instead of Python `if`",
            )
    return torch.unique(seen, dim=0, return_inverse=True)[1]


def look(observe: Observe, s: Tensor, length: int | None) -> Tensor:
    """What is seen of states, checked to be a tensor with a row for each of them."""
    seen: Any = observe(s)
    if not isinstance(seen, Tensor) or (length is not None and seen.shape[:1] != (length,)):
        came = f"shape {list(seen.shape)}" if isinstance(seen, Tensor) else type(seen).__name__
        checks.refuse(
            "observe",
            f"a tensor for states of shape {list(s.shape)}, with their shape in front",
            came,
            "for instance lambda s: s % 4, or lambda s: s[..., :2]; None sees nothing",
        )
    return seen


def shared_log_prior(model: TrajectoryModel, observations: Tensor) -> Tensor:
    """The normalised geometric mean of p(a|s) over states that look alike, (O, A), logarithms.

    A policy that does not tell states apart can do only what is allowed in all of them.

    Raises:
        ValueError: where that is nothing.
    """
    log_prior = log_prior_table(model)
    alike = torch.nn.functional.one_hot(observations).double()  # (S, O)
    weight = (alike / alike.sum(0)).T.unsqueeze(-1)
    shared = torch.where(weight > 0, weight * log_prior, 0.0).sum(1)
    nothing = ~(shared > -torch.inf).any(-1)
    if nothing.any():
        alikes = (observations == nothing.nonzero()[0]).nonzero().flatten().tolist()
        checks.refuse(
            "action_prior",
            "an action that is allowed in all states that look alike",
            f"none for states {alikes}",
            "let a forbidden move stay where it is instead, or observe more",
        )
    return shared.log_softmax(-1)
