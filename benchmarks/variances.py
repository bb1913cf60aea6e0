"""How noisy each estimator of the ELBO's gradient is, by horizon, as a Markdown table.

    python -m benchmarks.variances

Each number is the trace of the covariance of the gradient in the policy's parameters, from 100
particles, over the squared length of the exact gradient, with its standard error: at one, the noise
is as large as the gradient. A hundred times the particles make it a hundredth. It is measured at a
random policy, after the critics have learnt for 40 steps. There is no number where an estimator
does not apply. With λ < 1 advantages are also biased, which a variance does not show.
"""

from __future__ import annotations

import argparse
import math
from functools import partial
from typing import Any

import torch
from torch import nn

import cai
from cai import inference, models
from cai.cli import terminal
from cai.inference.gradients import estimators
from cai.inference.gradients.enumerated import enumerated_program_gradient, num_actions
from cai.inference.gradients.gradient import Estimator
from cai.tables.tabulation import enumerable

PARTICLES = 100
_LEARNING = 40  # steps before the draws

ESTIMATORS: dict[str, Any] = {
    "score, minus the others' mean": "score",
    "score, less a critic": "critic",
    "GAE, λ = 0.95": partial(inference.critic_gradient, lam=0.95),
    "enumerated, along the program": "program",
    "enumerated, from the table": "enumerated",
    "pathwise": "pathwise",
    "exact": "exact",
}


def lake(T: int) -> tuple[cai.TrajectoryModel, nn.Module]:
    """FrozenLake 4x4 and a table."""
    model = models.gym("FrozenLake-v1", horizon=T, temperature=0.1)
    return model, cai.TabularPolicy(model)


def regulator(T: int) -> tuple[cai.TrajectoryModel, nn.Module]:
    """A mass on a spring, pushed, and a linear-Gaussian policy."""
    model = models.linear_gaussian(
        A=[[1.0, 0.1], [-0.1, 0.9]],
        B=[[0.0], [0.1]],
        noise=[[0.001, 0.0], [0.0, 0.01]],
        Q=[[1.0, 0.0], [0.0, 0.1]],
        R=[[0.1]],
        initial_mean=[1.0, 0.0],
        initial_covariance=[[0.1, 0.0], [0.0, 0.1]],
        action_prior=torch.distributions.MultivariateNormal(
            torch.zeros(1, dtype=torch.float64), torch.eye(1, dtype=torch.float64)
        ),
        horizon=T,
    )
    return model, cai.LinearGaussianPolicy(model)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.variances", description=__doc__)
    parser.add_argument("--draws", type=int, default=100, help="gradients per number (100)")
    parser.add_argument("--horizons", type=int, nargs="+", default=[10, 50, 200])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    columns = [(make, T) for make in (lake, regulator) for T in arguments.horizons]
    print("| estimator | " + " | ".join(f"{make.__name__}, T = {T}" for make, T in columns) + " |")
    print("|---" + "|--:" * len(columns) + "|")
    for name, which in ESTIMATORS.items():
        cells = (noise(*_scrambled(*make(T)), which, arguments.draws) for make, T in columns)
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def _scrambled(
    model: cai.TrajectoryModel, policy: nn.Module
) -> tuple[cai.TrajectoryModel, nn.Module]:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model, policy


def noise(model: cai.TrajectoryModel, policy: nn.Module, which: Any, draws: int) -> str:
    """Variance over squared length of one estimator's gradient; a dash if it does not apply."""
    table = enumerable(model)
    _, exact = estimators.build("exact", model, policy, table, PARTICLES, 0.0)
    length = _gradient(policy, exact).square().sum().item()
    estimate = exact if which == "exact" else _estimator(model, policy, which)
    if estimate is None:
        return "–"
    torch.manual_seed(0)
    for _ in range(_LEARNING if hasattr(estimate, "module") else 0):
        _gradient(policy, estimate)
    found = torch.stack([_gradient(policy, estimate) for _ in range(draws)])
    squares = (found - found.mean(0)).square().sum(1) * draws / (draws - 1) / length
    if squares.mean() < 1e-24:  # rounding errors
        return "0"
    return f"{squares.mean().item():.3g} ± {squares.std().item() / math.sqrt(draws):.1g}"


def _estimator(model: cai.TrajectoryModel, policy: nn.Module, which: Any) -> Estimator | None:
    """The estimator, or None if it does not apply."""
    discrete = num_actions(model)
    if which == "program":
        if discrete is None:
            return None
        return enumerated_program_gradient(model, policy, discrete, PARTICLES)
    if which in ("enumerated", "pathwise") and (discrete is None) != (which == "pathwise"):
        return None
    return estimators.build(which, model, policy, enumerable(model), PARTICLES, 0.0)[1]


def _gradient(policy: nn.Module, estimate: Estimator) -> torch.Tensor:
    policy.zero_grad()
    estimate()
    return torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])


if __name__ == "__main__":
    with terminal.prepared():  # prints symbols in any encoding
        main()
