"""Soft Q-learning: action values from transitions of any behaviour (Haarnoja et al. 2017)."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from cai import checks
from cai.distributions.exact_scores import support_size
from cai.inference.fitting import checkpoint_file
from cai.inference.learning.automatic_temperature import AutomaticTemperature
from cai.inference.learning.learned import Learned
from cai.inference.learning.q_network import QNetwork
from cai.inference.learning.records import History
from cai.inference.learning.run import Learning
from cai.inference.learning.stepped import stepped
from cai.inference.off_policy._q_table import QTable
from cai.inference.off_policy.q_learner import QLearner
from cai.inference.off_policy.replay import Replay
from cai.numerics.exclusive import seeded
from cai.program.trajectory import TrajectoryModel
from cai.tables.bellman import Rule, check_rule
from cai.tables.finite import same_log_prior

_HIDDEN = (64, 64)  # of the network where states are not finitely many


def soft_q(
    source: TrajectoryModel | Any,
    *,
    steps: int = 200_000,
    num_envs: int = 64,
    rule: Rule = "soft",
    regulariser: Literal["divergence", "entropy"] = "divergence",
    length: int = 1,
    exploration: float = 0.1,
    behaviour: Literal["own", "greedy", "boltzmann"] | Callable[[Any, Tensor], Any] = "own",
    temperature: Callable[[int], float] | AutomaticTemperature | None = None,
    decay: float = 0.6,
    hidden: tuple[int, ...] | None = None,
    value_weight: float | None = None,
    replay: int = 50_000,
    batch: int = 256,
    updates: int = 1,
    lag: float | None = 0.05,
    learning_rate: float = 1e-3,
    checkpoint: str | os.PathLike[str] | None = None,
    every: int = 20_000,
    callback: Callable[[dict[str, float]], bool | None] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Learned:
    """Action values learnt from transitions, in a table of states and actions or by a network.

    After each transition (s, a, r, s'),

        Q(s,a) ← Q(s,a) + ρ (r + γ V(s') - Q(s,a)),    V(s) = α log Σ_a p(a|s) exp(Q(s,a)/α),

    which is the backward message of Levine (2018, eq. 13) estimated from samples, and converges to
    ``soft_values(model)`` for any behaviour that keeps trying all actions in all states
    (Haarnoja et al. 2017, theorem 3): the expectation over s' is outside the logarithm, so that
    there is no optimism about luck. With ``rule="hard"``, V = max_a Q, this is Q-learning (with a
    network: DQN, Mnih et al. 2015); with "boltzmann", V = E_π[Q] with π ∝ p exp(Q/α), it is
    expected SARSA, which converges to ``soft_values(model, rule="boltzmann")`` and *not* at the
    maximum-entropy optimum: the entropies of later steps are missing in its target. With "planned",
    V = max_a Q, the policy that is returned, and acts, errs: π ∝ p exp(Q/α).

    With segments of n steps the target is (Schulman et al. 2017, eq. 46)

        r_t + Σ_{1≤d<n} γ^d (r_{t+d} - α log π(a_{t+d}|s_{t+d})/p) + γ^n V(s_{t+n}),

    with the π of the present Q. It has the same fixed point for every behaviour, since
    Q - α log π/p = V for every action, but off policy convergence is not guaranteed.

    The value after termination is zero, after truncation it is that of the last state. A network
    learns nothing of states in which episodes are over, and what it says of them means nothing.

    In a table the rate is ρ = visits^(-decay), and the result is the mean of Q over the second half
    of the transitions, which removes most of the noise of a high rate. A network takes a step of
    Adam on the mean of ½ (Q - target)² over segments from a replay memory; its targets, and the
    result, are from a copy whose parameters lag behind. Without memory and lag (``replay=0,
    lag=None``) it is the online algorithm of Schulman et al. (2017, section 6.3), but for the
    ``exploration``. With a ``value_weight`` besides, Q = V + α log π/p has a stream of values and
    one of the policy, and the expected step is that of an actor-critic: for actions of the policy

        E[∇Q (Q - y)] = α E[-∇log π V̂] + α² ∇KL(π ‖ p) + α c ∇½(V - V̂)²,    V̂ = y - α KL,

    a policy gradient beside the gradient of the loss of V (their eq. 65, where c = 1/α).

    Args:
        source: a model or a ``models.environment`` with finitely many actions. The time is part of
            the state if the horizon is finite.
        steps: the number of transitions of all copies together.
        num_envs: how many copies are stepped side by side.
        rule: "soft", "hard", "boltzmann" or "planned".
        regulariser: "divergence" relates the policy to the action prior, as everywhere else;
            "entropy" pays α times its entropy instead, V = α log Σ_a exp(Q(s,a)/α) over the
            actions that the prior allows. For each step alive this pays α log A more than a uniform
            prior, so that it is another problem where episodes can end.
        length: n, the number of steps in a segment.
        exploration: the share of actions that are drawn from the action prior instead.
        behaviour: what acts otherwise: "own", the policy of the rule; "greedy", the best action;
            "boltzmann", π ∝ p exp(Q/α); or a policy (t, s) -> distribution, for instance the action
            prior, ``lambda t, s: model.prior(s)``.
        temperature: transitions so far -> α, as in ``fit``; falling to the model's own, it is
            G-learning. At a low α, Q overrates the luckiest of few samples (the winner's curse).
            Or :class:`AutomaticTemperature`.
        decay: in (0.5, 1], how fast the rate of a table falls with visits.
        hidden: widths of the hidden layers of a network; None for a table, or for (64, 64) where
            states are not finitely many. What follows is for networks.
        value_weight: c > 0, for a network with the two streams V and log π on shared hidden layers:
            how much the gradient of V counts beside that of log π. 1/α is the gradient of the loss
            above; at a low α the values then outweigh the policy in the shared layers. None for a
            network with an output for each action. With rule="soft" only.
        replay: how many of the latest transitions are remembered; 0 for a step on the latest
            segments alone.
        batch: how many segments are drawn for a step of Adam.
        updates: how many steps of Adam follow a step of all copies.
        lag: in (0, 1), the share by which the lagging parameters move after each of them; None for
            no lagging copy.
        learning_rate: learning rate of Adam at the start; it falls to zero.
        checkpoint: path of a file, written atomically every ``every`` transitions and at the end.
            If it exists, the run resumes from it, as in ``fit``: bit for bit on a model, with new
            episodes in an environment. A replay memory is in a folder beside it, of the same name
            with ``.replay`` at the end.
        every: the number of transitions between checkpoints.
        callback: is called with each new record of the history, with "step" for its transitions:
            for a log, or for TensorBoard. If it returns True, the run ends.
        seed: seed of all random numbers.
        progress: whether to show a progress bar on a terminal.

    Returns:
        A :class:`Learned`: the policy, values and a record of the training.

    Raises:
        ValueError: if actions are not finitely many, if a number is out of range, or if the
            checkpoint is of another run.
        LearningStopped: a ValueError with what was learnt before, if a step failed.

    >>> from cai import inference, models
    >>> model = models.ledge()
    >>> learnt = inference.soft_q(model, steps=20_000, progress=False)
    >>> exact = inference.soft_values(model)
    >>> bool(abs(learnt.values(0) - exact.V[0, 0]) < 0.2)
    True
    """
    arguments = dict(locals())
    check_rule(rule)
    checks.check_one_of("regulariser", regulariser, ("divergence", "entropy"), '"divergence"')
    checks.check_count("steps", steps)
    checks.check_count("length", length)
    if length > 1 and rule != "soft":
        checks.refuse(
            "length",
            "segments of one step beside any other rule, whose longer ones are right only for "
            "actions that the rule itself would choose",
            str(length),
            "length=1",
        )
    checks.check_share("exploration", exploration, "0 for none")
    if not callable(behaviour):
        advice = "or a policy (t, s) -> distribution"
        checks.check_one_of("behaviour", behaviour, tuple(_RULE_OF), advice)
    checks.check_real("decay", decay, lambda x: 0.5 < x <= 1, "above 0.5, at most 1", "try 0.6")
    if hidden is not None:
        checks.check_widths("hidden", hidden)
    if value_weight is not None:
        value_weight = checks.check_positive("value_weight", value_weight)
        if rule != "soft":
            advice = 'rule="soft", whose V is one of its streams'
            checks.refuse("value_weight", f"None for rule={rule!r}", str(value_weight), advice)
    if replay != 0:
        checks.check_count("replay", replay)
    checks.check_count("batch", batch)
    checks.check_count("updates", updates)
    if lag is not None:
        checks.check_real("lag", lag, lambda x: 0 < x < 1, "between 0 and 1", "for instance 0.01")
    learning_rate = checks.check_positive("learning_rate", learning_rate)
    checks.check_seed(seed)
    checks.check_flag("progress", progress)
    with seeded(seed), torch.no_grad():
        problem, copies, horizon = made = stepped(source, num_envs)
        actions = made.finitely_many_actions("take policy_gradient, or path_consistency")
        entropy = regulariser == "entropy"
        state: QTable | QLearner
        if hidden is None and support_size(problem.initial) is not None:
            if value_weight is not None:
                advice = "hidden=(64, 64) for a network"
                checks.refuse("value_weight", "None for a table", f"{value_weight:g}", advice)
            log_prior = same_log_prior(problem, "soft_q")
            state = QTable(log_prior, horizon, problem.discount, rule, entropy, length, decay)
        else:
            widths = _HIDDEN if hidden is None else hidden
            timed = horizon is not None
            online = QNetwork(problem, widths, timed, actions, rule, entropy, value_weight)
            memory = _memory(replay, copies.num_envs, length, checkpoint)
            state = QLearner(
                online,
                online if lag is None else copy.deepcopy(online),
                memory,
                discount=float(problem.discount),
                batch=batch if replay else None,
                updates=updates,
                lag=lag,
                learning_rate=learning_rate,
            )
        state.alpha = float(problem.temperature)
        if callable(behaviour):
            made.check(behaviour, "behaviour")
        history = History(copies.num_envs, steps, callback)

        def once() -> None:
            s, t = copies.s, copies.t
            log_prior, log_policy = state.log_prior(s, t), state.log_policy(s, t)
            if callable(behaviour):
                a = made.drawn(behaviour, "behaviour")
            else:
                acts = _RULE_OF[behaviour]
                log_q = log_policy if acts is None else state.log_policy(s, t, acts)
                a = _explored(log_q, log_prior, exploration)
            transition = copies.step(a)
            history.add(transition)
            loss = state.learn(transition, max(1 - state.taken / steps, 0.0))
            ratio = (log_policy - log_prior).nan_to_num(0.0, neginf=0.0)
            kl = (log_policy.exp() * ratio).sum(-1)[transition.counts].mean()
            history.record(state.taken, state.alpha, loss, kl.item())

        def learned() -> Learned:
            return state.learned(history.tensors())

        learning = Learning(
            "soft_q",
            steps,
            state,
            temperature,
            once,
            history,
            made,
            state.parts(),
            learned,
            cut=state.cut,
        )
        return learning.run(arguments, checkpoint, every, progress)


_RULE_OF: dict[str, Rule | None] = {"own": None, "greedy": "hard", "boltzmann": "soft"}


def _memory(size: int, num_envs: int, length: int, checkpoint: Any) -> Replay:
    """The replay memory; without one, of the latest segment of each copy."""
    file = None if checkpoint is None else checkpoint_file.check(checkpoint)
    return Replay(size or num_envs * length, num_envs, length, file)


def _explored(log_p: Tensor, log_prior: Tensor, exploration: float) -> Tensor:
    """Actions of a policy, some of them of the prior instead, from logarithms (n, A)."""
    if exploration > 0:
        explores = torch.rand(len(log_p), 1) < exploration
        log_p = torch.where(explores, log_prior, log_p)
    return log_p.exp().multinomial(1).squeeze(1)
