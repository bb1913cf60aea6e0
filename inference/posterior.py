"""Exact smoothing: the posterior over trajectories given that all of them was optimal."""

from __future__ import annotations

from typing import overload

from cai.gaussian_solution import GaussianSolution
from cai.inference.soft_values import soft_values
from cai.linear_gaussian import LinearGaussian
from cai.solution import Solution
from cai.table import Table
from cai.trajectory import TrajectoryModel


@overload
def posterior(model: LinearGaussian) -> GaussianSolution: ...  # type: ignore[overload-overlap]


@overload
def posterior(model: TrajectoryModel | Table) -> Solution: ...


def posterior(model: TrajectoryModel | Table) -> Solution | GaussianSolution:
    """p(τ|O) by forward and backward messages (Levine 2018, eqs. 6-7): optimism η = 1.

    The posterior is Markov. It conditions the actions, p(a_t|s_t,O), and the dynamics and the
    initial state with them, p(s'|s,a,O) ∝ p(s'|s,a) exp((r⁺ + V_{t+1}(s'))/α): it believes in luck.

    Args:
        model: a model with finitely many states and actions and a finite horizon, or its table; or
            a linear-Gaussian model, of which everything is Gaussian (Kalman smoothing).

    Returns:
        The solution at η = 1: ``log_evidence``, the log backward messages as ``V`` and ``Q``,
        ``policy`` p(a|s,O), ``states`` and ``state_actions`` (the marginals), ``dynamics(t)``,
        ``initial`` and ``imagined_return``.

    Raises:
        ValueError: where the horizon is infinite, or the evidence is zero.
    """
    return soft_values(model, optimism=1.0)
