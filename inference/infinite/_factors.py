"""The solution of z = M z + b in logarithms, v = log z, with its factorisation.

exp of a value of thousands of nats overflows: a potential h is divided out, u = z exp(-h), which
does not change the spectral radius, and u stays in range if h is close to v.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array

from cai.inference.infinite._potentials import improvement, likely_excess
from cai.inference.infinite._system import System, divergence, negative_pivot
from cai.numerics.sparse_lu import factorise

_SHIFT = 650.0  # nats by which u is scaled down, so that V/α - h may range from 0 to 1350
_LARGEST = 700.0  # nats, at which exp does not overflow
RESIDUAL = 1e-9  # nats
_REFINEMENTS = 3
_IMPROVEMENTS = 50


@dataclass(frozen=True, eq=False)
class Factors:
    """A solved system and its factorisation.

    Attributes:
        log_values: (S,), nats, v of the states that are neither absorbing nor stuck; else -inf.
        residual: nats, max |T v - v|.
        live: (S,), boolean: where v is finite.
        u: (S,), exp(v - h - 650), zero where v = -inf.
        weights: (S, S), exp(log_on - h(s) + h(s')).
        lu: the factorisation of I - weights.
    """

    log_values: Any
    residual: float
    live: Any
    u: Any
    weights: csr_array
    lu: Any

    def __getstate__(self) -> dict[str, Any]:
        """The state without the factorisation, which SciPy cannot copy."""
        return self.__dict__ | {"lu": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restores the state and factorises again."""
        self.__dict__.update(state | {"lu": factorise(state["weights"])})


def solve(system: System, distance: Any) -> Factors:
    """The solution of a system by one factorisation, or more if the potential is too coarse.

    Args:
        system: z = M z + b.
        distance: (S,), nats, minus the initial potential; +inf where z = 0.

    Raises:
        ValueError: if the spectral radius of M is not below one.
    """
    live = np.isfinite(distance)
    system = system.restricted(live)
    h = np.where(live, -distance, 0.0)
    for i in range(_IMPROVEMENTS):
        hopeless = i == 0 and likely_excess(system, h, live) > _SHIFT + _LARGEST
        found = None if hopeless else _attempt(system, h, live)
        if found is not None:
            return found
        try:
            h = h + improvement(system, h, live)
        except RuntimeError:  # singular: a policy that never terminates
            break
    raise divergence(system)


def _attempt(system: System, h: Any, live: Any) -> Factors | None:
    """The solution from a potential; None if that is too coarse, so that u overflows."""
    scaled = system.scaled(h)
    if scaled.max(initial=0.0) > _LARGEST:
        return None
    weights = system.with_weights(np.exp(scaled))
    b = np.exp(system.log_ends - h - _SHIFT)
    try:
        lu = factorise(weights)
    except RuntimeError:  # singular: the spectral radius is one, or entries overflowed
        raise divergence(system) from None
    u = lu.solve(b)
    for _ in range(_REFINEMENTS):
        if not (np.isfinite(u[live]).all() and (u[live] > 0).all()):
            if negative_pivot(lu):
                raise divergence(system)
            return None
        with np.errstate(divide="ignore"):
            v = np.log(u) + (h + _SHIFT)
        residual = float(np.abs(system.step(v)[live] - v[live]).max(initial=0.0))
        if residual < RESIDUAL:
            return Factors(v, residual, live, u, weights, lu)
        u = u + lu.solve(b + weights @ u - u)
    return None
