"""Many goals on one network: (I - M)⁻¹ for weights of turns that change, in an order that is kept.

z_d(s) = Σ over paths from s to a first arrival in d of exp(Σ utility) = G(s,d)/G(d,d), where
G = (I - M)⁻¹ and M holds exp(utility) of each turn. A potential h(s), minus the distance to the
nearest goal, keeps numbers in range: M(s,s') exp(h(s') - h(s)) has G(s,d) exp(h(d) - h(s)).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import coo_array, csc_array, csr_array
from scipy.sparse.csgraph import dijkstra
from torch import Tensor

from cai.numerics.sparse_lu import factors, order


class GoalSolver:
    """The linear systems of a network of E segments and N turns.

    All numbers of segments that it takes and gives are places in the order that is kept.

    Args:
        turns: (N, 2), from segment to segment, in ascending order.
        size: E.

    Attributes:
        place: (E,), the place of each segment.
        tails: (N,), the place that each turn leads from.
        heads: (N,), the place that each turn leads to.
    """

    def __init__(self, turns: Tensor, size: int) -> None:
        self.size = size
        pairs = turns.numpy()
        pattern = csr_array(
            (np.full(len(pairs), 0.5 / max(len(pairs), 1)), (pairs[:, 0], pairs[:, 1])),
            shape=(size, size),
        )
        self.place: Any = order(pattern).astype(np.int64)
        self.tails, self.heads = self.place[pairs[:, 0]], self.place[pairs[:, 1]]
        self._loops = self.tails == self.heads
        rows = np.r_[np.arange(size), self.tails[~self._loops]]
        columns = np.r_[np.arange(size), self.heads[~self._loops]]
        slots = coo_array((np.arange(1.0, len(rows) + 1), (rows, columns)), shape=(size, size))
        # The rows of a matrix are the columns of its transpose.
        self._layouts = (slots.tocsc(), slots.tocsr())
        by_row = coo_array(
            (np.arange(1.0, len(pairs) + 1), (self.tails, self.heads)), shape=(size, size)
        ).tocsr()
        self._order, self._rows = by_row.data.astype(np.int64) - 1, by_row

    def factors(self, weights: Any, transposed: bool = False) -> Any:
        """SuperLU's factors of I - M, for the weights of turns (N,), or of its transpose.

        To solve with factors of the transpose is faster than to solve a transposed system.

        Raises:
            RuntimeError: if it is singular.
        """
        diagonal = np.ones(self.size)
        np.subtract.at(diagonal, self.tails[self._loops], weights[self._loops])
        layout = self._layouts[transposed]
        data = np.r_[diagonal, -weights[~self._loops]][layout.data.astype(np.int64) - 1]
        matrix = csc_array((data, layout.indices, layout.indptr), shape=layout.shape)
        return factors(matrix, ordered=True)

    def matrix(self, weights: Any) -> csr_array:
        """A matrix (E, E) with numbers (N,) in the places of turns."""
        rows = self._rows
        return csr_array((weights[self._order], rows.indices, rows.indptr), shape=rows.shape)

    def traversals(self, y: Any, x: Any) -> Any:
        """(N,), Σ_b y[tail,b] x[head,b] of each turn, for y and x (E, b)."""
        there, ahead = np.ascontiguousarray(y), np.ascontiguousarray(x)
        there = np.take(there, self.tails, 0, mode="clip")  # which is faster than there[tails]
        return np.einsum("nb,nb->n", there, np.take(ahead, self.heads, 0, mode="clip"))

    def reached(self, places: Any, backwards: bool = False) -> Any:
        """(E,), whether a segment can be reached from some of them, or reaches some of them."""
        tails, heads = (self.heads, self.tails) if backwards else (self.tails, self.heads)
        ways = csr_array((np.ones(len(tails)), (tails, heads)), shape=(self.size, self.size))
        return np.isfinite(dijkstra(ways, indices=places, min_only=True, unweighted=True))

    def potential(self, utility: Any, goals: Any) -> Any:
        """(E,), minus the cost to the nearest of the goals, turns with a gain at no cost.

        It is -inf in segments that reach none of them.
        """
        costs = np.maximum(-utility, 0.0) + 1e-12  # scipy takes a zero for no edge
        back = csr_array((costs, (self.heads, self.tails)), shape=(self.size, self.size))
        return -dijkstra(back, indices=goals, min_only=True)
