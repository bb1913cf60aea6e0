"""Soft actor-critic: a policy and two critics from a replay memory (Haarnoja et al. 2018)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from cai import checks
from cai.inference.fitting import checkpoint_file
from cai.inference.fitting.resumption import copy_of
from cai.inference.learning.automatic_temperature import AutomaticTemperature
from cai.inference.learning.learned import Learned
from cai.inference.learning.policy_gradient import check_trainable
from cai.inference.learning.records import History
from cai.inference.learning.run import Learning
from cai.inference.learning.stepped import stepped
from cai.inference.off_policy._replay import Replay
from cai.inference.off_policy._soft_actor_critic import SoftActorCritic
from cai.inference.off_policy._twin_critics import TwinCritics
from cai.numerics.exclusive import seeded
from cai.policies.neural import NeuralPolicy
from cai.program.interfaces import Observe


def sac(
    source: Any,
    policy: nn.Module | None = None,
    *,
    steps: int = 20_000,
    num_envs: int = 1,
    hidden: tuple[int, ...] = (256, 256),
    observe: Observe | None = None,
    temperature: Callable[[int], float] | AutomaticTemperature | None = None,
    replay: int = 100_000,
    batch: int = 256,
    updates: int | None = None,
    warm_up: int = 1_000,
    lag: float = 0.005,
    learning_rate: float = 3e-4,
    checkpoint: str | os.PathLike[str] | None = None,
    every: int = 20_000,
    on_record: Callable[[dict[str, float]], None] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Learned:
    """A policy and two critics, learnt from transitions of any behaviour.

    Each step draws transitions (s, a, r, s') from a memory, and moves both critics towards

        r + γ E_{a'~π}[min_i Q_i(s',a') - α log π(a'|s')/p(a'|s')],

    with the Q_i of copies that lag behind, and then the policy along the gradient of

        E_{a~π}[min_i Q_i(s,a) - α log π(a|s)/p(a|s)],

    (Haarnoja et al. 2018; the smaller of two critics was proposed by Fujimoto et al. 2018). The KL
    from the action prior takes the place of the paper's entropy; with a uniform prior, as an
    environment has, the two differ by a constant. The expectation over s' is outside of any
    logarithm, so that there is no optimism about luck: if the family of policies contains it, the
    optimum is the policy of ``soft_values(model)``.

    Expectations over finitely many actions are sums over all of them. Otherwise the gradient goes
    through a sampled action if its distribution has ``rsample``; if it has none, as for a mixture
    of Gaussians, it is the score-function gradient of several actions.

    The smaller of two critics is too low wherever they err. The values that are returned take the
    mean of both; they are estimates, not bounds.

    Args:
        source: a model or a ``models.environment``. The time is part of the state if the horizon is
            finite.
        policy: a torch module (t, s) -> distribution, a copy of which is trained; by default a
            :class:`cai.NeuralPolicy` with the hidden layers below.
        steps: how many transitions, of all copies together.
        num_envs: how many copies are stepped side by side.
        hidden: widths of the hidden layers of the critics.
        observe: s -> what the critics, and a policy that is not given, see of a state, for instance
            cosine and sine of an angle; everything if not given.
        temperature: a function (transitions so far) -> α, or :class:`AutomaticTemperature`; by
            default the source's temperature.
        replay: how many of the latest transitions are remembered.
        batch: how many of them are drawn for a step.
        updates: how many steps follow a step of all copies; if not given, one for each transition.
        warm_up: how many transitions are taken by the action prior, before the first step.
        lag: in (0, 1), the share by which the lagging critics move after each step.
        learning_rate: learning rate of Adam, for policy and critics; over the second half of the
            transitions it falls to zero.
        checkpoint: path of a file, written atomically every ``every`` transitions and at the end.
            If it exists, the run resumes from it, as in ``fit``: bit for bit on a model, with new
            episodes in an environment. The memory is in a folder beside it, of the same name with
            ``.replay`` at the end.
        every: the number of transitions between checkpoints.
        on_record: is called with each new record of the history, name -> number, while the run
            goes on: for a log, or for TensorBoard.
        seed: seed of all random numbers.
        progress: whether to show a progress bar on a terminal.

    Returns:
        A :class:`Learned`: the policy, values and a record of the training.

    Raises:
        ValueError: if the policy has no parameters, has a memory or does not fit the source, if a
            number is out of range, or if the checkpoint is of another run.
        LearningStopped: a ValueError with what was learnt before, if a step failed.

    >>> import cai
    >>> from cai import inference, models
    >>> model = models.ledge()
    >>> learnt = inference.sac(
    ...     model,
    ...     hidden=(32,),
    ...     steps=6_000,
    ...     num_envs=8,
    ...     updates=2,
    ...     learning_rate=1e-3,
    ...     progress=False,
    ... )
    >>> best = inference.soft_values(model).elbo  # of all policies
    >>> bool(best - cai.evaluate(model, learnt.policy).elbo < 0.1)
    True
    """
    arguments = dict(locals())
    checks.check_count("steps", steps)
    checks.check_widths("hidden", hidden)
    checks.check_count("replay", replay)
    checks.check_count("batch", batch)
    if updates is not None:
        checks.check_count("updates", updates)
    checks.check_count("warm_up", warm_up)
    checks.check_real("lag", lag, lambda x: 0 < x < 1, "between 0 and 1", "for instance 0.005")
    learning_rate = checks.check_positive("learning_rate", learning_rate)
    if warm_up >= steps:
        advice = "take more steps, or a shorter warm_up"
        checks.refuse("warm_up", f"fewer transitions than steps, {steps}", str(warm_up), advice)
    checks.check_seed(seed)
    checks.check_flag("progress", progress)
    with seeded(seed), torch.no_grad():
        problem, copies, horizon = made = stepped(source, num_envs)
        if policy is None:
            policy = NeuralPolicy(problem, hidden, observe=observe, stationary=horizon is None)
        check_trainable(policy)
        policy = copy_of(policy)
        made.check(policy)
        file = None if checkpoint is None else checkpoint_file.check(checkpoint)
        state = SoftActorCritic(
            policy,
            TwinCritics(problem, hidden, horizon is not None, observe),
            Replay(replay, copies.num_envs, 1, file),
            discount=float(problem.discount),
            batch=batch,
            updates=copies.num_envs if updates is None else updates,
            warm_up=warm_up,
            lag=lag,
            learning_rate=learning_rate,
        )
        state.alpha = float(problem.temperature)
        history = History(copies.num_envs, steps, on_record)

        def once() -> None:
            q = made.prior if state.taken < warm_up else made.distribution(policy)
            transition = copies.step(made.draw(q))
            history.add(transition)
            kl = state.divergence(q, transition)
            loss = state.learn(transition, min(2 - 2 * state.taken / steps, 1.0))
            history.record(state.taken, state.alpha, loss, kl)

        def learned() -> Learned:
            return state.learned(history.tensors())

        learning = Learning(
            "sac",
            steps,
            state,
            temperature,
            once,
            history,
            made,
            state.parts(),
            learned,
            policy,
            cut=state.cut,
        )
        return learning.run(arguments, checkpoint, every, progress)
