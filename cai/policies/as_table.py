"""A policy of finitely many states and actions as log q(a|s) of every step."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import torch
from torch import Tensor

from cai import checks
from cai.distributions.exact_scores import log_probs, support_size
from cai.numerics import memory
from cai.numerics.exclusive import exclusive
from cai.policies.tabular import TabularPolicy
from cai.program.handlers import DrawsSites, NoSites
from cai.program.interfaces import Policy
from cai.tables.table import Table


def policy_log_probs(policy: Policy, table: Table) -> Tensor:
    """log q(a_t=a|s_t=s) of every step, state and action in one call, (T, S, A), float64.

    With an infinite horizon (S, A).

    Raises:
        ValueError: if the policy does not broadcast, has another number of actions or NaN, or is
            not stationary though the horizon is infinite.
    """
    T, S, A = table.horizon, table.num_states, table.num_actions
    log_q = _asked(policy, T, S, A)
    advice = "it is evaluated at every step and state, reachable or not"
    checks.check_no_nan("policy at (step, state, action)", log_q, advice)
    return log_q if T is not None else _the_same_at_all(log_q)


@singledispatch
def _asked(policy: Any, T: int | None, S: int, A: int) -> Tensor:
    """log q(a|s), (T, S, A); of an infinite horizon at the first steps, and some that come late."""
    if T is None:
        return _called(policy, torch.tensor([0, 1, 2, 3, 10, 100, 1000, 10_000]), S, A)
    advice = "evaluate it by samples, or for a shorter horizon"
    memory.check_fits("policy", "log q(a|s) of all steps", T * S * A, advice)
    return _called(policy, torch.arange(T), S, A)


@_asked.register
def _(policy: TabularPolicy, T: int | None, S: int, A: int) -> Tensor:
    log_q = policy.log_probs
    if T is None:
        T = len(log_q) if log_q.dim() == 3 else 1
    if log_q.shape not in ((T, S, A), (S, A)):
        raise ValueError(
            f"policy: a table of shape {list(log_q.shape)} does not fit a model of {T} steps, "
            f"{S} states and {A} actions; it was made for another model"
        )
    return log_q.expand(T, S, A)


def _called(policy: Policy, times: Tensor, S: int, A: int) -> Tensor:
    """log q(a|s), (T, S, A), at some times (T,), in one call."""
    T = len(times)
    t, s = times.unsqueeze(1), torch.arange(S).unsqueeze(0)
    try:
        with exclusive(), NoSites():
            distribution = policy(t, s)
        log_q = _log_probs(distribution, A)
        return log_q.expand(T, S, A)
    except DrawsSites:
        raise
    except Exception as error:
        raise ValueError(
            f"policy: called with steps of shape {[T, 1]} and states of shape {[1, S]} it raised "
            f"{type(error).__name__}: {_first_line(error)}. A policy takes t as an int or a tensor "
            f"and broadcasts, and returns a distribution over the {A} actions: index tables with t "
            "and s, and use torch.where instead of Python `if`"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0]


def _the_same_at_all(log_q: Tensor) -> Tensor:
    """log q(a|s), (S, A), of a policy that does not change with time."""
    if not torch.equal(log_q, log_q[:1].expand_as(log_q)):
        raise ValueError(
            "policy: an infinite horizon needs a stationary policy, got one that changes with the "
            "step; take TabularPolicy(model, stationary=True), or a function that ignores t"
        )
    return log_q[0]


def _log_probs(distribution: Any, A: int) -> Tensor:
    size = support_size(distribution)
    if size != A:
        raise ValueError(f"expected a distribution over {A} actions, got one over {size}")
    return log_probs(distribution, A)
