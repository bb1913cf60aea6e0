"""ELBO, expected return and entropy of a policy in the true dynamics, exactly."""

from __future__ import annotations

import math
from functools import singledispatch
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cai import checks
from cai.evaluation.problem import Problem
from cai.gaussian.forms import Gaussian
from cai.gaussian.linear_gaussian import LinearGaussian
from cai.gaussian.linear_policy import LinearGaussianPolicy
from cai.gaussian.moments import (
    expected_return,
    expected_square,
    log_det,
    moments,
    survival,
    true_dynamics,
)
from cai.infinite import visits
from cai.numerics.arrays import of_step
from cai.numerics.logspace import product
from cai.policies.as_table import policy_log_probs
from cai.policies.history import HistoryPolicy, moves, seen_first, seen_next
from cai.program.episode import remembers
from cai.program.interfaces import Policy
from cai.sweeps.sweeps import follow
from cai.tables.table import Table


class ExactEvaluation(NamedTuple):
    """Exact evaluation of a policy; linear and history policies have gradients in the first three.

    Attributes:
        elbo: (), nats.
        expected_return: (), reward units.
        entropy: (), nats.
        states: (T+1, S), occupancies while alive; (S,) with an infinite horizon; None for
            continuous states.
        state_actions: (T, S, A), or (S, A); None for continuous states.
        log_policy: log q(a|s) of the same shape; None if the policy does not depend on the state
            alone.
    """

    elbo: Tensor
    expected_return: Tensor
    entropy: Tensor
    states: Tensor | None = None
    state_actions: Tensor | None = None
    log_policy: Tensor | None = None


@singledispatch
def exact_evaluation(policy: Any, problem: Problem) -> ExactEvaluation | None:
    """The exact ELBO, return and entropy of a policy; None if it takes a simulation.

    They are exact for a linear-Gaussian policy in such a model, and on a table for policies without
    memory or on histories.

    Args:
        policy: (t, s) -> q(a_t|s_t).
        problem: the model, or its table.

    Raises:
        ValueError: if the policy does not fit the problem or does not broadcast; with an infinite
            horizon, if it is not stationary or its trajectories may never end.
    """
    return _of_table(policy, problem)


@exact_evaluation.register
def _(policy: LinearGaussianPolicy, problem: Problem) -> ExactEvaluation | None:
    if problem.gaussian is not None:
        return of_linear_policy(problem.gaussian, policy)
    return _of_table(policy, problem)


@exact_evaluation.register
def _(policy: HistoryPolicy, problem: Problem) -> ExactEvaluation | None:
    if problem.table is None:
        return None
    with problem.table.threads():
        return of_histories(problem.table, policy)


def _of_table(policy: Policy, problem: Problem) -> ExactEvaluation | None:
    table = problem.table
    if table is None or remembers(policy):
        return None
    with table.threads(), torch.no_grad():
        return of_log_policy(table, policy_log_probs(policy, table))


def of_log_policy(table: Table, log_policy: Tensor) -> ExactEvaluation:
    """ELBO, return and entropy of log q(a_t|s_t), (T, S, A), or (S, A) with an infinite horizon."""
    if table.horizon is None:
        states, state_actions, total = visits.of_policy(table, log_policy)
    else:
        states, total = follow(table, log_policy)
        state_actions = states[:-1].unsqueeze(-1) * log_policy.exp()
    divergence = product(state_actions, log_policy - table.log_prior).sum()
    expected_return = torch.tensor(total, dtype=torch.float64)
    elbo, entropy = total / table.temperature - divergence, -product(state_actions, log_policy)
    return ExactEvaluation(elbo, expected_return, entropy.sum(), states, state_actions, log_policy)


def of_linear_policy(model: LinearGaussian, policy: LinearGaussianPolicy) -> ExactEvaluation:
    """ELBO, return and entropy of a linear-Gaussian policy in such a model."""
    T = checks.finite_horizon(model, "evaluating a policy")
    start = Gaussian(model.initial_mean, model.initial_covariance)
    states, state_actions = moments(start, true_dynamics(model), policy, T)
    total = expected_return(model, states, state_actions)
    alive = survival(model.discount, T)[:-1]
    m = model.action_size
    tril = policy.scale_tril.expand(T, m, m)
    entropies = log_det(tril) + 0.5 * m * (1 + math.log(2 * math.pi))
    entropy = (alive * entropies).sum()
    if model.flat:
        divergence = -entropy
    else:
        prior: Any = model.action_prior
        a = Gaussian(state_actions.mean[:, -m:] - prior.loc, state_actions.covariance[:, -m:, -m:])
        cross = 0.5 * expected_square(prior.precision_matrix, a) + log_det(prior.scale_tril)
        cross = cross + 0.5 * m * math.log(2 * math.pi)
        divergence = (alive * cross).sum() - entropy
    return ExactEvaluation(total / model.temperature - divergence, total, entropy)


def of_histories(table: Table, policy: HistoryPolicy) -> ExactEvaluation:
    """ELBO, return and entropy of a policy on histories, by following all of them."""
    log_probs = policy.log_probs
    sizes = len(log_probs), *policy.observations.shape, policy.log_prior.shape[-1]
    if sizes != (table.steps, table.num_states, table.num_actions):
        checks.refuse(
            "policy",
            f"a policy on histories of {table.steps} steps, {table.num_states} states and "
            f"{table.num_actions} actions",
            "one of {}, {} and {}".format(*sizes),
            "make it for this model",
        )
    rewards, P, log_prior = table.expected_reward, moves(table), table.log_prior
    x = seen_first(table, policy.observations)
    elbo = total = entropy = torch.zeros((), dtype=torch.float64)
    states, state_actions = [x.sum(0)], []
    for t, log_q in enumerate(log_probs):
        acting = x.unsqueeze(-1) * log_q.exp().unsqueeze(1)  # (histories, S, A)
        state_actions.append(acting.sum(0))
        reward = product(state_actions[-1], of_step(rewards, t, 2)).sum()
        entropy = entropy - product(acting, log_q.unsqueeze(1)).sum()
        effort = product(state_actions[-1], of_step(log_prior, t, 2)).sum()
        elbo = elbo + reward / table.temperature + effort
        total = total + reward
        x = seen_next(acting, of_step(P, t, 3), policy.observations)
        states.append(x.sum(0))
    last = product(states[-1], table.final_reward).sum()
    return ExactEvaluation(
        elbo + entropy + last / table.temperature,
        total + last,
        entropy,
        torch.stack(states).detach(),
        torch.stack(state_actions).detach(),
    )
