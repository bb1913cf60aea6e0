"""Road networks of 300 000 junctions: values, and one gradient of the likelihood in all rewards.

The network is a grid of 550 × 550 junctions without a fifth of its streets, each open both ways at
a cost of its own, 970 000 edges in all. The reference does in scipy the least that the gradient
takes: the distances to the goal by Dijkstra's method, one factorisation of I - M with these
distances divided out, by SuperLU in the order and with the settings that suit such graphs best, one
solve for the values and one, transposed, for the expected traffic. It may assume that its numbers
are in range; this library also finds absorbing states and dead ends, keeps numbers in range, and
checks its answer.

Two more races use the time of the same reference on the network above: on the whole grid with equal
costs, where 10^329 shortest paths lead from corner to corner and |V| is 21 000 nats, and with every
street doubled, 10^659 paths, where distances do not work as a potential. The reference could solve
neither, since its numbers overflow.
"""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from scipy.sparse import csc_array, csr_array, eye_array
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.sparse.linalg import splu

import cai
from benchmarks import timing
from benchmarks.timing import Race, check_close
from cai import inference, models

SIDE = 550
_PARTS = 1000  # trips, each from a junction of its own


def one_goal() -> Race:
    tails, heads, cost = network()
    problem = _problem(tails, heads, cost)
    values, gradient = ours(*problem)()
    theirs = by_hand(tails, heads, cost, problem[1].starts.numpy())
    v, traffic = theirs()
    check_close("values, nats", values.log_values.numpy(), v, 1e-9)
    allowed = problem[0].log_prior > -math.inf
    # The table's edges are in the same order, after the goal's one action, which is to wait.
    check_close("traffic", -gradient[allowed][1:].numpy(), traffic, 1e-6)
    check_close("residual", values.residual, 0.0, 1e-9)
    return _race("road, one goal", problem, theirs, 1 / 1.15)


def ties() -> Race:
    return _tied("road, ties", 1, math.log(math.comb(2 * SIDE - 2, SIDE - 1)))


def more_ties() -> Race:
    steps = 2 * SIDE - 2
    return _tied(
        "road, ties, doubled", 2, math.log(math.comb(steps, SIDE - 1)) + steps * math.log(2)
    )


def _tied(name: str, lanes: int, log_paths: float) -> Race:
    tails, heads = (np.tile(x, lanes) for x in streets())
    cost = np.full(len(tails), 20.0)
    problem = _problem(tails, heads, cost)
    values, _ = ours(*problem)()
    far = values.log_values[-1].item()
    check_close("far corner, nats", far, log_paths - 20 * (2 * SIDE - 2), 1e-9)
    check_close("residual", values.residual, 0.0, 1e-9)
    tails, heads, cost = network()
    starts = _problem(tails, heads, cost)[1].starts.numpy()
    return _race(name, problem, by_hand(tails, heads, cost, starts), 1 / 3)


def _race(name: str, problem: Any, theirs: Callable[[], Any], target: float) -> Race:
    table = problem[0]
    edges = int((table.log_prior > -math.inf).sum()) - 1  # the goal waits
    return Race(
        name=name,
        sizes=f"S={table.num_states} E={edges}",
        reference="Dijkstra, SuperLU, 2 solves",
        ours=ours(*problem),
        theirs=theirs,
        target=target,
    )


def streets() -> tuple[Any, Any]:
    """Both directions of every street of the whole grid: tails and heads."""
    index = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)
    a = np.concatenate([index[:, :-1].ravel(), index[:-1].ravel()])
    b = np.concatenate([index[:, 1:].ravel(), index[1:].ravel()])
    return np.concatenate([a, b]), np.concatenate([b, a])


@cache
def network() -> tuple[Any, Any, Any]:
    """Tails, heads and costs (2 to 8 nats) of the edges, sorted by tails; all reach state 0."""
    rng = np.random.default_rng(0)
    tails, heads = streets()
    half = len(tails) // 2
    keep = np.tile(rng.random(half) >= 0.197, 2)
    tails, heads = tails[keep], heads[keep]
    S = SIDE * SIDE
    _, part = connected_components(csr_array((np.ones(len(tails)), (tails, heads)), shape=(S, S)))
    inside = part == np.bincount(part).argmax()
    number = np.cumsum(inside) - 1
    keep = inside[tails]
    tails, heads = number[tails[keep]], number[heads[keep]]
    order = np.argsort(tails, kind="stable")
    return tails[order], heads[order], 2 + 6 * rng.random(len(order))


def _problem(tails: Any, heads: Any, cost: Any) -> tuple[cai.Table, inference.TransitionCounts]:
    """The table, and observed starts of trips without transitions, which would cost as much."""
    model = models.road_network(tails, heads, -cost, goals=0, recursive_logit=True)
    table = cai.tabulate(model)
    starts = torch.zeros(table.num_states, dtype=torch.float64)
    starts[torch.linspace(1, table.num_states - 1, _PARTS).long()] = 1.0
    moves = torch.zeros_like(table.log_dynamics)
    return table, inference.TransitionCounts(moves, starts, 0)


def ours(table: cai.Table, observed: inference.TransitionCounts) -> Callable[[], Any]:
    """Values and gradient for one set of rewards, with nothing cached from the previous set."""

    def solve() -> tuple[inference.LinearValues, torch.Tensor]:
        values = inference.linear_system(dataclasses.replace(table))
        return values, values.reward_gradient(observed)

    return solve


def by_hand(tails: Any, heads: Any, cost: Any, starts: Any) -> Callable[[], tuple[Any, Any]]:
    """log z (S,) and the expected traffic on each edge that does not leave the goal, state 0."""
    out = tails != 0
    tails, heads, cost = tails[out], heads[out], cost[out]
    S, into = len(starts), heads == 0

    def solve() -> tuple[Any, Any]:
        distance = dijkstra(csr_array((cost, (heads, tails)), shape=(S, S)), indices=0)
        weights = np.exp(distance[tails] - distance[heads] - cost)
        b = np.bincount(tails[into], weights[into], minlength=S)
        M = csc_array((weights[~into], (tails[~into], heads[~into])), shape=(S, S))
        lu = splu(
            eye_array(S, format="csc") - M,
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            relax=1,
            panel_size=1,
            options={"SymmetricMode": True},
        )
        u = lu.solve(b)
        u[0] = 1.0
        begin = starts / u
        begin[0] = 0.0
        y = lu.solve(begin, trans="T")
        return np.log(u) - distance, y[tails] * weights * u[heads]

    return solve


def peak_memory() -> float:
    """GiB that a process needs at most for the model, its table, values and one gradient."""
    done = subprocess.run(
        [sys.executable, "-c", "from benchmarks import roads; roads._in_a_process()"],
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    return float(done.stdout)


def _in_a_process() -> None:
    ours(*_problem(*network()))()
    print(timing.peak_memory() / 1024)
