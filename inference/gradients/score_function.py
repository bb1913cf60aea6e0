"""The score-function estimator (Williams 1992), for any program that can be simulated.

It draws trajectories of the policy, weights the score of each action by its reward to go minus a
baseline that does not depend on it, and differentiates the weighted sum.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from cai import checks
from cai.distributions.exact_scores import exact
from cai.inference.gradients.gradient import Estimator, checked
from cai.program.scoring import log_probs_along
from cai.program.trajectories import Trajectories
from cai.program.trajectory import TrajectoryModel


def score_gradient(model: TrajectoryModel, policy: nn.Module, samples: int) -> Estimator:
    """The estimator weighted by the reward to go minus the mean of the other trajectories."""
    checks.finite_horizon(model, "fit")

    def estimate() -> float:
        drawn = scored(model, policy, samples)
        advantage = drawn.to_go - leave_one_out(drawn.to_go)
        weight = torch.where(drawn.alive, advantage, 0.0) / samples
        surrogate(drawn.log_q, weight).backward()
        return -drawn.to_go[:, 0].mean().item()

    return estimate


class Scored(NamedTuple):
    """n trajectories of T steps of a policy, and their terms of the ELBO.

    Attributes:
        paths: the trajectories.
        log_q: (n, T), log q(a_t|s_t), nats, with the graph of the policy's parameters.
        terms: (n, T), (r + r⁺)/α + log p(a_t|s_t) - log q(a_t|s_t), nats; zero after termination.
        to_go: (n, T), nats: the terms from step t on, and the final reward.
        alive: (n, T), boolean: whether the trajectory is alive at step t.
    """

    paths: Trajectories
    log_q: Tensor
    terms: Tensor
    to_go: Tensor
    alive: Tensor


def scored(model: TrajectoryModel, policy: nn.Module, samples: int) -> Scored:
    """Scored trajectories from simulating the program.

    The policy is scored in one call for all steps and trajectories, so that the cost of the
    backward pass does not grow with the number of sites.

    Raises:
        ValueError, FloatingPointError: if the ELBO is not finite, see :func:`checked`.
    """
    paths = model.simulate(policy, samples)
    s, alive = paths.states[:, :-1], paths.alive[:, :-1]
    with torch.no_grad():
        prior = model.prior(s, torch.arange(s.shape[1]).expand(s.shape[:2]))
    log_q = log_probs_along(policy, s, paths.actions)
    with torch.no_grad():
        log_p = exact(prior).log_prob(paths.actions)
        terms = paths.rewards / model.temperature - log_q + log_p
        terms = torch.where(alive, terms, 0.0).double()
        final = (paths.final_rewards / model.temperature).unsqueeze(1)
        to_go = final + terms.flip(1).cumsum(1).flip(1)
    checked(to_go[:, 0].mean().item())
    return Scored(paths, log_q, terms, to_go, alive)


def leave_one_out(x: Tensor, dim: int = 0, alive: Tensor | None = None) -> Tensor:
    """The mean over all other trajectories, a baseline that does not depend on x's own.

    Args:
        x: one number per trajectory, with any other axes.
        dim: the axis of the trajectories.
        alive: which trajectories count, all of them if not given; x is zero for the others.
    """
    others: Tensor | int = x.shape[dim] - 1
    if alive is not None:
        others = (alive.sum(dim, keepdim=True) - alive.to(x.dtype)).clamp(min=1)
    return (x.sum(dim, keepdim=True) - x) / others


def surrogate(log_q: Tensor, weight: Tensor) -> Tensor:
    """-Σ weight · log q, with constant weights; its gradient is the estimate."""
    return -(weight * log_q).sum()
