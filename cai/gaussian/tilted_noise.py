"""The noise of a step, tilted by the value of the state that it leads to (θ = η/α).

With V(s) = -½ s'Ps + p's + k, noise W = LL' and the spectrum L'PL = U diag(λ) U',

    (1/θ) log E exp(θ V(μ + w)) = -½ μ'P̃μ + p̃'μ + k̃
    P̃ = P - Y diag(f) Y',  p̃ = p - Y diag(f) y,  k̃ = k - ½ Σ log(1 + θλ)/θ + ½ Σ f y²

where Y = PLU, y = (LU)'p and f = θ/(1 + θλ): the same as P̃ = (I + θPW)⁻¹P, but symmetric, for any
singular W, exact as θ → 0 and with a limit as θ → ±∞, where f = 1/λ. The tilted noise, q(w) ∝ p(w)
exp(θV(μ + w)), has covariance LU diag(1/(1 + θλ)) (LU)' and mean LU diag(f) (y - Y'μ).
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
Value: TypeAlias = tuple[Array, Array, Any]
"""P (..., n, n), p (..., n) and k (...) of -½ s'Ps + p's + k, reward units."""

Spectrum: TypeAlias = tuple[Array, Array, Array, Array]
"""The noise in the eigenbasis of a value, from :func:`spectrum`."""

START = "of the first state"
_FLAT = 1e-12  # curvature and slope below this fraction of the largest possible count as none …
_STEEP = 1e10  # … where θ times the largest curvature is above this


class Breakdown(ArithmeticError):
    """A value is infinite: no solution exists at this optimism.

    Attributes:
        side: +1 if the value is +∞, as at every larger η; -1 if it is -∞, as at every smaller η.
            (The values grow with η.)
        what: a description of where.
    """

    def __init__(self, side: int, what: str) -> None:
        super().__init__(what)
        self.side, self.what = side, what


def soften(value: Value, seen: Spectrum, theta: float, where: str) -> Value:
    """P̃, p̃, k̃ of (1/θ) log E exp(θ V(μ + Lz)), z ~ N(0, I), as a function of μ.

    Raises:
        Breakdown: if the expectation is infinite, naming the noise that makes it so.
    """
    P, p, k = value
    _, lam, Y, y = seen
    f, log = pull(lam, y, theta, where)
    soft_k = k - 0.5 * log.sum(-1) + 0.5 * (f * y**2).sum(-1)
    return P - (Y * f[..., None, :]) @ Y.swapaxes(-1, -2), p - times(Y, f * y), soft_k


def tilt(seen: Spectrum, theta: float) -> tuple[Array, Array, Array]:
    """The tilted noise around a mean μ: s' ~ N(Z μ + z, W̃).

    Returns:
        Z (..., n, n), z (..., n) and W̃ (..., n, n); the identity, zero and LL' at θ = 0.
    """
    X, lam, Y, y = seen
    f, _ = pull(lam, y, theta, "")
    # 1/(1 + θλ): at θ = ±∞ it is 0 along noise that changes the value, and 1 along other noise.
    g = np.where(f == 0, 1.0, 0.0) if math.isinf(theta) else 1 / (1 + theta * lam)
    pulled = X * f[..., None, :]
    Z = np.eye(X.shape[-2]) - pulled @ Y.swapaxes(-1, -2)
    return Z, times(pulled, y), (X * g[..., None, :]) @ X.swapaxes(-1, -2)


def spectrum(value: Value, L: Array, theta: float) -> Spectrum:
    """X = LU, λ (..., n), Y = PX and y = X'p (..., n), with L'PL = U diag(λ) U'."""
    P, p, _ = value
    lam, U = np.linalg.eigh(L.swapaxes(-1, -2) @ P @ L)
    X = L @ U
    y = times(X.swapaxes(-1, -2), p)
    steep = ((L**2).sum((-1, -2)) * np.abs(P).sum((-1, -2))).max(initial=0.0)
    if math.isinf(theta) or abs(theta) * steep > _STEEP:
        # Rounding errors must not count as noise that changes the value.
        largest = np.abs(L).swapaxes(-1, -2)
        size = (largest @ np.abs(P) @ np.abs(L)).max((-1, -2), initial=0.0)[..., None]
        slope = times(largest, np.abs(p)).max(-1, initial=0.0)[..., None]
        matters = (np.abs(lam) > _FLAT * size) | (np.abs(y) > _FLAT * slope)
        lam, y = np.where(matters, lam, 0.0), np.where(matters, y, 0.0)
    return X, lam, P @ X, y


def pull(lam: Array, y: Array, theta: float, where: str) -> tuple[Array, Array]:
    """f = θ/(1 + θλ) and log(1 + θλ)/θ, with their limits; both (..., n).

    Raises:
        Breakdown: if 1 + θλ is not positive.
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


def times(M: Array, x: Array) -> Array:
    """M x for batches of both, (..., i, j) and (..., j)."""
    return (M @ x[..., None])[..., 0]
