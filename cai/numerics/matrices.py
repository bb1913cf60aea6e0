"""The weights of one step as a matrix, dense or sparse, and sums of exponentials by its products.

Sparse ones are CSR with their transpose kept: at 50 000 states a gather followed by a scatter takes
more than twice as long.

``LogMatrix`` computes log Σ_j M(i,j) exp(y(j)) by plain products, for M given by its logarithms.
Each row is scaled by its largest entry, M(i,j) = exp(scale(i)) W(i,j), and y by its largest m:
the sum is scale(i) + m + log E(i) with E = W w, w = exp(y - m). A plain product underflows where
the columns of a row have y far below m: sums below ``smallest`` have lost digits, and the caller
computes them again in log space. The others are off by less than 1e-58 of themselves (1e-18 in
float32).

Rows that sum to nearly one are better not scaled: their logarithm is log1p(Σ_j M(i,j) - 1 +
Σ_j M(i,j) expm1(y(j))), which loses no digits near zero.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from torch import Tensor

from cai.numerics.exclusive import cached_property

Array: TypeAlias = NDArray[Any]

_DENSE_STATES = 128  # up to here a dense matrix multiplies as quickly as a sparse one
_SMALLEST = {torch.float64: 1e-250, torch.float32: 1e-20}  # smaller sums are done in log space


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


class LogMatrix:
    """A matrix (R, S) of weights ≥ 0 that are given by their logarithms.

    Args:
        log_m: (R, K), -inf for zero.
        successors: (R, K), the column of each weight; None where weight k is in column k.
        num_states: S.
        precision: the type in which matrices are multiplied, float64 or float32.
        near_one: (R,), boolean: rows that are not scaled; None if all are.
        excess: (R,), the sums of these rows minus one; None if not needed.

    Attributes:
        W: the rows, each scaled by its largest weight.
        scale: (R,), nats, the logarithm of that.
        possible: (R,), which rows have a weight at all.
        smallest: the sums below which digits are lost.
    """

    def __init__(
        self,
        log_m: Tensor,
        successors: Tensor | None,
        num_states: int,
        precision: torch.dtype,
        near_one: Array | None = None,
        excess: Array | None = None,
    ) -> None:
        self._successors, self._num_states, self._precision = successors, num_states, precision
        self._near_one, self._excess = near_one, excess
        scale = log_m.amax(-1)
        if near_one is not None:
            scale = torch.where(torch.from_numpy(near_one), 0.0, scale)
        self.scale: Array = scale.numpy()
        self.possible: Array = scale.isfinite().numpy()
        self.all_possible = bool(self.possible.all())
        self.smallest = _SMALLEST[precision]
        self.W = self.matrix(self.scaled(log_m))

    def scaled(self, log_m: Tensor) -> Tensor:
        """exp(log_m - scale), (R, …); zero in empty rows, and in rows of value -inf if η < 0."""
        scale = torch.from_numpy(self.scale).view(-1, *[1] * (log_m.dim() - 1))
        finite = scale.isfinite()
        return torch.where(finite, (log_m - torch.where(finite, scale, 0.0)).exp(), 0.0)

    def matrix(self, weights: Tensor) -> Matrix:
        """Other weights (R, K) in the same places."""
        precision = {torch.float64: np.float64, torch.float32: np.float32}[self._precision]
        entries = weights.numpy().astype(precision, copy=False)
        return Matrix(entries, self._successors, self._num_states)

    def log_sums(self, y: Array) -> tuple[Array, Array, Array]:
        """m + log E without the scale (…, R), w (…, S) and E (…, R), from y (…, S)."""
        m = y.max(-1, keepdims=True)
        if not math.isfinite(m.sum()):  # a plain product cannot sum infinities
            y = np.where(np.isfinite(m), y, -np.inf)
            m = np.where(np.isfinite(m), m, 0.0)
        y = y - m
        w = np.exp(y)
        if self._near_one is None:
            E = self.W.times(w)
            log_E = np.log(E)
        else:
            above = self._excess + self.W.times(np.expm1(y))
            near = self._near_one & (above > -0.5)
            E = above + 1 if near.all() else self.W.times(w)
            log_E = np.where(near, np.log1p(above), np.log(E))
        if not self.all_possible:
            E[..., ~self.possible], log_E[..., ~self.possible] = 1.0, 0.0
        return m + log_E, w, E

    def underflowed(self, E: Array) -> Array:
        """Which sums have lost digits, boolean."""
        return (self.smallest > E) & self.possible
