"""What a policy is worth in the true dynamics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cai import checks
from cai.distributions.support import log_probs, support_size
from cai.evaluation import importance_weights
from cai.gaussian.linear_gaussian import LinearGaussian
from cai.gaussian.linear_policy import LinearGaussianPolicy
from cai.gaussian.moments import worth
from cai.infinite import visits
from cai.numerics import memory
from cai.numerics.exclusive import exclusive
from cai.numerics.logspace import product
from cai.policies.history import HistoryPolicy
from cai.policies.history import worth as worth_of_histories
from cai.policies.neural import TabularPolicy
from cai.program.calling import check_policy
from cai.program.episode import remembers
from cai.program.handlers import DrawsSites, NoSites
from cai.program.interfaces import Policy
from cai.program.trajectories import Trajectories
from cai.program.trajectory import TrajectoryModel
from cai.tables.finite import NotEnumerable
from cai.tables.sweeps import follow
from cai.tables.table import Table
from cai.tables.tabulation import tabulate


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The worth of a policy q(a|s) as a guide with the model's own dynamics.

    Exact where the model can be enumerated, and for a linear-Gaussian policy in a linear-Gaussian
    model; else estimated, with standard errors. T steps, S states, A actions; occupancies count
    the living, so that with a discount they sum to P(alive). With an infinite horizon they are
    expected numbers of visits, (S,) and (S, A), until death, or until nothing is ever paid again:
    there the trajectory counts as ended, and what the policy does costs no more.

    Attributes:
        elbo: (), nats: E_q[Σ rewards/α - Σ log q(a|s)/p(a|s)] ≤ log p(O).
        expected_return: (), reward units: E_q[Σ rewards].
        entropy: (), nats: E_q[Σ_t H(q(·|s_t))]; of a policy with a memory or latents, given them.
        states: (T+1, S): q(s_t=s, alive); None for continuous states.
        state_actions: (T, S, A): q(s_t=s, a_t=a, alive); None for continuous ones.
        elbo_stderr: (), nats; None where exact.
        expected_return_stderr: (), reward units; None where exact.
        entropy_stderr: (), nats; None where exact.
        log_weights: (n,), nats: log p(τ,O)/q(τ) of the trajectories simulated; None where exact.
    """

    elbo: float
    expected_return: float
    entropy: float
    states: Tensor | None
    state_actions: Tensor | None
    elbo_stderr: float | None = None
    expected_return_stderr: float | None = None
    entropy_stderr: float | None = None
    log_weights: Tensor | None = None


def evaluate(
    model: TrajectoryModel | Table,
    policy: Policy,
    *,
    samples: int | None = None,
    seed: int = 0,
) -> Evaluation:
    """ELBO, expected return, entropy and occupancies of a policy in the true dynamics.

    Args:
        model: the model, or its table.
        policy: (t, s) -> q(a_t|s_t).
        samples: how many trajectories to simulate. If not given, the answer is exact where the
            model can be enumerated or model and policy are linear-Gaussian, and from 10 000
            trajectories where not, or where the policy has a memory other than a table.
        seed: of the simulation.

    Raises:
        ValueError: where the policy does not broadcast over steps and states, or a table is to be
            simulated; with an infinite horizon where the policy is not stationary, may never end,
            or the model cannot be enumerated.
    """
    checks.check_model(model, table=True)
    check_policy(policy)
    if isinstance(model, Table) and samples is not None:
        raise ValueError("samples: a table is evaluated exactly; pass the model to simulate it")
    if (
        samples is None
        and isinstance(model, LinearGaussian)
        and isinstance(policy, LinearGaussianPolicy)
    ):
        return _in_closed_form(model, policy)
    table = enumerable(model) if samples is None else None
    if table is not None and isinstance(policy, HistoryPolicy):
        return _along_histories(table, policy)
    if table is not None and not remembers(policy):
        with table.threads(), torch.no_grad():
            return evaluate_table(table, policy_log_probs(policy, table))
    if isinstance(model, Table):
        raise ValueError(
            "policy: with a memory it is simulated, which a table cannot be; pass the model"
        )
    n = 10_000 if samples is None else samples
    return of_trajectories(model, policy, model.simulate(policy, n, seed))


def _in_closed_form(model: LinearGaussian, policy: LinearGaussianPolicy) -> Evaluation:
    with torch.no_grad():
        found = worth(model, policy)
    elbo, expected_return, entropy = (x.item() for x in found)
    return Evaluation(elbo, expected_return, entropy, states=None, state_actions=None)


def _along_histories(table: Table, policy: HistoryPolicy) -> Evaluation:
    with table.threads(), torch.no_grad():
        found = worth_of_histories(table, policy)
    elbo, expected_return, entropy = (x.item() for x in found[:3])
    return Evaluation(elbo, expected_return, entropy, found.states, found.state_actions)


def enumerable(model: TrajectoryModel | Table) -> Table | None:
    """The table of a model, or None where its randomness is not discrete and finite."""
    if isinstance(model, Table):
        return model
    try:
        return tabulate(model)
    except NotEnumerable:
        return None


def policy_log_probs(policy: Policy, table: Table) -> Tensor:
    """log q(a_t=a|s_t=s) of every step, state and action in one call, (T, S, A), float64.

    With an infinite horizon (S, A).

    Raises:
        ValueError: where the policy does not broadcast, has another number of actions or NaN; with
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


def evaluate_table(table: Table, log_policy: Tensor) -> Evaluation:
    """The exact worth of log q(a_t|s_t), shape (T, S, A), or (S, A) with an infinite horizon."""
    if table.horizon is None:
        states, state_actions, expected_return = visits.of_policy(table, log_policy)
    else:
        states, expected_return = follow(table, log_policy)
        state_actions = states[:-1].unsqueeze(-1) * log_policy.exp()
    divergence = product(state_actions, log_policy - table.log_prior).sum().item()
    return Evaluation(
        elbo=expected_return / table.temperature - divergence,
        expected_return=expected_return,
        entropy=-product(state_actions, log_policy).sum().item(),
        states=states,
        state_actions=state_actions,
    )


def of_trajectories(model: TrajectoryModel, policy: Policy, paths: Trajectories) -> Evaluation:
    """The worth of a policy, estimated from trajectories that were simulated with it."""
    log_q, log_w = importance_weights.scores(model, policy, paths)
    elbo, elbo_stderr = importance_weights.mean(log_w)
    expected_return, expected_return_stderr = importance_weights.mean(paths.returns)
    entropy, entropy_stderr = importance_weights.mean(-log_q)
    states, state_actions = _frequencies(model, paths)
    return Evaluation(
        elbo,
        expected_return,
        entropy,
        states,
        state_actions,
        elbo_stderr,
        expected_return_stderr,
        entropy_stderr,
        log_w,
    )


def _frequencies(
    model: TrajectoryModel, paths: Trajectories
) -> tuple[Tensor | None, Tensor | None]:
    """How often the living were in each state, and took each action there."""
    S = support_size(model.initial)
    if S is None:
        return None, None
    n, T = paths.rewards.shape
    s, alive = paths.states.long(), paths.alive
    steps = torch.arange(T + 1)
    states = torch.zeros(T + 1, S, dtype=torch.float64)
    states.index_put_((steps.expand(n, -1)[alive], s[alive]), torch.tensor(1.0).double(), True)
    A = support_size(model.prior(torch.zeros((), dtype=paths.states.dtype), 0))
    if A is None:
        return states / n, None
    before = alive[:, :-1]
    state_actions = torch.zeros(T, S, A, dtype=torch.float64)
    where = steps[:-1].expand(n, -1)[before], s[:, :-1][before], paths.actions.long()[before]
    state_actions.index_put_(where, torch.tensor(1.0).double(), True)
    return states / n, state_actions / n
