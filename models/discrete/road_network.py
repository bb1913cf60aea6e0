"""Route choice on a road network: a state per junction, an action per street out of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro.distributions as dist
import torch
from numpy.typing import NDArray
from torch import Tensor

from cai import checks
from cai.distributions.lookup import Entry, Next, Weighted
from cai.models.discrete.nodes import Nodes, names
from cai.numerics import arrays
from cai.program.trajectory import TrajectoryModel


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
    uniform over the edges out of it. Goals absorb; edges out of them are dropped. A state without
    edges that is not a goal is a dead end, of value -inf. The edges of a networkx graph are
    ``tails, heads, lengths = zip(*graph.edges(data="length"))``.

    Nodes are named by integers of any size or by texts. Where they are 0 … S-1, they are the
    states. Else the states are the nodes in ascending order, and ``layout.states`` has their names
    as texts: ``dict(zip(model.layout.states, solution.V))``.

    >>> from cai import inference, models
    >>> model = models.road_network([5366821103, 42], [42, 7], [-1.0, -2.0], goals=7)
    >>> model.layout.states
    ('7', '42', '5366821103')
    >>> inference.soft_values(model).V.tolist()
    [0.0, -2.0, -3.0]

    Args:
        tails: (E,), the node that each edge leads from.
        heads: (E,), the node that it leads to. Several edges may join the same two.
        reward: (E,), or a number, reward units: what following the edge pays, mostly negative.
        goals: one node or several.
        num_states: S, where the nodes are states 0 … S-1 of which some may be without an edge; as
            many as there are nodes if not given.
        initial: p(s_0), weights of shape (S,), or one node; uniform over all states but the goals
            if not given.
        recursive_logit: pays α log(number of edges) in each state, which cancels the uniform prior:
            then exp(V/α) is the plain sum of exp(reward/α) over all paths to a goal, as in the
            route choice models of Fosgerau, Frejinger and Karlstrom (2013), and more routes mean
            a higher value. It holds for this temperature only; make another model for another.
        horizon: T; None walks until a goal is reached.
        temperature: α, reward units per nat.
        discount: γ.

    Returns:
        The model, a :class:`cai.TrajectoryModel`.

    Raises:
        ValueError: if shapes do not fit together, a node is neither an integer nor a text or
            outside 0 … S-1 as given, a reward is NaN or +inf, or there is no goal.
    """
    t, h, r = _edges(tails, heads, reward)
    nodes = _nodes(num_states, t, h)
    S = len(nodes)
    t, h = np.split(nodes.states("tails, heads", np.concatenate([t, h])), 2)
    goal = _goals(goals, nodes)
    temperature = checks.check_positive("temperature", temperature)
    checks.check_flag("recursive_logit", recursive_logit)
    keep = ~goal[t]
    t, h, r = t[keep], h[keep], r[keep]
    order = np.argsort(t, kind="stable")
    t, h, r = t[order], h[order], r[order]
    degree = np.bincount(t, minlength=S)
    if recursive_logit:
        r = r + temperature * np.log(degree[t])
    k = np.arange(len(t)) - (np.cumsum(degree) - degree)[t]
    A = max(1, int(degree.max(initial=1)))
    _check_memory("tails, heads", S, A)
    # The default that is overwritten below: stay, with reward zero in a goal and -inf elsewhere.
    successors = np.repeat(np.arange(S)[:, None], A, axis=1)
    rewards = np.repeat(np.where(goal | (degree > 0), 0.0, -np.inf)[:, None], A, axis=1)
    successors[t, k], rewards[t, k] = h, r
    allowed = torch.from_numpy(np.arange(A) < np.maximum(degree, 1)[:, None])
    next_state, paid = torch.from_numpy(successors), torch.from_numpy(rewards)

    return TrajectoryModel(
        initial=dist.Categorical(_start(initial, goal, nodes)),
        dynamics=Next(next_state),
        reward=Entry(paid),
        action_prior=Weighted(allowed.double()),
        horizon=horizon,
        temperature=temperature,
        discount=discount,
        layout=nodes.layout(),
    )


def _edges(tails: Any, heads: Any, reward: Any) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    t, h = names("tails", tails), names("heads", heads)
    r = arrays.numbers("reward", reward).numpy(force=True)
    if t.ndim != 1 or h.shape != t.shape or r.shape not in ((), t.shape):
        expected = "one number for each edge, three arrays of shape (E,)"
        came = f"shapes {list(t.shape)}, {list(h.shape)} and {list(r.shape)}"
        advice = "a street that can be driven both ways is two edges"
        checks.refuse("tails, heads, reward", expected, came, advice)
    checks.check_reward("reward", torch.from_numpy(r))
    return t, h, np.broadcast_to(r, t.shape)


def _nodes(num_states: int | None, t: NDArray[Any], h: NDArray[Any]) -> Nodes:
    if num_states is not None:
        checks.check_count("num_states", num_states)
        _check_memory("num_states", num_states, 1)
        return Nodes(num_states)
    if not t.size:
        checks.refuse("tails, heads", "at least one edge", "none", "or give num_states as well")
    return Nodes.named_by(t, h)


def _check_memory(name: str, S: int, A: int) -> None:
    """Raises ValueError where arrays of S states and A edges out of each do not fit into memory."""
    try:
        np.empty((S, A, 3))  # reserved, but not touched
    except (MemoryError, OverflowError, ValueError):
        expected = "arrays of S states and as many edges as lead out of any of them, in memory"
        advice = "split a node that very many edges lead out of, or number the states without gaps"
        checks.refuse(name, expected, f"{S} × {A}, {24 * S * A} bytes", advice)


def _goals(goals: Any, nodes: Nodes) -> NDArray[Any]:
    """(S,), boolean."""
    goal = np.zeros(len(nodes), dtype=bool)
    listed = names("goals", [goals] if isinstance(goals, int | str) else goals).reshape(-1)
    if not listed.size:
        expected = f"at least one state of {nodes}"
        checks.refuse("goals", expected, "[]", "name the states where walks end")
    goal[nodes.states("goals", listed)] = True
    return goal


def _start(initial: Any, goal: NDArray[Any], nodes: Nodes) -> Tensor:
    S = len(goal)
    if initial is None:
        return torch.from_numpy(np.ones(S) if goal.all() else (~goal).astype(np.float64))
    if isinstance(initial, int | str) or not arrays.read("initial", initial, "a state").ndim:
        weights = torch.zeros(S, dtype=torch.float64)
        weights[nodes.states("initial", names("initial", [initial]).reshape(1))] = 1
        return weights
    return arrays.weights("initial", initial, (S,))
