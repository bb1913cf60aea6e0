"""The records of a learner during training."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cai.progress.callback import asks_to_stop, check_callback
from cai.stepping.source import Transition

_RECORDS = 100  # records of a run
_NAMES = "steps", "returns", "divergence", "temperature", "loss"


class History:
    """Mean returns of episodes and the learner's own numbers, at regular intervals.

    Attributes:
        divergence: the KL of the latest step, nats.
        stopped: whether the callback asked for the end of the run.
    """

    def __init__(
        self,
        num_envs: int,
        steps: int,
        callback: Callable[[dict[str, float]], bool | None] | None = None,
    ) -> None:
        check_callback(callback)
        self._callback, self._new = callback, False
        self._every = max(1, steps // _RECORDS)
        self._running = np.zeros(num_envs)
        self._ended, self._count = 0.0, 0
        self._said: list[tuple[float, float]] = []
        self.divergence, self.stopped = math.nan, False
        self._rows: list[tuple[float, ...]] = []

    def add(self, transition: Transition) -> None:
        """Adds the rewards of a transition of each copy to the returns."""
        counts = transition.counts.numpy()
        np.add(self._running, transition.reward.numpy(), out=self._running, where=counts)
        over = transition.over.numpy() & counts
        if over.any():
            self._ended += float(self._running[over].sum())
            self._count += int(over.sum())
            self._running[over] = 0.0

    def record(self, taken: int, temperature: float, loss: float, divergence: float) -> None:
        """Records the numbers of a step of the learner, after which ``taken`` transitions are done.

        Args:
            taken: the number of transitions so far.
            temperature: α.
            loss: the mean loss; NaN if there is none yet.
            divergence: the mean KL of the policy from the action prior in the visited states, nats.
        """
        if not math.isnan(divergence):  # as where every copy only begins another episode
            self.divergence = divergence
        self._said.append((loss, divergence))
        if taken // self._every > len(self._rows):
            returns = self._ended / self._count if self._count else math.nan
            means = torch.tensor(self._said, dtype=torch.float64).nanmean(0).tolist()
            self._rows.append((float(taken), returns, means[1], temperature, means[0]))
            self._ended, self._count, self._said = 0.0, 0, []
            self._new = True

    def tell(self) -> None:
        """Calls the callback with the latest record, if that is new.

        Raises:
            CallbackFailed: if it raised.
        """
        if self._new and self._callback is not None:
            taken, *numbers = self._rows[-1]
            record = dict(zip(_NAMES[1:], numbers, strict=True))
            self.stopped = asks_to_stop(self._callback, {"step": int(taken), **record})
        self._new = False

    def cut(self) -> None:
        """Forgets what episodes have paid that do not go on."""
        self._running[:] = 0.0

    def shown(self) -> str:
        """The latest record in words."""
        if not self._rows:
            return ""
        _, returns, divergence, temperature, _ = self._rows[-1]
        return f"return {returns:.4g}, KL {divergence:.3g} nats, temperature {temperature:.3g}"

    def tensors(self) -> dict[str, Tensor]:
        """name -> record, float64."""
        rows = torch.tensor(self._rows, dtype=torch.float64).reshape(-1, len(_NAMES))
        return dict(zip(_NAMES, rows.unbind(1), strict=True))

    def state_dict(self) -> dict[str, Any]:
        """The state from which :meth:`load_state_dict` continues."""
        return {
            "running": torch.from_numpy(self._running),
            "ended": (self._ended, self._count),
            "said": torch.tensor(self._said, dtype=torch.float64).reshape(-1, 2),
            "rows": torch.tensor(self._rows, dtype=torch.float64).reshape(-1, len(_NAMES)),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the records from a state."""
        self._running = state["running"].numpy()
        self._ended, self._count = state["ended"]
        self._said = [(loss, divergence) for loss, divergence in state["said"].tolist()]
        self._rows = [tuple(row) for row in state["rows"].tolist()]
