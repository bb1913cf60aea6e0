"""The score function (Williams 1992): it asks nothing of the program but that it can be run."""

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


class Scored(NamedTuple):
    """n trajectories of T steps of a policy, and what they pay.

    Attributes:
        paths: the trajectories.
        log_q: (n, T), log q(a_t|s_t), nats, with the graph of the policy's parameters.
        paid: (n, T), (r + r⁺)/α + log p(a_t|s_t) - log q(a_t|s_t), nats; zero once dead.
        to_go: (n, T), nats: paid from step t on, and the final reward.
        alive: (n, T), whether alive at step t.
    """

    paths: Trajectories
    log_q: Tensor
    paid: Tensor
    to_go: Tensor
    alive: Tensor


def scored(model: TrajectoryModel, policy: nn.Module, particles: int) -> Scored:
    """Trajectories that the program itself simulates.

    The policy is scored in one call over all steps and particles, so that the backward pass does
    not grow with the number of sites.
    """
    paths = model.simulate(policy, particles)
    s, alive = paths.states[:, :-1], paths.alive[:, :-1]
    log_q = log_probs_along(policy, s, paths.actions)
    with torch.no_grad():
        log_p = exact(model.prior(s, torch.arange(s.shape[1]).expand(s.shape[:2])))
        paid = paths.rewards / model.temperature - log_q + log_p.log_prob(paths.actions)
        paid = torch.where(alive, paid, 0.0).double()
        ends = (paths.final_rewards / model.temperature).unsqueeze(1)
        to_go = ends + paid.flip(1).cumsum(1).flip(1)
    checked(to_go[:, 0].mean().item())
    return Scored(paths, log_q, paid, to_go, alive)


def score_gradient(model: TrajectoryModel, policy: nn.Module, particles: int) -> Estimator:
    """The score function weighted by the reward to go, less the mean of the other particles."""
    checks.finite_horizon(model, "fit")

    def estimate() -> float:
        drawn = scored(model, policy, particles)
        others = (drawn.to_go.sum(0) - drawn.to_go) / (particles - 1)
        weight = torch.where(drawn.alive, drawn.to_go - others, 0.0) / particles
        (-(weight * drawn.log_q).sum()).backward()
        return -drawn.to_go[:, 0].mean().item()

    return estimate
