"""What a reward is fitted to: demonstrations, and their objective as a function of the weights."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from cai.demonstrations.demonstrations import Demonstrations
from cai.demonstrations.scored_demonstrations import ScoredDemonstrations
from cai.inference.scoring.fisher_scoring import INTERRUPTED, Maximum, maximise
from cai.rewards.linear_reward import LinearReward

_STEPS = 30  # towards a second start


class Task(ABC):
    """Demonstrations, and what is to be maximised.

    Attributes:
        names: of k features.
        scale: (k,), the spread of each.
        demonstrations: those that are possible.
        goals: (n,), where each ends; None where all have the same problem.
        dropped: how many were not.
        interrupted: whether the search for a start was.
        dear: whether ``score`` costs several times what ``gradient`` does.
    """

    names: tuple[str, ...]
    scale: Tensor
    demonstrations: Demonstrations
    goals: Tensor | None = None
    dropped: int = 0
    interrupted: bool = False
    dear: bool = False

    @property
    @abstractmethod
    def identity(self) -> dict[str, str]:
        """What tells the problem and its data from others, for a checkpoint."""

    @abstractmethod
    def score(self, weights: Tensor) -> ScoredDemonstrations:
        """The objective, its gradients and its information at some weights (k,)."""

    @abstractmethod
    def values(self, weights: Tensor) -> Tensor:
        """(n,), nats: the objective of each demonstration, differentiable in the weights (k,)."""

    @abstractmethod
    def total(self, weights: Tensor) -> Tensor:
        """(), nats: the sum of the objective over all demonstrations."""

    def totals(self, weights: Tensor) -> Tensor:
        """(n,), nats: the same at n weights (n, k); -inf where there are no values."""
        found = torch.full((len(weights),), -torch.inf, dtype=torch.float64)
        for i, each in enumerate(weights):
            with contextlib.suppress(ValueError):
                found[i] = self.total(each)
        return found.where(found.isfinite(), -torch.inf)

    @abstractmethod
    def gradient(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The same, and its gradient (k,), by one solution and one sweep or solve back."""

    @abstractmethod
    def starts(self, given: Tensor | None) -> Iterator[Tensor]:
        """Weights (k,) to start from; several where the objective may have several maxima."""

    def nearer(
        self, score: Callable[[Tensor], ScoredDemonstrations], start: Tensor, **how: Any
    ) -> Maximum | None:
        """Where a search for the maximum of another objective ends; None without values there."""
        try:
            found = maximise(score, start, self.scale, None, _STEPS, **how)
        except ValueError:
            return None
        self.interrupted = found.reason == INTERRUPTED
        return found

    @abstractmethod
    def log_likelihood(self, weights: Tensor) -> float:
        """Of all demonstrations, nats."""

    @abstractmethod
    def features(self, found: Maximum) -> tuple[Tensor, Tensor]:
        """(k,) each, summed over demonstrations: as observed, and as expected at the maximum."""

    @abstractmethod
    def fitted(self, weights: Tensor) -> tuple[LinearReward, Any]:
        """The reward with its weights, and the model with the reward."""
