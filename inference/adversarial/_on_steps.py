"""Adversarial learning from transitions: the generator learns, the discriminator watches."""

from __future__ import annotations

import copy
import math
import os
from typing import Any

import torch
from torch import Tensor, nn

from cai import checks
from cai.distributions.exact_scores import exact
from cai.gaussian.linear_gaussian import LinearGaussian
from cai.inference.adversarial._adversary import NAMES, Adversary
from cai.inference.adversarial._generators import SACGenerator, SoftQGenerator
from cai.inference.adversarial._networks import StateNetwork, TransitionDiscriminator
from cai.inference.adversarial._shown import Shown, shown
from cai.inference.adversarial.adversarial_result import AdversarialReward
from cai.inference.adversarial.adversarial_training import AdversarialTraining
from cai.inference.fitting import checkpoint_file
from cai.inference.learning.records import History
from cai.inference.learning.run import Learning
from cai.inference.learning.stepped import Stepped, stepped
from cai.numerics.exclusive import seeded
from cai.policies.observation import ActionPrior
from cai.program.trajectory import TrajectoryModel
from cai.rewards.neural_reward import NeuralReward

_JUDGED = 5_000  # transitions on which the end is judged
_APART = 0.02  # mean D on the generator, and 1 - D on demonstrations, if all are told apart
_COLLAPSED = 3.0  # nats


class LogOdds(nn.Module):
    """(t, s, a, s') -> log D/(1 - D), nats, as both players were at the end."""

    def __init__(self, adversary: Adversary) -> None:
        super().__init__()
        self.discriminator = copy.deepcopy(adversary.discriminator)
        self.policy = copy.deepcopy(adversary.generator.policy)
        self._prior = ActionPrior.of(adversary.made.problem)

    @torch.no_grad()
    def forward(self, t: Any, s: Tensor, a: Tensor, s_next: Tensor, ended: Any = False) -> Tensor:
        """Of n transitions; ``ended`` where the episode terminated before any horizon."""
        t, ended = (torch.as_tensor(x).expand(s.shape[:1]) for x in (t, ended))
        log_q, log_p = (
            exact(x).log_prob(a).double() for x in (self.policy(t, s), self._prior(s, t))
        )
        found: Tensor = self.discriminator(s, t, a, s_next, ended) - (log_q - log_p)
        return found


class LearntPotential(nn.Module):
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
    rows = torch.tensor(adversary.rows, dtype=torch.float64).reshape(-1, len(NAMES))
    records = dict(zip(NAMES, rows.unbind(1), strict=True))
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
        potential = LearntPotential(judge, adversary.alpha)
        if isinstance(holder, TrajectoryModel) and not isinstance(holder, LinearGaussian):
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
    "airl": "f = log ρ*/ρ + log π/p, with ρ* and ρ how often demonstrator and generator take a "
    "transition, as far as the networks can",
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
