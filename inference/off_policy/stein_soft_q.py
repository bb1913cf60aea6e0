"""Soft Q-learning with a sampler of actions that Stein's gradient trains (Haarnoja et al. 2017)."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cai import checks
from cai.distributions.exact_scores import support_size
from cai.inference.learning.automatic_temperature import AutomaticTemperature
from cai.inference.learning.learned import Learned
from cai.inference.learning.stepped import stepped
from cai.inference.off_policy._expectations import Terms, check_rsample
from cai.inference.off_policy._from_replay import (
    FromReplay,
    check_numbers,
    first_policy,
    learn,
    prepared,
)
from cai.inference.off_policy.q_critics import Critics
from cai.inference.off_policy.replay import Replay
from cai.inference.off_policy.stein import check_particles, score_of, stein_loss
from cai.networks.noise_head import NoiseHead
from cai.networks.unsquashed import Unsquashed
from cai.numerics.exclusive import seeded
from cai.policies.neural import NeuralPolicy
from cai.program.episode import policy_at
from cai.program.interfaces import Observe
from cai.stepping.source import Transition

_VALUED = 1000  # draws of an action whose mean is the value of a state that is returned


def stein_soft_q(
    source: Any,
    policy: nn.Module | None = None,
    *,
    start: Learned | None = None,
    steps: int = 30_000,
    num_envs: int = 16,
    hidden: tuple[int, ...] = (128, 128),
    observe: Observe | None = None,
    rule: Literal["soft", "hard"] = "soft",
    gradient: Literal["stein", "plain"] = "stein",
    proposal: Literal["prior", "policy"] = "prior",
    particles: tuple[int, int] = (16, 16),
    draws: int = 32,
    exploration: float = 0.0,
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
    """Soft action values of continuous actions, and a sampler of the policy that they imply.

    The critic follows soft Q-learning, with the integral over actions by K draws from a proposal q
    (Haarnoja et al. 2017, eq. 10),

        Q(s,a) ← r + γ V(s'),    V(s) = α log 1/K Σ_k p(a_k|s) exp(Q(s,a_k)/α) / q(a_k|s),

    and the sampler a = f(s, ξ) moves along the amortised Stein gradient (their eq. 14) towards

        π(a|s) ∝ p(a|s) exp(Q(s,a)/α),

    so that it may have any number of modes. The estimate of V is too low, by about α/2K times the
    variance of the ratio of its terms to their mean.

    It differs from the paper's algorithm 1: unless asked otherwise, proposals come from the action
    prior throughout, since a network of noise has no density (one determinant is not the density
    where the network folds); kernel
    and gradient are in coordinates in which actions are not squashed, with the density there; the
    bandwidth is taken from squared distances; and the prior need not be uniform.

    With ``gradient="plain"`` the sampler follows ∇_a (Q/α + log p) without a kernel, so that all
    its draws end in one mode; with ``rule="hard"`` besides, V(s') = Q(s', f(s', ξ)) with a sampler
    that lags behind, and this is DDPG (Lillicrap et al. 2016), which needs some ``exploration``.

    Args:
        source: a model or a ``models.environment`` with continuous actions. The time is part of
            the state if the horizon is finite.
        policy: a torch module (t, s) -> distribution whose draws have a gradient, a copy of which
            is trained; by default a :class:`cai.NeuralPolicy` with a :class:`cai.NoiseHead`.
        start: an earlier result of this learner, for instance on another problem with the same
            states and actions, where this run starts: its critics are copied, as functions of state
            and action in reward units, and its policy, unless another is given. That acts from the
            first transition on, instead of the action prior. It needs the same ``observe`` and the
            same horizon.
        steps: how many transitions, of all copies together.
        num_envs: how many copies are stepped side by side.
        hidden: widths of the hidden layers of the critic, and of the sampler.
        observe: s -> what the critic, and a policy that is not given, see of a state; everything if
            not given.
        rule: "soft", or "hard" for the value of the sampler's own action.
        gradient: "stein", or "plain" for draws that all climb to a mode.
        proposal: q, "prior", or "policy" for one that has a density, as with a
            :class:`cai.FlowHead`.
        particles: how many actions the gradient is taken from, and how many are moved, in each
            state.
        draws: K.
        exploration: the share of actions that are drawn from the action prior instead.
        temperature: a function (transitions so far) -> α, for instance one that falls, which keeps
            the sampler from an early choice between modes; or :class:`AutomaticTemperature`; by
            default the source's temperature.
        replay: how many of the latest transitions are remembered.
        batch: how many of them are drawn for a step.
        updates: how many steps follow a step of all copies; if not given, one for each transition.
        warm_up: how many transitions are taken, by the action prior or by the policy of a
            ``start``, before the first step of Adam.
        lag: in (0, 1), the share by which the lagging critic moves after each step.
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
        A :class:`Learned`. Its values are those of the critic by a thousand draws of the prior; the
        divergence in its history is that of p exp(Q/α)/Z, by K draws, and not above log K.

    Raises:
        ValueError: if actions are finitely many, the policy has no parameters or its draws no
            gradient, if it is to propose and has no density, if a number is out of range, or if the
            checkpoint is of another run.
        LearningStopped: a ValueError with what was learnt before, if a step failed.

    >>> import dataclasses
    >>> from cai import inference, models
    >>> endless = dataclasses.replace(models.multigoal(), horizon=None, discount=0.99)
    >>> learnt = inference.stein_soft_q(
    ...     endless, steps=1200, hidden=(32,), updates=1, progress=False
    ... )
    >>> learnt.policy(0, endless.initial.sample((5,))).sample().shape
    torch.Size([5, 2])
    """
    arguments = dict(locals())
    checks.check_one_of("rule", rule, ("soft", "hard"), '"soft"')
    checks.check_one_of("gradient", gradient, ("stein", "plain"), '"stein"')
    checks.check_one_of("proposal", proposal, ("prior", "policy"), '"prior"')
    check_particles(particles)
    checks.check_count("draws", draws)
    checks.check_share("exploration", exploration, "0 for none")
    check_numbers(arguments)
    if isinstance(temperature, AutomaticTemperature):
        _check_target(temperature.nats, rule, draws)
    with seeded(seed), torch.no_grad():
        problem, _, horizon = made = stepped(source, num_envs)
        if support_size(made.prior) is not None:
            advice = "take soft_q, whose sums over actions are exact"
            checks.refuse("source", "continuous actions", "finitely many", advice)
        policy = first_policy(policy, start)
        if policy is None:
            head = NoiseHead(hidden[-1] if hidden else 64, tuple(hidden))
            policy = NeuralPolicy(
                problem, hidden[:-1], observe=observe, head=head, stationary=horizon is None
            )
        policy, memory = prepared(made, policy, arguments, proposal == "policy")
        check_rsample(made.distribution(policy))
        unit = max(float(problem.temperature), 1.0)  # where α is large, so are values
        critics = Critics(problem, hidden, horizon is not None, observe, count=1, unit=unit)
        state = _SteinSoftQ(policy, critics, memory, float(problem.discount), arguments)
        return learn(made, state, policy, arguments)


class _SteinSoftQ(FromReplay):
    """The state: a sampler, a critic, and a copy of it that lags behind."""

    def __init__(
        self,
        policy: nn.Module,
        critics: Critics,
        replay: Replay,
        discount: float,
        arguments: dict[str, Any],
    ) -> None:
        networks, hard = {"critics": critics, "policy": policy}, arguments["rule"] == "hard"
        lagging = ("critics", "policy") if hard else ("critics",)
        super().__init__("stein_soft_q", networks, lagging, replay, discount, arguments)
        self.policy, self.critics, self.hard = policy, critics, hard
        self.plain = arguments["gradient"] == "plain"
        self.proposes = arguments["proposal"] == "policy"
        self.particles, self.draws = arguments["particles"], arguments["draws"]

    def update(self, drawn: Transition) -> Tensor:
        """A step of the critic, and then of the sampler."""
        s, t = drawn.s, drawn.t
        with torch.no_grad():
            v = self._value_after(drawn.s_next, t + 1)
            target = drawn.reward + self.discount * torch.where(drawn.ended, 0.0, v)
        found = self.critics(s, t, drawn.a)[0]
        squares = torch.where(drawn.counts, (found - target.to(found.dtype)).square(), 0.0)
        self.descend("critics", 0.5 * squares.mean())
        self.descend("policy", self._sampler_loss(s, t))
        return squares.detach().mean()

    def _value_after(self, s: Tensor, t: Tensor) -> Tensor:
        if self.hard:
            return self.lagging["critics"].mean(
                s, t, policy_at(self.lagging["policy"], t, s).sample()
            )
        policy = self.policy if self.proposes else None
        terms = Terms.drawn(self.lagging["critics"], s, t, self.draws, self.alpha, policy)
        return self.alpha * terms.log_mean()

    def _sampler_loss(self, s: Tensor, t: Tensor) -> Tensor:
        """Minus the product of draws and the directions in which they should move."""
        n, m = self.particles
        q, p = policy_at(self.policy, t, s), self.critics.prior(s, t)
        unsquashed = Unsquashed(p)

        def log_density(u: Tensor) -> Tensor:
            u = u.movedim(-2, 0)
            a = unsquashed.action(u)
            log_p = p.log_prob(a) + self.critics.mean(s, t, a) / self.alpha
            return (log_p if self.plain else log_p + unsquashed.log_slope(u, a)).movedim(0, -1)

        if self.plain:
            u = unsquashed.draws(q, torch.Size((m,)))
            return -log_density(u.movedim(0, -2)).mean()
        with torch.no_grad():
            fixed = unsquashed.draws(q, torch.Size((n,))).movedim(0, -2).float()
        moved = unsquashed.draws(q, torch.Size((m,))).movedim(0, -2).float()
        return stein_loss(fixed, score_of(log_density, fixed), moved)

    def divergence(self, q: Any, taken: Transition) -> Tensor:
        """That of p exp(Q/α)/Z, by draws from the prior; NaN with the hard rule."""
        if self.hard:
            return torch.full(taken.t.shape, math.nan)
        return Terms.drawn(self.critics, taken.s, taken.t, self.draws, self.alpha).divergence()

    def learned(self, history: dict[str, Tensor]) -> Learned:
        """The result so far."""
        values = _Values(self.critics, self.policy if self.hard else None, self.alpha)
        action_values = self.critics.action_values
        return Learned(self.policy, self.alpha, history, values, action_values, self.networks)


@dataclass(frozen=True, eq=False)
class _Values:
    """(s, t=0) -> α log E_p exp(Q/α), or Q of the sampler's action; reward units."""

    critics: Critics
    policy: nn.Module | None
    alpha: float

    @torch.no_grad()
    def __call__(self, s: Tensor, t: Any = 0) -> Tensor:
        """Values of the batch shape of s."""
        s = torch.as_tensor(s)
        if self.policy is not None:
            return self.critics.mean(s, t, policy_at(self.policy, t, s).sample())
        return self.alpha * Terms.drawn(self.critics, s, t, _VALUED, self.alpha).log_mean()


def _check_target(nats: float, rule: str, draws: int) -> None:
    """Raises ValueError if no α of the rule can be seen to pay so many nats."""
    if rule == "hard":
        came, advice = "an AutomaticTemperature", 'take rule="soft"'
        checks.refuse("temperature", 'none to adapt with rule="hard"', came, advice)
    if nats >= math.log(draws):
        expected = f"less than log draws = {math.log(draws):.4g}, the most that so many can show"
        checks.refuse("nats", expected, f"{nats:g}", "take more draws")
