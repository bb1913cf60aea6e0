"""Chains with exits that are hardly ever taken, solved without a subtraction that could lose them.

An ordinary factorisation of I - P finds its pivots as differences, so that an exit of 1e-17 is lost
beside a stay of nearly one, and the time until it is taken may even come out negative. Here states
are eliminated one after another: those that lead to a state that is taken out lead to where that
would have led. All that is done to probabilities is to add, multiply and divide them, and so each
keeps its digits, however small (Grassmann, Taksar and Heyman 1985). Cubic in the number of states.
"""

from __future__ import annotations

from typing import Any

import numpy as np


class RareExits:
    """(I - P) x = b for a chain of n states, by elimination without subtraction.

    Args:
        moving: (n, n), probabilities to move to another state; the diagonal does not matter.
        exits: (n,), probabilities to leave all of them; zero for a closed class.
        paid: (n,) or (n, m), the right-hand sides.
    """

    def __init__(self, moving: Any, exits: Any, paid: Any) -> None:
        n = len(moving)
        self._moving, self._paid = moving.copy(), paid.copy()
        exits = exits.copy()
        self._pivots = np.empty(n)
        for k in range(n - 1, 0, -1):
            self._pivots[k] = self._moving[k, :k].sum() + exits[k]
            share = self._moving[:k, k] / self._pivots[k]
            self._moving[:k, :k] += share[:, np.newaxis] * self._moving[k, :k]
            exits[:k] += share * exits[k]
            self._paid[:k] += np.multiply.outer(share, self._paid[k])
        self._pivots[0] = exits[0]

    def sums(self) -> Any:
        """x, in the shape of b: what is paid until the exit."""
        return self._substituted(self._paid, self._paid[0] / self._pivots[0])

    def gain_and_bias(self) -> tuple[float, Any]:
        """Of a closed class with two right-hand sides: what is paid, and ones, the time it takes.

        Returns:
            What is paid a step, and the bias (n,), zero in the first state.
        """
        paid, time = self._paid[0]
        gain = float(paid / time)
        return gain, self._substituted(self._paid[:, 0] - gain * self._paid[:, 1], 0.0)

    def visits(self) -> Any:
        """How often each state of a closed class is visited (n,), once for the first."""
        share = np.ones(len(self._pivots))
        for k in range(1, len(share)):
            share[k] = share[:k] @ self._moving[:k, k] / self._pivots[k]
        return share

    def _substituted(self, paid: Any, first: Any) -> Any:
        x = np.empty_like(paid)
        x[0] = first
        for k in range(1, len(x)):
            x[k] = (paid[k] + self._moving[k, :k] @ x[:k]) / self._pivots[k]
        return x
