"""The score-function estimator (Williams 1992), for any program that can be simulated."""

from __future__ import annotations

import torch
from torch import nn

from cai import checks
from cai.inference.gradients._scored import leave_one_out, scored, surrogate
from cai.inference.gradients.gradient import Estimator
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
