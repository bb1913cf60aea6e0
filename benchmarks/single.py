"""Sweeps in float32, on request, of a dense table of S = 500 and A = 10 over T = 100 steps.

Memory is what matters: at any optimism but one a step multiplies a matrix (A·S, S), 20 megabytes in
float64, which fits into a cache in float32. At optimism 1 actions are summed and the matrix is
(S, S), which fits into a cache in either type: then only the products themselves can become faster.
``products alone`` is the limit of that, 2 T products with this matrix in numpy and nothing else,
float32 against float64; no sweep in float32 can gain more over one in float64. Against a
hand-written sweep in torch in float64 it does.
"""

from __future__ import annotations

import numpy as np

from benchmarks.sweeps import by_summed_matrix, dense, sizes
from benchmarks.timing import Race, check_close
from cai import inference

_TARGET = 2.5


def fixed() -> Race:
    return _against_float64(0.0)


def half() -> Race:
    return _against_float64(0.5)


def exact() -> Race:
    return _against_float64(1.0)


def _against_float64(eta: float) -> Race:
    """float32 against float64, both this library."""
    table = dense()
    single = table.float32()
    solution, truth = inference.soft_values(single, eta), inference.soft_values(table, eta)
    check_close("V", solution.log_values, truth.log_values, 1e-4)
    check_close("states", solution.states, truth.states, 1e-6)
    return Race(
        name=f"sweep, float32, optimism {eta:g}",
        sizes=sizes(table),
        reference="this library in float64",
        ours=lambda: inference.soft_values(single, eta).states,
        theirs=lambda: inference.soft_values(table, eta).states,
        target=_TARGET,
    )


def exact_against_torch() -> Race:
    table = dense()
    single, theirs = table.float32(), by_summed_matrix(table, 1.0)
    solution, (v, x) = inference.soft_values(single, 1.0), theirs()
    check_close("V", solution.log_values, v, 1e-4)
    check_close("states", solution.states, x, 1e-6)
    return Race(
        name="sweep, float32, optimism 1, torch",
        sizes=sizes(table),
        reference="torch in float64, summed",
        ours=lambda: inference.soft_values(single, 1.0).states,
        theirs=theirs,
        target=_TARGET,
    )


def products_alone() -> Race:
    table = dense()
    double = np.random.default_rng(0).random((table.num_states, table.num_states))
    single = double.astype(np.float32)

    def multiply(matrix: np.ndarray) -> None:
        x = np.ones(len(matrix), matrix.dtype)
        for _ in range(table.steps):
            np.matmul(matrix, x)
        for _ in range(table.steps):
            np.matmul(matrix.T, x)

    return Race(
        name="sweep, float32, products alone",
        sizes=sizes(table),
        reference="numpy in float64",
        ours=lambda: multiply(single),
        theirs=lambda: multiply(double),
        target=None,
    )
