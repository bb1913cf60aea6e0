"""The best open-loop plans of a linear-Gaussian model, in closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cai import checks, one_line
from cai.distributions.degenerate_normal import matvec
from cai.evaluation.problem import as_problem
from cai.gaussian.forms import Gaussian
from cai.gaussian.linear_gaussian import LinearGaussian
from cai.gaussian.moments import acting, expected_return
from cai.gaussian.riccati import definite
from cai.networks.heads import moments
from cai.policies.plans import GaussianPlan, Plan


@dataclass(frozen=True, eq=False)
class GaussianPlans:
    """The best plan with correlated steps, and the best with independent numbers.

    Attributes:
        elbo: the ELBO of the correlated plan, nats; below that of ``soft_values(model)`` by the
            value of observing the state.
        policy: the correlated plan, N(Λ⁻¹b, Λ⁻¹).
        factorised_elbo: the ELBO of the factorised plan, nats, lower by ½ (Σ log Λ_ii - log det Λ).
        factorised: the factorised plan, N(Λ⁻¹b, diag(Λ)⁻¹).

    >>> from cai import inference, models
    >>> model = models.linear_gaussian([[1.0]], [[1.0]], horizon=3, Q=[[1.0]], R=[[1.0]])
    >>> plans = inference.gaussian_plan(model)
    >>> plans.policy.mean.shape, plans.elbo > plans.factorised_elbo
    (torch.Size([3]), True)
    """

    elbo: float
    policy: GaussianPlan
    factorised_elbo: float
    factorised: Plan

    __repr__ = one_line.of_fields


def gaussian_plan(model: LinearGaussian) -> GaussianPlans:
    """The open-loop plans u = (a_0, …, a_{T-1}) that maximise the ELBO.

    E[Σ rewards/α + Σ log p(a_t) | u] = k + b'u - ½ u'Λu, so that the best plan, q(u) ∝ exp of it,
    is Gaussian, and its ELBO is the log normaliser. If the precision Λ is not diagonal, independent
    actions lose the mean-field gap.

    Args:
        model: a linear-Gaussian model with a finite horizon and without a discount.

    Returns:
        A :class:`GaussianPlans`: the best plan, and the best with independent actions.

    Raises:
        ValueError: if the model is of another kind, or Λ is not positive definite, so that returns
            are unbounded.

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
    """Λ, b and k of E[Σ rewards/α + Σ log p(a_t) | u], exactly, by automatic differentiation."""
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
        # A plan is relative to the prior's mean, in units of its standard deviations.
        centre, unit = moments(model.prior(model.initial_mean, t), mean)
        plan.numbers[t] = torch.cat([(at - centre) / unit, (spread / unit).log()])
    return plan
