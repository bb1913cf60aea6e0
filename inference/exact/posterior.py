"""Exact smoothing: the posterior over trajectories given optimality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, overload

from torch import Tensor

from cai import checks
from cai.evaluation.problem import as_problem
from cai.gaussian.gaussian_solution import GaussianSolution
from cai.gaussian.linear_gaussian import LinearGaussian
from cai.inference.exact._conditioning import conditioned
from cai.inference.exact._gaussian_conditioning import conditioned_gaussian
from cai.inference.exact.gaussian_values import gaussian_values
from cai.program.trajectory import TrajectoryModel
from cai.solutions.solution import Solution, solved
from cai.tables.table import Table
from cai.tables.tabulation import enumerated


@overload
def posterior(  # type: ignore[overload-overlap]
    model: LinearGaussian,
    observed: Mapping[str, Any] | None = None,
    optimal: Tensor | Sequence[bool] | None = None,
) -> GaussianSolution: ...


@overload
def posterior(
    model: TrajectoryModel | Table,
    observed: Mapping[str, Any] | None = None,
    optimal: Tensor | Sequence[bool] | None = None,
) -> Solution: ...


def posterior(
    model: TrajectoryModel | Table,
    observed: Mapping[str, Any] | None = None,
    optimal: Tensor | Sequence[bool] | None = None,
) -> Solution | GaussianSolution:
    """p(τ|O) by forward and backward messages (Levine 2018, eqs. 6-7): optimism η = 1.

    The posterior is Markov. It conditions not only the actions, p(a_t|s_t,O), but also the initial
    state and the dynamics, p(s'|s,a,O) ∝ p(s'|s,a) exp((r⁺ + V_{t+1}(s'))/α): it believes in luck.

    Other things can be observed: a prefix, a goal, any states and actions, and only some of the
    o_t. The sites are named as in the Pyro program::

        inference.posterior(model, observed={"s_0": 2, "a_0": 1, "s_20": goal}, optimal=mask)

    Everything in the solution is then conditional on that; its bound is log p(observed, O). An
    observed s_t or a_t implies that the trajectory is alive there. In a linear-Gaussian model the
    values are vectors, and p(observed, O) is their density: the noise may be singular, or zero, if
    a random start or actions can produce what is observed.

    Conditioning belongs to η = 1. At another optimism, requiring s_t = x means forbidding all other
    states by rewards of -inf. For η ≤ 0 the value is then -inf if arrival depends on chance: no
    policy is sure to arrive, and nature does not help. For η > 0, with x in the middle and without
    a discount (terminated trajectories would evade it), solve from there on, then up to there::

        later = inference.soft_values(replace(model, horizon=T - t), eta)
        final = lambda s: torch.where(s == x, later.V[0, x], -math.inf)
        inference.soft_values(replace(model, horizon=t, final_reward=final), eta)

    Args:
        model: a model with finitely many states and actions and a finite horizon, or its table; or
            a linear-Gaussian model, of which everything is Gaussian (Kalman smoothing).
        observed: site -> value: states ``s_0 … s_T`` and actions ``a_0 … a_{T-1}``, by index or as
            vectors; with a discount also ``alive_1 … alive_T``, 0 or 1.
        optimal: which o_t are observed, T+1 booleans, where o_T is the final reward; all if
            None. A step that is not observed to be optimal contributes neither r nor r⁺.

    Returns:
        The solution at η = 1: ``log_evidence``, the log backward messages as ``V`` and ``Q``,
        ``policy`` p(a|s,O), ``states`` and ``state_actions`` (the marginals), ``dynamics(t)``,
        ``initial`` and ``imagined_return``. A linear-Gaussian model has a
        :class:`cai.GaussianSolution`.

    Raises:
        ValueError: if the horizon is infinite, or the evidence is zero (naming the impossible
            observation); for an unknown site, a value out of range, or a mask of another length.
            In a linear-Gaussian model, if an integral is infinite, an observed state has no
            density, or the discount is below one.

    >>> from cai import inference, models
    >>> found = inference.posterior(models.ledge())
    >>> round(found.log_evidence, 3)
    -2.145
    >>> found.policy.log_probs.shape
    torch.Size([4, 5, 2])
    >>> known = inference.posterior(models.ledge(), observed={"s_1": 1})  # the state at step 1
    >>> known.log_evidence < found.log_evidence
    True
    """
    problem = as_problem(model)
    if observed is not None:
        advice = 'for instance {"s_3": 2, "a_0": 1}'
        expected = "a mapping from sites to values"
        checks.check_kind("observed", observed, Mapping, expected, advice)
    if model.horizon is None:
        raise ValueError(
            "horizon: the posterior of an infinite horizon has no marginals at finite steps; "
            "soft_values(model, optimism=1) has its values, policy and conditioned dynamics, and "
            "dataclasses.replace(model, horizon=100) has a posterior"
        )
    if observed is None and optimal is None:
        if problem.gaussian is not None:
            return gaussian_values(problem.gaussian, 1.0)
        return solved(enumerated(model), 1.0)
    if problem.gaussian is not None:
        return conditioned_gaussian(problem.gaussian, observed or {}, optimal)
    return conditioned(enumerated(model), observed or {}, optimal)
