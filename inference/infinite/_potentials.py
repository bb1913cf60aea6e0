"""Potentials: first guesses of the values, divided out so that exp does not overflow."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from cai.inference.infinite._system import System, row_logsumexp
from cai.numerics.sparse_lu import factorise


def shortest_distances(system: System) -> Any:
    """The cost of the most probable path to termination from each state, by Dijkstra backwards.

    A transition costs minus its log weight, or zero if that is negative: a potential need not be
    tight, but Dijkstra's method needs costs ≥ 0. Rewards of termination are not cut off, since
    every path terminates once.

    Args:
        system: z = M z + b.

    Returns:
        (S,), nats; +inf if no termination can be reached.
    """
    log_ends = system.log_ends
    S = len(log_ends)
    ends = np.flatnonzero(log_ends > -np.inf)
    if not len(ends):
        return np.full(S, np.inf)
    best = log_ends[ends].max()
    backward = system.log_on.T.tocsr()
    costs = np.concatenate([np.maximum(-backward.data, 0.0), best - log_ends[ends]])
    into = np.concatenate([backward.indices, ends.astype(np.int32)])
    # Termination is an extra node, the last row, from which the backward paths start.
    starts = np.append(backward.indptr, backward.indptr[-1] + len(ends)).astype(np.int32)
    graph = csr_array((costs, into, starts), shape=(S + 1, S + 1))
    return dijkstra(graph, indices=S)[:S] - best


def likely_excess(system: System, h: Any, live: Any) -> float:
    """A guess of how far the values rise above minus the distances, nats, which saves time.

    It is the mean reward per step of the soft policy of :func:`improvement` times the length of the
    longest path, which is close if paths tie everywhere.
    """
    scaled = system.scaled(h)
    tight = scaled > -1e-9
    step = -system.log_on.data[tight].mean() if tight.any() else 0.0
    if step <= 0:
        return 0.0
    weights = np.exp(np.minimum(scaled, 0.0))
    total = np.bincount(system.tails, weights, minlength=len(h)) + np.exp(system.log_ends - h)
    return float(np.log(total[live]).mean() * -h[live].min() / step)


def improvement(system: System, h: Any, live: Any) -> Any:
    """The values, minus h, of the policy that is soft-optimal if h is the next value, (S,), nats.

    One step of Newton's method. Its transitions have probabilities ∝ exp(log_on + h(s')), with sum
    R(s) and reward log R(s). Its values are at most v, so that h rises towards v from below.
    """
    scaled = system.scaled(h)
    total = row_logsumexp(system.with_weights(scaled), system.log_ends - h)
    log_R = np.where(live, total, 0.0)
    policy = system.with_weights(np.exp(scaled - log_R[system.tails]))
    return factorise(policy).solve(log_R)
