"""Path consistency learning: values and policy that agree along segments of trajectories."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from cai import checks
from cai.distributions.exact_scores import exact
from cai.inference.fitting.resumption import copy_of
from cai.inference.learning.learned import Learned
from cai.inference.learning.policy_gradient import check_trainable
from cai.inference.learning.q_network import QNetwork, follow
from cai.inference.learning.records import History
from cai.inference.learning.run import Learning
from cai.inference.learning.state_values import SoftActionValues, StateValues, divergence
from cai.inference.learning.stepped import Stepped, stepped
from cai.numerics.exclusive import seeded
from cai.program.episode import policy_at
from cai.stepping.model_source import ModelSource
from cai.stepping.source import Source, Transition


def path_consistency(
    source: Any,
    policy: nn.Module | None,
    *,
    steps: int = 100_000,
    num_envs: int = 16,
    length: int = 8,
    ends: Literal["both", "first"] = "both",
    double: bool = False,
    lag: float | None = None,
    hidden: tuple[int, ...] = (64, 64),
    learning_rate: float = 1e-3,
    checkpoint: str | os.PathLike[str] | None = None,
    every: int = 20_000,
    callback: Callable[[dict[str, float]], bool | None] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Learned:
    """Trains a policy and values to be consistent along segments (Nachum et al. 2017).

    At the optimum, on every segment of every behaviour, the mean over the dynamics of

        C = -V(s_0) + Σ_{d<n} γ^d (r_d - α log π(a_d|s_d)/p(a_d|s_d)) + γ^n V(s_n)

    is zero (Schulman et al. 2017, eq. 90). Adam, whose rate falls to zero, minimises ½ C² of the
    segments from each step of a window to its end, or to the end of the episode.

    Under deterministic dynamics C itself is zero. Otherwise its square includes a variance,
    E C² = (E C)² + Var C, so that gradients through both ends flatten the values and prefer a low
    variance to a higher mean. With ``ends="first"`` V(s_n) is held fixed, a semi-gradient as in
    Q-learning, whose fixed point is that of ``soft_values``; so is that of ``double=True``, which
    multiplies the C of two independent successors of one-step segments. A model can draw these, an
    environment cannot.

    Args:
        source: a model or a ``models.environment``.
        policy: a torch module (t, s) -> distribution; a copy is trained, and acts. None for one
            network that gives both (unified, Nachum et al. 2017, section 4.3): Q of finitely many
            actions, with V = α log Σ_a p(a|s) exp(Q(s,a)/α) and π ∝ p exp(Q/α).
        steps: how many transitions, of all copies together.
        num_envs: how many copies of the environment are stepped together.
        length: length of the window, in steps.
        ends: "both" for the gradient of ½ C²; "first" holds V(s_n) fixed.
        double: whether to use two independent successors; needs a model and ``length=1``.
        lag: in (0, 1); KL is then relative to a copy of the policy that lags behind, not to the
            action prior (Trust-PCL, Nachum et al. 2018). After each step the copy's parameters move
            by this fraction towards those of the policy. α is then the cost of changing the policy,
            and without a reward for randomness the policy tends to that of the hard rule.
        hidden: widths of the hidden layers of V, or of Q.
        learning_rate: learning rate of Adam at the start.
        checkpoint: path of a file, written atomically every ``every`` transitions and at the end.
            If it exists, the run resumes from it, as in ``fit``: bit for bit on a model, with new
            episodes in an environment.
        every: the number of transitions between checkpoints.
        callback: is called with each new record of the history, with "step" for its transitions:
            for a log, or for TensorBoard. If it returns True, the run ends.
        seed: seed of all random numbers.
        progress: whether to show a progress bar on a terminal.

    Returns:
        A :class:`Learned`. Its action values are V(s) + α log π(a|s)/p(a|s), or those of the one
        network, which are equal to it.

    Raises:
        ValueError: if the policy has no parameters, has a memory or does not fit the source, if
            ``double`` is used with longer segments or an environment, if a number is out of range,
            or if the checkpoint is of another run.
        LearningStopped: a ValueError with what was learnt before, if a step failed.

    >>> import cai
    >>> from cai import inference, models
    >>> model = models.ledge()
    >>> learnt = inference.path_consistency(
    ...     model, cai.TabularPolicy(model), steps=40_000, length=4, learning_rate=0.03,
    ...     progress=False
    ... )
    >>> best = inference.soft_values(model).elbo  # of all policies
    >>> bool(best - cai.evaluate(model, learnt.policy).elbo < 0.5)
    True
    """
    arguments = dict(locals())
    if policy is not None:
        check_trainable(policy)
    checks.check_count("steps", steps)
    checks.check_count("length", length)
    checks.check_one_of("ends", ends, ("both", "first"), '"first" is unbiased')
    checks.check_flag("double", double)
    if lag is not None:
        checks.check_real("lag", lag, lambda x: 0 < x < 1, "between 0 and 1", "for instance 0.01")
    checks.check_widths("hidden", hidden)
    learning_rate = checks.check_positive("learning_rate", learning_rate)
    checks.check_seed(seed)
    checks.check_flag("progress", progress)
    with seeded(seed):
        problem, copies, _ = made = stepped(source, num_envs)
        _check_double(double, length, copies)
        nets = _unified(made, hidden) if policy is None else _separate(made, policy, hidden)
        state = PathConsistency(nets.policy, nets.critic, made, length, ends == "both", double)
        state.alpha = float(problem.temperature)
        adam = torch.optim.Adam(nets.parameters, lr=learning_rate, fused=True)
        history = History(copies.num_envs, steps, callback)
        parts: dict[str, Any] = {**nets.kept, "adam": adam}
        if lag is not None:
            parts["reference"] = state.reference = copy_of(nets.policy)

        def once() -> None:
            adam.zero_grad()
            state.loss(history).backward()
            adam.param_groups[0]["lr"] = learning_rate * max(1 - state.taken / steps, 0.0)
            adam.step()
            if state.reference is not None and lag is not None:
                follow(state.reference.parameters(), nets.policy.parameters(), lag)

        def learned() -> Learned:
            return Learned(nets.policy, state.alpha, history.tensors(), nets.V, nets.Q)

        learning = Learning(
            "path_consistency", steps, state, None, once, history, made, parts, learned, nets.policy
        )
        return learning.run(arguments, checkpoint, every, progress)


class _Networks(NamedTuple):
    """What is trained.

    Attributes:
        policy: (t, s) -> π.
        critic: (t, s) -> V, with the graph of its parameters.
        kept: name -> a network, all that is trained.
        V: (s, t) -> V, for the result.
        Q: (s, a, t) -> Q, for the result.
    """

    policy: nn.Module
    critic: Callable[[Any, Tensor], Tensor]
    kept: dict[str, nn.Module]
    V: Callable[..., Tensor]
    Q: Callable[..., Tensor]

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All that Adam moves."""
        return [p for network in self.kept.values() for p in network.parameters()]


def _unified(made: Stepped, hidden: tuple[int, ...]) -> _Networks:
    """One network for both, of finitely many actions."""
    actions = made.finitely_many_actions("give it a policy")
    one = QNetwork(made.problem, hidden, made.horizon is not None, actions, "soft", entropy=False)
    one.alpha = float(made.problem.temperature)
    return _Networks(one, lambda t, s: one.V(s, t), {"Q": one}, one.values, one.action_values)


def _separate(made: Stepped, policy: nn.Module, hidden: tuple[int, ...]) -> _Networks:
    """A copy of the policy, and a network of values."""
    own, critic = copy_of(policy), StateValues(made.problem, hidden, made.horizon is not None)
    Q = SoftActionValues(own, critic, made.problem, float(made.problem.temperature))
    return _Networks(own, critic, {"policy": own, "critic": critic}, critic.reward_units, Q)


def _check_double(double: bool, length: int, copies: Source) -> None:
    if double and (length > 1 or not isinstance(copies, ModelSource)):
        came = f"length={length}" if length > 1 else "an environment, which cannot go back"
        checks.refuse("double", "segments of one step of a model", came, 'ends="first"')


class PathConsistency:
    """A policy, its values and their transitions; call ``loss`` to write your own training loop.

    Attributes:
        taken: the number of transitions so far.
        alpha: the temperature α.
        reference: a policy in place of the action prior, or None.
    """

    def __init__(
        self,
        policy: nn.Module,
        critic: Callable[[Any, Tensor], Tensor],
        made: Stepped,
        length: int = 8,
        both_ends: bool = True,
        double: bool = False,
    ) -> None:
        self.policy, self.critic, self.made = policy, critic, made
        self.prior, self.discount = made.problem.prior, made.problem.discount
        self.length, self.both_ends, self.double = length, both_ends, double
        self.taken, self.alpha = 0, 1.0
        made.check(policy)
        self._actions = made.num_actions
        self.reference: nn.Module | None = None

    def loss(self, history: History | None = None) -> Tensor:
        """Steps the copies, and returns the mean of ½ C² over the segments."""
        taken = self.made.rolled_out(self.policy, self.length, history)
        self.taken += self.length * self.made.copies.num_envs
        counts = torch.stack([step.counts for step in taken])
        errors = self.errors(taken)
        if self.double:
            copies = self.made.copies
            assert isinstance(copies, ModelSource)
            product = errors * self.errors([copies.again(taken[0])])
        else:
            product = errors.square()
        total = 0.5 * product[counts].mean()
        if not total.isfinite():
            raise FloatingPointError(f"path_consistency: the loss is {total.item():g}")
        if history is not None:
            kl = torch.stack([self._divergence(step) for step in taken])[counts].mean()
            history.record(self.taken, self.alpha, total.item(), kl.item())
        return total

    @torch.no_grad()
    def _divergence(self, step: Transition) -> Tensor:
        """KL of the policy from the action prior, or log π/p of the actions taken, (n,), nats."""
        q, p = exact(policy_at(self.policy, step.t, step.s)), exact(self.prior(step.s, step.t))
        return divergence(q, p, step.a, self._actions)[1]

    def errors(self, taken: list[Transition]) -> Tensor:
        """C of the segments that begin at each step and go on to the end, (length, n)."""
        found: list[Tensor] = []
        for step in reversed(taken):
            after = self.critic(step.t + 1, step.s_next)
            after = after if self.both_ends or self.double else after.detach()
            if found:
                after = torch.where(step.cut, after, found[-1])
            paid = step.reward - self.alpha * self._log_ratio(step)
            found.append(paid + self.discount * torch.where(step.ended, 0.0, after))
        starts = [self.critic(step.t, step.s) for step in taken]
        return torch.stack(found[::-1]) - torch.stack(starts)

    def _log_ratio(self, step: Transition) -> Tensor:
        """log π(a|s)/p(a|s), or over the reference, (n,), nats."""
        q = exact(policy_at(self.policy, step.t, step.s))
        if self.reference is None:
            p = exact(self.prior(step.s, step.t))
        else:
            with torch.no_grad():
                p = exact(self.reference(step.t, step.s))
        ratio: Tensor = q.log_prob(step.a) - p.log_prob(step.a)
        return ratio.double()
