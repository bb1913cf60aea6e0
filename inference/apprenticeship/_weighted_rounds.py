"""Rounds of rollouts with importance weights: guided cost learning."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cai import checks
from cai.inference.apprenticeship._sampled_rounds import SampledRounds, Setting
from cai.inference.apprenticeship._weighted_rollouts import (
    Estimates,
    WeightedRollouts,
    inverse,
    maximum,
    totals_of,
)
from cai.inference.inverse.observed import Observed
from cai.policies.as_table import policy_log_probs
from cai.tables.rollouts import Rollouts
from cai.tables.table import Table

_POOR = 100  # effective rollouts below which the result is doubtful


class ByWeights(SampledRounds):
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
        found = self._one_sided()
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

    def _one_sided(self) -> list[str]:
        """Features of which no rollout has less, or more, than the demonstrations have."""
        setting, taken = self.setting, self._sample().totals.features
        index = self._start.unsqueeze(1).expand_as(taken)
        empty = taken.new_zeros(len(setting.share), taken.shape[1])
        ends = [
            setting.share @ empty.scatter_reduce(0, index, taken, end, include_self=False)
            for end in ("amin", "amax")
        ]
        observed, near = setting.totals.features.mean(0), 1e-9 * (1 + ends[1].abs())
        sides = zip(observed <= ends[0] + near, observed >= ends[1] - near, strict=True)
        return [
            f"No rollout has {'less' if least else 'more'} of {name} than the demonstrations have: "
            "its weight may have no finite maximum."
            for name, (least, most) in zip(setting.features.names, sides, strict=True)
            if bool(least) != bool(most)
        ]

    def state_dict(self) -> dict[str, Any]:
        """With the rollouts and their proposals."""
        taken, held = self._taken, {"start": self._start, "counts": self._counts}
        if taken is not None:
            held |= {"states": taken.states, "actions": taken.actions}
            held |= {"outcomes": taken.outcomes, "alive": taken.alive}
        new = self._proposals if self._given is None else []
        own = {"moved": self._moved, "ended": self._ended, "proposals": list(new)}
        return super().state_dict() | held | own

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts the search where it was when the state was taken."""
        super().load_state_dict(state)
        if not self.done:
            return
        names = ("states", "actions", "outcomes", "alive")
        self._taken = Rollouts(*(state[name] for name in names))
        self._start, self._counts = state["start"], state["counts"]
        self._moved, self._ended = state["moved"], state["ended"]
        if self._given is None:
            self._proposals = list(state["proposals"])
        else:
            self._proposals = [*self._proposals, *self._given]
        self._at = self._sample().estimate(self.weights, self.setting.totals)


def tabulated(proposals: Any, table: Table) -> list[Tensor]:
    """(T, S, A) each, log q(a|s)."""
    advice = "for instance [inference.soft_values(model).policy]"
    given = checks.several("proposals", proposals, advice, "several policies")
    if not given:
        checks.refuse("proposals", "at least one policy", "none", advice)
    return [tabulated_one(q, f"proposals[{i}]", table) for i, q in enumerate(given)]


def tabulated_one(policy: Any, name: str, table: Table) -> Tensor:
    """(T, S, A), log q(a|s); raises ValueError if it leaves out what the action prior does."""
    if not callable(policy):
        came, advice = repr(policy), "for instance inference.soft_values(model).policy"
        checks.refuse(name, "a policy, (t, s) -> a distribution", came, advice)
    log_q = policy_log_probs(policy, table)
    never = (log_q == -torch.inf) & (table.log_prior > -torch.inf)
    if never.any():
        t, s, a = never.nonzero()[0].tolist()
        expected = "a policy that takes every action of the action prior"
        came = f"one that never takes action {a} in state {s} at step {t}"
        checks.refuse(name, expected, came, "mix it with the action prior")
    return log_q


def _as_rollouts(seen: Observed) -> Rollouts:
    """Demonstrations of a finite horizon as rollouts of the policy that they come from."""
    given = seen.demonstrations
    n, T = given.actions.shape
    outcomes = torch.zeros(n, T, dtype=torch.long)
    outcomes[seen.who, seen.step] = seen.outcome
    alive = torch.arange(T + 1) < given.lengths.unsqueeze(1)
    alive[given.ending("horizon"), -1] = True
    return Rollouts(given.states, given.actions, outcomes, alive)
