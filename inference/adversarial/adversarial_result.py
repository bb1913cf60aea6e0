"""The result of adversarial learning: a policy, and what the discriminator holds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from cai.evaluation.spelling import PrintedTable, data_size, number
from cai.program.interfaces import Policy
from cai.rewards.linear_reward import LinearReward


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class AdversarialReward(PrintedTable):
    """What adversarial learning found, see :func:`cai.inference.adversarial_reward`.

    It prints as a table that compares demonstrations and generator, and exports to HTML (in a
    notebook), a dict, JSON and Markdown. ``cai.compare`` takes it, since it has a policy.

    Attributes:
        form: "airl" or "gail".
        reward: the r of the discriminator, with what was learnt; on an environment a function of
            (s, a), reward units. None for "gail", whose discriminator holds no reward.
        model: the model, or the table, with that reward; of an environment or a linear-Gaussian
            model, and for "gail", the problem as it was given.
        policy: (t, s) -> distribution, that of the generator.
        log_odds: log D/(1 - D) of transitions: a tensor (T, S, A, K), or (S, A, K) for an infinite
            horizon, on a table with exact expectations; else a function of (t, s, a, s'), nats.
        potential: Φ in reward units: a tensor (T+1, S), or (S,) for an infinite horizon; else a
            function of (t, s). None for "gail".
        converges_to: which exact answer it should come to, and when.
        on_demonstrations: the mean of D over the transitions of demonstrations.
        on_generator: the same over those of the generator; both end at ½ where these cannot be told
            apart.
        lengths: how many actions demonstrations, and trajectories of the generator, have on average
            until they are absorbed, or over.
        distance: the total variation distance of the transitions of both, from 0 to 1; None where
            it was not computed.
        history: records during training, name -> (m,): "loss", nats a transition, log 4 where
            nothing can be told apart; "on_demonstrations"; "on_generator"; and others.
        demonstrations: n; infinity where the demonstrator itself was given.
        actions: how many actions they have; infinity likewise.
        steps: rounds, or transitions of the generator.
        converged: whether a further round would change nothing; of learners from transitions always
            False.
        reason: why it ended.
        remarks: what a reader should know of this run, a sentence each.

    >>> import cai
    >>> from cai import inference, models
    >>> model = models.gridworld(["S.G"], horizon=4, slip=0.0)
    >>> expert = inference.soft_values(model).policy
    >>> found = inference.adversarial_reward(model, expert, progress=False)
    >>> round(found.on_demonstrations, 3), round(found.on_generator, 3)
    (0.5, 0.5)
    """

    headings = ("", "demonstrations", "generator")

    form: str
    reward: Any
    model: Any
    policy: Policy
    log_odds: Tensor | Callable[..., Tensor]
    potential: Tensor | Callable[..., Tensor] | None
    converges_to: str
    on_demonstrations: float
    on_generator: float
    lengths: tuple[float, float]
    distance: float | None
    history: dict[str, Tensor]
    demonstrations: float
    actions: float
    steps: int
    converged: bool
    reason: str
    remarks: tuple[str, ...] = field(default=())

    @property
    def weights(self) -> dict[str, float]:
        """Name -> ψ of a linear reward, reward units per unit of the feature; else empty."""
        return dict(self.reward.weights or {}) if isinstance(self.reward, LinearReward) else {}

    def to_dict(self) -> dict[str, Any]:
        """What the table shows, the weights and the history, as plain values."""
        history = {name: [_plain(y) for y in x.tolist()] for name, x in self.history.items()}
        return {
            "form": self.form,
            "converges_to": self.converges_to,
            "weights": self.weights,
            "on_demonstrations": _plain(self.on_demonstrations),
            "on_generator": _plain(self.on_generator),
            "lengths": [_plain(x) for x in self.lengths],
            "distance": None if self.distance is None else _plain(self.distance),
            "history": history,
            "demonstrations": _plain(self.demonstrations),
            "actions": _plain(self.actions),
            "steps": self.steps,
            "converged": self.converged,
            "reason": self.reason,
            "remarks": list(self.remarks),
        }

    def _title(self) -> str:
        many = "the demonstrator itself"
        if math.isfinite(self.demonstrations):
            many = data_size(self.demonstrations, self.actions)
        name = {"airl": "Adversarial inverse reinforcement learning", "gail": "GAIL"}
        return f"{name[self.form]}: {many}"

    def _cells(self) -> list[list[str]]:
        rows = {
            "D, mean": (self.on_demonstrations, self.on_generator),
            "actions until the end, mean": self.lengths,
        }
        return [
            [name, *(number(x if math.isfinite(x) else None) for x in row)]
            for name, row in rows.items()
        ]

    def _notes(self) -> list[str]:
        notes = [f"Weight of {name}: {number(x)}." for name, x in self.weights.items()]
        if self.distance is not None:
            apart = f"{self.distance:.3g}"
            notes.append(f"Total variation distance of their transitions: {apart}.")
        notes += [f"Converges to {self.converges_to}.", *self.remarks]
        if not self.converged:
            notes.append(f"Not converged: {self.reason}.")
        return notes


def _plain(x: float) -> float | None:
    return x if math.isfinite(x) else None
