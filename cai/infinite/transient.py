"""Transient chains: (I - P)⁻¹ by the method that suits their size.

x = (I - P)⁻¹ b sums b over all future steps; x = b (I - P)⁻¹ counts visits from a start b.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array, eye_array
from scipy.sparse.csgraph import reverse_cuthill_mckee
from scipy.sparse.linalg import gmres
from torch import Tensor

from cai.numerics.exclusive import cached_property
from cai.numerics.sparse_lu import factorise
from cai.numerics.state_reduction import StateReduction
from cai.tables.table import Table

_DENSE = 400  # states up to which a dense factorisation is faster than a sparse one
_RARE = 1e-6  # a pivot below this means that termination is rare
_SWEEPS = 200  # products with P, which cost less than a sparse factorisation
_STRIDE = 4  # products between two checks of the remainder
_SETTLED = 1e-15  # the remainder of a geometric series, relative to its sum
_NARROW = 3000  # bandwidth up to which a factorisation takes seconds
_KEPT, _RESTARTS, _REFINEMENTS = 40, 25, 4  # vectors that GMRES keeps, its restarts, refinements


class Transient:
    """(I - P)⁻¹ of a transient chain.

    Up to 400 states by one dense factorisation, or, if termination is rare with known
    probabilities, by elimination without subtraction. Beyond, first by the series b + Pb + P²b + …,
    each term a product with a sparse matrix, which is short if termination is fast; if 200 terms
    are not enough, by SuperLU in an order that suits planar networks, or by GMRES where a
    factorisation would fill in, as that of a large random graph does.

    Args:
        table: the problem.
        moves: (S, A, K), the probability of each transition while alive; or numbers of any sign in
            their place, as in the derivative of the Boltzmann rule.
        keep: (S,), boolean: the states of the chain; transitions into others are exits.
        left: (S,), one minus the transition probabilities from a state into the chain, without the
            rounding errors of a difference; None if not known.
    """

    def __init__(
        self, table: Table, moves: Tensor, keep: Tensor, left: Tensor | None = None
    ) -> None:
        self.keep, self._left, self._mixes = keep, left, True
        index = table.successor_index
        kept = keep[index] & keep.unsqueeze(1)
        matrix = as_matrix(table, torch.where(kept, moves.reshape(index.shape), 0.0))
        self.dense: Tensor | None = matrix if isinstance(matrix, Tensor) else None
        self.sparse: Any = None if isinstance(matrix, Tensor) else matrix

    def sums(self, b: Tensor) -> Tensor:
        """(I - P)⁻¹ b, (S,); zero outside the chain."""
        if self._reduced is not None:
            return torch.from_numpy(self._reduced.sums(torch.where(self.keep, b, 0.0).numpy()))
        return self._solve(b, transposed=False)

    def visits(self, start: Tensor) -> Tensor:
        """start (I - P)⁻¹, (S,): expected visits of each state from a start (S,)."""
        if self._reduced is not None and (start >= 0).all():
            start = torch.where(self.keep, start, 0.0)
            return torch.from_numpy(self._reduced.visits_from(start.numpy()))
        return self._solve(start, transposed=True)

    def _solve(self, b: Tensor, transposed: bool) -> Tensor:
        b = torch.where(self.keep, b, 0.0)
        if self.dense is not None:
            solved = torch.linalg.lu_solve(*self._dense_factors, b.unsqueeze(1), adjoint=transposed)
            return solved.squeeze(1)
        P = self._transposed if transposed else self.sparse
        found = _series(P, b.numpy()) if self._mixes else None
        self._mixes = found is not None
        if found is None and self._fills_in:
            found = _krylov(P, b.numpy())
        if found is None and self._factors is not None:
            found = self._factors.solve(b.numpy(), trans="T" if transposed else "N")
        return torch.full_like(b, torch.nan) if found is None else torch.from_numpy(found)

    @cached_property
    def _reduced(self) -> StateReduction | None:
        """The elimination for rare termination; None if it is not rare, or ``left`` is unknown."""
        if self.dense is None or self._left is None:
            return None
        if not self._dense_factors[0].diagonal().abs().min() < _RARE:
            return None
        return StateReduction(self.dense.numpy(), torch.where(self.keep, self._left, 1.0).numpy())

    @cached_property
    def _fills_in(self) -> bool:
        return fills_in(self.sparse)

    @cached_property
    def _transposed(self) -> Any:
        return self.sparse.T.tocsr()

    @cached_property
    def _dense_factors(self) -> tuple[Tensor, Tensor]:
        assert self.dense is not None
        matrix = torch.eye(len(self.dense), dtype=torch.float64) - self.dense
        factors, pivots, _ = torch.linalg.lu_factor_ex(matrix)
        return factors, pivots

    @cached_property
    def _factors(self) -> Any:
        """By SuperLU; None for a singular matrix."""
        pivoting = 0.0 if self.sparse.data.min(initial=0.0) >= 0 else 1.0
        try:
            return factorise(self.sparse, pivoting)
        except RuntimeError:
            return None


def as_matrix(table: Table, moves: Tensor) -> Any:
    """Moves (S, A, K) as a matrix (S, S): a tensor of a few states, a sparse array of many."""
    S, index = table.num_states, table.successor_index
    weights = moves.reshape(index.shape)
    if S <= _DENSE:
        return weights.new_zeros(S, S).scatter_add_(1, index, weights)
    rows, column = (weights != 0).nonzero(as_tuple=True)
    where = rows.numpy(), index[rows, column].numpy()
    return csr_array((weights[rows, column].numpy(), where), shape=(S, S))


def _series(P: Any, b: Any) -> Any:
    """b + Pb + P²b + …; None if it does not settle soon.

    Its remainder, (I - P)⁻¹ t for the last term t, is close to a multiple of t if one eigenvalue
    dominates, as under a discount or with rare termination: the multiple with the smallest residual
    is added. If P is not of probabilities, terms may overflow.
    """
    term, total, before = b, np.zeros_like(b), np.inf  # total: all terms before this one
    with np.errstate(over="ignore", invalid="ignore"):
        for n in range(0, _SWEEPS, _STRIDE):
            for _ in range(_STRIDE):
                total, term = total + term, P @ term
            change = term - P @ term
            multiple = (term @ change) / ((change @ change) or 1.0)
            found = total + multiple * term
            settled = _SETTLED * np.abs(found).max(initial=0.0)
            left = np.abs(term - multiple * change).max(initial=0.0)
            if left <= settled:
                return found
            hope = (left / before) ** ((_SWEEPS - n) / _STRIDE)
            if not np.isfinite(left) or (n >= _SWEEPS // 4 and left * hope > settled):
                return None
            before = left
    return None


def _krylov(P: Any, b: Any) -> Any:
    """The solution by GMRES; None if it does not converge."""
    A = eye_array(P.shape[0], format="csr") - P
    x, left = np.zeros_like(b), b
    for _ in range(_REFINEMENTS):
        change, _ = gmres(A, left, rtol=1e-8, atol=0.0, restart=_KEPT, maxiter=_RESTARTS)
        x = x + change
        left = b - A @ x
        if np.abs(left).max(initial=0.0) <= 4 * _SETTLED * np.abs(x).max(initial=0.0):
            return x
    return None


def fills_in(P: Any) -> bool:
    """Whether a factorisation would take minutes, as that of a large random graph does.

    In an order that keeps neighbours together (Cuthill and McKee), few states separate the two
    halves of a planar network; only their factors are dense.
    """
    if P.shape[0] <= _NARROW:
        return False
    order = reverse_cuthill_mckee(P)
    place = np.empty_like(order)
    place[order] = np.arange(len(order), dtype=order.dtype)
    rows = np.repeat(np.arange(P.shape[0]), np.diff(P.indptr))
    return bool(np.abs(place[rows] - place[P.indices]).max(initial=0) > _NARROW)
