"""The maximum-entropy policy gradient from transitions, with a critic (advantage actor-critic)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cai import checks
from cai.distributions.exact_scores import exact
from cai.inference.fitting.resumption import copy_of
from cai.inference.learning.automatic_temperature import AutomaticTemperature
from cai.inference.learning.learned import Learned
from cai.inference.learning.records import History
from cai.inference.learning.run import Learning
from cai.inference.learning.state_values import SoftActionValues, StateValues, divergence
from cai.inference.learning.stepped import Stepped, stepped
from cai.numerics.exclusive import seeded
from cai.program.episode import check_policy, policy_at, remembers

_VALUE_WEIGHT = 0.5  # of the critic's squared error beside the policy's loss


def policy_gradient(
    source: Any,
    policy: nn.Module,
    *,
    steps: int = 100_000,
    num_envs: int = 8,
    length: int = 16,
    lam: float = 0.95,
    entropy: Literal["proper", "naive"] = "proper",
    hidden: tuple[int, ...] = (64, 64),
    learning_rate: float = 1e-3,
    clip: float | None = 0.5,
    temperature: Callable[[int], float] | AutomaticTemperature | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    every: int = 20_000,
    callback: Callable[[dict[str, float]], bool | None] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Learned:
    """Trains a policy on its own transitions, from many copies of the environment at once.

    After every ``length`` steps of each copy, Adam, whose rate falls to zero, takes one step along

        Σ_t ∇log π(a_t|s_t) A_t - α ∇KL(π(·|s_t) ‖ p(·|s_t)),
        A_t = Σ_k (γλ)^k δ_{t+k},    δ_t = r_t - α KL(s_t) + γ V(s_{t+1}) - V(s_t),

    the gradient of the maximum-entropy objective (Schulman et al. 2017, eq. 80) with generalised
    advantages (Schulman et al. 2016); V is a network that learns A_t + V(s_t). For actions that are
    not finitely many, log π(a_t|s_t)/p(a_t|s_t) of the sampled action estimates KL(s_t) and its
    gradient. At its optimum, in the limit of small steps and λ = 1, the policy is that of
    ``soft_values(model)``: the dynamics are sampled as they are, so there is no optimism.

    With ``entropy="naive"`` KL is left out of δ: only the bonus of the present step is
    differentiated, as in much published code (eq. 79). That is the gradient of no objective; it
    converges to ``soft_values(model, rule="boltzmann")``, whose policy ignores the KL that later
    choices will cost.

    Where γ < 1, early and late states have equal weight, as is usual; in ∇ELBO the terms of step t
    have the weight γ^t. A table of all states has the same optimum either way; a smaller family of
    policies need not. The value after a truncated episode is V, after a terminated one 0.

    Args:
        source: a model or a ``models.environment``.
        policy: a torch module (t, s) -> distribution; a copy is trained.
        steps: how many transitions, of all copies together.
        num_envs: how many copies of the environment are stepped together.
        length: how many steps of each copy are taken before each step of the optimiser.
        lam: λ in [0, 1]; 1 uses the critic only where a segment is cut off.
        entropy: "proper" or "naive"; see above.
        hidden: widths of the hidden layers of V.
        learning_rate: learning rate of Adam at the start, for policy and critic.
        clip: the norm to which larger gradients are scaled down; None for no limit.
        temperature: a function (transitions so far) -> α, or :class:`AutomaticTemperature`; by
            default the source's temperature.
        checkpoint: path of a file, written atomically every ``every`` transitions and at the end.
            If it exists, the run resumes from it, as in ``fit``: bit for bit on a model, with new
            episodes in an environment.
        every: the number of transitions between checkpoints.
        callback: is called with each new record of the history, with "step" for its transitions:
            for a log, or for TensorBoard. If it returns True, the run ends.
        seed: seed of all random numbers.
        progress: whether to show a progress bar on a terminal.

    Returns:
        A :class:`Learned`. Its action values are V(s) + α log π(a|s)/p(a|s), which equal the soft
        action values at the optimum.

    Raises:
        ValueError: if the policy has no parameters, has a memory or does not fit the source, if a
            number is out of range, or if the checkpoint is of another run.
        LearningStopped: a ValueError with what was learnt before, if a step failed.

    >>> import cai
    >>> from cai import inference, models
    >>> model = models.ledge()
    >>> policy = cai.TabularPolicy(model)
    >>> learnt = inference.policy_gradient(
    ...     model, policy, steps=100_000, num_envs=64, learning_rate=0.03, progress=False
    ... )
    >>> best = inference.soft_values(model).elbo  # of all policies
    >>> bool(best - cai.evaluate(model, learnt.policy).elbo < 0.1)
    True
    """
    arguments = dict(locals())
    check_trainable(policy)
    checks.check_count("steps", steps)
    checks.check_count("length", length)
    checks.check_share("lam", lam, "1 trusts the critic least")
    checks.check_one_of("entropy", entropy, ("proper", "naive"), '"proper" has an objective')
    checks.check_widths("hidden", hidden)
    checks.check_seed(seed)
    checks.check_flag("progress", progress)
    learning_rate = checks.check_positive("learning_rate", learning_rate)
    if clip is not None:
        checks.check_positive("clip", clip)
    policy = copy_of(policy)
    with seeded(seed):
        problem, copies, horizon = made = stepped(source, num_envs)
        critic = StateValues(problem, hidden, horizon is not None)
        state = PolicyGradient(policy, critic, made, length, lam, entropy)
        state.alpha = float(problem.temperature)
        adam = torch.optim.Adam(
            [*policy.parameters(), *critic.parameters()], lr=learning_rate, fused=True
        )
        history = History(copies.num_envs, steps, callback)

        def once() -> None:
            adam.zero_grad()
            state.loss(history).backward()
            adam.param_groups[0]["lr"] = learning_rate * max(1 - state.taken / steps, 0.0)
            if clip is not None:
                nn.utils.clip_grad_norm_(adam.param_groups[0]["params"], clip)
            adam.step()

        def learned() -> Learned:
            ratios = SoftActionValues(policy, critic, problem, state.alpha)
            return Learned(policy, state.alpha, history.tensors(), critic.reward_units, ratios)

        parts: dict[str, Any] = {"policy": policy, "critic": critic, "adam": adam}
        name = "policy_gradient"
        learning = Learning(
            name, steps, state, temperature, once, history, made, parts, learned, policy
        )
        return learning.run(arguments, checkpoint, every, progress)


def check_trainable(policy: Any) -> None:
    """Raises ValueError unless it is a policy with parameters and without a memory."""
    if not isinstance(policy, nn.Module) or not any(p.requires_grad for p in policy.parameters()):
        advice = "take cai.NeuralPolicy(model), or cai.TabularPolicy(model)"
        checks.refuse("policy", "a torch module with parameters", type(policy).__name__, advice)
    if remembers(policy):
        advice = "inference.fit trains those, on a model; here give it what it needs as the state"
        checks.refuse("policy", "one without a memory", type(policy).__name__, advice)
    check_policy(policy)


class PolicyGradient:
    """A policy, its critic and their transitions; call ``loss`` to write your own training loop.

    Attributes:
        taken: the number of transitions so far.
        alpha: the temperature α.
    """

    def __init__(
        self,
        policy: nn.Module,
        critic: StateValues,
        made: Stepped,
        length: int = 16,
        lam: float = 0.95,
        entropy: str = "proper",
    ) -> None:
        self.policy, self.critic, self.made = policy, critic, made
        self.prior, self.discount = made.problem.prior, made.problem.discount
        self.length, self.lam, self.proper = length, lam, entropy == "proper"
        self.taken, self.alpha = 0, 1.0
        made.check(policy)
        self._actions = made.num_actions

    def loss(self, history: History | None = None) -> Tensor:
        """Steps the copies and returns the loss per transition."""
        taken = self.made.rolled_out(self.policy, self.length, history)
        self.taken += self.length * self.made.copies.num_envs
        columns = zip(*taken, strict=True)
        s, t, a, reward, s_next, ended, cut, counts = (torch.stack(x) for x in columns)
        flat = s.flatten(0, 1), t.flatten(), a.flatten(0, 1)
        q, p = exact(policy_at(self.policy, flat[1], flat[0])), exact(self.prior(*flat[:2]))
        log_q, spent = divergence(q, p, flat[2], self._actions)
        log_q, spent = log_q.view(t.shape), spent.view(t.shape)
        v = self.critic(flat[1], flat[0]).view(t.shape)
        with torch.no_grad():
            follows = self._next_values(v.detach(), t, s_next, ended, cut)
            paid = reward - self.alpha * spent.detach() if self.proper else reward
            residual = paid + self.discount * follows - v
            advantage = _accumulated(residual, ended | cut, self.discount * self.lam)
            weight = advantage
            if self._actions is None and not self.proper:
                weight = advantage - self.alpha * spent  # the score of it is the gradient of KL
        policy_loss = -log_q * weight
        if self._actions is not None:
            policy_loss = policy_loss + self.alpha * spent
        value_loss = (advantage + v.detach() - v).square()
        total: Tensor = (policy_loss + _VALUE_WEIGHT * value_loss)[counts].mean()
        if not total.isfinite():
            raise FloatingPointError(f"policy_gradient: the loss is {total.item():g}")
        if history is not None:
            history.record(self.taken, self.alpha, total.item(), spent[counts].mean().item())
        return total

    def _next_values(
        self, v: Tensor, t: Tensor, s_next: Tensor, ended: Tensor, cut: Tensor
    ) -> Tensor:
        """V of the state after each step, (length, n); 0 where the episode terminated."""
        last = self.critic(t[-1] + 1, s_next[-1])
        follows = torch.cat([v[1:], last.unsqueeze(0)])
        if cut.any():
            follows[cut] = self.critic(t[cut] + 1, s_next[cut])
        return torch.where(ended, 0.0, follows)


def _accumulated(residual: Tensor, over: Tensor, factor: float) -> Tensor:
    """Σ_k factor^k δ_{t+k} up to the end of the episode, (length, n)."""
    total, parts = torch.zeros_like(residual[0]), []
    for x, ends in zip(reversed(residual.unbind()), reversed(over.unbind()), strict=True):
        total = x + torch.where(ends, 0.0, factor * total)
        parts.append(total)
    return torch.stack(parts[::-1])
