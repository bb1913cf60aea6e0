"""The best open-loop plans of a linear-Gaussian model, in closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cai import checks
from cai.distributions.degenerate_normal import matvec
from cai.evaluation.problem import as_problem
from cai.gaussian.forms import Gaussian
from cai.gaussian.linear_gaussian import LinearGaussian
from cai.gaussian.moments import acting, expected_return
from cai.gaussian.riccati import definite
from cai.policies.heads import moments
from cai.policies.plans import GaussianPlan, Plan


@dataclass(frozen=True, eq=False)
class GaussianPlans:
    """The best plan whose steps go together, and the best whose numbers are independent.

    Attributes:
        elbo: nats, of the correlated plan; at most that of ``soft_values(model)``, which is higher
            by the value of observing the state.
        policy: that plan, N(Λ⁻¹b, Λ⁻¹).
        factorised_elbo: nats, of the factorised plan, ½ (Σ log Λ_ii - log det Λ) below.
        factorised: that plan, N(Λ⁻¹b, diag(Λ)⁻¹).
    """

    elbo: float
    policy: GaussianPlan
    factorised_elbo: float
    factorised: Plan


def gaussian_plan(model: LinearGaussian) -> GaussianPlans:
    """The plans u = (a_0, …, a_{T-1}) that maximise the ELBO without looking at a state.

    E[Σ rewards/α + Σ log p(a_t) | u] = k + b'u - ½ u'Λu, so that the best plan is
    q(u) ∝ exp of it, Gaussian, and its ELBO the logarithm of the sum. With a precision Λ that is
    not diagonal, independent actions lose the mean-field gap.

    Args:
        model: linear-Gaussian, with a finite horizon and without a discount.

    Returns:
        A :class:`GaussianPlans`: the best plan, and the best whose actions are
        independent.

    Raises:
        ValueError: if the model is another, or Λ is not positive definite, so that some plan
            has an unbounded return.

    >>> from cai import inference, models
    >>> model = models.linear_gaussian([[1.0]], [[1.0]], horizon=3, R=[[1.0]], noise=[[0.1]])
    >>> plans = inference.gaussian_plan(model)
    >>> plans.elbo >= plans.factorised_elbo
    True
    """
    gaussian = as_problem(model).gaussian
    if gaussian is None or model.discount < 1:
        checks.refuse(
            "model",
            "a linear-Gaussian one without a discount",
            f"{type(model).__name__} with a discount of {model.discount:g}",
            "if it is finite take inference.belief_values(model, cai.blind), else fit a "
            "cai.GaussianPlan",
        )
    checks.finite_horizon(model, "a plan")
    precision, b, k = _quadratic(gaussian)
    if not definite(precision.numpy(), precision.abs().numpy()):
        expected = "one that falls off with the size of every plan"
        came = f"a precision with an eigenvalue of {torch.linalg.eigvalsh(precision)[0].item():g}"
        checks.refuse("reward", expected, came, "let actions cost something, or give a prior")
    root = torch.linalg.cholesky(precision)
    mean = torch.cholesky_solve(b.unsqueeze(-1), root).squeeze(-1)
    half_log_det = root.diagonal().log().sum()
    elbo = k + 0.5 * b @ mean + 0.5 * len(b) * math.log(2 * math.pi) - half_log_det
    gap = 0.5 * precision.diagonal().log().sum() - half_log_det
    return GaussianPlans(
        elbo.item(),
        _correlated(model, mean, torch.linalg.cholesky(torch.cholesky_inverse(root))),
        (elbo - gap).item(),
        _factorised(model, mean, precision.diagonal() ** -0.5),
    )


def _quadratic(model: LinearGaussian) -> tuple[Tensor, Tensor, Tensor]:
    """Λ, b and k of E[Σ rewards/α + Σ log p(a_t) | u], which automatic derivatives give exactly."""
    T, n, m = checks.finite_horizon(model, "a plan"), model.state_size, model.action_size
    covariances = [model.initial_covariance]
    for t in range(T):
        step = model.step(t)
        covariances.append(step.A @ covariances[-1] @ step.A.mT + step.W)
    still = torch.zeros(T, m, n, dtype=torch.float64), torch.zeros(T, m, m, dtype=torch.float64)

    def value(u: Tensor) -> Tensor:
        actions, means = u.view(T, m), [model.initial_mean]
        for t, a in enumerate(actions.unbind()):
            step = model.step(t)
            means.append(matvec(step.A, means[-1]) + matvec(step.B, a) + step.c)
        states = Gaussian(torch.stack(means), torch.stack(covariances))
        before = Gaussian(states.mean[:-1], states.covariance[:-1])
        pairs = acting(before, still[0], actions, still[1])
        log_prior = 0.0 if model.flat else model.action_prior.log_prob(actions).sum()  # type: ignore[union-attr]
        return expected_return(model, states, pairs) / model.temperature + log_prior

    zero = torch.zeros(T * m, dtype=torch.float64)
    slope = torch.autograd.functional.jacobian(value, zero)
    return -torch.autograd.functional.hessian(value, zero), slope, value(zero)


def _correlated(model: LinearGaussian, mean: Tensor, L: Tensor) -> GaussianPlan:
    plan = GaussianPlan(model).requires_grad_(False)
    plan.mean.copy_(mean)
    plan.log_scales.copy_(L.diagonal().log())
    plan.lower.copy_(L.tril(-1))
    return plan


def _factorised(model: LinearGaussian, mean: Tensor, scale: Tensor) -> Plan:
    plan = Plan(model).requires_grad_(False)
    T, m = len(plan.numbers), model.action_size
    for t, (at, spread) in enumerate(zip(mean.view(T, m), scale.view(T, m), strict=True)):
        # A plan counts from the prior's mean, in its standard deviations.
        centre, unit = moments(model.prior(model.initial_mean, t), mean)
        plan.numbers[t] = torch.cat([(at - centre) / unit, (spread / unit).log()])
    return plan
