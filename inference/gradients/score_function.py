"""The score function (Williams 1992): it asks nothing of the program but that it can be run."""

from __future__ import annotations

import torch
from torch import nn

from cai import checks
from cai.inference.gradients._scored import leave_one_out, scored, surrogate
from cai.inference.gradients.gradient import Estimator
from cai.program.trajectory import TrajectoryModel


def score_gradient(model: TrajectoryModel, policy: nn.Module, samples: int) -> Estimator:
    """The score function weighted by the reward to go, less the mean of the other trajectories."""
    checks.finite_horizon(model, "fit")

    def estimate() -> float:
        drawn = scored(model, policy, samples)
        advantage = drawn.to_go - leave_one_out(drawn.to_go)
        weight = torch.where(drawn.alive, advantage, 0.0) / samples
        surrogate(drawn.log_q, weight).backward()
        return -drawn.to_go[:, 0].mean().item()

    return estimate
