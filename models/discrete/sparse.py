"""Transitions from sparse matrices: lists of successors, without ever a dense row."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from cai import checks


def is_sparse(transitions: Any) -> bool:
    """Whether transitions are a list of ``scipy.sparse`` matrices.

    Raises:
        ValueError: if one matrix is given without a list around it.
    """
    if scipy.sparse.issparse(transitions):
        expected = "a list of sparse matrices, one for each action"
        advice = "put it into a list, [matrix], if there is only one action"
        checks.refuse("transitions", expected, f"one of shape {list(transitions.shape)}", advice)
    return isinstance(transitions, list | tuple) and any(map(scipy.sparse.issparse, transitions))


def as_lists(
    transitions: Any, arrival_reward: Any
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]:
    """Transitions, successors and arrival rewards, each (S, A, K), of A sparse matrices (S, S).

    K is the largest number of successors of any state and action; shorter lists are padded with
    the state itself, at probability zero.

    Raises:
        ValueError: if the matrices are not square or not all of one size.
    """
    S = next(matrix.shape[0] for matrix in transitions if scipy.sparse.issparse(matrix))
    rows = [square_rows("transitions", matrix, S) for matrix in transitions]
    A = len(rows)
    if arrival_reward is not None and not (is_sparse(arrival_reward) and len(arrival_reward) == A):
        expected = f"{A} sparse matrices, as transitions"
        advice = "take scipy.sparse.csr_matrix of each; what is not stored is a reward of zero"
        checks.refuse("arrival_reward", expected, type(arrival_reward).__name__, advice)
    counts = np.stack([np.diff(matrix.indptr) for matrix in rows])
    K = max(1, int(counts.max(initial=0)))
    P = np.zeros((S, A, K))
    successors = np.tile(np.arange(S)[:, None, None], (1, A, K))
    paid = None if arrival_reward is None else np.zeros((S, A, K))
    for a, matrix in enumerate(rows):
        s = np.repeat(np.arange(S), counts[a])
        k = np.arange(len(s)) - matrix.indptr[s]
        P[s, a, k], successors[s, a, k] = matrix.data, matrix.indices
        if paid is not None:
            pays = square_rows("arrival_reward", arrival_reward[a], S)
            paid[s, a, k] = np.asarray(pays[s, matrix.indices]).ravel()
    return P, successors, paid


def square_rows(name: str, matrix: Any, S: int | None = None) -> Any:
    """A copy of a sparse matrix as CSR in float64, each entry of a row once.

    Args:
        name: the name of the argument, for the message.
        matrix: a ``scipy.sparse`` matrix of any format.
        S: the expected size; any size if not given.

    Raises:
        ValueError: if it is not a square matrix of that size, or its numbers are not real.
    """
    shape = getattr(matrix, "shape", None)
    square = shape is not None and len(shape) == 2 and shape[0] == shape[1]
    if not scipy.sparse.issparse(matrix) or not square or S not in (None, matrix.shape[0]):
        size = "S" if S is None else S
        expected = f"a sparse matrix of shape [{size}, {size}] for each action"
        came = f"{type(matrix).__name__} of shape {list(shape or ())}"
        checks.refuse(name, expected, came, "row s of matrix a is p(s'|s,a)")
    if matrix.dtype.kind not in "biuf":
        checks.refuse(name, "real numbers", f"a sparse matrix of {matrix.dtype}", "take its .real")
    rows = scipy.sparse.csr_array(matrix, dtype=np.float64, copy=True)
    rows.sum_duplicates()
    return rows
