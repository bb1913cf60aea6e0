"""The soft Bellman recursion: the best policy, at any optimism about the dynamics."""

from __future__ import annotations

import math
from typing import overload

from cai import bellman
from cai.gaussian_solution import GaussianSolution
from cai.inference.gaussian import gaussian_values
from cai.linear_gaussian import LinearGaussian
from cai.solution import Solution
from cai.table import Table
from cai.tabulation import tabulate
from cai.trajectory import TrajectoryModel


@overload
def soft_values(model: LinearGaussian, optimism: float = 0.0) -> GaussianSolution: ...  # type: ignore[overload-overlap]


@overload
def soft_values(model: TrajectoryModel | Table, optimism: float = 0.0) -> Solution: ...


def soft_values(
    model: TrajectoryModel | Table, optimism: float = 0.0
) -> Solution | GaussianSolution:
    r"""Soft values, policy and bound of a discrete model at optimism η (Levine 2018, eqs. 7, 15).

        Q_t(s,a) = r + (α/η) log E_{s'|s,a}[ exp(η r⁺/α) ( γ exp(η V_{t+1}(s')/α) + 1 - γ ) ]
        V_t(s)   = α log Σ_a p(a|s) exp(Q_t(s,a)/α),        π_t(a|s) ∝ p(a|s) exp(Q_t(s,a)/α)

    It maximises over the policy and, for η > 0, over bent dynamics and initial state (for η < 0
    it minimises over them) E_q[Σ rewards/α - Σ KL(policy‖prior)] - KL(bent‖true)/η: a nat of
    bending costs 1/η nats.

    ==========  ====================================================================
    η           what it is
    ==========  ====================================================================
    -∞          nature picks the worst outcome that is possible
    η < 0       nature plays against the agent, at a price: risk-averse, robust
    0           the dynamics stay as they are: maximum causal entropy, the best ELBO
    1           the exact posterior, which conditions the dynamics too
    +∞          the agent picks the best outcome that is possible
    ==========  ====================================================================

    Args:
        model: a model with finitely many states and actions and a finite horizon, or its table; or
            a linear-Gaussian model, solved by its Riccati recursion.
        optimism: η, any real number or ±inf.

    Raises:
        ValueError: where optimism is not a number, the horizon is infinite, or the evidence is
            zero; for the latter only if η > 0, since below it -inf is an answer while log p(O)
            is finite. For a linear-Gaussian model, where a value is infinite at η (named: the
            last η at which none is), or the discount is below one at η ≠ 0.
    """
    eta = float(optimism)
    if math.isnan(eta):
        raise ValueError("optimism: expected a real number or ±inf, got nan; 0 is no optimism")
    if isinstance(model, LinearGaussian):
        return gaussian_values(model, eta)
    table = tabulate(model)
    solution = Solution(table, eta, bellman.backward(table, eta))
    if solution.bound == -math.inf and (eta > 0 or _impossible(table)):
        raise ValueError(
            "evidence: p(O) = 0, no trajectory has a reward above -inf, so there is nothing to "
            "condition on; look for rewards of -inf that cannot be avoided within the horizon, or "
            "make them finite"
        )
    return solution


def _impossible(table: Table) -> bool:
    """Whether log p(O) = -inf: the best case is impossible, too."""
    best = Solution(table, math.inf, bellman.backward(table, math.inf))
    return best.bound == -math.inf
