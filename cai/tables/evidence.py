"""Observations of a trajectory: states, actions, survival, and which steps are optimal."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cai.numerics import arrays, logspace, memory
from cai.program import sites
from cai.tables import bellman
from cai.tables.table import Table


@dataclass(frozen=True, eq=False, kw_only=True)
class Evidence:
    """Observations of a trajectory of T steps, as indices and masks.

    An observed state or action implies that the trajectory is alive there: with a discount it is
    the event (s_t = s, alive). In the Pyro program states continue after termination, so that there
    one conditions on ``alive_t`` as well as on ``s_t``.

    Attributes:
        states: (T+1,), integers: the observed s_t; -1 where it is not observed.
        actions: (T,), integers: the observed a_t; -1 where it is not observed.
        living: (T+1,), boolean: whether the observations allow being alive at t.
        dead: (T+1,), boolean: whether the observations at t or later allow having terminated by t.
        optimal: (T+1,), boolean: whether o_t is observed; o_T is the final reward.
    """

    states: Tensor
    actions: Tensor
    living: Tensor
    dead: Tensor
    optimal: Tensor

    def piece(self, steps: slice) -> Evidence:
        """The evidence of some steps as a trajectory of their own."""
        ends = slice(steps.start, steps.stop + 1)
        return Evidence(
            states=self.states[ends],
            actions=self.actions[steps],
            living=self.living[ends],
            dead=self.dead[ends],
            optimal=self.optimal[ends],
        )

    @property
    def log_dead(self) -> Tensor:
        """(T+1,), nats: the value of being terminated at t, 0 if possible and -inf if not."""
        return torch.where(self.dead, 0.0, -torch.inf).double()

    def outcome_values(self, table: Table, log_values: Tensor, steps: slice) -> Tensor:
        """X = (r⁺ + continuation)/α of each outcome, (steps, S, A, K), nats, at η = 1."""
        u = log_values[1:][steps]
        if table.discount < 1:
            u = bellman.continuation(u, 1.0, table.discount, self.log_dead[1:][steps, None])
        x = table.gather(u)
        if (reward := table.at(steps).arrival_reward) is None:
            return x
        paid = self.optimal[:-1][steps, None, None, None]
        return x + torch.where(paid, reward / table.temperature, 0.0)

    def action_values(self, table: Table, log_values: Tensor, steps: slice) -> Tensor:
        """log p(observations at a_t and later | s_t=s, a_t=a), (steps, S, A), nats."""
        x, table = self.outcome_values(table, log_values, steps), table.at(steps)
        paid = self.optimal[:-1][steps, None, None]
        q = logspace.soft_mean(table.log_dynamics, x, 1.0)
        q = q + torch.where(paid, table.reward / table.temperature, 0.0)
        action = self.actions[steps, None, None]
        taken = (action < 0) | (action == torch.arange(table.num_actions))
        return torch.where(taken, q, -torch.inf)


def none(table: Table) -> Evidence:
    """The evidence that all steps are optimal, and nothing else."""
    return observe(table, {}, None)


def observe(table: Table, observed: Mapping[str, Any], optimal: Any) -> Evidence:
    """The evidence from observed values by site.

    Args:
        table: the problem, of T steps.
        observed: site -> value: "s_3" -> a state, "a_0" -> an action, "alive_4" -> 0 or 1.
        optimal: which o_t are observed, (T+1,) booleans; all of them if None.

    Raises:
        ValueError: for an unknown site, a value out of range, or a mask of another length or type.
    """
    T = table.steps
    memory.check_values(T, table.num_states)
    states, actions = torch.full((T + 1,), -1), torch.full((T,), -1)
    living = torch.ones(T + 1, dtype=torch.bool)
    dead = torch.ones(T + 1, dtype=torch.bool)
    sizes = {"s": table.num_states, "a": table.num_actions, "alive": 2}
    for name, value in observed.items():
        kind, t, _ = sites.parse("observed", name, T, table.discount)
        index = _index(name, value, sizes[kind])
        if kind == "alive" and index == 0:
            living[t] = False
            continue
        if kind != "alive":
            (states if kind == "s" else actions)[t] = index
        dead[: t + 1] = False  # alive at t: not terminated before
    return Evidence(
        states=states, actions=actions, living=living, dead=dead, optimal=mask(optimal, T)
    )


def _index(name: str, value: Any, size: int) -> int:
    try:
        index = operator.index(value)
    except (TypeError, RuntimeError):  # torch's own errors for values that are not numbers
        index = -1
    if not 0 <= index < size:
        raise ValueError(
            f"observed[{name!r}]: expected an integer in 0 … {size - 1}, got {value!r}; states and "
            "actions are counted from the supports of `initial` and `action_prior`"
        )
    return index


def mask(optimal: Any, T: int) -> Tensor:
    """Which o_t are observed, (T+1,) booleans, from a user's argument; all of them if None.

    Raises:
        ValueError: for a mask of another length or type.
    """
    if optimal is None:
        return torch.ones(T + 1, dtype=torch.bool)
    seen = arrays.read("optimal", optimal, f"{T + 1} booleans")
    if seen.dtype not in (torch.bool, np.bool_) or tuple(seen.shape) != (T + 1,):
        raise ValueError(
            f"optimal: expected {T + 1} booleans, one for each o_0 … o_{T}, of which o_{T} is the "
            f"final reward, got shape {list(seen.shape)} of {seen.dtype}; for instance "
            f"torch.arange({T + 1}) >= {T}"
        )
    return seen.clone() if isinstance(seen, Tensor) else torch.from_numpy(seen.copy())
