"""SuperLU of I - P for a sparse P, in the order that suits networks with a geography."""

from __future__ import annotations

from typing import Any

from scipy.sparse import eye_array
from scipy.sparse.linalg import splu


def factorise(P: Any, pivoting: float = 0.0) -> Any:
    """The factorisation of I - P, whose ``solve`` takes right-hand sides.

    Args:
        P: (S, S), sparse.
        pivoting: SuperLU's threshold, 0 … 1. Probabilities, and all that is at least zero where
            I - P has an inverse that is, need no pivoting, as the diagonal dominates.

    Raises:
        RuntimeError: if it is singular. A state that is never left is found here, for SuperLU may
            crash where a pivot is not stored.
    """
    matrix = eye_array(P.shape[0], format="csc") - P.tocsc()
    if not matrix.diagonal().all():
        raise RuntimeError("singular: a state is never left")
    return splu(
        matrix,
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=pivoting,
        relax=1,
        panel_size=1,
        options={"SymmetricMode": True},
    )
