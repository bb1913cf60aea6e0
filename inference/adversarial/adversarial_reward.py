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

_PENALTY = 0.1  # of learners, which have noise besides
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
    r"""A reward, or a policy alone, by telling demonstrations from a generator's behaviour.

    A discriminator D says how probable it is that a transition was demonstrated. It minimises

        -E_demonstrations[log D] - E_generator[log(1 - D)],

    and a generator learns to be taken for the demonstrator. The log-odds are

        log D/(1 - D) = f(s,a,s') - log π(a|s)/p(a|s),

    with the generator's policy π and the action prior p. (The literature has no prior: its f is
    this one plus log p.) At the discriminator's optimum f = log ρ*/ρ + log π/p, with ρ* and ρ how
    often demonstrator and generator take a transition.

    ========  ==================================================================================
    ``form``  what f is, and what it ends at
    ========  ==================================================================================
    "airl"    f = (r + γ Φ(s') - Φ(s))/α (Fu, Luo and Levine 2018). The generator is the soft policy
              of r. At the end f is the advantage log π*/p = (Q - V)/α, as far as it can be. On
              deterministic dynamics r, as a function of states, is right up to a constant if all
              states are linked (two of them are if, from some state, one action leads to one and
              another to the other). On stochastic dynamics no Φ(s') - Φ(s) is the advantage, and r
              is wrong; ``fit_reward`` is right.
    "gail"    f is free (Ho and Ermon 2016): the generator comes to the demonstrator's occupancies,
              D to ½, and no reward is left in it.
    ========  ==================================================================================

    **Lengths.** A reward that is always negative, log D, makes the generator end episodes, and one
    that is always positive, -log(1 - D), makes it live on, whatever was demonstrated. By default
    neither happens: the signal is the log-odds, which have both signs, and the absorbing state
    after an end is one like any other, in which the discriminator knows both sides, and whose
    reward and Φ are learnt (Kostrikov et al. 2019). At a finite horizon Φ knows the time, and
    ends at the final reward, which is known. ``signal`` and ``ends`` are there to compare.

    With the exact generator, in tables, all expectations are exact and nothing is sampled: in each
    round the discriminator is optimal, by Newton's method, and the generator mixes the best
    response with those before (fictitious play, with a share that adapts). Differs from the papers
    in that: they take steps of either. Otherwise the generator learns from transitions, by
    ``soft_q`` or ``sac``, and what it remembers is paid anew by the present discriminator whenever
    it is drawn. The discriminator sees its latest transitions alone.

    Args:
        problem: a model or its table; or a ``models.environment``, which can only be stepped, with
            a discount below one.
        demonstrations: :class:`cai.Demonstrations` of states and actions that are numbers; or
            ``Trajectories`` of any, as ``simulate`` returns, where those that are alive to the end
            were cut off and all others terminated (simulate them without a discount); or, with the
            exact generator, the policy of the demonstrator, as if there were infinitely many. With
            the exact generator they must be seen to their end.
        reward: r, whose parameters are where the search starts: a :class:`cai.LinearReward`, a
            :class:`cai.TabularReward`, a :class:`cai.NeuralReward` or a torch module of (s, a), of
            which a copy is trained. By default one that is free in each state, or a network of the
            state.
        form: "airl" or "gail", see above.
        signal: what the generator is paid, besides its own log π/p: "log_odds", "log_d" for log D,
            or "minus_log" for -log(1 - D).
        ends: "absorbing", or "ignored" if nothing is paid or compared after an end, as in many
            published programs.
        generator: "exact", "soft_q" for finitely many actions, or "sac"; None for the exact one
            where there is a table, else a learner.
        penalty: λ of ½ λ (log-odds)² of each transition, which is without effect where both sides
            are alike; None for 0.1 for learners, else 0.01, and 0 where the demonstrator itself is
            given. Without one, what one side never does has infinite log-odds.
        rounds: of the exact generator, at most.
        training: the settings of generators that learn.
        checkpoint: path of a file that keeps the run. If it exists, the run goes on from it: bit
            for bit on a model, with new episodes in an environment.
        progress: whether to show a bar on a terminal.

    Returns:
        An :class:`AdversarialReward`; after Ctrl-C that of what was learnt so far.

    Raises:
        ValueError: if an argument is not one of those, demonstrations do not fit, the discount is
            one where episodes may terminate at any time, or trajectories never end.
        LearningStopped: a ValueError with what was learnt before, if a step of a learner failed.

    >>> import torch, cai
    >>> from cai import inference, models
    >>> model = models.gridworld(["S..", "..G"], horizon=6, slip=0.0)
    >>> expert = inference.soft_values(model).policy
    >>> paths = model.simulate(expert, 300, seed=0)
    >>> seen = cai.Demonstrations.from_trajectories(paths)
    >>> found = inference.adversarial_reward(model, seen, progress=False)
    >>> home, step = found.reward.values[5].item(), found.reward.values[0].item()
    >>> 0.5 < home - step < 1.5  # a step costs one more than being at home
    True
    """
    checks.check_one_of("form", form, ("airl", "gail"), 'for instance "airl"')
    checks.check_one_of("signal", signal, _SIGNALS, '"log_odds" favours no length')
    checks.check_one_of("ends", ends, ("absorbing", "ignored"), '"absorbing" favours no length')
    if form == "gail" and reward is not None:
        advice = 'leave it out, or take form="airl"'
        checks.refuse("reward", 'none for form="gail"', type(reward).__name__, advice)
    if penalty is not None:
        finite = "a finite number of at least 0"
        checks.check_real("penalty", penalty, lambda x: 0 <= x < float("inf"), finite, "")
    if training is not None:
        kind, advice = "an AdversarialTraining", "inference.AdversarialTraining(…)"
        checks.check_kind("training", training, AdversarialTraining, kind, advice)
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
    if not any(hasattr(problem, made) for made in ("log_prior", "transition", "make")):
        expected = "a model or its table, or what models.environment returns"
        checks.refuse("problem", expected, type(problem).__name__, "such as cai.models.ledge()")
    tabulated = enumerable(problem) is not None
    if generator == "exact" and not tabulated:
        expected, came = "a model with finitely many states and actions", "another problem"
        checks.refuse("generator", f'{expected} for "exact"', came, "leave it out")
    if generator == "exact" or (generator is None and tabulated):
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
