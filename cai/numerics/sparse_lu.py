"""SuperLU factors of I - P for a sparse P, in an order that suits planar networks."""

from __future__ import annotations

from typing import Any

from scipy.sparse import eye_array
from scipy.sparse.linalg import spilu, splu

_PLANAR = "MMD_AT_PLUS_A"  # minimum degree, of the pattern of A + A'
_SYMMETRIC = {"SymmetricMode": True}


def factorise(P: Any, pivoting: float = 0.0) -> Any:
    """The factorisation of I - P, whose ``solve`` takes right-hand sides.

    Args:
        P: (S, S), sparse.
        pivoting: SuperLU's threshold, 0 … 1. No pivoting is needed for P ≥ 0 if I - P has an
            inverse ≥ 0, as with probabilities.

    Raises:
        RuntimeError: if it is singular. A state that is never left is caught here, since SuperLU
            may crash if a pivot is not stored.
    """
    return factors(eye_array(P.shape[0], format="csc") - P.tocsc(), pivoting)


def order(P: Any) -> Any:
    """(S,), where each unknown stands in an order with little fill-in: the perm_c of factors.

    By an incomplete factorisation that keeps hardly anything, in a third of the time.

    Args:
        P: (S, S), sparse, with numbers so small that I - P is far from singular.
    """
    return spilu(
        eye_array(P.shape[0], format="csc") - P.tocsc(),
        drop_tol=1.0,
        fill_factor=1.0,
        permc_spec=_PLANAR,
        diag_pivot_thresh=0.0,
        options=_SYMMETRIC,
    ).perm_c


def factors(matrix: Any, pivoting: float = 0.0, ordered: bool = False) -> Any:
    """The factorisation of I - P itself.

    Args:
        matrix: (S, S), sparse, by columns.
        pivoting: as of :func:`factorise`.
        ordered: whether its order suits already, as that of ``perm_c`` of an earlier one does.

    Raises:
        RuntimeError: if it is singular.
    """
    if not matrix.diagonal().all():
        raise RuntimeError("singular: a state is never left")
    return splu(
        matrix,
        permc_spec="NATURAL" if ordered else _PLANAR,
        diag_pivot_thresh=pivoting,
        relax=1,
        panel_size=1,
        options=_SYMMETRIC,
    )
