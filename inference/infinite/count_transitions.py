"""Counts of the transitions of observed trajectories with an infinite horizon."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cai import checks, one_line
from cai.inference.infinite._transition_graph import transition_graph
from cai.numerics import arrays
from cai.program.trajectory import TrajectoryModel
from cai.tables.table import Table
from cai.tables.tabulation import tabulate


@dataclass(frozen=True, eq=False)
class TransitionCounts:
    """Counts of transitions: all that the likelihood of finished trajectories depends on.

    Attributes:
        transitions: (S, A, K), how often each action led to each of its K listed successors;
            waiting in an absorbing state is not counted.
        starts: (S,), how many trajectories begin in each state.
        terminations: (), how many end by termination, 1 - γ in each step; 0 if γ = 1.

    >>> from cai import inference, models
    >>> model = models.road_network([0, 1], [1, 2], [-1.0, -1.0], goals=2)
    >>> inference.count_transitions(model, [([0, 1, 2], [0, 0])]).transitions.sum().item()
    2.0
    """

    transitions: Tensor
    starts: Tensor
    terminations: int

    __repr__ = one_line.of_fields


def count_transitions(
    model: TrajectoryModel | Table, paths: Iterable[tuple[Any, Any]]
) -> TransitionCounts:
    """The counts of transitions of trajectories of any length, until absorption or termination.

    >>> from cai import inference, models
    >>> model = models.road_network([0, 1], [1, 2], [-1.0, -1.0], goals=2)
    >>> counts = inference.count_transitions(model, [([0, 1, 2], [0, 0])])
    >>> counts.starts.tolist()
    [1.0, 0.0, 0.0]

    Args:
        model: a discrete model, or its table.
        paths: for each trajectory its states s_0 … s_n and its actions a_0 … a_{n-1}, as integers.

    Returns:
        The counts, summed over all trajectories.

    Raises:
        ValueError: if a path is empty, names a state or an action that the model does not have,
            makes an impossible transition, or stops before absorption though γ = 1, so that it
            cannot have terminated.
    """
    table = tabulate(model)
    states, actions = _as_tensors(paths, table)
    absorbing = torch.from_numpy(transition_graph(table).absorbing)
    S, A, K = table.log_dynamics.shape
    tails, heads = torch.cat([s[:-1] for s in states]), torch.cat([s[1:] for s in states])
    a = torch.cat(actions)
    place = (tails * A + a) * K + _successor(table, tails, a, heads)
    counts = torch.bincount(place[~absorbing[tails]], minlength=S * A * K).double()
    ends = torch.stack([s[-1] for s in states])
    alive = ends[~absorbing[ends]]
    if len(alive) and table.discount == 1:
        expected = "trajectories that run until an absorbing state"
        advice = "with a discount of 1 nothing else ends them; leave unfinished ones out"
        checks.refuse("paths", expected, f"one that stops in state {alive[0].item()}", advice)
    starts = torch.bincount(torch.stack([s[0] for s in states]), minlength=S).double()
    return TransitionCounts(counts.reshape(S, A, K), starts, len(alive))


def _successor(table: Table, tails: Tensor, actions: Tensor, heads: Tensor) -> Tensor:
    """The index of the listed successor that each transition leads to, (N,)."""
    listed = torch.arange(table.num_states) if table.successors is None else table.successors
    if table.successors is not None:
        listed = listed[tails, actions]
    found = (listed == heads.unsqueeze(1)) & (table.log_dynamics[tails, actions] > -torch.inf)
    found &= (table.log_prior[tails, actions] > -torch.inf).unsqueeze(1)
    impossible = ~found.any(1)
    if impossible.any():
        i = int(impossible.nonzero()[0])
        checks.refuse(
            "paths",
            "transitions that the model allows",
            f"action {actions[i].item()} in state {tails[i].item()} leading to state "
            f"{heads[i].item()}, which has probability zero",
            "see log_prior and log_dynamics of cai.tabulate(model) for what it allows",
        )
    return found.int().argmax(1)


_PATHS = "for each trajectory a pair (states, actions) of lists of integers"


def _as_tensors(paths: Any, table: Table) -> tuple[list[Tensor], list[Tensor]]:
    states, actions = [], []
    for i, path in enumerate(checks.several("paths", paths, _PATHS)):
        if not isinstance(path, tuple | list) or len(path) != 2:
            checks.refuse(f"paths, number {i}", "states and actions", type(path).__name__, _PATHS)
        s, a = (arrays.integers(f"paths, number {i}", x) for x in path)
        if s.dim() != 1 or a.dim() != 1 or len(s) != len(a) + 1:
            came = f"shapes {list(s.shape)} and {list(a.shape)}"
            advice = "the last state is the one where the path ends"
            checks.refuse(f"paths, number {i}", "n + 1 states and n actions", came, advice)
        for name, x, size in (("state", s, table.num_states), ("action", a, table.num_actions)):
            if len(x) and not (x.min() >= 0 and x.max() < size):
                expected, came = f"{name}s 0 … {size - 1}", f"{x.min().item()} … {x.max().item()}"
                checks.refuse(f"paths, number {i}", expected, came, "number them as the model does")
        states.append(s)
        actions.append(a)
    if not states:
        checks.refuse("paths", "at least one trajectory", "none", "there is nothing to count")
    return states, actions
