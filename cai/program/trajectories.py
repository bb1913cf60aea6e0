"""Sampled trajectories, as tensors."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Trajectories:
    """n trajectories of T steps, as tensors.

    Attributes:
        states: (n, T+1) + event shape, s_0 … s_T; after termination the state continues by the
            dynamics, without effect.
        actions: (n, T) + event shape.
        rewards: (n, T), reward units: r(s_t,a_t) + r⁺(s_t,a_t,s_{t+1}); zero once terminated.
        final_rewards: (n,), reward units: r_T(s_T); zero once terminated.
        alive: (n, T+1), boolean: whether the trajectory goes on at step t.
        log_policy: (n, T), nats: log π(a_t|s_t,z) of a policy with latents z, and log q(a_t|…)
            of any other if requested; else None.
        log_auxiliary: (n,), nats: log r(z|τ) - log q(z) of its latents; else None.
        episode_returns: (n,), reward units: the sum of all rewards of the episode of an
            environment, whatever the discount; None of a program.

    >>> from cai import models
    >>> model = models.ledge()
    >>> paths = model.simulate(lambda t, s: model.prior(s), samples=10, seed=0)
    >>> paths.states.shape, paths.returns.shape
    (torch.Size([10, 5]), torch.Size([10]))
    """

    states: Tensor
    actions: Tensor
    rewards: Tensor
    final_rewards: Tensor
    alive: Tensor
    log_policy: Tensor | None = None
    log_auxiliary: Tensor | None = None
    episode_returns: Tensor | None = None

    @property
    def returns(self) -> Tensor:
        """(n,), reward units: the sum of all rewards of each trajectory."""
        return self.rewards.sum(-1) + self.final_rewards
