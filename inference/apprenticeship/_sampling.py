"""Rounds of rollouts: with importance weights, or of the present policy without any."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cai.inference.apprenticeship._weighted_rollouts import (
    Estimates,
    Totals,
    WeightedRollouts,
    inverse,
    maximum,
    totals_of,
)
from cai.inference.exact.soft_values import soft_values
from cai.inference.inverse.observed import Observed
from cai.numerics.exclusive import cached_property
from cai.rewards.linear_reward import FeatureArrays
from cai.tables.rollouts import Rollouts, roll_out
from cai.tables.table import Table

_FEWEST = 10  # rollouts from a first state in a round
_POOR = 100  # effective rollouts below which the result is doubtful
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


class _Rounds:
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


class ByWeights(_Rounds):
    """Rollouts with importance weights: maximum entropy.

    Args:
        setting: the problem.
        weights: (k,), to start from.
        given: proposals (T, S, A); None for the soft policy of the present weights.
        own: (T, S, A), log-probabilities of the policy that demonstrations come from, which then
            join the sample; None for no.
    """

    method = "guided cost learning"
    converges_to = (
        "maximum entropy, fit_reward(…, likelihood='paths', optimism=1), as the number of "
        "rollouts grows"
    )
    history_name = "nats a demonstration up to a constant"

    def __init__(
        self, setting: Setting, weights: Tensor, given: list[Tensor] | None, own: Tensor | None
    ) -> None:
        super().__init__(setting, weights)
        self._given, self._proposals = given, list[Tensor]()
        self._taken: Rollouts | None = None
        self._start = torch.zeros(0, dtype=torch.long)
        self._counts = torch.zeros(len(setting.share), 0, dtype=torch.float64)
        self._at: Estimates | None = None
        self._ended, self._moved = False, torch.full_like(weights, torch.inf)
        if own is not None:
            self._add(own, _as_rollouts(setting.seen), self._begun())

    def _begun(self) -> Tensor:
        setting = self.setting
        return (setting.seen.starts.unsqueeze(1) == setting.first_states).long().argmax(1)

    def _add(self, log_q: Tensor, taken: Rollouts, start: Tensor) -> None:
        """Rollouts of a proposal, of which there may be some already."""
        same = [i for i, q in enumerate(self._proposals) if q is log_q]
        if not same:
            self._proposals.append(log_q)
            new = self._counts.new_zeros(len(self._counts), 1)
            self._counts = torch.cat([self._counts, new], 1)
        place = same[0] if same else len(self._proposals) - 1
        self._counts[:, place] += start.bincount(minlength=len(self._counts)).double()
        self._taken = taken if self._taken is None else self._taken.joined(taken)
        self._start = torch.cat([self._start, start])

    def step(self) -> None:
        """Draws rollouts of each proposal, and maximises with all rollouts so far."""
        setting = self.setting
        for log_q in self._given or [setting.soft_policy(self.weights)]:
            self._add(log_q, setting.rolled_out(log_q), setting.start)
        sample, before = self._sample(), self.weights
        found = maximum(sample, setting.totals, before, setting.scale)
        self.weights, self._at, self._ended = found
        self._moved = self.weights - before
        self.rollouts = len(self._start)
        self.history.append(self._at.value)
        self.done += 1

    def _sample(self) -> WeightedRollouts:
        setting, taken = self.setting, self._taken
        assert taken is not None
        return WeightedRollouts(
            share=setting.share,
            start=self._start,
            totals=totals_of(setting.table, setting.features, taken),
            log_prior=taken.log_probs(setting.table.log_prior),
            log_proposals=torch.stack([taken.log_probs(q) for q in self._proposals], 1),
            counts=self._counts,
            alpha=float(setting.table.temperature),
        )

    def errors(self) -> Tensor:
        """(k,), by the delta method; NaN where the rollouts say nothing of a weight."""
        if self._at is None:
            return torch.full_like(self.weights, torch.nan)
        back = inverse(self._at.information, self.setting.scale)
        found = (back @ self._at.noise @ back).diagonal().clamp(min=0.0).sqrt()
        open_ = (back @ self._at.information).diagonal() < 1 - 1e-6
        return torch.where(open_, torch.nan, found)

    @property
    def effective_fraction(self) -> float:
        """Of all rollouts; NaN before there are any."""
        return torch.nan if self._at is None else self._at.effective_fraction

    @property
    def converged(self) -> bool:
        """Whether the last round found the maximum, near that of the round before."""
        near = self._moved.abs() <= 4 * self.errors().nan_to_num(torch.inf)
        return self._ended and self.over() and bool(near.all())

    def remarks(self) -> tuple[str, ...]:
        """What went wrong, and what to try."""
        if self._at is None:
            return ()
        found = []
        if not self._ended:
            found.append(
                "The rollouts do not surround the demonstrations, whose features lie beyond those "
                "of all rollouts that count: take more samples, or the demonstrator as a proposal."
            )
        if self._at.effective_size < _POOR:
            found.append(
                f"Only {self._at.effective_size:.0f} rollouts are effective: take more samples, or "
                "proposals such as soft_values(model, optimism=2).policy, the best there is."
            )
        return tuple(found)

    def state_dict(self) -> dict[str, Any]:
        """With the rollouts and their proposals."""
        taken = self._taken
        assert taken is not None
        held = {"states": taken.states, "actions": taken.actions, "outcomes": taken.outcomes}
        held |= {"alive": taken.alive, "start": self._start, "counts": self._counts}
        new = self._proposals if self._given is None else []
        own = {"moved": self._moved, "ended": self._ended, "proposals": list(new)}
        return super().state_dict() | held | own

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts the search where it was when the state was taken."""
        super().load_state_dict(state)
        names = ("states", "actions", "outcomes", "alive")
        self._taken = Rollouts(*(state[name] for name in names))
        self._start, self._counts = state["start"], state["counts"]
        self._moved, self._ended = state["moved"], state["ended"]
        if self._given is None:
            self._proposals = list(state["proposals"])
        else:
            self._proposals = [*self._proposals, *self._given]
        self._at = self._sample().estimate(self.weights, self.setting.totals)


class ByMatching(_Rounds):
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
        return super().state_dict() | {"path": torch.stack(self._path), "noise": self._noise}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts the search where it was when the state was taken."""
        super().load_state_dict(state)
        self._path, self._noise = list(state["path"]), state["noise"]
        self._now = self._path[-1]


def _as_rollouts(seen: Observed) -> Rollouts:
    """Demonstrations of a finite horizon as rollouts of the policy that they come from."""
    given = seen.demonstrations
    n, T = given.actions.shape
    outcomes = torch.zeros(n, T, dtype=torch.long)
    outcomes[seen.who, seen.step] = seen.outcome
    alive = torch.arange(T + 1) < given.lengths.unsqueeze(1)
    alive[given.ending("horizon"), -1] = True
    return Rollouts(given.states, given.actions, outcomes, alive)
