"""Soft Q-learning: action values from transitions of any behaviour (Haarnoja et al. 2017)."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cai import checks
from cai.inference.learning._learning import Learning
from cai.inference.learning._progress import History
from cai.inference.learning._stepped import stepped
from cai.inference.learning.learned import ActionTable, Learned, StateTable
from cai.numerics.exclusive import seeded
from cai.policies.tabular import TabularPolicy
from cai.program.trajectory import TrajectoryModel
from cai.stepping.source import Transition
from cai.tables import bellman
from cai.tables.bellman import Rule, check_rule
from cai.tables.finite import same_log_prior


def soft_q(
    source: TrajectoryModel | Any,
    *,
    steps: int = 200_000,
    num_envs: int = 64,
    rule: Rule = "soft",
    length: int = 1,
    exploration: float = 0.1,
    behaviour: Callable[[Any, Tensor], Any] | None = None,
    decay: float = 0.6,
    temperature: Callable[[int], float] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    every: int = 20_000,
    seed: int = 0,
    progress: bool = True,
) -> Learned:
    """Action values learnt from transitions, in a table of states and actions.

    After each transition (s, a, r, s'),

        Q(s,a) ← Q(s,a) + ρ (r + γ V(s') - Q(s,a)),    V(s) = α log Σ_a p(a|s) exp(Q(s,a)/α),

    which is the backward message of Levine (2018, eq. 13) estimated from samples, and converges to
    ``soft_values(model)`` for any behaviour that keeps trying all actions in all states
    (Haarnoja et al. 2017, theorem 3): the expectation over s' is outside the logarithm, so that
    there is no optimism about luck. With ``rule="hard"``, V = max_a Q, this is Q-learning; with
    "boltzmann", V = E_π[Q] with π ∝ p exp(Q/α), it is expected SARSA, which converges to
    ``soft_values(model, rule="boltzmann")`` and *not* at the maximum-entropy optimum: the
    entropies of later steps are missing in its target.

    With segments of n steps the target is (Schulman et al. 2017, eq. 46)

        r_t + Σ_{1≤d<n} γ^d (r_{t+d} - α log π(a_{t+d}|s_{t+d})/p) + γ^n V(s_{t+n}),

    with the π of the present Q. It has the same fixed point for every behaviour, since
    Q - α log π/p = V for every action, but off policy convergence is not guaranteed.

    The value after termination is zero, after truncation it is that of the last state. The rate is
    ρ = visits^(-decay), and the result is the mean of Q over the second half of the transitions,
    which removes most of the noise of a high rate.

    Args:
        source: a model or a ``models.environment`` with finitely many states and actions. The time
            is part of the state if the horizon is finite.
        steps: the number of transitions of all copies together.
        num_envs: how many copies are stepped side by side.
        rule: "soft", "hard" or "boltzmann".
        length: n, the number of steps in a segment.
        exploration: the share of actions that are drawn from the action prior instead.
        behaviour: (t, s) -> distribution, in place of the current policy; for instance the action
            prior, ``lambda t, s: model.prior(s)``.
        decay: in (0.5, 1], how fast the rate falls with visits.
        temperature: transitions so far -> α, as in ``fit``; falling to the model's own, it is
            G-learning. At a low α, Q overrates the luckiest of few samples (the winner's curse).
        checkpoint: path of a file, written atomically every ``every`` transitions and at the end.
            If it exists, the run resumes from it, as in ``fit``: bit for bit on a model, with new
            episodes in an environment.
        every: the number of transitions between checkpoints.
        seed: seed of all random numbers.
        progress: whether to show a progress bar on a terminal.

    Returns:
        A :class:`Learned`: the policy, values and a record of the training.

    Raises:
        ValueError: if states or actions are not finitely many, if a number is out of range, or if
            the checkpoint is of another run.
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
    checks.check_count("steps", steps)
    checks.check_count("length", length)
    if length > 1 and rule != "soft":
        checks.refuse(
            "length",
            'segments of one step beside rule="hard" or "boltzmann", whose longer ones are right '
            "only for actions that the rule itself would choose",
            str(length),
            "length=1",
        )
    checks.check_share("exploration", exploration, "0 for none")
    checks.check_real("decay", decay, lambda x: 0.5 < x <= 1, "above 0.5, at most 1", "0.6")
    checks.check_seed(seed)
    checks.check_flag("progress", progress)
    with seeded(seed), torch.no_grad():
        problem, copies, horizon = made = stepped(source, num_envs)
        log_prior = same_log_prior(problem, "soft_q")
        state = SoftQ(log_prior, horizon, problem.discount, rule, length, decay)
        state.alpha = float(problem.temperature)
        if behaviour is not None:
            made.number_of_actions(behaviour)  # which looks at what it says
        history = History(copies.num_envs, steps)

        def once() -> None:
            s = copies.s.long()
            log_p = state.log_policy(s, copies.t)
            if behaviour is None:
                a = _explored(log_p, log_prior[s], exploration)
            else:
                a = made.drawn(behaviour, "behaviour")
            transition = copies.step(a)
            history.add(transition)
            loss = state.learn(transition)
            if state.taken > steps // 2:
                state.average()
            ratio = (log_p - log_prior[s]).nan_to_num(0.0, neginf=0.0)
            kl = (log_p.exp() * ratio).sum(-1)[transition.counts].mean()
            history.record(state.taken, state.alpha, loss, kl.item())

        def learned() -> Learned:
            return state.learned(history.tensors())

        learning = Learning(
            "soft_q", steps, state, temperature, once, history, made, {"table": state}, learned
        )
        return learning.run(arguments, checkpoint, every, progress)


class SoftQ:
    """The table of the learner and its segments; call ``learn`` in a training loop of your own.

    Attributes:
        Q: (S, A), or (T, S, A) with a finite horizon, reward units.
        visits: how often each entry was updated.
        taken: how many transitions were seen.
        alpha: α.
    """

    def __init__(
        self,
        log_prior: Tensor,
        horizon: int | None,
        discount: float,
        rule: Rule = "soft",
        length: int = 1,
        decay: float = 0.6,
    ) -> None:
        self.timed = horizon is not None
        shape = tuple(log_prior.shape) if horizon is None else (horizon, *log_prior.shape)
        self.Q = torch.zeros(shape, dtype=torch.float64)
        self.visits = torch.zeros(self.Q.numel(), dtype=torch.float64)
        self.log_prior, self.discount, self.rule, self.decay = log_prior, discount, rule, decay
        self.alpha, self.taken = 1.0, 0
        self._window: deque[Transition] = deque(maxlen=length)
        self._mean, self._averaged = torch.zeros_like(self.Q), 0

    def rows(self, s: Tensor, t: Tensor) -> Tensor:
        """Q(s,·), (n, A)."""
        return self.Q[t.clamp(max=len(self.Q) - 1), s] if self.timed else self.Q[s]

    def log_policy(self, s: Tensor, t: Tensor) -> Tensor:
        """log π(a|s), (n, A), with π ∝ p exp(Q/α); the best actions alone under the hard rule."""
        return bellman.policy_of(self.log_prior[s], self.rows(s, t) / self.alpha, self.rule)

    def V(self, s: Tensor, t: Tensor) -> Tensor:
        """State values under the rule, (n,), reward units."""
        q = self.rows(s, t) / self.alpha
        return self.alpha * bellman.values_of(self.log_prior[s], q, self.rule)

    def learn(self, transition: Transition) -> float:
        """Learns from one transition of each copy; returns the mean squared error."""
        self._window.append(transition)
        self.taken += len(transition.reward)
        if len(self._window) < (self._window.maxlen or 1):
            return math.nan
        first = self._window[0]
        target = self._target()
        A = self.log_prior.shape[1]
        entry = first.s.long() * A + first.a.long()
        if self.timed:
            entry = entry + first.t * self.log_prior.numel()
        entry, target = entry[first.counts], target[first.counts]
        found, group, count = entry.unique(return_inverse=True, return_counts=True)
        mean = torch.zeros(len(found), dtype=torch.float64).index_add_(0, group, target) / count
        flat = self.Q.view(-1)
        before = flat[found]
        self.visits[found] += count
        # One update at this rate for each copy that took the same action here.
        stays = (1 - self.visits[found] ** -self.decay) ** count
        moved = torch.where(mean == before, before, stays * before + (1 - stays) * mean)
        flat[found] = torch.where(mean == -torch.inf, mean, moved)
        return float((mean - before).square().mean())

    def _target(self) -> Tensor:
        """The return of the segment that begins with the oldest transition, (n,)."""
        first = self._window[0]
        total, going, weight = first.reward.clone(), ~first.over, 1.0
        last_s, last_t, ended = first.s_next, first.t + 1, first.ended
        for step in list(self._window)[1:]:
            weight *= self.discount
            reward = step.reward - self.alpha * self._log_ratio(step)
            total = torch.where(going, total + weight * reward, total)
            last_s = torch.where(going, step.s_next, last_s)
            last_t = torch.where(going, step.t + 1, last_t)
            ended = torch.where(going, step.ended, ended)
            going = going & ~step.over
        lengths = last_t - first.t
        value = torch.where(ended, 0.0, self.V(last_s.long(), last_t))
        return total + self.discount**lengths * value

    def _log_ratio(self, step: Transition) -> Tensor:
        """log π(a|s)/p(a|s) of the actions that were taken, (n,), nats."""
        s, a = step.s.long(), step.a.long().unsqueeze(1)
        return (self.log_policy(s, step.t) - self.log_prior[s]).gather(1, a).squeeze(1)

    def average(self) -> None:
        """Adds the present Q to the mean that is returned."""
        self._averaged += 1
        mean = self._mean + (self.Q - self._mean) / self._averaged
        self._mean = torch.where(self.Q.isneginf(), self.Q, mean)

    def state_dict(self) -> dict[str, Any]:
        """The state from which :meth:`load_state_dict` continues, but for ``taken`` and α."""
        mean = {"mean": self._mean, "averaged": self._averaged}
        return {"Q": self.Q, "visits": self.visits, "window": [*map(tuple, self._window)], **mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the table and the segments from a state."""
        self.Q, self.visits = state["Q"], state["visits"]
        self._mean, self._averaged = state["mean"], state["averaged"]
        self._window.extend(Transition(*columns) for columns in state["window"])

    def learned(self, history: dict[str, Tensor]) -> Learned:
        """The result so far."""
        Q = (self._mean if self._averaged else self.Q).clone()
        prior, alpha, rule = self.log_prior, self.alpha, self.rule
        V = alpha * bellman.values_of(prior, Q / alpha, rule)
        policy = TabularPolicy.from_log_probs(bellman.policy_of(prior, Q / alpha, rule))
        return Learned(policy, alpha, history, StateTable(V), ActionTable(Q))


def _explored(log_p: Tensor, log_prior: Tensor, exploration: float) -> Tensor:
    """Actions of a policy, some of them of the prior instead, from logarithms (n, A)."""
    explores = torch.rand(len(log_p), 1) < exploration
    mixed = torch.where(explores, log_prior, log_p)
    return torch.distributions.Categorical(logits=mixed, validate_args=False).sample()
