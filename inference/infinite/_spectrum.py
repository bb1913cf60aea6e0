"""The spectral radius of a sparse matrix of positive weights that are given by their logarithms."""

from __future__ import annotations

import math

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.linalg import ArpackError, eigs

from cai.inference.infinite._system import System

_SMALL = 300  # states up to which all eigenvalues are computed
_STEPS = 2000
_LOST = 1e-12
_NAMED = 1e-5  # tolerance of a radius that is only named


def log_spectral_radius(system: System, tolerance: float = 0.0) -> float:
    """The logarithm of the spectral radius of M.

    The largest eigenvalue in absolute value of a nonnegative matrix is real and nonnegative
    (Perron and Frobenius); it is found among those with the largest real part.

    Args:
        system: z = M z + b.
        tolerance: relative, where there are many states; 0 is what floats allow, and takes minutes
            for hundreds of thousands.
    """
    log_M = system.log_on
    S = log_M.shape[0]
    if not log_M.nnz:
        return -math.inf
    top = log_M.data.max()
    M = system.with_weights(np.exp(log_M.data - top))
    if S <= _SMALL:
        radius = np.abs(np.linalg.eigvals(M.toarray())).max()
    else:
        try:
            found = eigs(
                M, k=1, which="LR", v0=np.ones(S), tol=tolerance, return_eigenvectors=False
            )
            radius = abs(found[0])
        except ArpackError:  # it did not converge
            radius = _power(M)
    if radius < _LOST:  # other weights than the largest make the circle, and may have underflowed
        return _growth(system)
    return float(top + np.log(radius))


def _power(M: csr_array) -> float:
    """By powers of I + M, whose largest eigenvalue is alone on its circle."""
    x = np.ones(M.shape[0])
    growth = 1.0
    for _ in range(_STEPS):
        y = x + M @ x
        growth = y.sum() / x.sum()
        x = y / y.sum()
    return growth - 1


def _growth(system: System) -> float:
    """By powers of M in log space: coarser, but whatever the sizes of the weights."""
    start = np.zeros(len(system.log_ends))
    nothing = np.full_like(start, -np.inf)
    v = start
    for _ in range(_STEPS):
        v = System(system.log_on, nothing).step(v)
    return float(v.max() / _STEPS)


def divergence(system: System) -> ValueError:
    """The error that says why there are no values, with the spectral radius of M."""
    log_radius = log_spectral_radius(system, _NAMED)
    radius = f"{math.exp(log_radius):.6g}" if log_radius < 700 else f"exp({log_radius:.6g})"
    if log_radius < -1e-4:
        return ValueError(
            "reward: the linear system of this infinite horizon leaves the range of float64, "
            f"though the spectral radius of M is {radius}, below 1; take another unit of reward, "
            "or look for rewards that are too large by orders of magnitude"
        )
    return ValueError(
        "reward: log p(O) of this infinite horizon is infinite, since the spectral radius of "
        "M = Σ_a p(a|s) γ p(s'|s,a) exp((r + r⁺)/α) over the states that are not absorbing is "
        f"{radius}, expected below 1: going on for ever weighs more than it costs. Subtract more "
        f"than {max(log_radius, 0.0):.6g} times the temperature from every reward outside "
        "absorbing states, or divide the discount by more than the spectral radius"
    )
