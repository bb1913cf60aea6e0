"""What learners from a replay memory share: their numbers, their steps of Adam, and their loop."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cai import checks
from cai.distributions.exact_scores import exact
from cai.inference.fitting import checkpoint_file
from cai.inference.fitting.resumption import copy_of
from cai.inference.learning.learned import Learned
from cai.inference.learning.policy_gradient import check_trainable
from cai.inference.learning.q_network import follow
from cai.inference.learning.records import History
from cai.inference.learning.run import Learning
from cai.inference.learning.stepped import Stepped
from cai.inference.off_policy._adam import Adam
from cai.inference.off_policy.replay import Replay
from cai.numerics.exclusive import seeded
from cai.stepping.source import Transition


def check_numbers(arguments: dict[str, Any]) -> None:
    """Raises ValueError if one of the arguments that these learners share is out of range."""
    for name in ("steps", "replay", "batch", "warm_up"):
        checks.check_count(name, arguments[name])
    if arguments["updates"] is not None:
        checks.check_count("updates", arguments["updates"])
    checks.check_widths("hidden", arguments["hidden"])
    lag, steps, warm_up = (arguments[name] for name in ("lag", "steps", "warm_up"))
    checks.check_real("lag", lag, lambda x: 0 < x < 1, "between 0 and 1", "for instance 0.005")
    checks.check_positive("learning_rate", arguments["learning_rate"])
    if warm_up >= steps:
        advice = "take more steps, or a shorter warm_up"
        checks.refuse("warm_up", f"fewer transitions than steps, {steps}", str(warm_up), advice)
    checks.check_seed(arguments["seed"])
    checks.check_flag("progress", arguments["progress"])
    start = arguments["start"]
    if start is not None and not isinstance(start, Learned):
        advice = "the result of an earlier run"
        checks.refuse("start", "a Learned or None", type(start).__name__, advice)


def first_policy(policy: nn.Module | None, start: Learned | None) -> Any:
    """The policy that is given, else that of the start; None if there is neither."""
    return start.policy if policy is None and start is not None else policy


def prepared(
    made: Stepped, policy: nn.Module, arguments: dict[str, Any], scored: bool = True
) -> tuple[nn.Module, Replay]:
    """The copy of a policy that is trained, and an empty memory.

    Args:
        made: the problem and its copies.
        policy: the policy.
        arguments: those of the learner, by name.
        scored: whether the policy must have a density.

    Raises:
        ValueError: if the policy cannot be trained or does not fit, or the file cannot be written.
    """
    check_trainable(policy)
    own = copy_of(policy)
    made.check(own)
    if scored:
        with seeded(0):  # a draw for this check alone
            q = made.distribution(own)
            exact(q).log_prob(made.draw(q))
    checkpoint = arguments["checkpoint"]
    file = None if checkpoint is None else checkpoint_file.check(checkpoint)
    return own, Replay(arguments["replay"], made.copies.num_envs, 1, file)


class FromReplay(ABC):
    """The state of a learner that takes steps of Adam on transitions from a memory.

    Args:
        verb: the name of the learner.
        trained: name -> network.
        lagging: the names of those of which a copy lags behind.
        replay: the memory.
        discount: γ.
        arguments: those of the learner, by name: ``batch``, how many transitions are drawn for a
            step of Adam; ``updates``, how many of them follow a step of all copies; ``warm_up``,
            how many transitions are taken before the first; ``lag``, the share by which lagging
            networks move towards the others after each; and ``learning_rate``, that of Adam.

    Attributes:
        taken: how many transitions were seen.
        alpha: the temperature α.
        lagging: name -> the network that lags behind.
    """

    def __init__(
        self,
        verb: str,
        trained: dict[str, nn.Module],
        lagging: tuple[str, ...],
        replay: Replay,
        discount: float,
        arguments: dict[str, Any],
    ) -> None:
        self.verb, self.trained, self.replay, self.discount = verb, trained, replay, discount
        if arguments["start"] is not None:
            _begin(self.networks, arguments["start"].networks)
        self.lagging: dict[str, Any] = {name: copy.deepcopy(trained[name]) for name in lagging}
        self.batch, self.warm_up, self.lag = (arguments[x] for x in ("batch", "warm_up", "lag"))
        self.learning_rate, self.updates = arguments["learning_rate"], arguments["updates"]
        self.taken, self.alpha = 0, 1.0
        self._rate = self.learning_rate
        self._adams = {name: Adam(verb, x, self.learning_rate) for name, x in trained.items()}
        self._follows = [
            (list(network.parameters()), list(trained[name].parameters()))
            for name, network in self.lagging.items()
        ]

    @property
    def networks(self) -> dict[str, Any]:
        """name -> each trained network but the policy."""
        return {name: network for name, network in self.trained.items() if name != "policy"}

    @abstractmethod
    def update(self, drawn: Transition) -> Tensor:
        """Steps of all networks on a batch of transitions.

        Returns:
            (), the mean squared error of the critics.
        """

    @abstractmethod
    def divergence(self, q: Any, taken: Transition) -> Tensor:
        """KL(π(·|s) ‖ p(·|s)) of n states, or an estimate, nats.

        Args:
            q: the policy in these states, which drew the actions.
            taken: the transition of each copy.
        """

    @abstractmethod
    def learned(self, history: dict[str, Tensor]) -> Learned:
        """The result so far."""

    def learn(self, transition: Transition, share: float) -> float:
        """Remembers one transition of each copy, and takes some steps of Adam.

        Args:
            transition: the transition.
            share: of the learning rate.

        Returns:
            The mean of the critics' squared errors; NaN before the first step.

        Raises:
            ValueError: if a reward is -inf.
            FloatingPointError: if a loss is not finite.
        """
        self.replay.add(transition)
        self.taken += len(transition.reward)
        if self.taken < self.warm_up:
            return math.nan
        self._rate = self.learning_rate * share
        count = self.updates or len(transition.reward)
        losses = [self._update() for _ in range(count)]
        return sum(losses) / count

    def _update(self) -> float:
        segments = self.replay.draw(self.batch)
        assert segments is not None
        with torch.enable_grad():
            loss = self.update(segments[0])
        for lagging, leading in self._follows:
            follow(lagging, leading, self.lag)
        return loss.item()

    def descend(self, name: str, loss: Tensor) -> None:
        """A step of one network along the gradient of a loss that others may be part of.

        Raises:
            FloatingPointError: if the loss is not finite.
        """
        self._adams[name].step(loss, self._rate)

    def cut(self) -> None:
        """Ends all episodes after the latest step, since others begin."""
        self.replay.cut()

    def parts(self) -> dict[str, Any]:
        """What a checkpoint holds, but for ``taken`` and α."""
        return {
            **self.trained,
            **{f"lagging {name}": network for name, network in self.lagging.items()},
            **{f"adam {name}": adam.optimiser for name, adam in self._adams.items()},
            "replay": self.replay,
        }


def _begin(networks: dict[str, Any], others: Mapping[str, nn.Module]) -> None:
    """Sets networks to those of another run, by name.

    Raises:
        ValueError: if their shapes differ.
    """
    own, came = (
        {name: [tuple(x.shape) for x in network.parameters()] for name, network in found.items()}
        for found in (networks, others)
    )
    if own != came:
        advice = "train both runs by the same learner, with the same hidden= and observe="
        checks.refuse("start", f"networks of the shapes {own}", str(came), advice)
    for name, network in networks.items():
        network.begin_at(others[name])


def learn(
    made: Stepped, state: FromReplay, policy: nn.Module, arguments: dict[str, Any]
) -> Learned:
    """Takes transitions and learns from them, to the end or to an interrupt.

    Args:
        made: the problem and its copies.
        state: the state of the learner.
        policy: which acts, but for a share ``exploration`` of the actions, if that is an argument.
        arguments: those of the learner, by name.
    """
    steps, warm_up = arguments["steps"], arguments["warm_up"]
    exploration = arguments.get("exploration", 0.0)
    history = History(made.copies.num_envs, steps, arguments["callback"])
    problem = made.problem
    state.alpha = float(problem.temperature)

    def once() -> None:
        warms_up = state.taken < warm_up and arguments["start"] is None
        q = made.prior if warms_up else made.distribution(policy)
        a = made.draw(q)
        if exploration and not warms_up:
            a = _explored(a, made, exploration)
        transition = made.copies.step(a)
        history.add(transition)
        kl = math.nan
        if not warms_up:
            each = state.divergence(q, transition).expand(transition.counts.shape)
            kl = each[transition.counts].mean().item()
        loss = state.learn(transition, min(2 - 2 * state.taken / steps, 1.0))
        history.record(state.taken, state.alpha, loss, kl)

    learning = Learning(
        state.verb,
        steps,
        state,
        arguments["temperature"],
        once,
        history,
        made,
        state.parts(),
        lambda: state.learned(history.tensors()),
        policy,
        cut=state.cut,
    )
    # A file holds the networks themselves.
    settings = arguments | {"start": None if arguments["start"] is None else "given"}
    return learning.run(
        settings, arguments["checkpoint"], arguments["every"], arguments["progress"]
    )


def _explored(a: Tensor, made: Stepped, share: float) -> Tensor:
    """Actions of which a share are drawn from the action prior instead."""
    explores = torch.rand(len(a)) < share
    return torch.where(explores.view(-1, *[1] * (a.dim() - 1)), made.draw(made.prior), a)
