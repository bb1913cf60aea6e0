"""A policy of finitely many states and actions as log q(a|s) of every step."""

from __future__ import annotations

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
        ValueError: if the policy does not broadcast, has another number of actions or NaN; with
            an infinite horizon where it is not stationary.
    """
    log_q = _at_all_steps(policy, table)
    advice = "it says log q(a|s) of every step, state and action, whether or not it gets there"
    checks.check_no_nan("policy at (step, state, action)", log_q, advice)
    return log_q


def _at_all_steps(policy: Policy, table: Table) -> Tensor:
    if table.horizon is None:
        return _stationary(policy, table)
    T, S, A = table.steps, table.num_states, table.num_actions
    advice = "evaluate it by samples, or for a shorter horizon"
    memory.check_fits("policy", "log q(a|s) of all steps", T * S * A, advice)
    if isinstance(policy, TabularPolicy):
        return _fitting(policy.log_probs, T, S, A)
    return _called(policy, torch.arange(T), S, A)


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


def _stationary(policy: Policy, table: Table) -> Tensor:
    """log q(a|s), (S, A), of a policy that does not change with time."""
    S, A = table.num_states, table.num_actions
    if isinstance(policy, TabularPolicy) and policy.log_probs.shape == (S, A):
        return policy.log_probs
    if isinstance(policy, TabularPolicy):
        log_q = _fitting(policy.log_probs, len(policy.log_probs), S, A)
    else:  # at the first steps, and at some that come late
        log_q = _called(policy, torch.tensor([0, 1, 2, 3, 10, 100, 1000, 10_000]), S, A)
    if not torch.equal(log_q, log_q[:1].expand_as(log_q)):
        raise ValueError(
            "policy: an infinite horizon needs a stationary policy, got one that changes with the "
            "step; take TabularPolicy(model, stationary=True), or a function that ignores t"
        )
    return log_q[0]


def _fitting(log_q: Tensor, T: int, S: int, A: int) -> Tensor:
    if log_q.shape not in ((T, S, A), (S, A)):
        raise ValueError(
            f"policy: a table of shape {list(log_q.shape)} does not fit a model of {T} steps, "
            f"{S} states and {A} actions; it was made for another model"
        )
    return log_q.expand(T, S, A)


def _log_probs(distribution: Any, A: int) -> Tensor:
    size = support_size(distribution)
    if size != A:
        raise ValueError(f"expected a distribution over {A} actions, got one over {size}")
    return log_probs(distribution, A)
