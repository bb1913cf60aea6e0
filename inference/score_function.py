"""The score function (Williams 1992): it asks nothing of the program but that it can be run."""

from __future__ import annotations

import torch
from torch import nn

from cai import checks
from cai.episode import log_probs_along
from cai.inference.gradient import Estimator, checked
from cai.scores import exact
from cai.trajectory import TrajectoryModel


def score_gradient(model: TrajectoryModel, policy: nn.Module, particles: int) -> Estimator:
    """The score-function gradient from trajectories that the program itself simulates.

    The policy is scored in one call over all steps and particles, so that the backward pass does
    not grow with the number of sites. The baseline is the mean of the other particles.
    """
    T = checks.finite_horizon(model, "fit")
    steps = torch.arange(T).expand(particles, T)

    def estimate() -> float:
        paths = model.simulate(policy, particles)
        s = paths.states[:, :-1]
        log_q = log_probs_along(policy, s, paths.actions)
        with torch.no_grad():
            log_p = exact(model.prior(s, steps)).log_prob(paths.actions)
            scores = paths.rewards / model.temperature
            scores = torch.where(paths.alive[:, :-1], scores - log_q + log_p, 0.0).double()
            ends = (paths.final_rewards / model.temperature).unsqueeze(1)
            to_go = ends + scores.flip(1).cumsum(1).flip(1)
            elbo = to_go[:, 0].mean().item()
            checked(elbo)
            others = (to_go.sum(0) - to_go) / (particles - 1)
            weight = torch.where(paths.alive[:, :-1], to_go - others, 0.0) / particles
        (-(weight * log_q).sum()).backward()
        return -elbo

    return estimate
