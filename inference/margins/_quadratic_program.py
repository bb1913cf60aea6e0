"""The quadratic program of a margin: a ball of weights, slacks at a price, linear constraints."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csc_array, diags_array, eye_array, hstack, vstack

from cai import checks
from cai.numerics.optional_package import optional

_TIGHT = 1e-12


def with_slacks(
    rows: Any, constants: Any, owners: Any, prices: Any, rays: Any, gains: Any
) -> tuple[Any, Any, float]:
    """min ½|θ|² + Σ_j price_j ξ_j  with  ξ_j ≥ row·θ + constant, ξ_j ≥ 0, and ray·θ + gain ≤ 0.

    Args:
        rows: (c, k), of constraints with a slack.
        constants: (c,).
        owners: (c,), which slack each has.
        prices: (m,), of the slacks.
        rays: (d, k), of constraints without one.
        gains: (d,).

    Returns:
        θ (k,), ξ (m,), and the minimum.

    Raises:
        ValueError: if clarabel is not installed, or no θ fulfils the constraints.
    """
    advice = "pip install clarabel, or control-as-inference[margins]"
    clarabel = optional("clarabel", "max_margin", advice)
    k, m, c = rays.shape[1], len(prices), len(rows)
    slack = csc_array((-np.ones(c), (np.arange(c), owners)), shape=(c, m))
    blocks = [
        hstack([csc_array(rows), slack]),
        hstack([csc_array((m, k)), -eye_array(m)]),
        hstack([csc_array(rays), csc_array((len(rays), m))]),
    ]
    A = vstack(blocks).tocsc()
    b = np.concatenate([-constants, np.zeros(m), -gains])
    P = diags_array(np.r_[np.ones(k), np.zeros(m)]).tocsc()
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.max_iter = 500
    for name in ("tol_gap_abs", "tol_gap_rel", "tol_feas"):
        setattr(settings, name, _TIGHT)
    cones = [clarabel.NonnegativeConeT(len(b))]
    q = np.r_[np.zeros(k), prices]
    found = clarabel.DefaultSolver(P, q, A, b, cones, settings).solve()
    if "PrimalInfeasible" in str(found.status):
        checks.refuse(
            "reward",
            "features at which going round and round can be made to cost something",
            "none",
            "add one that every step has, such as its minutes",
        )
    x = np.array(found.x)
    theta, xi = x[:k], np.maximum(x[k:], 0.0)
    if not np.isfinite(x).all():
        came, advice = f"{found.status} by clarabel", "rescale the loss or the slack"
        checks.refuse("max_margin", "a quadratic program that can be solved", came, advice)
    return theta, xi, float(0.5 * theta @ theta + prices @ xi)
