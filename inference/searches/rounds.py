"""A search in steps, which the training loop steps, shows and interrupts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any


class Rounds(ABC):
    """A search without a file, unless a subclass gives its state.

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
        """Nothing, as nothing is kept."""
        return ""

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing goes on from a state."""
        raise NotImplementedError
