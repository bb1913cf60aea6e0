"""The most probable trajectory, by max-product messages."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cai.inference.exact._conditioning import impossible
from cai.program.trajectory import TrajectoryModel
from cai.tables import evidence, messages
from cai.tables.evidence import Evidence
from cai.tables.table import Table
from cai.tables.tabulation import tabulate

_TIE = 2.0**-46  # values with a smaller relative difference tie: it may be a rounding error


@dataclass(frozen=True, eq=False)
class MapTrajectory:
    """The most probable trajectory, with the values that give it from any other state.

    Attributes:
        table: the problem.
        evidence: the observations.
        log_values: (T+1, S), nats: the log-probability of the best continuation from s_t=s, alive,
            until the end or termination, max log p(a_t, s_{t+1}, …, O_{t:T} | s_t).
        log_probability: (), nats: log p(τ, O); given s_0 if the initial state was given.
        states: (T+1,), integers: s_0, s_1, … until the trajectory terminates; -1 after that.
        actions: (T,), integers: a_0, a_1, …; -1 after termination.
        alive: (T+1,), boolean.

    >>> from cai import inference, models
    >>> found = inference.map_trajectory(models.ledge())
    >>> found.from_state(1).states.tolist()
    [1, 2, 3, 3, 3]
    """

    table: Table
    evidence: Evidence
    log_values: Tensor
    log_probability: float
    states: Tensor
    actions: Tensor
    alive: Tensor

    def __repr__(self) -> str:
        return f"MapTrajectory(log_probability={self.log_probability:.6g} nats)"

    def from_state(self, state: int) -> MapTrajectory:
        """The most probable trajectory given s_0, from the same values, in O(T·A·K).

        Raises:
            ValueError: if it is not a state of the model, or p(O) = 0 from there.
        """
        return _follow(self.table, self.evidence, self.log_values, _state(state, self.table))


def map_trajectory(
    model: TrajectoryModel | Table,
    start: int | None = None,
    *,
    observed: Mapping[str, Any] | None = None,
    optimal: Tensor | Sequence[bool] | None = None,
) -> MapTrajectory:
    """The most probable trajectory, argmax p(τ, O), by max-product messages (Levine 2018, 2.2).

        m_T(s) = r_T(s)/α
        m_t(s) = max_{a,s'} log p(a|s) + log p(s'|s,a) + (r + r⁺)/α
                            + max(log γ + m_{t+1}(s'), log(1-γ))

    With deterministic dynamics that is planning, with the prior as a cost of actions. With
    stochastic ones, luck is chosen as well as actions, at the price of its improbability.

    With a discount termination is an outcome: a trajectory may end on arrival, with probability
    1 - γ, and then has the probability of its steps up to there; the program's steps after
    termination are summed out. So early termination can be the most probable trajectory.

    Ties go to the trajectory that is first in the order of s_0, a_0, s_1, a_1, …, lower indices
    first, and survival before termination. Values within rounding errors count as ties.

    Only the values are kept, (T+1, S) numbers; the best actions are recomputed in the forward pass.

    Args:
        model: a model with finitely many states and actions and a finite horizon, or its table.
        start: s_0; by default the best one, its probability included.
        observed: site -> value, as for :func:`cai.inference.posterior`.
        optimal: which o_t are observed, (T+1,) booleans; all if None.

    Returns:
        A :class:`MapTrajectory`: states and actions of the most probable trajectory.

    Raises:
        ValueError: if the horizon is infinite, the initial state is not one of the model's, no
            trajectory has positive probability, or as ``posterior`` for observations.

    >>> from cai import inference, models
    >>> found = inference.map_trajectory(models.ledge())
    >>> found.states.tolist(), found.actions.tolist()
    ([0, 3, 3, 3, 3], [0, 0, 0, 0])
    """
    table = tabulate(model)
    known = evidence.observe(table, observed or {}, optimal)
    first = None if start is None else _state(start, table)
    values = messages.backward(table, known, messages.MAX)
    if first is None and (table.log_initial + values[0]).max() == -math.inf:
        raise ValueError(impossible(table, observed or {}, optimal))
    return _follow(table, known, values, first)


def _state(state: Any, table: Table) -> int:
    try:
        index = operator.index(state)
    except TypeError:
        index = -1
    if not 0 <= index < table.num_states:
        raise ValueError(
            f"start: expected a state in 0 … {table.num_states - 1}, got {state!r}; "
            "without one the best is taken"
        )
    return index


def _follow(table: Table, known: Evidence, values: Tensor, start: int | None) -> MapTrajectory:
    """The best trajectory, by a forward pass that looks one step ahead at a time."""
    T, m = table.steps, values.numpy()
    if start is None:
        first = table.log_initial.numpy() + m[0]
        s = int(_ties(first).argmax())
        log_probability = first[s]
    else:
        s, log_probability = start, m[0][start]
    if log_probability == -math.inf:
        raise ValueError(
            f"start: no trajectory from state {s} has positive probability and a reward above "
            "-inf, so there is no most probable one; choose another start"
        )
    choose = _chooser(table, known)
    states, actions = np.full(T + 1, -1, np.int64), np.full(T, -1, np.int64)
    alive = np.zeros(T + 1, np.bool_)
    states[0], alive[0], t, lives = s, True, 0, True
    while lives and t < T:
        a, s, lives = choose(t, s, m[t + 1])
        actions[t], states[t + 1], alive[t + 1] = a, s, lives
        t += 1
    path = map(torch.from_numpy, (states, actions, alive))
    return MapTrajectory(table, known, values, float(log_probability), *path)


def _chooser(table: Table, known: Evidence) -> Any:
    """A function (t, s, m_{t+1}) -> the first of the best (action, next state, survival)."""
    optimal, actions, dead = (x.tolist() for x in (known.optimal, known.actions, known.dead))
    live, die = math.log(table.discount), math.log1p(-table.discount) if table.discount < 1 else 0

    @cache
    def row(t: int, s: int, pays: bool, action: int) -> tuple[Any, Any, int]:
        log_w = messages.row_weights(table.at(t), s, pays, action).numpy()
        listed = table.successors
        first = max(action, 0)
        if listed is None:
            return log_w, np.arange(table.num_states), first
        return log_w, listed[s, first : first + len(log_w)].numpy(), first

    def choose(t: int, s: int, m: Any) -> tuple[int, int, bool]:
        log_w, listed, first = row(t if table.by_step else 0, s, optimal[t], actions[t])
        onward = (log_w + (live + m[listed]))[None]
        if table.discount < 1 and dead[t + 1]:
            onward = np.append(onward, [log_w + die], 0)
        best = _ties(onward)
        a = int(best.any((0, 2)).argmax())
        ends_or_not, k = best[:, a].nonzero()
        reached = listed[k] if listed.ndim == 1 else listed[a, k]
        s_next = int(reached.min())
        return first + a, s_next, bool((ends_or_not[reached == s_next] == 0).any())

    return choose


def _ties(x: Any) -> Any:
    """Whether x equals its maximum, up to rounding."""
    best = x.max()
    return x >= best - _TIE * abs(best)
