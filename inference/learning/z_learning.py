"""Z-learning: the backward message from sampled steps of the uncontrolled program."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from cai import checks, one_line
from cai.distributions.exact_scores import log_probs
from cai.numerics import logspace
from cai.numerics.exclusive import seeded
from cai.numerics.logspace import logsumexp_by_group
from cai.policies.tabular import TabularPolicy
from cai.program.trajectory import TrajectoryModel
from cai.progress.progress_bar import progress_bar
from cai.tables import bellman
from cai.tables.finite import require_finite
from cai.tables.tabulation import tabulate


@dataclass(frozen=True, eq=False)
class ZLearning:
    """The result of Z-learning, with S states.

    Attributes:
        model: the model that was sampled.
        log_values: (S,), nats: the estimate of log z(s) = log p(O_{t:∞}|s_t=s) = V(s)/α.
        visits: (S,): how many steps started in each state; without any, log z is 0.
        bounds: (episodes,), nats: the estimate of log p(O) after each batch of episodes.

    >>> from cai import inference, models
    >>> model = models.ledge(horizon=None, discount=0.8)
    >>> learnt = inference.z_learning(model, episodes=10, steps=10, progress=False)
    >>> learnt.bounds.shape, learnt.policy.log_probs.shape
    (torch.Size([10]), torch.Size([5, 2]))
    """

    model: TrajectoryModel
    log_values: Tensor
    visits: Tensor
    bounds: Tensor

    __repr__ = one_line.of_fields

    @property
    def V(self) -> Tensor:
        """(S,), reward units: α log z(s)."""
        return self.model.temperature * self.log_values

    @property
    def policy(self) -> TabularPolicy:
        """π(a|s) ∝ p(a|s) exp(Q/α), with Q from one backup of the estimate; it needs the model."""
        table = tabulate(self.model)
        q = bellman.action_values(table, self.log_values, 1.0)
        return TabularPolicy.from_log_probs(bellman.log_policy(table, q))


def z_learning(
    model: TrajectoryModel,
    *,
    episodes: int = 1000,
    steps: int = 100,
    samples: int = 20,
    half_life: float = 20.0,
    seed: int = 0,
    progress: bool = True,
) -> ZLearning:
    """Values at optimism 1, learnt from episodes of the action prior (Todorov 2009).

    After each step from s to s', with its rewards r and r⁺,

        z(s) ← (1 - ρ) z(s) + ρ exp((r + r⁺)/α) z(s'),        ρ = c / (c + visits of s),

    the stochastic approximation of z = E exp((r + r⁺)/α) z(s'), z = exp(V/α). There is no maximum
    and no policy, so that unlike in Q-learning each step is unbiased. On a linearly
    solvable model it finds the optimal control; on others the exact posterior, optimism included.
    The episodes of a batch step together, and z of a state is updated by their mean there.

    Args:
        model: a model with finitely many states and an infinite horizon, with exits or a discount.
        episodes: how many batches of episodes; each starts from ``initial``, which should reach
            every state of interest.
        steps: the length of an episode; long enough to reach the exits.
        samples: episodes in a batch.
        half_life: c, the number of visits of a state after which ρ is one half.
        seed: seed of the simulation.
        progress: whether to show a progress bar on a terminal.

    Returns:
        A :class:`ZLearning`: log z, the policy that follows from it, and the history of the bound.

    Raises:
        ValueError: if the states are not finitely many, the horizon is finite, a number is out
            of range, or a subclass changes with the step, or may do so.

    >>> from cai import inference, models
    >>> model = models.ledge(horizon=None, discount=0.8)
    >>> learnt = inference.z_learning(model, episodes=10, steps=10, progress=False)
    >>> learnt.log_values.shape
    torch.Size([5])
    """
    checks.check_model(model)
    S, _ = require_finite(model)
    if model.horizon is not None:
        raise ValueError(
            f"horizon: z_learning estimates one z(s) for all steps, got a horizon of "
            f"{model.horizon}; try dataclasses.replace(model, horizon=None, final_reward=None)"
        )
    for name, value in (("episodes", episodes), ("steps", steps), ("samples", samples)):
        checks.check_count(name, value)
    half_life = checks.check_positive("half_life", half_life)
    checks.check_seed(seed)
    checks.check_flag("progress", progress)
    if model.may_change:
        tabulate(model)  # which refuses steps that differ, as there is one z for all of them
    episode = dataclasses.replace(model, horizon=steps)
    log_z, visits = torch.zeros(S, dtype=torch.float64), torch.zeros(S, dtype=torch.float64)
    log_initial, bounds = log_probs(model.initial, S), []
    with seeded(seed):
        bar = progress_bar(range(episodes), desc="z-learning", shown=progress)
        for _ in bar:
            paths = episode.simulate(lambda t, s: model.prior(s, t), samples)
            states, rewards = paths.states.T.long(), paths.rewards.T / model.temperature
            alive = paths.alive.T
            for t in range(steps):
                _learn(log_z, visits, states[t : t + 2], rewards[t], alive[t : t + 2], half_life)
            bounds.append(logspace.soft_mean(log_initial, log_z, 1.0).item())
    return ZLearning(model, log_z, visits, torch.tensor(bounds, dtype=torch.float64))


def _learn(
    log_z: Tensor, visits: Tensor, states: Tensor, reward: Tensor, alive: Tensor, half_life: float
) -> None:
    """Takes one step of all episodes that are alive; exits keep log z = 0."""
    living = alive[0]
    s, s_next = states[0][living], states[1][living]
    target = reward[living] + torch.where(alive[1][living], log_z[s_next], 0.0)
    seen, group, count = s.unique(return_inverse=True, return_counts=True)
    mean = logsumexp_by_group(target, group, len(seen)) - count.double().log()
    rate = half_life / (half_life + visits[seen])
    log_z[seen] = torch.logaddexp(torch.log1p(-rate) + log_z[seen], rate.log() + mean)
    visits[seen] += count
