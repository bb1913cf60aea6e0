"""The state of both learners, generator and discriminator, on transitions."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from cai.inference.adversarial._generators import SACGenerator, SoftQGenerator
from cai.inference.adversarial._networks import TransitionDiscriminator
from cai.inference.adversarial._shown import Shown, share_over
from cai.inference.adversarial.adversarial_training import AdversarialTraining
from cai.inference.learning.records import History
from cai.inference.learning.stepped import Stepped
from cai.stepping.source import Transition

NAMES = ("steps", "loss", "on_demonstrations", "on_generator", "length")
_SIGNALS = {
    "log_odds": lambda x: x,
    "log_d": lambda x: -softplus(-x),
    "minus_log": softplus,
}
_KEPT = 200  # lengths of the latest episodes
_LOOKS = 20  # updates between looks at how long episodes are over
_RECORDS = 100


class Adversary:
    """The state of both learners, see :class:`cai.inference.learning.run.Learning`.

    Args:
        made: the problem and its copies.
        demonstrations: the transitions that were shown.
        discriminator: of transitions.
        generator: the learner.
        training: the settings.
        signal: what the generator is paid of D.
        ends: whether the absorbing state counts.
        penalty: λ of ½ λ (log-odds)².
        limit: after how many steps an episode is over at the latest; or None.
    """

    def __init__(
        self,
        made: Stepped,
        demonstrations: Shown,
        discriminator: TransitionDiscriminator,
        generator: SoftQGenerator | SACGenerator,
        training: AdversarialTraining,
        signal: str,
        ends: bool,
        penalty: float,
        limit: int | None,
    ) -> None:
        self.made, self.shown, self.discriminator = made, demonstrations, discriminator
        self.generator, self.training, self.penalty = generator, training, penalty
        self.taken, self.alpha = 0, float(made.problem.temperature)
        self._signal, self._ends, self._limit = signal, ends, limit
        self.adam = torch.optim.Adam(
            discriminator.parameters(), lr=training.discriminator_rate, fused=True
        )
        self.lengths: deque[int] = deque(maxlen=_KEPT)
        self.rows: list[tuple[float, ...]] = []
        self._said: list[tuple[float, ...]] = []
        self._over, self._updates = 0.0, 0
        generator.memory.pay = self.pay

    def early(self, x: Any) -> Tensor:
        """(n,), boolean: episodes that terminated before any horizon."""
        if self.made.horizon is None:
            ended: Tensor = x.ended
            return ended
        found: Tensor = x.ended & (x.t + 1 < self.made.horizon)
        return found

    @torch.no_grad()
    def pay(self, x: Transition) -> Tensor:
        """(n,), reward units: what the generator is paid now."""
        D, early = self.discriminator, self.early(x)
        f = D(x.s, x.t, x.a, x.s_next, early)
        if self._signal == "log_odds":
            return self.alpha * (f + torch.where(early, D.to_come(x.t), 0.0))
        signal = _SIGNALS[self._signal]
        ratio = self.generator.log_ratio(x.s, x.t, x.a)
        after = D.counted_after(x.t) * signal(D.staying(x.t + 1))
        return self.alpha * (signal(f - ratio) + ratio + torch.where(early, after, 0.0))

    def log_odds(self, x: Any, early: Tensor) -> Tensor:
        """log D/(1 - D) of transitions, (n,), nats."""
        with torch.no_grad():
            ratio = self.generator.log_ratio(x.s, x.t, x.a)
        found: Tensor = self.discriminator(x.s, x.t, x.a, x.s_next, early) - ratio
        return found

    def once(self, history: History) -> None:
        """One step of all copies, and steps of Adam of both players."""
        training, made = self.training, self.made
        warm = self.taken < training.warm_up
        a = made.draw(made.prior) if warm else self.generator.act(made)
        transition = made.copies.step(a)
        history.add(transition)
        self.taken += len(transition.reward)
        over = transition.over & transition.counts
        loss = divergence = math.nan
        if warm:
            self.generator.memory.add(transition)
        else:
            self.lengths.extend((transition.t[over] + 1).tolist())
            if self._updates % _LOOKS == 0:
                ratio = self.generator.log_ratio(transition.s, transition.t, transition.a)
                divergence = float(ratio[transition.counts].mean())
            share = max(1 - self.taken / training.steps, 0.0)
            loss = self.generator.learn(transition, share)
            for _ in range(training.discriminator_updates):
                self._said.append(self._discriminate(share))
        history.record(self.taken, self.alpha, loss, divergence)
        self._record()

    def _discriminate(self, share: float) -> tuple[float, ...]:
        """A step of Adam of the discriminator; its loss, and mean D on both sides."""
        training, memory = self.training, self.generator.memory
        if self._updates % _LOOKS == 0:
            recent = memory.all_recent(training.recent)
            early = self.early(recent) & recent.counts
            self._over = share_over(recent.t, early, self._limit, float(self.made.problem.discount))
        self._updates += 1
        real = self.shown.drawn(training.batch)
        made = memory.recent(training.batch, training.recent)
        both, n = real.joined(made, self.early(made)), len(real.t)
        with torch.enable_grad():
            odds = self.log_odds(both, both.ended)
            parts = (
                (odds[:n], 1.0, self.shown.over),
                (odds[n:][made.counts], -1.0, self._over),
            )
            loss = torch.zeros((), dtype=torch.float64)
            staying = self.discriminator.staying(torch.zeros((), dtype=torch.long))
            for x, sign, over in parts:
                over = over if self._ends else 0.0
                loss = loss + (1 - over) * self._loss(x, sign) + over * self._loss(staying, sign)
            self.adam.zero_grad()
            loss.backward()
        if not math.isfinite(loss.item()):
            words = f"the discriminator's loss is {loss.item():g}; try a smaller discriminator_rate"
            raise FloatingPointError(f"adversarial_reward: {words}")
        self.adam.param_groups[0]["lr"] = training.discriminator_rate * share
        self.adam.step()
        means = (float(x.detach().sigmoid().mean()) for x, _, _ in parts)
        return (loss.item(), *means)

    def _loss(self, x: Tensor, sign: float) -> Tensor:
        return (softplus(-sign * x) + 0.5 * self.penalty * x.square()).mean()

    def _record(self) -> None:
        every = max(1, self.training.steps // _RECORDS)
        if self._said and self.taken // every > len(self.rows):
            means = torch.tensor(self._said, dtype=torch.float64).mean(0).tolist()
            self.rows.append((float(self.taken), *means, self.length))
            self._said = []

    @property
    def length(self) -> float:
        """The mean of the lengths of the latest episodes; NaN before there are any."""
        return sum(self.lengths) / len(self.lengths) if self.lengths else math.nan

    def cut(self) -> None:
        """Ends all episodes after the latest step, since others begin."""
        self.generator.memory.cut()

    def parts(self) -> dict[str, Any]:
        """What a checkpoint holds, but for ``taken`` and α."""
        return {
            **{f"generator {name}": x for name, x in self.generator.learner.parts().items()},
            "discriminator": self.discriminator,
            "adam discriminator": self.adam,
            "records": self,
        }

    def state_dict(self) -> dict[str, Any]:
        """The records, and what is counted."""
        return {
            # A file must hold no NaN; a record is never negative where there is one.
            "rows": _rows(self.rows).nan_to_num(nan=-1.0),
            "said": torch.tensor(self._said, dtype=torch.float64).reshape(-1, 3),
            "lengths": torch.tensor(self.lengths, dtype=torch.long),
            "counts": (self._updates, self._over, self.generator.learner.taken),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the records."""
        rows = state["rows"]
        rows = torch.where(rows == -1.0, torch.nan, rows)
        self.rows = [tuple(x) for x in rows.tolist()]
        self._said = [tuple(x) for x in state["said"].tolist()]
        self.lengths = deque(state["lengths"].tolist(), maxlen=_KEPT)
        self._updates, self._over, self.generator.learner.taken = state["counts"]


def _rows(rows: list[tuple[float, ...]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64).reshape(-1, len(NAMES))
