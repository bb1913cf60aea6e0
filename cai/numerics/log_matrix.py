"""log Σ_j M(i,j) exp(y(j)) by plain matrix products, for M given by its logarithms.

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

import numpy as np
import torch
from torch import Tensor

from cai.numerics.matrices import Array, Matrix

_SMALLEST = {torch.float64: 1e-250, torch.float32: 1e-20}  # smaller sums are done in log space


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
