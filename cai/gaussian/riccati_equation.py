"""The stationary value of a linear-Gaussian model: the limit of long horizons.

The noise w = Lz is an input like the action, at the price z'z/(2θ): nature is the agent's friend
for θ > 0, its opponent for θ < 0. So P solves the DARE of A with the inputs [B, L], the cost Q of
states and blkdiag(R, I/θ) of inputs (at η = 0 of √γA and √γB alone). That equation has many roots.
The value over an infinite horizon is the root that the recursion from P = 0 reaches. A control
engineer may want another: the one that makes the closed loop stable. They differ if a state grows
forever at no cost, which no finite horizon counts.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal, TypeAlias

import numpy as np
import scipy.linalg

from cai.gaussian import doubling, riccati, tilted_noise
from cai.gaussian.linear_gaussian import LinearGaussian
from cai.gaussian.riccati import RiccatiSolution, StepArrays
from cai.gaussian.tilted_noise import Array, Breakdown
from cai.gaussian.unseen import units, unseen

_WHERE = "of a step"
_STEPS = 10_000  # the most steps that the recursion is run until it settles
_FIRST = 128  # single steps before doubling, if nature plays against rewards that can grow
_GROWN = 1e100  # a cost this large counts as without a limit
_SETTLED = 1e-12  # relative change of P in a step
_NEGATIVE = 1e-12  # relative to the size of a cost, an eigenvalue that is negative by rounding
_MARGIN = 1e-13  # an eigenvalue this close to the unit circle is on it, up to rounding
_AGREES = 1e-6  # residual of a linear system that has a solution, relative to its right side
_POLISH = 30  # steps of the recursion at most, after the limit is found


Root: TypeAlias = Literal["limit", "stabilising"]
"""Which root of the equation: the limit of long horizons, or the one with a stable closed loop."""


def solve(model: LinearGaussian, eta: float, root: Root = "limit") -> RiccatiSolution:
    """The stationary value and policy at optimism η.

    Raises:
        Breakdown: if there is none.
    """
    problem, theta = StepArrays.of(model), riccati.price(model, eta)
    P, p = (limit if root == "limit" else stabilising)(problem, theta)
    step = problem.over(1)[0]
    (_, _, k), K, offset, H = riccati.earlier(problem, step, (P, p, 0.0), theta, _WHERE)
    start = tilted_noise.spectrum((P, p, 0.0), riccati.model_start(model)[1], theta)
    tilted_noise.soften((P, p, 0.0), start, theta, tilted_noise.START)
    if model.discount < 1:
        return RiccatiSolution((P, p, np.array(k / (1 - model.discount))), K, offset, H)
    return RiccatiSolution((P, p, np.array(0.0)), K, offset, H, float(k))


def limit(problem: StepArrays, theta: float) -> tuple[Array, Array]:
    """P and p as the limit of ever longer horizons with final value zero.

    Raises:
        Breakdown: if a horizon has no value, or the values have no limit.
    """
    seen, s, back = _seen(problem)
    theta = theta if problem.L.any() else 0.0
    step = seen.over(1)[0]
    P = np.zeros((len(step[0]),) * 2)
    if s:
        P[:s, :s] = _curvature(_leading(seen, s), theta)
    p = _slope(seen, step, P, theta)
    return back @ P @ back.T, back @ p


def stabilising(problem: StepArrays, theta: float) -> tuple[Array, Array]:
    """P and p of the root whose closed loop is stable, by ``scipy.linalg.solve_discrete_are``.

    Raises:
        Breakdown: if there is none.
    """
    step = problem.over(1)[0]
    A, B, _, L, Q, N, R = step[:7]
    if math.isinf(theta):
        raise Breakdown(1 if theta > 0 else -1, "at an infinite optimism no root is stabilising")
    if theta:
        L = L[:, (L**2).sum(0) > 0]
        r = L.shape[1]
        B, N = np.hstack([B, L]), np.hstack([N, np.zeros((len(A), r))])
        R = scipy.linalg.block_diag(R, np.eye(r) / theta)
    by = math.sqrt(problem.gamma)
    try:
        P = scipy.linalg.solve_discrete_are(by * A, by * B, Q, R, s=N)
    except (np.linalg.LinAlgError, ValueError):
        raise Breakdown(-1, "no root is stabilising") from None
    P = _polished(problem, P, theta)
    if _radius(problem, P, theta) >= 1:
        raise Breakdown(-1, "no root is stabilising")
    return P, _slope(problem, step, P, theta)


def _seen(problem: StepArrays) -> tuple[StepArrays, int, Array]:
    """The problem restricted to the part of the state that rewards depend on, rescaled.

    With a' = a + R⁻¹N's no cost joins states and actions. A direction that then never affects the
    cost or the slope has value zero at every horizon, and is left out.

    Returns:
        The problem; how many of its states, the first ones, the cost depends on (the slope alone
        depends on the others); and the matrix X of P = X P_seen X', p = X p_seen.
    """
    A, B, c, L, Q, N, R, q, rho, _ = problem.over(1)[0]
    if not riccati.definite(R, np.abs(R)):
        riccati.unbounded_actions("of the last step")
    solved = np.linalg.solve(R, np.column_stack([N.T, rho]))
    K, k = solved[:, :-1], solved[:, -1]
    cost, slope = np.abs(Q) + np.abs(N) @ np.abs(K), np.abs(q) + np.abs(N) @ np.abs(k)
    d = units(np.abs(A) + np.abs(B) @ np.abs(K), cost, slope)
    A, Q, q = (A - B @ K) * d / d[:, None], (Q - N @ K) * d * d[:, None], (q - N @ k) * d
    by_cost, rest = unseen(A, Q, float((cost * d * d[:, None]).max(initial=0.0)))
    size = float((slope * d).max(initial=0.0))
    by_slope, _ = unseen(rest.T @ A @ rest, (q @ rest)[None], size)
    X = np.hstack([by_cost, rest @ by_slope])
    s = by_cost.shape[1]
    square = np.zeros((X.shape[1],) * 2)
    square[:s, :s] = by_cost.T @ Q @ by_cost
    seen = replace(
        problem,
        A=(X.T @ A @ X)[None],
        B=(X.T @ (B / d[:, None]))[None],
        c=(X.T @ (c / d))[None],
        L=(X.T @ (L / d[:, None]))[None],
        Q=square[None],
        N=np.zeros((1, X.shape[1], len(R))),
        q=(X.T @ q)[None],
    )
    return seen, s, X / d[:, None]


def _leading(problem: StepArrays, s: int) -> StepArrays:
    """The problem of the first s states, which do not depend on the others."""
    square = {name: getattr(problem, name)[:, :s, :s] for name in ("A", "Q")}
    rows = {name: getattr(problem, name)[:, :s] for name in ("B", "c", "L", "N", "q")}
    return replace(problem, **square, **rows)


def _curvature(problem: StepArrays, theta: float) -> Array:
    """P by doubling, after some single steps where doubling cannot check each step."""
    Q = problem.Q[0]
    convex = bool(np.linalg.eigvalsh(Q)[0] >= -_NEGATIVE * np.abs(Q).max())
    start, settled = np.zeros_like(Q), False
    if math.isinf(theta):
        # Free luck can bring back an unstable state, so that the loop need not be stable.
        P, settled = _steps(problem, theta, _STEPS)
        if not settled:
            raise doubling.no_limit(P)
        return P
    if theta < 0 and not convex:
        start, settled = _steps(problem, theta, _FIRST)
    P = start
    if not settled:
        P, settled = _doubled(problem, start, theta, convex)
    if settled:
        P = _polished(problem, P, theta)
        settled = _radius(problem, P, theta) < 1 - _MARGIN
    if not settled:
        raise doubling.no_limit(P)
    return P


def _doubled(problem: StepArrays, start: Array, theta: float, convex: bool) -> tuple[Array, bool]:
    """The limit of the recursion from a given P, and whether there is one.

    The increment of P obeys a recursion of the same form, from zero: in the closed loop at P, with
    what one more step adds as its cost.
    """
    _, B, _, L, Q, _, R = problem.over(1)[0][:7]
    G = problem.gamma * B @ np.linalg.solve(R, B.T) + (theta * L @ L.T if theta else 0.0)
    loop = problem.A[0]
    if start.any():
        G, Q = (
            np.linalg.solve(np.eye(len(G)) + G @ start, G),
            _before(problem, start, theta) - start,
        )
        loop = _loop(problem, start, theta)[0]

    def check(G: Array, Q: Array, steps: int) -> None:
        if theta >= 0:
            if not convex and doubling.least(G, Q) <= 0:
                what = "the value grows without limit in the actions and the noise"
                raise Breakdown(1, f"{what} of {steps} steps")
            return
        _before(problem, start + Q, theta)
        if convex and doubling.least(Q, G) <= 0:
            what = "E exp(ηV/α) over the noise of a step is infinite"
            raise Breakdown(-1, f"{what} within {steps} steps")

    by = math.sqrt(problem.gamma)
    more, settled = doubling.from_zero(by * loop, 0.5 * (G + G.T), Q, check)
    if not settled and theta < 0 and np.abs(more).max() < _GROWN:
        raise Breakdown(-1, "the values of long horizons do not settle")
    return start + more, settled


def _polished(problem: StepArrays, P: Array, theta: float) -> Array:
    """P after some steps of the recursion, which contracts around the limit."""
    for _ in range(_POLISH):
        before, P = P, _before(problem, P, theta)
        if np.abs(P - before).max() <= _SETTLED * np.abs(P).max():
            break
    return P


def _steps(problem: StepArrays, theta: float, number: int) -> tuple[Array, bool]:
    """P after a number of steps from zero, fewer if it settles before; and whether it settled."""
    P = np.zeros_like(problem.A[0])
    for _ in range(number):
        before, P = P, _before(problem, P, theta)
        if np.abs(P - before).max() <= _SETTLED * np.abs(P).max():
            return P, True
        if not np.abs(P).max() < _GROWN:
            break
    return P, False


def _before(problem: StepArrays, P: Array, theta: float) -> Array:
    """P of a step from that of the next step."""
    value = P, np.zeros(len(P)), 0.0
    return riccati.earlier(problem, problem.over(1)[0], value, theta, _WHERE)[0][0]


def _loop(problem: StepArrays, P: Array, theta: float) -> tuple[Array, Array]:
    """The closed loop Z(A - BK) in the tilted dynamics, and K."""
    step = problem.over(1)[0]
    A, B, _, L = step[:4]
    value = P, np.zeros(len(P)), 0.0
    K = riccati.earlier(problem, step, value, theta, _WHERE)[1]
    return tilted_noise.tilt(tilted_noise.spectrum(value, L, theta), theta)[0] @ (A - B @ K), K


def _radius(problem: StepArrays, P: Array, theta: float) -> float:
    """The spectral radius of the closed loop, times the square root of the discount."""
    loop = _loop(problem, P, theta)[0]
    return math.sqrt(problem.gamma) * float(np.abs(np.linalg.eigvals(loop)).max())


def _slope(problem: StepArrays, step: tuple[Any, ...], P: Array, theta: float) -> Array:
    """p = q - K'ρ + γ(A - BK)'(Z'p - P̃c), a linear system, with the tilted dynamics Z(A - BK)."""
    if not len(P):
        return np.zeros(0)
    A, B, c, L, _, _, _, q, rho, _ = step
    loop, K = _loop(problem, P, theta)
    level = P, np.zeros(len(P)), 0.0
    soft = tilted_noise.soften(level, tilted_noise.spectrum(level, L, theta), theta, _WHERE)[0]
    system = np.eye(len(P)) - problem.gamma * loop.T
    right = q - K.T @ rho - problem.gamma * (A - B @ K).T @ soft @ c
    slope: Array
    if math.isinf(theta):  # free luck brings back unstable states, which then have no slope
        slope = np.linalg.lstsq(system, right, rcond=None)[0]
        grows = np.abs(system @ slope - right).max() > _AGREES * (1 + np.abs(right).max())
    else:
        radius = problem.gamma * np.abs(np.linalg.eigvals(loop)).max()
        grows = radius >= 1 - _MARGIN or np.linalg.cond(system) > 1 / _MARGIN
        slope = right if grows else np.linalg.solve(system, right)
    if grows:
        raise Breakdown(-1, "the linear part of the value grows with the steps")
    return slope
