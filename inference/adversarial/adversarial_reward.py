"""Adversarial inverse reinforcement learning, and generative adversarial imitation."""

from __future__ import annotations

import os
from typing import Any, Literal

from torch import nn

from cai import checks
from cai.inference.adversarial._fictitious_play import Ends, Signal
from cai.inference.adversarial._on_steps import on_steps
from cai.inference.adversarial._on_tables import REWARDS, on_tables
from cai.inference.adversarial.adversarial_result import AdversarialReward
from cai.inference.adversarial.adversarial_training import AdversarialTraining
from cai.inference.fitting import checkpoint_file
from cai.rewards.neural_reward import NeuralReward
from cai.rewards.tabular_reward import TabularReward
from cai.tables.tabulation import enumerable

_PENALTY = 0.01
_SIGNALS = ("log_odds", "log_d", "minus_log")


def adversarial_reward(
    problem: Any,
    demonstrations: Any,
    reward: Any = None,
    *,
    form: Literal["airl", "gail"] = "airl",
    signal: Signal = "log_odds",
    ends: Ends = "absorbing",
    generator: Literal["exact", "soft_q", "sac"] | None = None,
    penalty: float | None = None,
    rounds: int = 300,
    training: AdversarialTraining | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> AdversarialReward:
    r"""TODO."""
    checks.check_one_of("form", form, ("airl", "gail"), 'for instance "airl"')
    checks.check_one_of("signal", signal, _SIGNALS, '"log_odds" favours no length')
    checks.check_one_of("ends", ends, ("absorbing", "ignored"), '"absorbing" favours no length')
    if form == "gail" and reward is not None:
        advice = 'leave it out, or take form="airl"'
        checks.refuse("reward", 'none for form="gail"', type(reward).__name__, advice)
    if penalty is not None:
        checks.check_real("penalty", penalty, lambda x: 0 <= x < float("inf"), "at least 0", "")
    checks.check_count("rounds", rounds)
    checks.check_flag("progress", progress)
    if isinstance(reward, nn.Module):
        reward = NeuralReward(reward)
    if generator is not None:
        checks.check_one_of("generator", generator, ("exact", "soft_q", "sac"), "None chooses one")
    if reward is not None:
        advice = "for instance cai.TabularReward('state')"
        kinds = "a LinearReward, a TabularReward, a NeuralReward or a torch module"
        checks.check_kind("reward", reward, REWARDS, kinds, advice)  # type: ignore[arg-type]
    exact = generator == "exact" or (generator is None and enumerable(problem) is not None)
    if exact:
        if training is not None:
            expected, came = 'None for generator="exact"', "some settings"
            checks.refuse("training", expected, came, 'generator="soft_q" learns')
        if reward is None and form == "airl":
            reward = TabularReward("state")
        return on_tables(
            problem,
            demonstrations,
            reward,
            form=form,
            signal=signal,
            ends=ends,
            penalty=penalty,
            rounds=rounds,
            file=None if checkpoint is None else checkpoint_file.check(checkpoint),
            progress=progress,
        )
    return on_steps(
        problem,
        demonstrations,
        reward,
        form=form,
        generator=generator,
        signal=signal,
        ends=ends,
        penalty=_PENALTY if penalty is None else penalty,
        training=training or AdversarialTraining(),
        checkpoint=checkpoint,
        progress=progress,
    )
