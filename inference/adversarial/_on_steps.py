"""Adversarial learning from transitions: the generator learns, the discriminator watches."""

from __future__ import annotations

import copy
import math
import os
from collections import deque
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from cai import checks
from cai.inference.adversarial._generators import SACGenerator, SoftQGenerator
from cai.inference.adversarial._networks import StateNetwork, TransitionDiscriminator
from cai.inference.adversarial._shown import Shown, share_over, shown
from cai.inference.adversarial.adversarial_result import AdversarialReward
from cai.inference.adversarial.adversarial_training import AdversarialTraining
from cai.inference.fitting import checkpoint_file
from cai.inference.learning.records import History
from cai.inference.learning.run import Learning
from cai.inference.learning.stepped import Stepped, stepped
from cai.numerics.exclusive import seeded
from cai.program.trajectory import TrajectoryModel
from cai.rewards.neural_reward import NeuralReward
from cai.stepping.source import Transition

_SIGNALS = {
    "log_odds": lambda x: x,
    "log_d": lambda x: -softplus(-x),
    "minus_log": softplus,
}
_KEPT = 200  # lengths of the latest episodes
_LOOKS = 20  # updates between looks at how long episodes are over
_JUDGED = 5_000  # transitions on which the end is judged
_APART = 0.02  # mean D on the generator, and 1 - D on demonstrations, if all are told apart
_COLLAPSED = 3.0  # nats
_NAMES = ("steps", "loss", "on_demonstrations", "on_generator", "length")


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
        with torch.enable_grad():
            parts = (
                (self.log_odds(real, real.ended), 1.0, self.shown.over),
                (self.log_odds(made, self.early(made))[made.counts], -1.0, self._over),
            )
            loss = torch.zeros((), dtype=torch.float64)
            staying = self.discriminator.staying(torch.zeros((), dtype=torch.long))
            for x, sign, over in parts:
                over = over if self._ends else 0.0
                loss = loss + (1 - over) * self._loss(x, sign) + over * self._loss(staying, sign)
            self.adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
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
        every = max(1, self.training.steps // 100)
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
            "rows": torch.tensor(self.rows, dtype=torch.float64).reshape(-1, len(_NAMES)),
            "said": torch.tensor(self._said, dtype=torch.float64).reshape(-1, 3),
            "lengths": torch.tensor(self.lengths, dtype=torch.long),
            "counts": (self._updates, self._over, self.generator.learner.taken),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the records."""
        self.rows = [tuple(x) for x in state["rows"].tolist()]
        self._said = [tuple(x) for x in state["said"].tolist()]
        self.lengths = deque(state["lengths"].tolist(), maxlen=_KEPT)
        self._updates, self._over, self.generator.learner.taken = state["counts"]


class LogOdds(nn.Module):
    """(t, s, a, s') -> log D/(1 - D), nats, as both players were at the end."""

    def __init__(self, adversary: Adversary) -> None:
        super().__init__()
        self.discriminator = copy.deepcopy(adversary.discriminator)
        self._ratio = adversary.generator.log_ratio

    @torch.no_grad()
    def forward(self, t: Any, s: Tensor, a: Tensor, s_next: Tensor, ended: Any = False) -> Tensor:
        """Of n transitions; ``ended`` where the episode terminated before any horizon."""
        shape = s.shape[:1]
        t, ended = (torch.as_tensor(x).expand(shape) for x in (t, ended))
        found: Tensor = self.discriminator(s, t, a, s_next, ended) - self._ratio(s, t, a)
        return found


class Potential(nn.Module):
    """(t, s) -> Φ_t(s), reward units."""

    def __init__(self, discriminator: TransitionDiscriminator, alpha: float) -> None:
        super().__init__()
        self.discriminator, self._alpha = copy.deepcopy(discriminator), alpha

    @torch.no_grad()
    def forward(self, t: Any, s: Tensor) -> Tensor:
        """Of states of any batch shape."""
        return self._alpha * self.discriminator.phi(torch.as_tensor(t), s)


def on_steps(
    problem: Any,
    demonstrations: Any,
    reward: Any,
    *,
    form: str,
    generator: str | None,
    signal: str,
    ends: str,
    penalty: float,
    training: AdversarialTraining,
    checkpoint: str | os.PathLike[str] | None,
    progress: bool,
) -> AdversarialReward:
    """See :func:`cai.inference.adversarial_reward`, with a generator that learns."""
    file = None if checkpoint is None else checkpoint_file.check(checkpoint)
    with seeded(training.seed), torch.no_grad():
        made = stepped(problem, training.num_envs)
        problem, discount = made.problem, float(made.problem.discount)
        if made.horizon is None and discount == 1:
            advice = "such as models.environment(…, discount=0.99), or a model with a horizon"
            checks.refuse("discount", "one below 1 without a horizon", "1", advice)
        limit = made.problem.horizon if made.horizon is None else made.horizon
        seen = shown(demonstrations, made.horizon, limit, discount)
        _check_fits(made, seen)
        if generator is None:
            generator = "sac" if made.num_actions is None else "soft_q"
        kind = SACGenerator if generator == "sac" else SoftQGenerator
        player = kind(made, training, file)
        if reward is None and form == "airl":
            reward = NeuralReward(StateNetwork(problem, training.hidden))
        absorbs = ends == "absorbing"
        sizes = _sizes(made)
        inner = None if form == "gail" else reward
        judge = TransitionDiscriminator(
            problem, inner, training.hidden, made.horizon, sizes, absorbs
        )
        adversary = Adversary(made, seen, judge, player, training, signal, absorbs, penalty, limit)
        history = History(made.copies.num_envs, training.steps)
        learning = Learning(
            "adversarial_reward",
            training.steps,
            adversary,
            None,
            lambda: adversary.once(history),
            history,
            made,
            adversary.parts(),
            lambda: _result(adversary, history, form),  # type: ignore[arg-type, return-value]
            cut=adversary.cut,
        )
        arguments = {
            "form": form,
            "generator": generator,
            "signal": signal,
            "ends": ends,
            "penalty": penalty,
            "training": str(training),
            "demonstrations": seen.digest(),
            "reward": type(inner).__name__,
        }
        every = max(training.steps // 10, 1)
        found: Any = learning.run(arguments, checkpoint, every, progress)
        result: AdversarialReward = found
        return result


def _result(adversary: Adversary, history: History, form: str) -> AdversarialReward:
    made, seen, judge = adversary.made, adversary.shown, adversary.discriminator
    rows = torch.tensor(adversary.rows, dtype=torch.float64).reshape(-1, len(_NAMES))
    records = dict(zip(_NAMES, rows.unbind(1), strict=True))
    records |= {name: x for name, x in history.tensors().items() if name == "returns"}
    real = seen.drawn(_JUDGED)
    on_real = adversary.log_odds(real, real.ended)
    on_made = torch.full((1,), torch.nan)
    if adversary.generator.memory.written:
        recent = adversary.generator.memory.recent(_JUDGED, adversary.training.recent)
        on_made = adversary.log_odds(recent, adversary.early(recent))[recent.counts]
    reward = potential = None
    holder = made.problem
    if judge.reward is not None:
        reward = copy.deepcopy(judge.reward).trained()  # type: ignore[operator]
        potential = Potential(judge, adversary.alpha)
        if isinstance(holder, TrajectoryModel):
            holder = reward.given_to(holder)
    D = float(on_real.sigmoid().mean()), float(on_made.sigmoid().mean())
    done = adversary.taken >= adversary.training.steps
    return AdversarialReward(
        form=form,
        reward=reward,
        model=holder,
        policy=adversary.generator.policy,
        log_odds=LogOdds(adversary),
        potential=potential,
        converges_to=_CONVERGES[form],
        on_demonstrations=D[0],
        on_generator=D[1],
        lengths=(len(seen.t) / seen.count, adversary.length),
        distance=None,
        history=records,
        demonstrations=float(seen.count),
        actions=float(len(seen.t)),
        steps=adversary.taken,
        converged=False,
        reason=f"{adversary.taken} transitions were taken"
        if done
        else "it was interrupted; this is the latest",
        remarks=_remarks(adversary, real, D),
    )


_CONVERGES = {
    "airl": "f = log ρ*/ρ + log π/p, as with exact expectations, if all networks are flexible enough",
    "gail": "the demonstrator's occupancies, by a policy alone: the discriminator ends at ½",
}


def _remarks(adversary: Adversary, real: Shown, D: tuple[float, float]) -> tuple[str, ...]:
    found = []
    if adversary.discriminator.reward is not None and adversary.shown.ended.any():
        paid = adversary.alpha * float(adversary.discriminator.absorbed[0])
        found.append(f"After a termination, each step in the absorbing state pays {paid:.3f}.")
    if 1 - D[0] < _APART and D[1] < _APART:
        found.append(
            "The discriminator tells everything apart, and what it pays says little: take a larger "
            "penalty, a smaller discriminator_rate, more demonstrations, or more steps."
        )
    if adversary.generator.memory.written:
        made = adversary.generator.memory.recent(_JUDGED, adversary.training.recent)
        own = float(adversary.generator.log_ratio(made.s, made.t, made.a)[made.counts].mean())
        gap = own - float(adversary.generator.log_ratio(real.s, real.t, real.a).mean())
        if gap > _COLLAPSED:
            found.append(
                f"The generator collapsed to few actions: it gives those of the demonstrations "
                f"{math.exp(-gap):.2g} times the density of its own. Take a smaller learning_rate, "
                "a higher temperature, or more exploration."
            )
    return tuple(found)


def _sizes(made: Stepped) -> tuple[int, int] | None:
    S = getattr(made.problem.initial, "probs", None)
    if S is None or made.num_actions is None:
        return None
    return S.shape[-1], made.num_actions


def _check_fits(made: Stepped, seen: Shown) -> None:
    s, a = made.copies.s, made.draw(made.prior)
    for name, given, own in (("states", seen.s, s), ("actions", seen.a, a)):
        if given.shape[1:] != own.shape[1:]:
            expected = f"{name} of shape {list(own.shape[1:])}"
            checks.refuse("demonstrations", expected, str(list(given.shape[1:])), "see the problem")
