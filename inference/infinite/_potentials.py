"""Potentials: a first guess of the values, divided out so that thousands of nats fit in a float."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from cai.inference.infinite._system import System, row_logsumexp
from cai.numerics.sparse_lu import factorise


def shortest_distances(system: System) -> Any:
    """How much the likeliest way to the end costs from each state, by Dijkstra backwards.

    A move costs minus its log weight, or nothing where that would be negative: a potential need
    not be tight, but Dijkstra's method needs costs ≥ 0. What an end pays is not cut off, since
    every way ends once.

    Args:
        system: z = M z + b.

    Returns:
        (S,), nats; +inf where no end can be reached.
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
    # The end is one more node, the last row, from which the ways backward start.
    starts = np.append(backward.indptr, backward.indptr[-1] + len(ends)).astype(np.int32)
    graph = csr_array((costs, into, starts), shape=(S + 1, S + 1))
    return dijkstra(graph, indices=S)[:S] - best


def likely_excess(system: System, h: Any, live: Any) -> float:
    """About how far the values rise above minus the distances, nats; a guess that only saves time.

    What the soft policy of :func:`improvement` is paid for a step, in the mean over states, times
    the steps of the longest way. Where ways tie everywhere, that is close.
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
    """How much more than h the soft policy that believes in h is worth, (S,), nats.

    One step of Newton's method. Its moves have probabilities in proportion to exp(log_on + h(s')),
    whose sum R(s) is paid as log R(s). It is worth no more than v: h rises towards v from below.
    """
    scaled = system.scaled(h)
    total = row_logsumexp(system.with_weights(scaled), system.log_ends - h)
    log_R = np.where(live, total, 0.0)
    policy = system.with_weights(np.exp(scaled - log_R[system.tails]))
    return factorise(policy).solve(log_R)
