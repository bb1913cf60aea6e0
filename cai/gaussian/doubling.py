"""The Riccati recursion from zero by doubling: 1, 2, 4, 8, … steps at a time.

Where actions and noise together have the authority G = BR⁻¹B' + θW, and no cost joins states and
actions, T steps of the recursion before a final cost P lead to

    Q_T + A_T' P (I + G_T P)⁻¹ A_T,      Q_1 = Q, A_1 = A, G_1 = G

and two such maps, one after the other, to a third (Anderson 1978; the structure-preserving doubling
algorithm). Q_T is the recursion from P = 0 itself, at T = 2^k after k doublings. So this finds the
limit of long horizons, whichever other roots the stationary equation has.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cai.gaussian.tilted_noise import Array, Breakdown

_DOUBLINGS = 100  # more steps than any horizon
_SETTLED = 1e-15  # relative change of P in a doubling
_MOST = 1e200  # a cost this large counts as without a limit


def from_zero(
    A: Array, G: Array, Q: Array, check: Callable[[Array, Array, int], None]
) -> tuple[Array, bool]:
    """The limit of the recursion from P = 0.

    Args:
        A: (n, n), multiplied by the square root of the discount.
        G: (n, n), the authority.
        Q: (n, n), the cost.
        check: a function of (G_T, Q_T, 2T), called before each doubling and at the end; raises if
            one of the steps up to 2T has no value.

    Returns:
        The last P, and whether it is a limit.
    """
    eye = np.eye(len(A))
    for k in range(_DOUBLINGS):
        check(G, Q, 2 ** (k + 1))
        try:
            both = np.linalg.solve(eye + G @ Q, np.hstack([A, G]))
        except np.linalg.LinAlgError:
            break
        moved, pushed = both[:, : len(A)], both[:, len(A) :]
        with np.errstate(over="ignore", invalid="ignore"):
            change, more = A.T @ Q @ moved, A @ pushed @ A.T
            A, Q, G = A @ moved, Q + _symmetric(change), G + _symmetric(more)
        if not (np.abs(Q).max() < _MOST and np.isfinite(G).all() and np.isfinite(A).all()):
            break
        if np.abs(change).max() <= _SETTLED * np.abs(Q).max():
            check(G, Q, 2 ** (k + 1))
            return Q, True
    return Q, False


def least(square: Array, M: Array) -> float:
    """The smallest eigenvalue of I + S'MS, SS' = square ≥ 0; > 0 if all steps have a value.

    With θ ≥ 0 a horizon of T steps is one Gaussian integral over actions and noise, and G_T their
    covariance: with a final cost P it is finite iff I + G^½ P G^½ > 0. With θ < 0 and a cost Q ≥ 0
    the values grow with the number of steps, smoothly as long as I + Q^½ G Q^½ > 0.
    """
    values, vectors = np.linalg.eigh(square)
    S = vectors * np.sqrt(values.clip(0))
    return 1 + float(np.linalg.eigvalsh(S.T @ M @ S)[0])


def no_limit(P: Array) -> Breakdown:
    """The error to raise if P grows with the number of steps without a limit."""
    if np.nan_to_num(np.trace(P)) < 0:
        return Breakdown(1, "rewards grow without limit over the steps")
    return Breakdown(-1, "costs grow without limit over the steps (no policy holds the state)")


def _symmetric(M: Array) -> Array:
    return 0.5 * (M + M.T)
