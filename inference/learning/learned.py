"""The result of learning from transitions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cai.program.interfaces import Policy


@dataclass(frozen=True, eq=False)
class Learned:
    """The result of learning from transitions.

    Attributes:
        policy: (t, s) -> q(a_t|s_t), without exploration.
        temperature: α at the end, reward units per nat.
        history: records during training, float64: "steps", the numbers of transitions, and for each
            of them "returns", the mean return of the episodes that ended since the previous record
            (NaN if none did); "divergence", the mean KL of the policy from the action prior in the
            visited states, nats; "temperature"; and the losses.
        values: (s, t=0) -> V, reward units, relative to the action prior:
            V(s) = α log E_{a~p} exp(Q(s,a)/α) under the soft rule.
        action_values: (s, a, t=0) -> Q, reward units.
        networks: name -> a network that was trained beside the policy; empty for learners that
            cannot start from an earlier result.
        stopped: whether the callback ended the run.

    >>> from cai import inference, models
    >>> learnt = inference.soft_q(models.ledge(), steps=1000, progress=False)
    >>> float(learnt.values(3)), len(learnt.history["steps"]) > 0  # home has the value 0
    (0.0, True)
    """

    policy: Policy
    temperature: float
    history: dict[str, Tensor]
    values: Callable[..., Tensor] = field(repr=False)
    action_values: Callable[..., Tensor] = field(repr=False)
    networks: Mapping[str, nn.Module] = field(default_factory=dict, repr=False)
    stopped: bool = field(default=False, repr=False, kw_only=True)

    def __repr__(self) -> str:
        kind: Any = type(self.policy).__name__
        steps = int(self.history["steps"][-1]) if len(self.history["steps"]) else 0
        return f"Learned({kind} after {steps} transitions, temperature={self.temperature:g})"


class LearningStopped(ValueError):
    """The error of a learner whose step failed; nothing that it had learnt is lost.

    Attributes:
        taken: the number of transitions before the step that failed.
        learned: what was learnt from them.
        reason: why the step failed.

    >>> from cai import inference, models
    >>> def fails(taken):
    ...     return 1.0 if taken < 640 else 0.0
    >>> try:
    ...     inference.soft_q(models.ledge(), steps=1000, temperature=fails, progress=False)
    ... except inference.LearningStopped as stopped:
    ...     print(stopped.taken, type(stopped.learned.policy).__name__)
    640 TabularPolicy
    """

    def __init__(self, verb: str, taken: int, total: int, words: str, learned: Learned) -> None:
        super().__init__(
            f"{verb}: stopped after {taken} of {total} transitions: {words}. What was learnt "
            "before it is in the exception's .learned"
        )
        self.taken, self.learned, self.reason = taken, learned, words
        self._arguments = verb, taken, total, words, learned

    def __reduce__(self) -> Any:
        """All of it, so that it can be pickled."""
        return type(self), self._arguments


@dataclass(frozen=True, eq=False)
class StateTable:
    """(s, t=0) -> a number, from a table (S,), or (T, S) if the time is part of the state."""

    entries: Tensor

    def __call__(self, s: Tensor, t: Any = 0) -> Tensor:
        """The entries of states of any batch shape."""
        s = torch.as_tensor(s).long()
        return self.entries[s] if self.entries.dim() == 1 else self.entries[t, s]


@dataclass(frozen=True, eq=False)
class ActionTable:
    """(s, a, t=0) -> a number, from a table (S, A), or (T, S, A)."""

    entries: Tensor

    def __call__(self, s: Tensor, a: Tensor, t: Any = 0) -> Tensor:
        """The entries of states and actions whose batch shapes broadcast."""
        s, a = torch.as_tensor(s).long(), torch.as_tensor(a).long()
        return self.entries[s, a] if self.entries.dim() == 2 else self.entries[t, s, a]
