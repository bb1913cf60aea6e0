"""Soft actor-critic: a policy and two critics from a replay memory (Haarnoja et al. 2018)."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cai.inference.learning.automatic_temperature import AutomaticTemperature
from cai.inference.learning.learned import Learned
from cai.inference.learning.q_network import of_actions
from cai.inference.learning.stepped import stepped
from cai.inference.off_policy._expectations import divergence, expectations
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

_VALUED = 32  # draws of an action whose mean is the value of a state


def sac(
    source: Any,
    policy: nn.Module | None = None,
    *,
    start: Learned | None = None,
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
    callback: Callable[[dict[str, float]], bool | None] | None = None,
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
        start: an earlier result of this learner, for instance on another problem with the same
            states and actions, where this run starts: its critics are copied, as functions of state
            and action in reward units, and its policy, unless another is given. That acts from the
            first transition on, instead of the action prior. It needs the same ``observe`` and the
            same horizon.
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
        warm_up: how many transitions are taken, by the action prior or by the policy of a
            ``start``, before the first step of Adam.
        lag: in (0, 1), the share by which the lagging critics move after each step.
        learning_rate: learning rate of Adam, for policy and critics; over the second half of the
            transitions it falls to zero.
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
    check_numbers(arguments)
    with seeded(seed), torch.no_grad():
        problem, _, horizon = made = stepped(source, num_envs)
        policy = first_policy(policy, start)
        if policy is None:
            policy = NeuralPolicy(problem, hidden, observe=observe, stationary=horizon is None)
        policy, memory = prepared(made, policy, arguments)
        critics = Critics(problem, hidden, horizon is not None, observe)
        state = SoftActorCritic(policy, critics, memory, float(problem.discount), arguments)
        return learn(made, state, policy, arguments)


class SoftActorCritic(FromReplay):
    """The state: a policy, two critics, and copies of them that lag behind."""

    def __init__(
        self,
        policy: nn.Module,
        critics: Critics,
        replay: Replay,
        discount: float,
        arguments: dict[str, Any],
    ) -> None:
        networks = {"critics": critics, "policy": policy}
        super().__init__("sac", networks, ("critics",), replay, discount, arguments)
        self.policy, self.critics, self.target = policy, critics, self.lagging["critics"]

    def update(self, drawn: Transition) -> Tensor:
        """A step of the critics, and then of the policy."""
        critics, s, t, counts = self.critics, drawn.s, drawn.t, drawn.counts
        here = expectations(self.policy, critics.prior, s, t, critics.actions)
        with torch.no_grad():
            after = expectations(self.policy, critics.prior, drawn.s_next, t + 1, critics.actions)
            v = after.value(self.target.smaller, self.alpha)
            target = drawn.reward + self.discount * torch.where(drawn.ended, 0.0, v)
        found = critics(s, t, drawn.a)
        if critics.actions is not None:
            found = of_actions(found, drawn.a)
        squares = torch.where(counts, (found - target.to(found.dtype)).square(), 0.0)
        self.descend("critics", squares.mean())  # of two critics: the sum of both halves
        loss = here.loss(critics.smaller, self.alpha)
        self.descend("policy", torch.where(counts, loss, 0.0).mean())
        return squares.detach().mean()

    def divergence(self, q: Any, taken: Transition) -> Tensor:
        """Of all actions, or log π/p of those that were taken."""
        return divergence(q, self.critics.prior(taken.s, taken.t), taken.a, self.critics.actions)

    def learned(self, history: dict[str, Tensor]) -> Learned:
        """The result so far."""
        values = _Values(self.policy, self.critics, self.alpha)
        action_values = self.critics.action_values
        return Learned(self.policy, self.alpha, history, values, action_values, self.networks)


@dataclass(frozen=True, eq=False)
class _Values:
    """(s, t=0) -> E_π[Q - α log π/p] with the mean of both Q, reward units."""

    policy: nn.Module
    critics: Critics
    alpha: float

    @torch.no_grad()
    def __call__(self, s: Tensor, t: Any = 0) -> Tensor:
        """Values of the batch shape of s."""
        s, actions = torch.as_tensor(s), self.critics.actions
        if actions is None:
            s = s.expand(_VALUED, *s.shape)
        found = expectations(self.policy, self.critics.prior, s, t, actions)
        value = found.value(self.critics.mean, self.alpha)
        return value.mean(0) if actions is None else value
