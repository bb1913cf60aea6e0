"""Arrays of a solution as a data set of xarray, with names and units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from cai.numerics.optional_package import optional


class Solved(Protocol):
    """What is read of a solution, with or without an axis of steps."""

    optimism: float
    rule: Any
    table: Any

    @property
    def V(self) -> Tensor:
        """(T+1, S) or (S,), reward units."""

    @property
    def Q(self) -> Any:
        """(T, S, A) or (S, A), reward units."""

    @property
    def policy(self) -> Any:
        """With ``log_probs``, (T, S, A) or (S, A), nats."""

    @property
    def states(self) -> Any:
        """(T+1, S) or (S,)."""

    @property
    def state_actions(self) -> Any:
        """(T, S, A) or (S, A)."""

    @property
    def bound(self) -> Any:
        """(), nats."""


def to_xarray(self: Solved) -> Any:
    """The arrays as an xarray Dataset: V, Q, policy, states and state_actions.

    The dimensions are time, state and action. Coordinates are the names of the layout where it has
    them and no two are the same, else numbers, and the step; on a map also the row and column of
    each state. V and states have a time more than the others, T, where these are NaN. With an
    infinite horizon there is no time. Units are attributes of each variable.

    Returns:
        An ``xarray.Dataset``; optimism, rule, bound, temperature and discount are attributes.

    Raises:
        ValueError: if xarray is not installed.

    >>> from cai import inference, models
    >>> found = inference.posterior(models.ledge()).to_xarray()
    >>> found.V.sel(time=0, state="home").item()
    0.0
    """
    xarray = optional("xarray", "to_xarray", 'pip install "control-as-inference[frames]"')
    table, layout = self.table, self.table.layout
    time = () if self.V.dim() == 1 else ("time",)
    each, both = (*time, "state"), (*time, "state", "action")
    arrays = {
        "V": (each, self.V, "reward"),
        "Q": (both, self.Q, "reward"),
        "policy": (both, self.policy.log_probs.exp(), "probability"),
        "states": (each, self.states, "probability" if time else "expected visits"),
        "state_actions": (both, self.state_actions, "probability" if time else "expected visits"),
    }
    coordinates: dict[str, Any] = {
        "state": _names(getattr(layout, "states", None), table.num_states),
        "action": _names(getattr(layout, "actions", None), table.num_actions),
    }
    if getattr(layout, "cells", None):
        rows, columns = zip(*layout.cells, strict=True)
        coordinates |= {"row": ("state", list(rows)), "column": ("state", list(columns))}
    found = {
        name: xarray.DataArray(
            x.detach().numpy().copy(),  # what is done to the data set leaves the solution alone
            dims=dims,
            coords={"time": range(len(x))} if time else None,
            attrs={"units": unit},
        )
        for name, (dims, x, unit) in arrays.items()
    }
    numbers = {"temperature": float(table.temperature), "discount": float(table.discount)}
    about = {"optimism": self.optimism, "rule": self.rule, "bound": self.bound, **numbers}
    # Joined over time from 0 to T, where actions have no last step.
    return xarray.Dataset(found, attrs=about).assign_coords(coordinates)


def _names(names: Sequence[str] | None, n: int) -> Any:
    """Names as coordinates; numbers if there are none, or two states share one."""
    return list(names) if names and len(set(names)) == len(names) else range(n)
