"""The pathwise gradient: trajectories as differentiable functions of the policy and of noise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cai import checks
from cai.distributions.exact_scores import exact
from cai.inference.gradients.gradient import Estimator, checked
from cai.numerics.exclusive import exclusive
from cai.program.episode import has_latents
from cai.program.handlers import in_shape
from cai.program.scoring import roll_out
from cai.program.trajectory import TrajectoryModel


def pathwise_gradient(model: TrajectoryModel, policy: nn.Module, samples: int) -> Estimator:
    """The estimator through dynamics and rewards along reparameterised trajectories.

        ∇ELBO = E_noise[ ∇ Σ_t γ^t ((r + r⁺)/α + log p(a_t|s_t) - log q(a_t|s_t)) + γ^T r_T/α ]

    with a_t and s_{t+1} as functions of noise and of the parameters, plus log r(z|τ) - log q(z) if
    the policy has latents z (Kingma and Welling 2014; Heess et al. 2015, SVG(∞)).
    Termination is independent of everything else, so that its expectation is exact. The gradient is
    unbiased if the return is a continuous function of the actions that is smooth almost everywhere;
    no path's gradient contains jumps of the return, and they cannot be detected here. If small
    changes grow with time, as around the top of a pendulum, so does the gradient: over hundreds of
    steps a few paths dominate it and its noise.

    Raises:
        ValueError: from the estimator, if a site depends on the policy and has no ``rsample``, or
            a state is an integer; if a policy with latents meets a discount, as r(z|τ) depends on
            the time of termination.
    """
    if model.discount < 1 and has_latents(policy):
        checks.refuse(
            'estimator "pathwise"',
            "a discount of 1 for a policy with latents",
            f"{model.discount:g}",
            "take SVI(model.with_auxiliary(policy), model.rollout(policy), optim, Trace_ELBO())",
        )
    T = checks.finite_horizon(model, "fit")
    steps = torch.arange(T).expand(samples, T)
    weights = torch.full((T + 1,), model.discount, dtype=torch.float64).pow(torch.arange(T + 1))

    def estimate() -> float:
        with exclusive():
            path, found = roll_out(
                model, policy, samples, _differentiable, scored=True, terminates=False
            )
        s, a, log_q = torch.stack(path.states, 1), torch.stack(path.actions, 1), found["log_policy"]
        log_p = exact(model.prior(s[:, :-1], steps)).log_prob(a)
        scores = model.log_factor(s[:, :-1], a, s[:, 1:], steps) + log_p - log_q
        ends = model.final_rewards(s[:, -1]) / model.temperature
        latents = found.get("log_auxiliary", 0.0)
        elbo = ((scores * weights[:-1]).sum(-1) + ends * weights[-1] + latents).mean()
        checked(elbo.item())
        (-elbo).backward()
        return -elbo.item()

    return estimate


def _differentiable(name: str, distribution: Any, shape: torch.Size) -> Tensor:
    """Values with their gradients in the inputs of the site.

    Raises:
        ValueError: if they depend on the policy and their gradient is lost.
    """
    whole = in_shape(distribution, shape)
    value: Tensor = whole.rsample() if whole.has_rsample else whole.sample()
    # Sites that do not depend on the policy, such as the model's noise, need no gradient.
    if not whole.has_rsample and exact(whole).log_prob(value).requires_grad:
        _refuse(name, f"{type(distribution).__name__}, which has none")
    if name.startswith("s_") and not value.is_floating_point():
        _refuse(name, f"states of type {value.dtype}, which carry no gradient")
    return value


def _refuse(name: str, came: str) -> None:
    checks.refuse(
        f'estimator "pathwise", site {name}',
        "a distribution with rsample, for instance Normal or Delta, as everything between an "
        "action and the rewards after it must have",
        came,
        'take "score", which works for any program',
    )
