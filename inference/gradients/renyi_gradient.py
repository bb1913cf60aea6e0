"""The gradient of the variational Rényi bound, from samples."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor, nn

from cai import checks
from cai.inference.gradients.gradient import Estimator
from cai.inference.gradients.score_function import leave_one_out, scored, surrogate
from cai.numerics import logspace
from cai.program.trajectory import TrajectoryModel


def check_order(name: object, eta: float) -> None:
    """Raises ValueError unless the estimator of that name accepts η.

    If it does, a warning says what to expect from the policy.
    """
    eta = checks.check_optimism(eta)
    if not isinstance(name, str) or name != "renyi":
        if eta != 0:
            checks.refuse(
                "optimism", "0", repr(eta), 'only estimator="renyi" maximises another bound'
            )
        return
    if not (math.isfinite(eta) and eta != 0 and eta <= 1):
        checks.refuse(
            "optimism",
            'a finite number other than 0, at most 1, for estimator "renyi"',
            repr(eta),
            "0 is the ELBO, which every other estimator maximises; above 1 take "
            "inference.soft_values(model, optimism=eta), which is exact",
        )
    mood = (
        "counts on luck that it cannot bring about" if eta > 0 else "fears what nature will not do"
    )
    warnings.warn(
        f"fit: a policy of the Rényi bound at optimism {eta:g} {mood}; to plan in the true "
        'dynamics, leave estimator="renyi" out',
        stacklevel=3,
    )


def renyi_gradient(
    model: TrajectoryModel, policy: nn.Module, samples: int, *, optimism: float = 1.0
) -> Estimator:
    """The estimator of E[(1/η) log (1/K) Σ_k w_k^η], with w = p(τ,O)/q(τ) of K trajectories.

    The importance-weighted ELBO at η = 1 (Burda et al. 2016), in general the Rényi bound of order
    1 - η (Li and Turner 2016), to which it converges as K grows; with few samples it lies between
    that and the ELBO. Each trajectory's score is weighted by the change of the bound when the mean
    of the others takes its place (Mnih and Rezende 2016, VIMCO).

    For reparameterised trajectories, doubly reparameterised gradients (Tucker et al. 2019) of the
    importance-weighted bound would be less noisy. They are left out: planning by this bound counts
    on luck, and evaluating it, as ``compare`` does, takes no gradient.

    Returns:
        An estimator whose loss is the negative of that bound, not of the ELBO.
    """
    checks.finite_horizon(model, "fit")
    even = torch.full((samples,), -math.log(samples), dtype=torch.float64)

    def bound(log_w: Tensor) -> Tensor:
        return logspace.soft_mean(even, log_w, optimism)

    def estimate() -> float:
        drawn = scored(model, policy, samples)
        with torch.no_grad():
            log_w = drawn.to_go[:, 0]
            whole = bound(log_w)
            others = leave_one_out(log_w).unsqueeze(1)
            without = bound(torch.where(torch.eye(samples) > 0, others, log_w))
            weight = (whole - without - (optimism * log_w).softmax(0)).unsqueeze(1)
        surrogate(drawn.log_q, torch.where(drawn.alive, weight, 0.0)).backward()
        return -whole.item()

    return estimate
