"""Checks of a model's arguments, before any of its functions is called."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from cai.checks import check_count, check_discount, check_one_of, check_positive, refuse, within
from cai.distributions.exact_scores import exact, support_size
from cai.program.interfaces import Program

_MOST_STATES = 10**9  # beyond, a number is none of a state


def _start(initial: Any) -> str:
    """How a start is written as a distribution: a state by its number, or one that is a vector."""
    if isinstance(initial, int) and not isinstance(initial, bool) and 0 <= initial < _MOST_STATES:
        number = f"torch.tensor({initial})"
        one_hot = f"torch.nn.functional.one_hot({number}, num_states).double()"
        return f"to start in state {initial} take dist.Categorical({one_hot})"
    if isinstance(initial, list | tuple | Tensor | np.ndarray | float):
        return (
            "for a sure start take dist.Delta(torch.tensor([…])).to_event(1), for weights of "
            "numbered states dist.Categorical(torch.tensor([…]))"
        )
    return "for instance dist.Categorical(torch.tensor([1.0, 0.0])), which starts in state 0 of two"


def check_arguments(model: Any) -> None:
    """Raises ValueError if a number is out of range, or what should be a function is not."""
    if not isinstance(getattr(model, "initial", None), Distribution):
        refuse("initial", "a Pyro distribution", repr(model.initial), _start(model.initial))
    exact(model.initial)
    if model.initial.batch_shape:
        refuse(
            "initial",
            "one distribution, of batch shape []",
            f"batch shape {list(model.initial.batch_shape)}",
            "give it one row of weights, or .to_event() where a state is a vector",
        )
    if not callable(model.dynamics) or isinstance(model.dynamics, Distribution):
        refuse(
            "dynamics",
            "a function (s, a) -> distribution",
            repr(model.dynamics),
            "write it as a def",
        )
    if not callable(model.action_prior):
        refuse(
            "action_prior",
            "a Pyro distribution or a function of s",
            repr(model.action_prior),
            "for a uniform prior take dist.Categorical(torch.ones(num_actions))",
        )
    for name in ("reward", "arrival_reward", "final_reward"):
        _check_reward_argument(name, getattr(model, name), optional=name != "reward")
    if model.horizon is not None:
        check_count("horizon", model.horizon, advice="None is an infinite one")
    elif model.final_reward is not None:
        refuse(
            "final_reward",
            "None with an infinite horizon, which has no last step",
            "one",
            "give it as arrival_reward of an absorbing state, or give a finite horizon",
        )
    check_positive("temperature", model.temperature)
    check_discount(model.discount)
    check_one_of("optimality", model.optimality, ("factor", "bernoulli"), 'try "factor"')


def _check_reward_argument(name: str, reward: Any, optional: bool) -> None:
    if callable(reward) or (optional and reward is None):
        return
    if not within(reward, lambda _: True):
        came = repr(reward)
        if isinstance(reward, np.ndarray) or (isinstance(reward, Tensor) and not reward.is_nested):
            came = f"an array of shape {list(reward.shape)}" if reward.ndim else came
        refuse(name, "a function, or a number", came, "index it: lambda s, a: REWARD[s, a]")


def check_overrides(model: Program) -> None:
    """Raises ValueError if a subclass overrides a method that simulations do not call."""
    if "log_factor" in model.overridden:
        refuse(
            "log_factor",
            "the rewards of a step from rewards(s, a, t) and arrival_rewards(s, a, s_next, t)",
            f"an override in {type(model).__name__}, which simulate does not call",
            "override those two",
        )
    ends = "final_rewards"
    if ends in model.overridden and "t" in inspect.signature(model.final_rewards).parameters:
        refuse(
            ends,
            "a method of s, without the step",
            f"one that takes t in {type(model).__name__}",
            "put rewards that depend on the step into rewards(s, a, t)",
        )
    if model.horizon is None and "final_rewards" in model.overridden:
        refuse(
            "final_rewards",
            "none with an infinite horizon, which has no last step",
            f"one in {type(model).__name__}",
            "give it on arrival in an absorbing state, or give a finite horizon",
        )


def check_layout(layout: Any, S: int | None, A: int | None) -> None:
    """Raises ValueError if names or places do not fit the numbers of states and actions."""
    if not hasattr(layout, "moves"):
        refuse("layout", "a cai.Layout", type(layout).__name__, "Layout(states=…, actions=…)")
    for field, size, what in (
        ("states", S, "state"),
        ("cells", S, "state"),
        ("actions", A, "action"),
        ("moves", A, "action"),
    ):
        entries = getattr(layout, field)
        if entries is not None and size is not None and len(entries) != size:
            refuse(
                f"layout.{field}",
                f"one entry for each of {size} {what}s",
                f"{len(entries)}",
                "or leave it out",
            )
    if layout.map is None:
        return
    if layout.cells is None:
        refuse("layout", "cells with a map", "a map alone", "give the cell of each state")
    rows, columns = len(layout.map), {len(row) for row in layout.map}
    if len(columns) != 1:
        refuse("layout.map", "rows of one length", f"{sorted(columns)}", "fill them up")
    outside = [c for c in layout.cells if not (0 <= c[0] < rows and 0 <= c[1] < max(columns))]
    if outside:
        refuse(
            "layout.cells",
            f"cells on the map, {rows} rows of {max(columns)}",
            f"{outside[0]}",
            "a cell is (row, column), counted from 0",
        )


def check_states(initial: Any, s: Any) -> None:
    """Raises ValueError unless s is a tensor of n states like those of ``initial``."""
    if not isinstance(s, Tensor) or s.dim() < 1 or s.layout != torch.strided:
        refuse("s", "a tensor of n states", type(s).__name__, "one row for each")
    whole = support_size(initial) is None or not s.is_floating_point()
    if s.shape[1:] != initial.event_shape or s.is_complex() or not whole:
        came, advice = f"{list(s.shape)}, {s.dtype}", "see model.initial.sample((n,))"
        refuse("s", f"n states of shape {list(initial.event_shape)}", came, advice)
