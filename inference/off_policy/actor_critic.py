"""Actor-critic with both backward messages as networks (Levine 2018, section 4.2)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cai import checks
from cai.inference.learning.automatic_temperature import AutomaticTemperature
from cai.inference.learning.learned import Learned
from cai.inference.learning.q_network import of_actions
from cai.inference.learning.state_values import StateValues
from cai.inference.learning.stepped import stepped
from cai.inference.off_policy._expectations import check_rsample, divergence, expectations
from cai.inference.off_policy._from_replay import (
    FromReplay,
    check_numbers,
    first_policy,
    learn,
    prepared,
)
from cai.inference.off_policy.q_critics import Critics
from cai.inference.off_policy.replay import Replay
from cai.numerics.exclusive import seeded
from cai.policies.neural import NeuralPolicy
from cai.program.interfaces import Observe
from cai.stepping.source import Transition


def actor_critic(
    source: Any,
    policy: nn.Module | None = None,
    *,
    start: Learned | None = None,
    steps: int = 20_000,
    num_envs: int = 8,
    hidden: tuple[int, ...] = (64, 64),
    observe: Observe | None = None,
    gradient: Literal["pathwise", "score"] | None = None,
    temperature: Callable[[int], float] | AutomaticTemperature | None = None,
    replay: int = 100_000,
    batch: int = 128,
    updates: int | None = None,
    warm_up: int = 1_000,
    lag: float = 0.01,
    learning_rate: float = 1e-3,
    checkpoint: str | os.PathLike[str] | None = None,
    every: int = 20_000,
    callback: Callable[[dict[str, float]], bool | None] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Learned:
    """A policy, and the backward messages Q_φ(s,a) and V_ψ(s) that it is trained by.

    The messages are regressions, each towards an expectation of the other (Levine 2018, 4.2),

        E(φ) = E ½ [Q_φ(s,a) - r - γ V_ψ'(s')]²,
        E(ψ) = E ½ [V_ψ(s) - E_{a~π}(Q_φ(s,a) - α log π(a|s)/p(a|s))]²,

    with a copy ψ' that lags behind, and the policy follows the gradient of

        E_s E_{a~π}[Q_φ(s,a) - α log π(a|s)/p(a|s)].

    In both, actions are drawn from the present policy, so that states and transitions may be those
    of any behaviour and come from a memory. The expectation over s' is in no logarithm: the policy
    is not optimistic about luck, and its optimum is that of ``soft_values(model)``.

    ``sac`` differs in that it has two critics, of which it takes the smaller, and no network V.

    Args:
        source: a model or a ``models.environment``. The time is part of the state if the horizon is
            finite.
        policy: a torch module (t, s) -> distribution, a copy of which is trained; by default a
            :class:`cai.NeuralPolicy` with the hidden layers below.
        start: an earlier result of this learner, for instance on another problem with the same
            states and actions, where this run starts: its critics are copied, as functions of state
            and action in reward units, and its policy, unless another is given. That acts from the
            first transition on, instead of the action prior. It needs the same ``observe`` and the
            same horizon.
        steps: how many transitions, of all copies together.
        num_envs: how many copies are stepped side by side.
        hidden: widths of the hidden layers of both messages.
        observe: s -> what the messages, and a policy that is not given, see of a state; everything
            if not given.
        gradient: "pathwise" goes through a drawn action into Q, "score" weights the scores of
            several; if not given, pathwise where draws have a gradient. Finitely many actions are
            summed over.
        temperature: a function (transitions so far) -> α, or :class:`AutomaticTemperature`; by
            default the source's temperature.
        replay: how many of the latest transitions are remembered.
        batch: how many of them are drawn for a step.
        updates: how many steps follow a step of all copies; if not given, one for each transition.
        warm_up: how many transitions are taken, by the action prior or by the policy of a
            ``start``, before the first step of Adam.
        lag: in (0, 1), the share by which the lagging values move after each step.
        learning_rate: learning rate of Adam; over the second half of the transitions it falls to
            zero.
        checkpoint: path of a file, written atomically every ``every`` transitions and at the end.
            If it exists, the run resumes from it, as in ``fit``: bit for bit on a model, with new
            episodes in an environment. The memory is in a folder beside it, of the same name with
            ``.replay`` at the end.
        every: the number of transitions between checkpoints.
        callback: is called with each new record of the history, with "step" for its transitions:
            for a log, or for TensorBoard. If it returns True, the run ends.
        seed: seed of all random numbers.
        progress: whether to show a progress bar on a terminal.

    Returns:
        A :class:`Learned`, with V_ψ and Q_φ as its values.

    Raises:
        ValueError: if the policy has no parameters, has a memory or does not fit the source or the
            gradient, if a number is out of range, or if the checkpoint is of another run.
        LearningStopped: a ValueError with what was learnt before, if a step failed.

    >>> import cai
    >>> from cai import inference, models
    >>> model = models.ledge()
    >>> learnt = inference.actor_critic(
    ...     model, steps=6_000, updates=2, hidden=(32,), learning_rate=3e-3, progress=False
    ... )
    >>> best = inference.soft_values(model).elbo  # of all policies
    >>> bool(best - cai.evaluate(model, learnt.policy).elbo < 0.1)
    True
    """
    arguments = dict(locals())
    if gradient is not None:
        checks.check_one_of("gradient", gradient, ("pathwise", "score"), '"pathwise"')
    check_numbers(arguments)
    with seeded(seed), torch.no_grad():
        problem, _, horizon = made = stepped(source, num_envs)
        timed = horizon is not None
        policy = first_policy(policy, start)
        if policy is None:
            policy = NeuralPolicy(problem, hidden, observe=observe, stationary=not timed)
        policy, memory = prepared(made, policy, arguments)
        if gradient == "pathwise" and made.num_actions is None:
            check_rsample(made.distribution(policy))
        state = _ActorCritic(
            policy,
            Critics(problem, hidden, timed, observe, count=1),
            StateValues(problem, hidden, timed, observe),
            memory,
            float(problem.discount),
            arguments,
        )
        return learn(made, state, policy, arguments)


class _ActorCritic(FromReplay):
    """The state: a policy, Q, V, and a copy of V that lags behind."""

    def __init__(
        self,
        policy: nn.Module,
        Q: Critics,
        V: StateValues,
        replay: Replay,
        discount: float,
        arguments: dict[str, Any],
    ) -> None:
        networks = {"Q": Q, "V": V, "policy": policy}
        super().__init__("actor_critic", networks, ("V",), replay, discount, arguments)
        self.policy, self.Q, self.V, self.gradient = policy, Q, V, arguments["gradient"]

    def expectations(self, s: Tensor, t: Any) -> Any:
        """Those of the policy in states of any batch shape."""
        return expectations(self.policy, self.Q.prior, s, t, self.Q.actions, self.gradient)

    def update(self, drawn: Transition) -> Tensor:
        """A step of Q, of V, and of the policy."""
        s, t, counts = drawn.s, drawn.t, drawn.counts
        here = self.expectations(s, t)
        with torch.no_grad():
            after = self.lagging["V"](t + 1, drawn.s_next)
            target = drawn.reward + self.discount * torch.where(drawn.ended, 0.0, after)
        found = self.Q(s, t, drawn.a)[0].double()
        if self.Q.actions is not None:
            found = of_actions(found, drawn.a)
        squares = torch.where(counts, (found - target).square(), 0.0)
        self.descend("Q", 0.5 * squares.mean())
        with torch.no_grad():
            value = here.value(self.Q.mean, self.alpha)
        self.descend("V", 0.5 * torch.where(counts, self.V(t, s) - value, 0.0).square().mean())
        loss = here.loss(self.Q.mean, self.alpha)
        self.descend("policy", torch.where(counts, loss, 0.0).mean())
        return squares.detach().mean()

    def divergence(self, q: Any, taken: Transition) -> Tensor:
        """Of all actions, or log π/p of those that were taken."""
        return divergence(q, self.Q.prior(taken.s, taken.t), taken.a, self.Q.actions)

    def learned(self, history: dict[str, Tensor]) -> Learned:
        """The result so far."""
        values, action_values = self.V.reward_units, self.Q.action_values
        return Learned(self.policy, self.alpha, history, values, action_values, self.networks)
