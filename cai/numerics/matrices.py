"""The weights of one step as a matrix, dense or sparse, with products from both sides.

Sparse ones are CSR with their transpose kept: at 50 000 states a gather followed by a scatter takes
more than twice as long.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from torch import Tensor

from cai.numerics.exclusive import cached_property

Array: TypeAlias = NDArray[Any]

_DENSE_STATES = 128  # up to here a dense matrix multiplies as quickly as a sparse one


class Matrix:
    """A matrix (R, S) of weights; multiplies in the dtype of the weights, returns float64.

    Args:
        weights: (R, K), float64 or float32.
        successors: (R, K), the column of each weight; None where K = S and weight k is in
            column k. Weights of one row and column add up.
        num_states: S.
    """

    def __init__(self, weights: Array, successors: Tensor | None, num_states: int) -> None:
        self.dtype = weights.dtype
        self._weights: Any = weights
        if successors is not None:
            self._weights = _listed(weights, successors.numpy(), num_states)
            if num_states <= _DENSE_STATES:
                self._weights = self._weights.toarray()

    @cached_property
    def _transposed(self) -> Any:
        transposed = self._weights.T
        return transposed.tocsr() if scipy.sparse.issparse(transposed) else transposed

    def times(self, x: Array) -> Array:
        """W x: (S,) -> (R,), or several at once, (n, S) -> (n, R)."""
        if x.ndim == 2 and len(x) == 1:
            return self.times(x[0])[None]
        x = x.astype(self.dtype, copy=False)
        y: Array = self._weights @ x if x.ndim == 1 else (self._weights @ x.T).T
        return y.astype(np.float64, copy=False)

    def times_into(self, x: Array, out: Array) -> None:
        """As :meth:`times` for one x, both in the type of the weights."""
        _multiply(self._weights, x, out)

    def transposed_times_into(self, x: Array, out: Array) -> None:
        """As :meth:`transposed_times`, both in the type of the weights."""
        _multiply(self._transposed, x, out)

    def transposed_times(self, x: Array) -> Array:
        """Wᵀ x: (R,) -> (S,), or several at once, (n, R) -> (n, S)."""
        x = x.astype(self.dtype, copy=False)
        y: Array = self._transposed @ x if x.ndim == 1 else (self._transposed @ x.T).T
        return y.astype(np.float64, copy=False)


def _multiply(matrix: Any, x: Array, out: Array) -> None:
    if scipy.sparse.issparse(matrix):
        out[:] = matrix @ x
    else:
        np.matmul(matrix, x, out=out)


def _listed(weights: Array, successors: Array, num_states: int) -> Any:
    """The CSR matrix of listed weights, zeros left out and columns added up."""
    stands = weights != 0
    ends = np.concatenate([[0], stands.sum(1).cumsum()])
    small = np.int32 if max(ends[-1], num_states) < 2**31 else np.int64
    entries = weights[stands], successors[stands].astype(small), ends.astype(small)
    matrix = scipy.sparse.csr_matrix(entries, shape=(len(weights), num_states))
    matrix.sum_duplicates()
    return matrix
