"""Stationary values of infinite horizons, against value iteration in numpy and scipy.

Two problems: a slippery grid of 100 × 100 cells with a cost of 1 per step until a goal, and 50 000
states with 4 actions of 3 random successors each under a discount of 0.95. The references are
hand-written sweeps with a CSR matrix until the values have an error of 1e-9. The number of sweeps
is given, so that they spend no time on checking; at optimism 0 with a discount they end with the
bounds of MacQueen (1966), which meet on a random graph long before the values settle, and at
optimism 1 they sum actions and successors in one matrix without logarithms. This library finds
absorbing states and dead ends, chooses the method, and certifies its error.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array

import cai
from benchmarks.timing import Race, check_close
from cai import inference, models

ERROR = 1e-9
SIDE = 100


@cache
def grid() -> cai.Table:
    """Steps to the goal that slip sideways one time in five."""
    S = SIDE * SIDE
    s = np.arange(S)
    row, column = s // SIDE, s % SIDE
    up, down = np.where(row > 0, s - SIDE, s), np.where(row < SIDE - 1, s + SIDE, s)
    left, right = np.where(column > 0, s - 1, s), np.where(column < SIDE - 1, s + 1, s)
    ways = np.stack([up, right, down, left], 1)
    successors = np.stack([ways, np.roll(ways, 1, 1), np.roll(ways, -1, 1)], 2)
    P, reward = np.tile([0.8, 0.1, 0.1], (S, 4, 1)), np.full((S, 4), -1.0)
    successors[-1], reward[-1] = S - 1, 0.0
    return cai.tabulate(models.tabular(P, reward, successors=successors, horizon=None))


@cache
def random(S: int = 50_000, A: int = 4, K: int = 3) -> cai.Table:
    """Successors anywhere: nothing that a factorisation could use."""
    rng = np.random.default_rng(0)
    P = rng.random((S, A, K)) + 0.1
    return cai.tabulate(
        models.tabular(
            P / P.sum(-1, keepdims=True),
            -0.3 * rng.random((S, A)),
            successors=rng.integers(S, size=(S, A, K)),
            horizon=None,
            discount=0.95,
        )
    )


def race(name: str, table: cai.Table, eta: float, target: float) -> Race:
    """This library against value iteration by hand."""
    found = inference.soft_values(table, eta)
    assert found.error is not None
    check_close("certified error", found.error, 0.0, 4 * ERROR)  # with its own rounding errors
    make = by_summed_matrix if eta == 1 else by_sweeps
    theirs, n = told(make(table, eta), found.log_values.numpy())
    return Race(
        name=name,
        sizes=f"S={table.num_states} A={table.num_actions}",
        reference=f"numpy and CSR, {n} sweeps",
        ours=lambda: inference.soft_values(table, eta),
        theirs=theirs,
        target=target,
    )


def told(solve: Callable[[int], Any], truth: Any) -> tuple[Callable[[], Any], int]:
    """A solver with the number of sweeps that it needs, by bisection."""
    low, high = 0, 1
    while np.abs(solve(high) - truth).max() > ERROR:
        low, high = high, 2 * high
    while high - low > max(1, high // 100):
        middle = (low + high) // 2
        if np.abs(solve(middle) - truth).max() > ERROR:
            low = middle
        else:
            high = middle
    return lambda: solve(high), high


def by_sweeps(table: cai.Table, eta: float) -> Callable[[int], Any]:
    """n sweeps from zero with p(s'|s,a), a row for each action and state."""
    S, A, gamma = table.num_states, table.num_actions, table.discount
    assert table.successors is not None
    rows = np.arange(A * S).repeat(table.log_dynamics.shape[-1])
    weights = table.log_dynamics.exp().transpose(0, 1).flatten().numpy()
    columns = table.successors.transpose(0, 1).flatten().numpy()
    P = csr_array((weights, (rows, columns)), shape=(A * S, S))
    P.sum_duplicates()
    reward = (table.reward + table.log_prior).T.contiguous().numpy()

    def sweep(v: Any) -> Any:
        if eta == 0:
            q = reward + gamma * (P @ v).reshape(A, S)
        else:
            m = (eta * v).max()
            w = gamma * np.exp(eta * v - m) + (1 - gamma) * np.exp(-m)
            q = reward + (m + np.log(P @ w).reshape(A, S)) / eta
        top = q.max(0)
        return top + np.log(np.exp(q - top).sum(0))

    def solve(n: int) -> Any:
        v = np.zeros(S)
        for _ in range(n):
            before, v = v, sweep(v)
        if eta == 0 and gamma < 1:
            change = v - before
            v = v + gamma / (1 - gamma) * (change.min() + change.max()) / 2
        return v

    return solve


def by_summed_matrix(table: cai.Table, eta: float) -> Callable[[int], Any]:
    """n sweeps of z = M z + b, z = exp(V/α): exact inference only, and only where z is a float."""
    assert eta == 1
    S, gamma = table.num_states, table.discount
    index = table.successor_index
    weights = table.log_weights.exp().flatten(1).numpy()
    ending = (index == torch.arange(S)[:, None]).all(1).numpy()
    weights[ending] = 0.0
    rows = np.arange(S).repeat(index.shape[1])
    M = csr_array((gamma * weights.ravel(), (rows, index.flatten().numpy())), shape=(S, S))
    M.sum_duplicates()
    b = (1 - gamma) * weights.sum(1) + ending

    def solve(n: int) -> Any:
        z = np.ones(S)
        for _ in range(n):
            z = M @ z + b
        return np.log(z)

    return solve


def _named(name: str, table: Callable[[], cai.Table], eta: float, target: float) -> Any:
    return lambda: race(name, table(), eta, target)


# If a certificate costs as much as some hundred sweeps, and few sweeps are needed, twice the time
# of bare sweeps or more is the best that can be reached.
RACES: dict[str, Callable[[], Race]] = {
    (name := f"stationary, {problem}, optimism {eta:g}"): _named(name, table, eta, target)
    for problem, table, eta, target in (
        ("grid", grid, 0.0, 0.5),
        ("grid", grid, -0.2, 0.5),
        ("grid", grid, 0.5, 0.5),
        ("grid", grid, 1.0, 0.1),
        ("random", random, 0.0, 0.1),
        ("random", random, -0.2, 1.0),
        ("random", random, 0.5, 0.5),
        ("random", random, 1.0, 0.2),
    )
}
