"""The backward recursion of a linear-Gaussian model at any optimism η (θ = η/α).

With V(s) = -½ s'Ps + p's + k, and P̃, p̃, k̃ of its soft expectation over the noise of a step
(``tilted_noise.py``), the actions give, with the prior's N(m,Σ) in R and ρ,

    H = R + B'P̃B   G = N' + B'P̃A   h = ρ + B'(p̃ - P̃c)      π = N(-H⁻¹G s + H⁻¹h, αH⁻¹)
    P⁻ = Q + A'P̃A - G'H⁻¹G          p⁻ = q + A'(p̃ - P̃c) - G'H⁻¹h
    k⁻ = k̃ - ½c'P̃c + p̃'c + ½h'H⁻¹h + (α/2) log det(2παH⁻¹)

Everything is in numpy: the matrices are small, and its calls cost a tenth of torch's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from cai.distributions.degenerate_normal import Root
from cai.gaussian.linear_gaussian import LinearGaussian
from cai.gaussian.tilted_noise import START, Array, Breakdown, Value, soften, spectrum, tilt, times
from cai.numerics import memory

_RANK = 1e-13  # curvature below this fraction of its summands is a rounding error
_LIMIT = 1e150  # a |θ| beyond this is infinite: products with it overflow


@dataclass(frozen=True, eq=False)
class StepArrays:
    """A linear-Gaussian model as arrays with a leading axis of steps (length 1 if constant).

    Attributes:
        A, B, c, L: dynamics and the root of W.
        Q, N, R, q, rho: reward, with a Gaussian prior's αΣ⁻¹ and αΣ⁻¹m in R and ρ.
        k: its -½ α (log det 2πΣ + m'Σ⁻¹m).
        alpha, gamma: temperature and discount.
    """

    A: Array
    B: Array
    c: Array
    L: Array
    Q: Array
    N: Array
    R: Array
    q: Array
    rho: Array
    k: Array
    alpha: float
    gamma: float

    @classmethod
    def of(cls, model: LinearGaussian) -> StepArrays:
        """The arrays of a model."""
        alpha, m = model.temperature, model.action_size
        R, rho, k = _steps(model.R, 2), _steps(model.rho, 1), np.zeros(1)
        if not model.flat:
            prior: Any = model.action_prior
            precision = alpha * _steps(prior.precision_matrix, 2)
            mean = _steps(prior.loc, 1)
            R, rho = R + precision, rho + times(precision, mean)
            det = 2 * np.log(_steps(prior.scale_tril, 2).diagonal(0, 1, 2)).sum(-1)
            k = -0.5 * alpha * (det + m * math.log(2 * math.pi))
            k = k - 0.5 * (mean * times(precision, mean)).sum(-1)
        return cls(
            A=_steps(model.A, 2),
            B=_steps(model.B, 2),
            c=_steps(model.drift, 1),
            L=_steps(model.noise_root.factor, 2),
            Q=_steps(model.Q, 2),
            N=_steps(model.N, 2),
            R=R,
            q=_steps(model.q, 1),
            rho=rho,
            k=k,
            alpha=alpha,
            gamma=model.discount,
        )

    def over(self, T: int) -> list[tuple[Any, ...]]:
        """The arrays of each of T steps, in the order of the fields."""
        fields = (self.A, self.B, self.c, self.L, self.Q, self.N, self.R, self.q, self.rho, self.k)
        return list(zip(*(list(x) * T if len(x) == 1 else list(x) for x in fields), strict=True))


@dataclass(frozen=True, eq=False)
class RiccatiSolution:
    """Values and policies: of T+1 and T steps, or of any step of an infinite horizon.

    Attributes:
        value: P, p and k, (T+1, n, n), (T+1, n), (T+1), reward units; without the axis of steps
            where all steps are alike, and then k = 0 without a discount.
        K, offset: (T, m, n), (T, m): the mean of an action is offset - K s.
        H: (T, m, m), reward units: the precision of an action times α.
        growth: what a step adds to the value of an infinite horizon without a discount, reward
            units; else None.
    """

    value: Value
    K: Array
    offset: Array
    H: Array
    growth: float | None = None


def backward(model: LinearGaussian, eta: float) -> RiccatiSolution:
    """Values and policies of every step, for a finite horizon.

    Raises:
        Breakdown: if a value is infinite, at any step or in expectation over the first state.
    """
    T, n, m = int(model.horizon or 0), model.state_size, model.action_size
    count = (T + 1) * (n * n + n + 1) + T * m * (n + 1 + m)
    advice = "take a shorter or an infinite one"
    memory.check_fits("horizon", f"values and policies of {T} steps", count, advice)
    problem, theta = StepArrays.of(model), price(model, eta)
    P, p, k = np.empty((T + 1, n, n)), np.empty((T + 1, n)), np.empty(T + 1)
    K, offset, H = np.empty((T, m, n)), np.empty((T, m)), np.empty((T, m, m))
    value: Value = model.Q_final.numpy(), model.q_final.numpy(), 0.0
    P[T], p[T], k[T] = value
    size = None if definite(problem.R, np.abs(problem.R)) else np.diag(np.abs(value[0].diagonal()))
    for t, step in reversed(list(enumerate(problem.over(T)))):
        after, where = value, f"of step {t}"
        value, K[t], offset[t], H[t] = earlier(problem, step, after, theta, where)
        if size is not None:
            size = _sizes(step, after, K[t], H[t], size, theta, where)
        P[t], p[t], k[t] = value
    soften(value, spectrum(value, model_start(model)[1], theta), theta, START)
    return RiccatiSolution((P, p, k), K, offset, H)


def price(model: LinearGaussian, eta: float) -> float:
    """θ = η/α, with ±∞ for values whose products would overflow."""
    theta = eta / model.temperature
    return math.copysign(math.inf, theta) if abs(theta) > _LIMIT else theta


def model_start(model: LinearGaussian) -> tuple[Array, Array]:
    """The mean of s_0, (n,), and the root of its covariance, (n, n)."""
    return model.initial_mean.numpy(), Root.of(model.initial_covariance).factor.numpy()


def earlier(
    problem: StepArrays, step: tuple[Any, ...], value: Value, theta: float, where: str
) -> tuple[Value, Array, Array, Array]:
    """The value of a step from that of the next step, with K, offset and H of its policy."""
    A, B, c, L, Q, N, R, q, rho, prior = step
    alpha, gamma = problem.alpha, problem.gamma
    P, p, k = soften(value, spectrum(value, L, theta), theta, where)
    P, p, k = gamma * P, gamma * p, gamma * k  # below 1 at η = 0 only
    PB, slope = P @ B, p - P @ c
    H = R + B.T @ PB
    H = 0.5 * (H + H.T)
    G = N.T + PB.T @ A
    h = rho + B.T @ slope
    try:
        root = np.linalg.cholesky(H)
        K, offset = np.linalg.solve(H, G), np.linalg.solve(H, h)
    except np.linalg.LinAlgError:
        unbounded_actions(where)
    P_before = Q + A.T @ (P @ A) - G.T @ K
    log_det = len(H) * math.log(2 * math.pi * alpha) - 2 * np.log(root.diagonal()).sum()
    k_before = k - 0.5 * c @ P @ c + p @ c + 0.5 * h @ offset + 0.5 * alpha * log_det + prior
    value = 0.5 * (P_before + P_before.T), q + A.T @ slope - K.T @ h, k_before
    return value, K, offset, H


def _steps(x: Any, dims: int) -> Array:
    """The array with a leading axis of steps, of length 1 if it had none."""
    array: Array = x.numpy()
    return array if array.ndim > dims else array[None]


def _sizes(
    step: tuple[Any, ...], after: Value, K: Array, H: Array, size: Array, theta: float, where: str
) -> Array:
    """The size of the summands of P, (n, n): its rounding error is a fraction of that.

    Errors of the next step pass through the closed loop, and each step adds its own. If the actions
    of a step have no cost of their own, this decides whether H > 0.

    Raises:
        Breakdown: if H is not positive definite.
    """
    A, B, _, L, Q, _, R = step[:7]
    P = after[0]
    Z, _, _ = tilt(spectrum(after, L, theta), theta)
    unit = np.sqrt(np.abs(P.diagonal()))
    size = Z.T @ size @ Z + np.diag(unit**2)
    own = np.abs(R.diagonal()) + (np.abs(B).T @ unit) ** 2
    if not definite(H, B.T @ size @ B + np.diag(own)):
        unbounded_actions(where)
    loop = A - B @ K
    own = np.abs(Q.diagonal()) + ((np.abs(A) + np.abs(B) @ np.abs(K)).T @ unit) ** 2
    return loop.T @ size @ loop + np.diag(own)


def definite(H: Array, size: Array) -> bool:
    """Whether symmetric H > 0, beyond the rounding errors of its summands.

    Args:
        H: (..., m, m).
        size: (..., m, m), a bound of the summands; its diagonal gives each variable its unit.
    """
    scale = size.diagonal(0, -2, -1)
    if not (scale > 0).all():
        return False
    unit = 1 / np.sqrt(scale)
    scaled = H * unit[..., None] * unit[..., None, :]
    return bool((np.linalg.eigvalsh(scaled) > _RANK).all())


def unbounded_actions(where: str) -> NoReturn:
    """Raises Breakdown."""
    raise Breakdown(
        1, f"the value grows without limit in the action {where}: R + B'P̃B is not positive definite"
    )
