"""The backward recursion of a linear-Gaussian model at any optimism η (θ = η/α).

With V(s) = -½ s'Ps + p's + k, noise W = LL' and the spectrum L'PL = U diag(λ) U',

    (1/θ) log E exp(θ V(μ + w)) = -½ μ'P̃μ + p̃'μ + k̃
    P̃ = P - Y diag(f) Y',  p̃ = p - Y diag(f) y,  k̃ = k - ½ Σ log(1 + θλ)/θ + ½ Σ f y²

where Y = PLU, y = (LU)'p and f = θ/(1 + θλ): the same as P̃ = (I + θPW)⁻¹P, but symmetric, for any
singular W, exact as θ → 0 and with a limit as θ → ±∞, where f = 1/λ. Under the bend q(w) ∝ p(w)
exp(θV(μ + w)) the noise has covariance LU diag(1/(1 + θλ)) (LU)' and mean LU diag(f) (y - Y'μ).

The actions then give, with the prior's N(m,Σ) in R and ρ,

    H = R + B'P̃B   G = N' + B'P̃A   h = ρ + B'(p̃ - P̃c)      π = N(-H⁻¹G s + H⁻¹h, αH⁻¹)
    P⁻ = Q + A'P̃A - G'H⁻¹G          p⁻ = q + A'(p̃ - P̃c) - G'H⁻¹h
    k⁻ = k̃ - ½c'P̃c + p̃'c + ½h'H⁻¹h + (α/2) log det(2παH⁻¹)

Everything is in numpy: the matrices are small, and its calls cost a tenth of torch's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cai.distributions.degenerate_normal import Root
from cai.gaussian.linear_gaussian import LinearGaussian
from cai.numerics import memory

Array: TypeAlias = NDArray[np.float64]
Value: TypeAlias = tuple[Array, Array, Any]
"""P (..., n, n), p (..., n) and k (...) of -½ s'Ps + p's + k, reward units."""

START = "of the first state"
_FLAT = 1e-12  # curvature and slope below this fraction of the largest possible count as none …
_STEEP = 1e10  # … where θ times the largest curvature is above this
_RANK = 1e-13  # curvature below this fraction of what it was added up from is a rounding error
_LIMIT = 1e150  # a |θ| beyond this is infinite: products with it overflow


class Breakdown(ArithmeticError):
    """A value is infinite: no solution exists at this optimism.

    Attributes:
        side: +1 where the value is +∞, at every larger η too; -1 where it is -∞, at every
            smaller η too. (The values grow with η.)
        what: where, in words.
    """

    def __init__(self, side: int, what: str) -> None:
        super().__init__(what)
        self.side, self.what = side, what


@dataclass(frozen=True, eq=False)
class Problem:
    """A linear-Gaussian model as arrays with a leading axis of steps (length 1: all alike).

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
    def of(cls, model: LinearGaussian) -> Problem:
        """The arrays of a model."""
        alpha, m = model.temperature, model.action_size
        R, rho, k = _steps(model.R, 2), _steps(model.rho, 1), np.zeros(1)
        if not model.flat:
            prior: Any = model.action_prior
            precision = alpha * _steps(prior.precision_matrix, 2)
            mean = _steps(prior.loc, 1)
            R, rho = R + precision, rho + _times(precision, mean)
            det = 2 * np.log(_steps(prior.scale_tril, 2).diagonal(0, 1, 2)).sum(-1)
            k = -0.5 * alpha * (det + m * math.log(2 * math.pi))
            k = k - 0.5 * (mean * _times(precision, mean)).sum(-1)
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
        """What each of T steps needs, in the order of the fields."""
        fields = (self.A, self.B, self.c, self.L, self.Q, self.N, self.R, self.q, self.rho, self.k)
        return list(zip(*(list(x) * T if len(x) == 1 else list(x) for x in fields), strict=True))


@dataclass(frozen=True, eq=False)
class Sweep:
    """The result of T backward steps: values of T+1 steps, and policies of T.

    Attributes:
        P, p, k: (T+1, n, n), (T+1, n), (T+1), reward units.
        K, offset: (T, m, n), (T, m): the mean of an action is offset - K s.
        H: (T, m, m), reward units: its precision times α.
    """

    P: Array
    p: Array
    k: Array
    K: Array
    offset: Array
    H: Array


def backward(model: LinearGaussian, eta: float) -> Sweep:
    """Values and policies of every step, for a finite horizon.

    Raises:
        Breakdown: where a value is infinite; every step is checked, and the first state, too.
    """
    T, n, m = int(model.horizon or 0), model.state_size, model.action_size
    count = (T + 1) * (n * n + n + 1) + T * m * (n + 1 + m)
    advice = "take a shorter or an infinite one"
    memory.check_fits("horizon", f"values and policies of {T} steps", count, advice)
    problem, theta = Problem.of(model), price(model, eta)
    sweep = Sweep(
        *(np.empty((T + 1, n, n)), np.empty((T + 1, n)), np.empty(T + 1)),
        *(np.empty((T, m, n)), np.empty((T, m)), np.empty((T, m, m))),
    )
    value: Value = model.Q_final.numpy(), model.q_final.numpy(), 0.0
    sweep.P[T], sweep.p[T], sweep.k[T] = value
    size = None if definite(problem.R, np.abs(problem.R)) else np.diag(np.abs(value[0].diagonal()))
    for t, step in reversed(list(enumerate(problem.over(T)))):
        after, where = value, f"of step {t}"
        value, sweep.K[t], sweep.offset[t], sweep.H[t] = earlier(problem, step, after, theta, where)
        if size is not None:
            size = _sizes(step, after, sweep.K[t], sweep.H[t], size, theta, where)
        sweep.P[t], sweep.p[t], sweep.k[t] = value
    soften(value, model_start(model)[1], theta, START)
    return sweep


def price(model: LinearGaussian, eta: float) -> float:
    """θ = η/α, what a unit of reward weighs in nats of bending; ±∞ where products would be."""
    theta = eta / model.temperature
    return math.copysign(math.inf, theta) if abs(theta) > _LIMIT else theta


def model_start(model: LinearGaussian) -> tuple[Array, Array]:
    """The mean of s_0, (n,), and the root of its covariance, (n, n)."""
    return model.initial_mean.numpy(), Root.of(model.initial_covariance).factor.numpy()


def earlier(
    problem: Problem, step: tuple[Any, ...], value: Value, theta: float, where: str
) -> tuple[Value, Array, Array, Array]:
    """The value of a step from that of the step after, with K, offset and H of its policy."""
    A, B, c, L, Q, N, R, q, rho, prior = step
    alpha, gamma = problem.alpha, problem.gamma
    P, p, k = soften(value, L, theta, where)
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


def soften(value: Value, L: Array, theta: float, where: str) -> Value:
    """P̃, p̃, k̃ of (1/θ) log E exp(θ V(μ + Lz)), z ~ N(0, I), as a function of μ.

    Raises:
        Breakdown: where the expectation is infinite, naming whose noise does it.
    """
    P, p, k = value
    _, lam, Y, y = spectrum(P, p, L, theta)
    f, log = pull(lam, y, theta, where)
    soft_k = k - 0.5 * log.sum(-1) + 0.5 * (f * y**2).sum(-1)
    return P - (Y * f[..., None, :]) @ Y.swapaxes(-1, -2), p - _times(Y, f * y), soft_k


def bend(value: Value, L: Array, theta: float) -> tuple[Array, Array, Array]:
    """The bent noise around a mean μ: s' ~ N(Z μ + z, W̃).

    Returns:
        Z (..., n, n), z (..., n) and W̃ (..., n, n); the identity, zero and LL' at θ = 0.
    """
    P, p, _ = value
    X, lam, Y, y = spectrum(P, p, L, theta)
    f, _ = pull(lam, y, theta, "")
    # 1/(1 + θλ): at θ = ±∞ nothing is left of the noise that matters, and all of what does not.
    g = np.where(f == 0, 1.0, 0.0) if math.isinf(theta) else 1 / (1 + theta * lam)
    pulled = X * f[..., None, :]
    Z = np.eye(P.shape[-1]) - pulled @ Y.swapaxes(-1, -2)
    return Z, _times(pulled, y), (X * g[..., None, :]) @ X.swapaxes(-1, -2)


def spectrum(P: Array, p: Array, L: Array, theta: float) -> tuple[Array, Array, Array, Array]:
    """X = LU, λ (..., n), Y = PX and y = X'p (..., n), with L'PL = U diag(λ) U'."""
    lam, U = np.linalg.eigh(L.swapaxes(-1, -2) @ P @ L)
    X = L @ U
    y = _times(X.swapaxes(-1, -2), p)
    steep = ((L**2).sum((-1, -2)) * np.abs(P).sum((-1, -2))).max(initial=0.0)
    if math.isinf(theta) or abs(theta) * steep > _STEEP:
        # Rounding must not pass for a chance.
        largest = np.abs(L).swapaxes(-1, -2)
        size = (largest @ np.abs(P) @ np.abs(L)).max((-1, -2), initial=0.0)[..., None]
        slope = _times(largest, np.abs(p)).max(-1, initial=0.0)[..., None]
        matters = (np.abs(lam) > _FLAT * size) | (np.abs(y) > _FLAT * slope)
        lam, y = np.where(matters, lam, 0.0), np.where(matters, y, 0.0)
    return X, lam, P @ X, y


def pull(lam: Array, y: Array, theta: float, where: str) -> tuple[Array, Array]:
    """f = θ/(1 + θλ) and log(1 + θλ)/θ, with their limits; both (..., n).

    Raises:
        Breakdown: where 1 + θλ is not positive.
    """
    if theta == 0:
        return np.zeros_like(lam), lam
    if math.isinf(theta):
        side = 1 if theta > 0 else -1
        still = (lam == 0) & (y == 0)
        if not (still | (side * lam > 0)).all():
            raise Breakdown(side, f"the noise {where} can move the value without limit")
        return np.where(still, 0.0, 1 / np.where(still, 1.0, lam)), np.zeros_like(lam)
    weight = 1 + theta * lam
    if not (weight > 0).all():
        what = f"E exp(ηV/α) over the noise {where} is infinite (1 + θλ = {weight.min():.3g})"
        raise Breakdown(1 if theta > 0 else -1, what)
    return theta / weight, np.log1p(theta * lam) / theta


def _steps(x: Any, dims: int) -> Array:
    """With a leading axis of steps, of length 1 where there was none."""
    array: Array = x.numpy()
    return array if array.ndim > dims else array[None]


def _times(M: Array, x: Array) -> Array:
    return (M @ x[..., None])[..., 0]


def _sizes(
    step: tuple[Any, ...],
    after: Value,
    K: Array,
    H: Array,
    size: Array,
    theta: float,
    where: str,
) -> Array:
    """The size of what P was added up from, (n, n): its rounding error is a fraction of that.

    An error of the step after comes through the closed loop, and each step adds its own. Where the
    actions of a step cost nothing by themselves, H > 0 is decided by it.

    Raises:
        Breakdown: where H is not.
    """
    A, B, _, L, Q, _, R = step[:7]
    P = after[0]
    Z, _, _ = bend(after, L, theta)
    unit = np.sqrt(np.abs(P.diagonal()))
    size = Z.T @ size @ Z + np.diag(unit**2)
    own = np.abs(R.diagonal()) + (np.abs(B).T @ unit) ** 2
    if not definite(H, B.T @ size @ B + np.diag(own)):
        unbounded_actions(where)
    loop = A - B @ K
    own = np.abs(Q.diagonal()) + ((np.abs(A) + np.abs(B) @ np.abs(K)).T @ unit) ** 2
    return loop.T @ size @ loop + np.diag(own)


def definite(H: Array, size: Array) -> bool:
    """Whether symmetric H > 0, beyond the rounding of the numbers that they were added up from.

    Args:
        H: (..., m, m).
        size: (..., m, m), a bound of those numbers; its diagonal gives each variable its unit.
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
