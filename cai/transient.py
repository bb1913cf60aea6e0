"""Chains that end: (I - P)⁻¹ of what moves from state to state, by the method that suits its size.

x = (I - P)⁻¹ b sums b over all steps to come, x = b (I - P)⁻¹ counts visits from a start b.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array, eye_array
from scipy.sparse.linalg import splu
from torch import Tensor

from cai.table import Table

_DENSE = 400  # states up to which a dense factorisation is quicker than a sparse one
_SWEEPS = 200  # products with P, which cost less than a sparse factorisation
_SETTLED = 1e-15  # what is left of a geometric series, relative to its sum


class Transient:
    """(I - P)⁻¹ of a chain that ends.

    Up to 400 states by one dense factorisation. Beyond, first by the series b + Pb + P²b + …, whose
    terms cost a product with a sparse matrix each, and which a discount or quick mixing cuts short
    (a factorisation of a random graph fills in, and is out of question for many states); where 200
    terms are not enough, by SuperLU, in the order that suits networks with a geography.

    Args:
        table: the problem.
        moves: (S, A, K), the probability of each move, alive; or numbers of any sign that take
            their place, as the derivative of the Boltzmann rule has them.
        keep: (S,), boolean: the states that count; moves into others are ends.
    """

    def __init__(self, table: Table, moves: Tensor, keep: Tensor) -> None:
        self.keep = keep
        index = table.successor_index
        kept = keep[index] & keep.unsqueeze(1)
        weights = torch.where(kept, moves.reshape(index.shape), 0.0)
        S = table.num_states
        self.dense: Tensor | None = None
        if S <= _DENSE:
            self.dense = weights.new_zeros(S, S).scatter_add_(1, index, weights)
            return
        rows, column = (weights != 0).nonzero(as_tuple=True)
        entries = weights[rows, column].numpy()
        where = rows.numpy(), index[rows, column].numpy()
        self.sparse = csr_array((entries, where), shape=(S, S))

    def sums(self, b: Tensor) -> Tensor:
        """(I - P)⁻¹ b, (S,); nothing in states that do not count."""
        return self._solve(b, transposed=False)

    def visits(self, start: Tensor) -> Tensor:
        """start (I - P)⁻¹, (S,): how often each state is visited from a start (S,)."""
        return self._solve(start, transposed=True)

    def _solve(self, b: Tensor, transposed: bool) -> Tensor:
        b = torch.where(self.keep, b, 0.0)
        if self.dense is not None:
            solved = torch.linalg.lu_solve(*self._dense_factors, b.unsqueeze(1), adjoint=transposed)
            return solved.squeeze(1)
        series = self._series(b.numpy(), transposed)
        if series is None:
            series = self._solve_sparse(b.numpy(), transposed)
        return torch.from_numpy(series)

    @cached_property
    def _dense_factors(self) -> tuple[Tensor, Tensor]:
        assert self.dense is not None
        matrix = torch.eye(len(self.dense), dtype=torch.float64) - self.dense
        factors, pivots, _ = torch.linalg.lu_factor_ex(matrix)
        return factors, pivots

    def _series(self, b: Any, transposed: bool) -> Any:
        """b + Pb + P²b + …; None where it does not settle soon."""
        P = self.sparse.T.tocsr() if transposed else self.sparse
        term = total = b
        size = last = np.abs(b).max(initial=0.0)
        for n in range(_SWEEPS):
            term = P @ term
            total = total + term
            size, last = np.abs(term).max(initial=0.0), size
            if size <= _SETTLED * np.abs(total).max(initial=0.0):
                return total
            if n == _SWEEPS // 4 and size > 0 and size > 0.84 * last:
                return None  # 0.84**200 = 7e-16
        return None

    def _solve_sparse(self, b: Any, transposed: bool) -> Any:
        if self._factors is None:  # exactly singular
            return np.full(len(b), np.nan)
        return self._factors.solve(b, trans="T" if transposed else "N")

    @cached_property
    def _factors(self) -> Any:
        matrix = eye_array(self.sparse.shape[0], format="csc") - self.sparse.tocsc()
        # Probabilities need no pivoting, as the diagonal dominates.
        pivoting = 0.0 if self.sparse.data.min(initial=0.0) >= 0 else 1.0
        try:
            return splu(
                matrix,
                permc_spec="MMD_AT_PLUS_A",
                diag_pivot_thresh=pivoting,
                options={"SymmetricMode": True},
            )
        except RuntimeError:
            return None
