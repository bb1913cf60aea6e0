"""(I - M)⁻¹ of a chain whose end is rare, by elimination that never subtracts.

A pivot of I - M is what leaves a state, once those before it are gone: 1 less the probability to
come back. As a difference it has no digits where one leaves as rarely as 1e-16; as the sum of all
ways out it has all of them (Grassmann, Taksar and Heyman 1985).
"""

from __future__ import annotations

import torch
from torch import Tensor


class StateReduction:
    """(I - M)⁻¹, from M ≥ 0 off its diagonal and what is left of each row.

    Args:
        M: (n, n); its diagonal does not matter.
        left: (n,), 1 - Σ_j M_ij, the probability to end. Where it is below zero, because M grows
            what passes, digits are lost as it cancels, and pivots may be below zero as well.
    """

    def __init__(self, M: Tensor, left: Tensor) -> None:
        self._M, n = M.clone(), len(left)
        self._pivots, left, M = torch.empty_like(left), left.clone(), self._M
        for k in range(n - 1, -1, -1):
            self._pivots[k] = left[k] + M[k, :k].sum()
            M[:k, k] /= self._pivots[k]
            M[:k, :k].addr_(M[:k, k], M[k, :k])
            left[:k] += M[:k, k] * left[k]

    def sums(self, b: Tensor) -> Tensor:
        """(I - M)⁻¹ b, (n,)."""
        x, M = b.clone(), self._M
        for k in range(len(b) - 1, 0, -1):
            x[:k] += M[:k, k] * x[k]
        for k in range(len(b)):
            x[k] = (x[k] + M[k, :k] @ x[:k]) / self._pivots[k]
        return x
