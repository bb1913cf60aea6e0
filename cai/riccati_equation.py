"""The stationary value of a linear-Gaussian model: a discrete algebraic Riccati equation.

Nature's noise w = Lz is an input like the action, at the price z'z/(2θ): the agent's friend for
θ > 0, its opponent for θ < 0. So P solves the DARE of A with the inputs [B, L], the cost Q of
states and blkdiag(R, I/θ) of inputs (at η = 0 of √γA and √γB alone).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg

from cai import riccati
from cai.linear_gaussian import LinearGaussian
from cai.riccati import Array, Breakdown, Value

_WHERE = "of a step"
_STEPS = 10_000  # at most so many, where the recursion is run until it settles
_SETTLED = 1e-12  # relative change of P in a step


@dataclass(frozen=True, eq=False)
class Stationary:
    """A fixed point of the recursion.

    Attributes:
        value: P, p and k; k = 0 without a discount.
        K, offset, H: the policy, as in :class:`cai.riccati.Sweep` without the axis of steps.
        growth: what a step adds to the value, reward units; None with a discount.
    """

    value: Value
    K: Array
    offset: Array
    H: Array
    growth: float | None


def solve(model: LinearGaussian, eta: float) -> Stationary:
    """The stationary value and policy at optimism η.

    By ``scipy.linalg.solve_discrete_are``, which finds the stabilising solution, the limit of long
    horizons wherever each unstable mode costs something. Where it finds none, and for η = ±∞, the
    recursion runs until it settles.

    Raises:
        Breakdown: where there is none.
    """
    problem, theta = riccati.Problem.of(model), riccati.price(model, eta)
    step = problem.over(1)[0]
    P = _by_equation(problem, step, theta)
    if P is None:
        P = _by_recursion(problem, step, theta)
    zero = np.zeros(len(P))
    _, K, _, H = riccati.earlier(problem, step, (P, zero, 0.0), theta, _WHERE)
    p = _slope(problem, step, P, K, theta)
    (_, _, k), _, offset, _ = riccati.earlier(problem, step, (P, p, 0.0), theta, _WHERE)
    riccati.soften((P, p, 0.0), riccati.model_start(model)[1], theta, riccati.START)
    if model.discount < 1:
        return Stationary((P, p, np.array(k / (1 - model.discount))), K, offset, H, None)
    return Stationary((P, p, np.array(0.0)), K, offset, H, float(k))


def _by_equation(problem: riccati.Problem, step: tuple[Any, ...], theta: float) -> Array | None:
    """P from the DARE; None where scipy finds none that the recursion keeps."""
    A, B, _, L, Q, N, R = step[:7]
    if math.isinf(theta):
        return None
    if theta:
        L = L[:, (L**2).sum(0) > 0]
        r = L.shape[1]
        B, N = np.hstack([B, L]), np.hstack([N, np.zeros((len(A), r))])
        R = scipy.linalg.block_diag(R, np.eye(r) / theta)
    root = math.sqrt(problem.gamma)
    try:
        P = scipy.linalg.solve_discrete_are(root * A, root * B, Q, R, s=N)
        zero = np.zeros(len(A))
        for _ in range(3):  # the recursion contracts around it: what is left of rounding goes
            before, P = P, riccati.earlier(problem, step, (P, zero, 0.0), theta, _WHERE)[0][0]
    except (np.linalg.LinAlgError, ValueError, Breakdown):
        return None
    return P if np.abs(P - before).max() <= 1e-8 * (1 + np.abs(P).max()) else None


def _by_recursion(problem: riccati.Problem, step: tuple[Any, ...], theta: float) -> Array:
    """P as the limit of longer and longer horizons."""
    zero = np.zeros(len(step[0]))
    P = np.zeros_like(step[0])
    for _ in range(_STEPS):
        before, P = P, riccati.earlier(problem, step, (P, zero, 0.0), theta, _WHERE)[0][0]
        if np.abs(P - before).max() <= _SETTLED * np.abs(P).max():
            return P
        if not np.abs(P).max() < 1e100:
            break
    raise Breakdown(-1, "costs grow without limit over the steps (no policy holds the state)")


def _slope(
    problem: riccati.Problem, step: tuple[Any, ...], P: Array, K: Array, theta: float
) -> Array:
    """p = q - K'ρ + γ(A - BK)'(Z'p - P̃c), a linear system, with the bent dynamics Z(A - BK)."""
    A, B, c, L, _, _, _, q, rho, _ = step
    value = P, np.zeros(len(P)), 0.0
    Z, _, _ = riccati.bend(value, L, theta)
    closed = problem.gamma * (A - B @ K).T
    soft = riccati.soften(value, L, theta, _WHERE)[0]
    system = np.eye(len(P)) - closed @ Z.T
    right = q - K.T @ rho - closed @ soft @ c
    slope: Array = np.linalg.lstsq(system, right, rcond=None)[0]
    if np.abs(system @ slope - right).max() > 1e-6 * (1 + np.abs(right).max()):
        raise Breakdown(-1, "the linear part of the value grows with the steps")
    return slope
