"""Chains with exits that are hardly ever taken, solved without a subtraction that could lose them.

A pivot of I - M is what leaves a state, once those before it are gone: 1 less the probability to
come back. As a difference it has no digits where one leaves as rarely as 1e-17, and the time until
that happens may even come out negative; as the sum of all ways out it has all of them. States are
eliminated one after another: those that lead to a state that is taken out lead to where that would
have led. All that is done to probabilities is to add, multiply and divide them, and so each keeps
its digits, however small (Grassmann, Taksar and Heyman 1985). Cubic in the number of states.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cai.numerics.matrices import Array


class StateReduction:
    """(I - M)⁻¹, from M ≥ 0 off its diagonal and what is left of each row.

    Args:
        M: (n, n); its diagonal does not matter.
        left: (n,), 1 - Σ_j M_ij, the probability to end; zero for a closed class. Where it is below
            zero, because M grows what passes, digits are lost as it cancels, and pivots may be
            below zero as well.
    """

    def __init__(self, M: Array, left: Array) -> None:
        self._M, self._pivots, left = M.copy(), np.empty_like(left), left.copy()
        M = self._M
        with _quietly():
            for k in range(len(left) - 1, -1, -1):
                self._pivots[k] = left[k] + M[k, :k].sum()
                M[:k, k] /= self._pivots[k]
                M[:k, :k] += np.multiply.outer(M[:k, k], M[k, :k])
                left[:k] += M[:k, k] * left[k]

    def sums(self, b: Array) -> Array:
        """(I - M)⁻¹ b, (n,) or (n, m)."""
        with _quietly():
            x = self._reduced(b)
            return self._substituted(x, x[0] / self._pivots[0])

    def visits_from(self, start: Array) -> Array:
        """start (I - M)⁻¹, (n,), of a start (n,) without negative entries."""
        x = start.copy()
        with _quietly():
            for k in range(len(x) - 1, -1, -1):
                x[k] /= self._pivots[k]
                x[:k] += x[k] * self._M[k, :k]
            for k in range(1, len(x)):
                x[k] += x[:k] @ self._M[:k, k]
        return x

    def gain_and_bias(self, paid: Array) -> tuple[float, Array]:
        """Of a closed class, from what is paid in each state, (n,); h = 0 in the first state.

        Until the first state comes back, so much is paid in so much time; their ratio is the gain.
        """
        both = self._reduced(np.stack([paid, np.ones(len(paid))], -1))
        gain = float(both[0, 0] / both[0, 1])
        return gain, self._substituted(both[:, 0] - gain * both[:, 1], 0.0)

    def visits(self) -> Array:
        """Expected visits of each state of a closed class (n,) per visit of the first."""
        share = np.ones(len(self._pivots))
        for k in range(1, len(share)):
            share[k] = share[:k] @ self._M[:k, k]
        return share

    def _reduced(self, b: Array) -> Array:
        """What is paid in a state and in those after it that it leads to."""
        x = b.copy()
        for k in range(len(x) - 1, 0, -1):
            x[:k] += np.multiply.outer(self._M[:k, k], x[k])
        return x

    def _substituted(self, x: Array, first: Any) -> Array:
        x[0] = first
        for k in range(1, len(x)):
            x[k] = (x[k] + self._M[k, :k] @ x[:k]) / self._pivots[k]
        return x


def _quietly() -> np.errstate:
    """What has no sums leaves the floats, and is told by that."""
    return np.errstate(over="ignore", invalid="ignore", divide="ignore")
