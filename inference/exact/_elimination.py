"""Gaussian integrals under linear constraints, one block of variables after another.

An exact observation is a density without width. It is kept as linear constraints beside a
quadratic: f(w) = exp((-½ w'Pw + p'w + k)/α) δ(Cw - d), with orthonormal rows of C. Integrating over
some of the variables uses up the constraints that these can satisfy and leaves the rest. So no
covariance has to be inverted: noise may be singular, or absent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from cai.gaussian.riccati import definite
from cai.gaussian.tilted_noise import Array

_RANK = 1e-12  # an effect of a variable below this fraction of the largest counts as zero
_ROUNDING = 1e-13  # rounding error of a curvature, relative to the size of its summands
_AGREES = 1e-6  # by how much rounding may violate a constraint, relative to the size of a value


class NoDensity(ArithmeticError):
    """A constraint involves no free variable: it holds in any case, or cannot hold.

    Attributes:
        possible: whether it holds.
    """

    def __init__(self, possible: bool) -> None:
        super().__init__(possible)
        self.possible = possible


class Unbounded(ArithmeticError):
    """The integral over some variables is infinite.

    Attributes:
        lost: whether it is finite, but only due to a curvature that is lost in rounding errors.
    """

    def __init__(self, lost: bool) -> None:
        super().__init__(lost)
        self.lost = lost


@dataclass(frozen=True, eq=False)
class Potential:
    """-½ w'Pw + p'w + k, reward units, along C w = d.

    Attributes:
        P: (n, n), symmetric.
        p: (n,).
        k: ().
        C: (r, n), orthonormal rows.
        d: (r,).
        size: (n, n), the size of the summands of P: its rounding error is a fraction of that.
    """

    P: Array
    p: Array
    k: float
    C: Array
    d: Array
    size: Array

    @classmethod
    def free(cls, P: Array, p: Array, k: float = 0.0) -> Potential:
        """A quadratic without constraints."""
        return cls(P, p, k, np.zeros((0, len(p))), np.zeros(0), _diagonal(P))

    def of(self, J: Array, j: Array) -> Potential:
        """The potential as a function of x, w = J x + j. Rows of C may cease to be orthonormal."""
        slope = self.p - self.P @ j
        k = self.k + 0.5 * float((self.p + slope) @ j)
        own = np.abs(J).T @ np.sqrt(np.abs(self.P.diagonal()))
        size = J.T @ self.size @ J + np.diag(own**2)
        return Potential(J.T @ self.P @ J, J.T @ slope, k, self.C @ J, self.d - self.C @ j, size)

    def plus(self, P: Array, p: Array, k: float = 0.0) -> Potential:
        """The sum with another quadratic."""
        size = self.size + _diagonal(P)
        return replace(self, P=self.P + P, p=self.p + p, k=self.k + k, size=size)

    def at(self, w: Array) -> Potential:
        """The potential for earlier steps if w is observed: its value there, with w constrained.

        Raises:
            NoDensity: if constraints are left, which w satisfies or violates.
        """
        if len(self.d):
            gap = np.abs(self.C @ w - self.d).max()
            raise NoDensity(bool(gap <= _AGREES * (1 + np.abs(w).max())))
        n = len(w)
        value = self.k + float((self.p - 0.5 * self.P @ w) @ w)
        nothing = np.zeros((n, n))
        return Potential(nothing, np.zeros(n), value, np.eye(n), w, nothing)


@dataclass(frozen=True, eq=False)
class Conditional:
    """y given x under a potential: y = gain x + offset + noise with the covariance.

    Attributes:
        gain: (m, n).
        offset: (m,).
        covariance: (m, m), may be singular.
    """

    gain: Array
    offset: Array
    covariance: Array


def eliminate(
    potential: Potential, n: int, alpha: float, scale: float, least: Array
) -> tuple[Potential, Conditional]:
    """α log ∫ exp(·/α) dy over all but the first n variables x, and the distribution of y given x.

    Args:
        potential: a function of (x, y); rows of C need not be orthonormal.
        n: the number of variables x.
        alpha: α.
        scale: the largest effect that y can have on the constraints; effects within its rounding
            error count as zero.
        least: a known part of the curvature in y, (m, m), if the rest of it is ≥ 0.

    Raises:
        NoDensity: if a constraint is left that does not involve x either.
        Unbounded: if the integral is infinite, or cannot be told from an infinite one.
    """
    C, d = potential.C, potential.d
    U, S, Vt = np.linalg.svd(C[:, n:])
    rank = int((_RANK * scale < S).sum())
    fixed, free = Vt[:rank].T, Vt[rank:].T
    along = fixed / S[:rank] @ U[:, :rank].T
    E, e = -along @ C[:, :n], along @ d
    # y = E x + e + free z, where z is integrated out.
    J = np.block([[np.eye(n), np.zeros((n, free.shape[1]))], [E, free]])
    inner = potential.of(J, np.concatenate([np.zeros(n), e]))
    H, G, h = inner.P[n:, n:], inner.P[n:, :n], inner.p[n:]
    H = 0.5 * (H + H.T)
    _check_finite(H, inner.size[n:, n:], free.T @ least @ free)
    root = np.linalg.cholesky(H)
    K, o, inverse = np.linalg.solve(H, G), np.linalg.solve(H, h), np.linalg.inv(H)
    P = inner.P[:n, :n] - G.T @ K
    unit = np.sqrt(np.abs(inner.P.diagonal()))
    back = np.vstack([np.eye(n), -K])
    size = back.T @ inner.size @ back + np.diag((unit[:n] + np.abs(K).T @ unit[n:]) ** 2)
    log_det = 2 * np.log(root.diagonal()).sum() + 2 * np.log(S[:rank]).sum()
    k = inner.k + 0.5 * float(h @ o)
    k += 0.5 * alpha * (len(h) * math.log(2 * math.pi * alpha) - float(log_det))
    rest = Potential(
        0.5 * (P + P.T),
        inner.p[:n] - K.T @ h,
        k,
        U[:, rank:].T @ C[:, :n],
        U[:, rank:].T @ d,
        size,
    )
    covariance = alpha * free @ inverse @ free.T
    conditional = Conditional(E - free @ K, e + free @ o, 0.5 * (covariance + covariance.T))
    return _orthonormal(rest, alpha, float(np.linalg.norm(C[:, :n]))), conditional


def _check_finite(H: Array, size: Array, least: Array) -> None:
    """Raises Unbounded unless H > 0, beyond rounding errors of that size."""
    if not definite(H, size):
        slack = 2 * _ROUNDING * _diagonal(size)
        raise Unbounded(definite(least, least) and definite(H - least + slack, size))


def _diagonal(P: Array) -> Array:
    return np.diag(np.abs(P.diagonal()))


def _orthonormal(potential: Potential, alpha: float, scale: float) -> Potential:
    """The same with orthonormal rows of C."""
    C, d = potential.C, potential.d
    U, S, Vt = np.linalg.svd(C)
    rank = int((_RANK * scale < S).sum())
    if rank < len(d):
        gap = np.abs(U[:, rank:].T @ d).max()
        raise NoDensity(bool(gap <= _AGREES * (1 + np.abs(d).max())))
    k = potential.k - alpha * float(np.log(S).sum())
    return replace(potential, k=k, C=Vt[:rank], d=U.T @ d / S)
