"""Route choice on a road network: one state a junction, one action a street out of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from torch import Tensor

from cai import checks
from cai.trajectory import TrajectoryModel


def road_network(
    tails: Any,
    heads: Any,
    reward: Any,
    *,
    goals: Any,
    num_states: int | None = None,
    initial: Any = None,
    recursive_logit: bool = False,
    horizon: int | None = None,
    temperature: float = 1.0,
    discount: float = 1.0,
) -> TrajectoryModel:
    """A walk along the edges of a graph until a goal is reached.

    Action k is the k-th edge out of a state, in the order in which they are given; the prior is
    uniform over those that there are. Goals absorb, edges out of them are left out. From a state
    that is no goal and has no edge nothing is possible: it stays at a reward of -inf. A networkx
    graph whose nodes are the integers 0 … S-1 gives its edges by
    ``tails, heads, lengths = zip(*graph.edges(data="length"))``.

    Args:
        tails: (E,), integers, the state that each edge leads from.
        heads: (E,), integers, the state that it leads to. Several edges may join the same two.
        reward: (E,), or a number, reward units: what following the edge pays, mostly negative.
        goals: one state or several.
        num_states: S; one more than the largest state named if not given.
        initial: p(s_0), weights of shape (S,), or one state; as likely in all states but the goals
            if not given.
        recursive_logit: pays α log(number of edges) in each state, which cancels the uniform prior:
            then exp(V/α) is the plain sum of exp(reward/α) over all paths to a goal, as in the
            route choice models of Fosgerau, Frejinger and Karlstrom (2013), and more edges are
            worth more. Made for this temperature; build the model anew for another.
        horizon: T; None walks until a goal is reached.
        temperature: α, reward units per nat.
        discount: γ.

    Raises:
        ValueError: where shapes do not fit together, a state is outside 0 … S-1, a reward is NaN
            or +inf, or there is no goal.
    """
    t, h, r = _edges(tails, heads, reward)
    S = _count(num_states, t, h)
    goal = _goals(goals, S)
    checks.check_positive("temperature", temperature)
    keep = ~goal[t]
    t, h, r = t[keep], h[keep], r[keep]
    order = np.argsort(t, kind="stable")
    t, h, r = t[order], h[order], r[order]
    degree = np.bincount(t, minlength=S)
    if recursive_logit:
        r = r + temperature * np.log(degree[t])
    k = np.arange(len(t)) - (np.cumsum(degree) - degree)[t]
    A = max(1, int(degree.max(initial=1)))
    # What is not filled in below: staying, without a reward in a goal, at -inf elsewhere.
    successors = np.repeat(np.arange(S)[:, None], A, axis=1)
    rewards = np.repeat(np.where(goal | (degree > 0), 0.0, -np.inf)[:, None], A, axis=1)
    successors[t, k], rewards[t, k] = h, r
    allowed = torch.from_numpy(np.arange(A) < np.maximum(degree, 1)[:, None])
    next_state, paid = torch.from_numpy(successors), torch.from_numpy(rewards)

    def action_prior(s: Tensor) -> dist.Categorical:
        return dist.Categorical(logits=torch.where(allowed[s], 0.0, -torch.inf).double())

    return TrajectoryModel(
        initial=dist.Categorical(_start(initial, goal)),
        dynamics=lambda s, a: dist.Delta(next_state[s, a]),
        reward=lambda s, a: paid[s, a],
        action_prior=action_prior,
        horizon=horizon,
        temperature=temperature,
        discount=discount,
    )


def _edges(tails: Any, heads: Any, reward: Any) -> tuple[Any, Any, Any]:
    t, h = (_states(name, x) for name, x in (("tails", tails), ("heads", heads)))
    r = np.asarray(reward, dtype=np.float64)
    if t.ndim != 1 or h.shape != t.shape or r.shape not in ((), t.shape):
        raise ValueError(
            "tails, heads, reward: expected one number for each edge, three arrays of shape (E,), "
            f"got shapes {list(t.shape)}, {list(h.shape)} and {list(r.shape)}; a street that can "
            "be driven both ways is two edges"
        )
    r = np.broadcast_to(r, t.shape)
    checks.check_reward("reward", torch.tensor(r))
    return t, h, r


def _states(name: str, states: Any) -> Any:
    array = np.asarray(states)
    if array.size and not np.issubdtype(array.dtype, np.integer):
        checks.refuse(name, "integers", f"an array of {array.dtype}", "number the states from 0")
    return array.astype(np.int64)


def _count(num_states: int | None, t: Any, h: Any) -> int:
    largest = int(max(t.max(initial=-1), h.max(initial=-1)))
    if num_states is None:
        num_states = largest + 1
    checks.check_count("num_states", num_states)
    smallest = int(min(t.min(initial=0), h.min(initial=0)))
    if smallest < 0 or largest >= num_states:
        checks.refuse(
            "tails, heads",
            f"states 0 … {num_states - 1}",
            f"{smallest} … {largest}",
            "number the states from 0, and let num_states count them",
        )
    return num_states


def _goals(goals: Any, S: int) -> Any:
    """(S,), boolean."""
    listed = _states("goals", goals).reshape(-1)
    if not len(listed) or listed.min() < 0 or listed.max() >= S:
        checks.refuse(
            "goals",
            f"at least one state of 0 … {S - 1}",
            f"{listed.tolist()}",
            "name the states where walks end",
        )
    goal = np.zeros(S, dtype=bool)
    goal[listed] = True
    return goal


def _start(initial: Any, goal: Any) -> Tensor:
    S = len(goal)
    if initial is None:
        weights = np.ones(S) if goal.all() else (~goal).astype(np.float64)
    elif np.ndim(initial) == 0:
        state = int(_states("initial", initial))
        if not 0 <= state < S:
            checks.refuse("initial", f"a state of 0 … {S - 1}", f"{state}", "or weights (S,)")
        weights = np.zeros(S)
        weights[state] = 1.0
    else:
        return checks.weights("initial", initial, (S,))
    return torch.from_numpy(weights)
