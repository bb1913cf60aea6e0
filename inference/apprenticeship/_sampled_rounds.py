"""Rounds of rollouts: with importance weights, or of the present policy without any."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cai.inference.apprenticeship._weighted_rollouts import (
    Totals,
    inverse,
    totals_of,
)
from cai.inference.exact.soft_values import soft_values
from cai.inference.inverse.observed import Observed
from cai.numerics.exclusive import cached_property
from cai.rewards.linear_reward import FeatureArrays
from cai.tables.rollouts import Rollouts, roll_out
from cai.tables.table import Table

_FEWEST = 10  # rollouts from a first state in a round
_STEP = 1e-4  # of a weight in units of 1/spread of its feature, for differences
_POLYAK = 0.6  # the power of time by which steps fall


@dataclass(frozen=True, eq=False)
class Setting:
    """What both searches start from.

    Attributes:
        table: the problem, whose rewards are replaced.
        features: of the reward.
        seen: the demonstrations.
        totals: the sums along them.
        scale: (k,), the spread of each feature.
        samples: rollouts in a round.
        rounds: how many.
    """

    table: Table
    features: FeatureArrays
    seen: Observed
    totals: Totals
    scale: Tensor
    samples: int
    rounds: int

    @cached_property
    def first_states(self) -> Tensor:
        """(m,), where demonstrations begin."""
        return self.seen.starts.unique()

    @cached_property
    def share(self) -> Tensor:
        """(m,), of the demonstrations that begin in each."""
        counts = (self.seen.starts.unsqueeze(1) == self.first_states).sum(0).double()
        return counts / counts.sum()

    @cached_property
    def start(self) -> Tensor:
        """(n,), which first state the rollouts of a round begin in."""
        counts = (self.samples * self.share).ceil().long().clamp(min=_FEWEST)
        return torch.arange(len(counts)).repeat_interleave(counts)

    def soft_policy(self, weights: Tensor) -> Tensor:
        """(T, S, A), log π of the soft policy in the true dynamics."""
        return soft_values(self.features.rewards(self.table, weights)).log_policy(
            slice(0, self.table.steps)
        )

    def expected(self, weights: Tensor) -> Tensor:
        """(k,), the features of the soft policy in the true dynamics, from these first states."""
        table, features = self.features.rewards(self.table, weights), self.features
        begun = torch.full_like(table.log_initial, -torch.inf)
        begun[self.first_states] = self.share.log()
        taken = soft_values(table.holding(log_initial=begun)).state_actions
        found = torch.einsum("tsa,ksa->k", taken, features.reward)
        if features.arrival is not None:
            moves = taken.unsqueeze(-1) * table.log_dynamics.exp()
            found = found + torch.einsum("tsao,ksao->k", moves, features.arrival)
        return found

    def slopes(self, weights: Tensor) -> Tensor:
        """(k, k), the derivative of the same in the weights, symmetric."""
        steps = torch.diag(_STEP / self.scale)
        each = [self.expected(weights + d) - self.expected(weights - d) for d in steps]
        found = torch.stack(each, 1) / (2 * _STEP / self.scale)
        return (found + found.T) / 2

    def rolled_out(self, log_q: Tensor) -> Rollouts:
        """The rollouts of a round."""
        return roll_out(self.table, log_q, self.first_states[self.start])


class SampledRounds:
    """What the loop of all training needs, see :class:`cai.inference.fitting.resumption`."""

    verb, outcome, restarts, policy = "sampled_reward", "the latest", "", None

    def __init__(self, setting: Setting, weights: Tensor) -> None:
        self.setting, self.weights, self.total = setting, weights, setting.rounds
        self.history: list[float] = []
        self.done = self.rollouts = 0

    def over(self) -> bool:
        """Whether all rounds are done."""
        return self.done >= self.total

    def shown(self) -> str:
        """The latest of the history."""
        return f"{self.history[-1]:.4f} {self.history_name}" if self.history else ""

    history_name: str

    def differs(self, kept: dict[str, Any]) -> str:
        """Nothing: the settings say all."""
        return ""

    def state_dict(self) -> dict[str, Any]:
        """All that the next round depends on."""
        history = torch.tensor(self.history, dtype=torch.float64)
        plain = {"done": self.done, "rollouts": self.rollouts}
        return {"weights": self.weights, "history": history, **plain}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts the search where it was when the state was taken."""
        self.weights, self.history = state["weights"], state["history"].tolist()
        self.done, self.rollouts = state["done"], state["rollouts"]

    @property
    def reason(self) -> str:
        """Why it ended."""
        if not self.over():
            return "it was interrupted; this is the latest"
        return f"{self.done} rounds were taken"


class ByMatching(SampledRounds):
    """Rollouts of the soft policy of the present weights, without importance weights.

    Args:
        setting: the problem.
        weights: (k,), to start from.
    """

    method = "matched rollouts"
    converges_to = (
        "maximum causal entropy, fit_reward(…, likelihood='matching'), as the number of "
        "rounds grows"
    )
    history_name = "largest gap of a feature in standard deviations of a rollout"
    effective_fraction = 1.0

    def __init__(self, setting: Setting, weights: Tensor) -> None:
        super().__init__(setting, weights)
        self._now, self._path = weights, list[Tensor]()
        self._noise = torch.zeros(len(weights), len(weights), dtype=torch.float64)

    def step(self) -> None:
        """A step along observed less expected features."""
        setting, alpha = self.setting, float(self.setting.table.temperature)
        taken = setting.rolled_out(setting.soft_policy(self._now))
        f, start = totals_of(setting.table, setting.features, taken).features, setting.start
        gap, k = setting.totals.features.mean(0), len(self._now)
        covariance, self._noise = torch.zeros(2, k, k, dtype=torch.float64)
        for i, share in enumerate(setting.share.tolist()):
            here = f[start == i]
            gap = gap - share * here.mean(0)
            away = here - here.mean(0)
            spread = away.T @ away / (len(here) - 1)
            covariance += share * spread
            self._noise += share**2 * spread / len(here)
        step = alpha * inverse(covariance, setting.scale) @ gap
        nats = float((step @ covariance @ step).sqrt()) / alpha
        self.done += 1
        late = max(1.0, 2 * self.done / self.total)
        rate = late**-_POLYAK / max(nats, 1.0)
        self._now = self._now + rate * step
        self._path.append(self._now)
        self.rollouts += len(start)
        spread = covariance.diagonal().sqrt()
        self.history.append(float(torch.where(spread > 1e-12, gap / spread, 0.0).abs().max()))
        half = torch.stack(self._path[self.done // 2 :])
        self.weights = half.mean(0)

    def errors(self) -> Tensor:
        """(k,), of the mean of the rounds that are averaged; NaN for a weight that is left open."""
        if not self._path:
            return torch.full_like(self.weights, torch.nan)
        slopes = self.setting.slopes(self.weights)
        back = inverse(slopes, self.setting.scale)
        found = (back @ self._noise @ back).diagonal().clamp(min=0.0)
        open_ = (back @ slopes).diagonal() < 1 - 1e-6
        averaged = self.done - self.done // 2
        return torch.where(open_, torch.nan, (found / averaged).sqrt())

    @property
    def converged(self) -> bool:
        """Whether the rounds that are averaged show no trend."""
        if not self.over() or self.done < 4:
            return False
        half = torch.stack(self._path[self.done // 2 :])
        early, late = (x.mean(0) for x in half.tensor_split(2))
        error = self.errors().nan_to_num(torch.inf)
        return bool(((late - early).abs() <= 8 * error).all())

    def remarks(self) -> tuple[str, ...]:
        """What went wrong, and what to try."""
        if self.converged or not self.over():
            return ()
        return ("The weights still moved in the rounds that are averaged: take more rounds.",)

    def state_dict(self) -> dict[str, Any]:
        """With the weights of all rounds."""
        return super().state_dict() | {"path": list(self._path), "noise": self._noise}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts the search where it was when the state was taken."""
        super().load_state_dict(state)
        self._path, self._noise = list(state["path"]), state["noise"]
        self._now = self._path[-1] if self._path else self.weights
