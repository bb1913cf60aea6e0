"""The variational Rényi bound of a policy in the true dynamics, and its meaning for sampling.

The bound at optimism η is its optimum: bound_η = max over policies of R_η for η < 1, min for η > 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from pyro.infer import RenyiELBO, Trace_ELBO
from torch import Tensor

from cai import checks, one_line
from cai.evaluation.importance_weights import scores
from cai.evaluation.problem import as_problem
from cai.inference.exact.soft_values import soft_values
from cai.numerics import logspace
from cai.policies.as_table import policy_log_probs
from cai.program.episode import check_policy
from cai.program.interfaces import Policy
from cai.program.trajectory import TrajectoryModel
from cai.tables import bellman
from cai.tables.table import Table
from cai.tables.tabulation import enumerated


@dataclass(frozen=True, eq=False)
class RenyiBound:
    """The variational Rényi bound R_η of a policy.

    Attributes:
        optimism: η.
        bound: (), nats: (1/η) log E_q[(p(τ,O)/q(τ))^η]; the ELBO at η = 0.
        stderr: (), nats, the standard error of a simulation; None where exact.

    >>> from cai import inference, models
    >>> model = models.ledge()
    >>> found = inference.renyi_bound(model, lambda t, s: model.prior(s), optimism=0.5)
    >>> found.bound < inference.posterior(model).log_evidence, found.stderr is None
    (True, True)
    """

    optimism: float
    bound: float
    stderr: float | None = None

    __repr__ = one_line.of_fields


def renyi_bound(
    model: TrajectoryModel | Table,
    policy: Policy,
    optimism: float,
    *,
    samples: int | None = None,
    seed: int = 0,
) -> RenyiBound:
    r"""The variational Rényi bound of order 1 - η of a policy in the true dynamics.

        R_η(q) = (1/η) log E_q[ (p(τ,O)/q(τ))^η ]

    (Li and Turner 2016). It grows with η: the ELBO at η = 0; log p(O) at η = 1, for any policy
    that takes every action that the prior takes; at η = 2 half the logarithm of
    the second moment of the importance weights; at ±∞ log p(τ,O)/q(τ) of the best and of the worst
    trajectory. The policy with the highest R_η for η < 1, and with the lowest for η > 1, is that
    of ``soft_values(model, η)``, and its R_η is the bound.

    On a table by one backward sweep: with w_T = r_T/α,

        w_t(s) = (1/η) log E_{a~q, s'~p}[ (p(a|s)/q(a|s))^η exp(η(r + r⁺)/α)
                                          (γ exp(η w_{t+1}(s')) + 1 - γ) ]

    Sampled from n trajectories, the logarithm of a mean is biased towards η = 0 by about
    |η| stderr²/2, which is less than the standard error while that is below 2/|η| nats: too low
    for η > 0, too high for η < 0. The standard error is that of the delta method; if few
    trajectories dominate the sum, as at large |η|, both are underestimated.

    Args:
        model: the model, or its table.
        policy: (t, s) -> q(a_t|s_t).
        optimism: η, any real number; ±inf if the answer is exact.
        samples: how many trajectories to simulate. If not given, the answer is exact if the model
            can be enumerated, else from 10 000 trajectories.
        seed: seed of the simulation.

    Returns:
        A :class:`RenyiBound`; its standard error is None where the answer is exact.

    Raises:
        ValueError: if η is not a number, or infinite while simulating, the horizon is infinite,
            the policy does not fit the model, or a table is to be simulated.

    >>> from cai import inference, models
    >>> model = models.ledge()
    >>> best = inference.soft_values(model, 0.5)
    >>> abs(inference.renyi_bound(model, best.policy, 0.5).bound - best.bound) < 1e-9
    True
    """
    problem = as_problem(model)
    eta = checks.check_optimism(optimism)
    check_policy(policy)
    if problem.program is None and samples is not None:
        raise ValueError("samples: a table is evaluated exactly; pass the model to simulate it")
    checks.finite_horizon(model, "renyi_bound")
    table = problem.table if samples is None else None
    if table is not None:
        with table.threads(), torch.no_grad():
            return RenyiBound(eta, _sweep(table, policy_log_probs(policy, table), eta))
    program = problem.program
    assert program is not None
    if math.isinf(eta):
        checks.refuse(
            "optimism",
            "a finite number if trajectories are simulated",
            f"{eta:g}",
            "the extreme of a sample is not that of the distribution, take a model that can be "
            "tabulated",
        )
    n = 10_000 if samples is None else samples
    paths = program.simulate(policy, n, seed)
    return _estimate(scores(program, policy, paths).log_weights, eta)


def renyi_elbo(optimism: float, samples: int = 2, **options: Any) -> RenyiELBO | Trace_ELBO:
    """The Pyro objective whose maximum over guides with true dynamics is the bound at optimism η.

    ``SVI(model, model.rollout(policy), optim, renyi_elbo(eta))``: ``RenyiELBO(alpha=1-eta)``, which
    is the importance-weighted ELBO at η = 1, and ``Trace_ELBO`` at η = 0. With K samples it
    maximises the expectation of the K-sample estimate of R_η, which lies between the ELBO and R_η;
    for 0 < η its optimum is less optimistic than η, for η < 0 less pessimistic.

    Args:
        optimism: η ≤ 1, finite.
        samples: K.
        options: options of Pyro's objective, for instance ``vectorize_particles``.

    Returns:
        ``RenyiELBO``, or ``Trace_ELBO`` at η = 0.

    Raises:
        ValueError: for η > 1, where the bound is a minimum but Pyro maximises, or infinite η.

    >>> import cai
    >>> from cai import inference, models
    >>> model = models.ledge()
    >>> objective = inference.renyi_elbo(0.5, samples=10)
    >>> loss = objective.loss(model, model.rollout(cai.TabularPolicy(model)))
    >>> loss > 0
    True
    """
    checks.check_count("samples", samples)
    advice = "the exact method takes ±inf"
    eta = float(checks.check_real("optimism", optimism, math.isfinite, "a finite number", advice))
    if eta > 1:
        checks.refuse(
            "optimism",
            "at most 1",
            f"{eta:g}",
            "for η > 1 the policy of the bound minimises R_η, while Pyro's RenyiELBO maximises it "
            "without limit. Take inference.soft_values(model, optimism=eta), which is exact",
        )
    if eta == 0:
        return Trace_ELBO(num_particles=samples, **options)
    return RenyiELBO(alpha=1 - eta, num_particles=samples, **options)


def effective_sample_ceiling(model: TrajectoryModel | Table) -> float:
    """The best fraction of effective samples of any proposal that keeps the true dynamics.

    Importance sampling of p(τ|O) with weights w = p(τ,O)/q(τ) has the effective fraction
    (E w)²/E w² = exp(2 (log p(O) - R_2(q))), which is at most exp(2 (bound_1 - bound_2)). The
    policy of ``soft_values(model, optimism=2)`` attains it; it is one only if nothing is left to
    luck.

    Args:
        model: a model with finitely many states and actions and a finite horizon, or its table;
            or a linear-Gaussian one.

    Returns:
        A fraction in (0, 1]: no proposal has a larger effective sample size per sample.

    Raises:
        ValueError: if the horizon is infinite, or the evidence is zero.

    >>> from cai import inference, models
    >>> round(inference.effective_sample_ceiling(models.ledge()), 2)
    0.57
    """
    checks.finite_horizon(model, "effective_sample_ceiling")
    problem = as_problem(model)
    solved = enumerated(model) if problem.gaussian is None else problem.gaussian
    one, two = (soft_values(solved, optimism=eta).bound for eta in (1.0, 2.0))
    return math.exp(min(0.0, 2 * (one - two)))


def _sweep(table: Table, log_q: Tensor, eta: float) -> float:
    """R_η from log q(a_t|s_t), (T, S, A)."""
    w = table.final_reward / table.temperature
    for t in range(table.steps - 1, -1, -1):
        now = table.at(t)
        x = bellman.action_values(now, w, eta) + now.log_prior - log_q[t]
        # Actions that the policy never takes do not count, even if p/q is infinite.
        w = logspace.soft_mean(log_q[t], torch.where(log_q[t] > -torch.inf, x, 0.0), eta)
    return logspace.soft_mean(table.log_initial, w, eta).item()


def _estimate(log_w: Tensor, eta: float) -> RenyiBound:
    """R_η and its standard error from log-weights (n,)."""
    n = len(log_w)
    uniform = torch.full_like(log_w, -math.log(n))
    bound = logspace.soft_mean(uniform, log_w, eta).item()
    if bound == -math.inf:
        # One weight of zero decides for η ≤ 0; for η > 0 all are zero, and nothing is known.
        return RenyiBound(eta, bound, 0.0 if eta <= 0 else math.inf)
    if n == 1:
        return RenyiBound(eta, bound, math.inf)
    d = log_w - bound
    spread = d if eta == 0 else (eta * d).expm1() / eta  # E exp(ηd) = 1, so this is dR/dw
    return RenyiBound(eta, bound, (spread.std() / n**0.5).item())
