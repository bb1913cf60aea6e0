"""The directions of the state that no reward ever depends on, taken out exactly.

Over long horizons an unstable direction amplifies everything along it, rounding errors included.
If rewards never depend on that direction, now or later, its value is zero at every horizon; so it
is taken out exactly. What counts as zero is decided in units in which all states have similar size.
"""

from __future__ import annotations

import numpy as np

from cai.gaussian.tilted_noise import Array

_RANK = 1e-11  # a dependence below this fraction of the largest possible is a rounding error


def units(A: Array, Q: Array, q: Array) -> Array:
    """Units of the states, (n,), in which A and Q have entries of about the same size.

    Args:
        A: (n, n), the sizes of the summands of the dynamics.
        Q: (n, n), the sizes of the summands of the cost.
        q: (n,), the sizes of the summands of the slope, used where there is no cost.

    Returns:
        d: x = diag(d) y makes D⁻¹AD at most about the spectral radius of A, and DQD at most 1.
    """
    radius = float(np.abs(np.linalg.eigvals(A)).max(initial=0.0)) or 1.0
    size = np.ones(len(A))
    for seen in (np.outer(q, q), Q):
        cost = seen
        for _ in range(len(A)):
            seen = cost + A.T @ (seen / radius**2) @ A
        size = np.where(seen.diagonal() > 0, np.sqrt(seen.diagonal()), size)
    return 1 / size


def unseen(A: Array, C: Array, size: float) -> tuple[Array, Array]:
    """Orthonormal bases of the observable and the unobservable subspace of (A, C).

    Args:
        A: (n, n), in units in which all states have similar size.
        C: (r, n), the output matrix: rewards depend on Cx.
        size: the size of the summands of C.

    Returns:
        (n, n - u) and (n, u).
    """
    basis, step = _null(C, size), float(np.abs(A).max(initial=0.0))
    while basis.shape[1]:
        moved = A @ basis
        stays = _null(moved - basis @ (basis.T @ moved), step)
        if stays.shape[1] == basis.shape[1]:
            break
        basis = basis @ stays
    whole, _ = np.linalg.qr(np.hstack([basis, np.eye(len(A))]))
    u = basis.shape[1]
    return whole[:, u:], basis


def _null(M: Array, size: float) -> Array:
    """An orthonormal basis of the x with Mx = 0, up to rounding of numbers of that size."""
    _, S, Vt = np.linalg.svd(M)
    return Vt[int((_RANK * size < S).sum()) :].T
