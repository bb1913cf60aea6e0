"""The records of a learner during training."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cai.stepping.source import Transition

_RECORDS = 100  # records of a run


class History:
    """Mean returns of episodes and the learner's own numbers, at regular intervals."""

    def __init__(self, num_envs: int, steps: int) -> None:
        self._every = max(1, steps // _RECORDS)
        self._running = torch.zeros(num_envs, dtype=torch.float64)
        self._ended, self._count = 0.0, 0
        self._losses: list[float] = []
        self._rows: list[tuple[float, ...]] = []

    def record(self, transition: Transition, taken: int, temperature: float, loss: float) -> None:
        """Records a transition of each copy; ``taken`` counts those so far."""
        self._running += torch.where(transition.counts, transition.reward, 0.0)
        over = transition.over & transition.counts
        if over.any():
            self._ended += float(self._running[over].sum())
            self._count += int(over.sum())
            self._running[over] = 0.0
        self._losses.append(loss)
        if taken // self._every > len(self._rows):
            returns = self._ended / self._count if self._count else math.nan
            losses = [x for x in self._losses if not math.isnan(x)]
            mean = sum(losses) / len(losses) if losses else math.nan
            self._rows.append((float(taken), returns, temperature, mean))
            self._ended, self._count, self._losses = 0.0, 0, []

    def tensors(self) -> dict[str, Tensor]:
        """name -> record, float64."""
        names = "steps", "returns", "temperature", "loss"
        rows = torch.tensor(self._rows, dtype=torch.float64).reshape(-1, len(names))
        return dict(zip(names, rows.unbind(1), strict=True))
