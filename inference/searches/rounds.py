"""A search in steps, which the training loop steps, shows and interrupts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch

_PLAIN = "done", "reason", "converged"


class Rounds(ABC):
    """A search that the training loop steps, and that a file may keep.

    Args:
        verb: the function that it is a call of.
        steps: at most.

    Attributes:
        total: steps at most.
        done: steps so far.
        history: a number for each of them.
        reason: why it ended; empty while it goes on.
        converged: whether it ended since nothing more was to be gained.
    """

    outcome, restarts, policy = "the best", "", None
    held: ClassVar[tuple[str, ...]] = ()  # all else that the next step depends on

    def __init__(self, verb: str, steps: int) -> None:
        self.verb, self.total, self.done = verb, steps, 0
        self.history: list[float] = []
        self.reason, self.converged = "", False

    @abstractmethod
    def step(self) -> None:
        """One of them."""

    def over(self) -> bool:
        """Whether it ended, or no step is left."""
        return bool(self.reason) or self.done >= self.total

    @property
    def why(self) -> str:
        """Why it ended, an interrupt included."""
        if self.reason or self.done < self.total:
            return self.reason or "it was interrupted; this is the best so far"
        return f"{self.total} steps were not enough"

    def end(self, reason: str, converged: bool = False) -> None:
        """Says why there is no further step."""
        self.reason, self.converged = reason, converged

    def shown(self) -> str:
        """The last number, for the progress bar."""
        return f"{self.history[-1]:.4g}" if self.history else ""

    def differs(self, kept: dict[str, Any]) -> str:
        """Nothing: the settings say all."""
        return ""

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on."""
        plain = {name: getattr(self, name) for name in _PLAIN}
        held = {name: getattr(self, name) for name in self.held}
        history = torch.tensor(self.history, dtype=torch.float64)
        as_tensors = {k: torch.from_numpy(x) for k, x in held.items() if isinstance(x, np.ndarray)}
        return plain | held | as_tensors | {"history": history}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts the search where it was when the state was taken."""
        self.history = state["history"].tolist()
        for name in (*_PLAIN, *self.held):
            is_array = isinstance(getattr(self, name), np.ndarray)
            setattr(self, name, state[name].numpy() if is_array else state[name])
        if not self.converged:  # it may go further now
            self.reason = ""
