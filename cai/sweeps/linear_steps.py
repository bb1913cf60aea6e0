"""Many steps of exact inference as plain products: without a discount, η = 1 is linear.

    z_t = D W z_{t+1},      x_t = z_t y_t,      y_{t+1} = Wᵀ D y_t

z is exp(V/α) and y the forward message, each up to a factor common to all states, and D the scales
of the rows of W. Logarithms and factors are computed for many steps at once. Numbers that left the
range in which a product keeps all digits are found afterwards; from there one_step.py continues.
"""

from __future__ import annotations

import numpy as np

from cai.numerics.matrices import Array
from cai.sweeps.one_step import SoftBackup

_CHUNK = 2**15  # numbers at a time, which fit into a cache beside a matrix
_MOST = 64  # steps at a time


def backward(step: SoftBackup, v: Array, t: int) -> int:
    """Fills in values (T+1, S), nats, before step t, as far as plain products go.

    Returns:
        The first step whose values are accurate.
    """
    most, W, contraction, growth = _at_once(v), step.W, step.contraction, step.growth
    z, n = np.empty((most + 1, v.shape[1]), W.dtype), min(4, most)
    while t > 0:
        n = min(n, t)
        shift = v[t].max()
        z[0] = np.exp(v[t] - shift)
        for i in range(n):
            W.times_into(z[i], z[i + 1])
            z[i + 1] *= contraction
        accurate = z[1 : n + 1].min(1) >= step.rows.smallest
        done = int(np.logical_and.accumulate(accurate).sum())
        if not done:
            break
        then = v[t - done : t]
        np.log(z[done:0:-1], out=then, dtype=np.float64)
        then += shift + growth * np.arange(done, 0, -1)[:, None]
        t -= done
        n = min(most, 2 * n) if done == n else done
    return t


def forward(step: SoftBackup, v: Array, x: Array, t: int) -> int:
    """Fills in states (T+1, S) after step t from values (T+1, S), as far as plain products go.

    Returns:
        The last step whose states are accurate.
    """
    T, most, mass = len(v) - 1, _at_once(v), x[t].sum()
    z = np.empty((most + 1, v.shape[1]))
    y, move = np.empty(z.shape, step.W.dtype), np.empty(v.shape[1], step.W.dtype)
    while t < T:
        n = min(most, T - t)
        now = v[t : t + n + 1]
        shift = now.max(1)
        np.exp(np.subtract(now, shift[:, None], out=z[: n + 1]), out=z[: n + 1])
        accurate = z[: n + 1].min(1) >= step.rows.smallest
        n = int(np.logical_and.accumulate(accurate).sum()) - 1
        if n < 1:
            break
        factors = np.exp(step.growth + np.diff(shift))
        y[0] = x[t] / z[0]
        for i in range(n):
            np.multiply(step.contraction, y[i], out=move)
            move *= factors[i]
            step.W.transposed_times_into(move, y[i + 1])
        then = z[1 : n + 1]
        then *= y[1 : n + 1]
        # Normalised, so that rounding errors of the values do not accumulate in the factors.
        np.multiply(then, mass / then.sum(1, keepdims=True), out=x[t + 1 : t + n + 1])
        t += n
    return t


def _at_once(v: Array) -> int:
    return min(_MOST, max(1, _CHUNK // v.shape[1]))
