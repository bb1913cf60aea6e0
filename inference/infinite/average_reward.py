"""The average reward per step: an infinite horizon without a discount."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cai import checks, one_line
from cai.inference.infinite._gain import Found, GainProblem, untold
from cai.inference.infinite._gain_from_start import check_one_long_run, from_the_start
from cai.infinite.endings import at_finite_cost
from cai.infinite.gain_and_bias import LongRun, Singular
from cai.numerics import logspace
from cai.policies.tabular import TabularPolicy
from cai.program.trajectory import TrajectoryModel
from cai.tables import bellman
from cai.tables.table import Table
from cai.tables.tabulation import tabulate


@dataclass(frozen=True, eq=False)
class AverageReward:
    """The solution of g + V = T V at one optimism η, T the Bellman operator without discount.

    S states, A actions. At η = 1 with the soft rule, exp(g/α) is the largest eigenvalue of
    M(s,s') = Σ_a p(a|s) exp((r + r⁺)/α) p(s'|s,a), and exp(V/α) its eigenvector (Todorov 2009).

    Attributes:
        table: the problem that was solved.
        optimism: η.
        rule: how actions are chosen, "soft" or "hard".
        gain: (), reward units per step: the long-run average of r - α KL(π‖prior), minus α/η times
            the KL of the dynamics; the hard rule does not count the KL of the policy.
        error: (), reward units: a certified bound of the error of ``gain``.
        V: (S,), reward units: the relative value of starting in a state; -inf if rewards of -inf
            cannot be avoided or the average is lower than from the model's start, +inf if it is
            higher.
        Q: (S, A), reward units: g + V = α log Σ_a p(a|s) exp(Q/α), or max_a Q with the hard rule.
        policy: π(a|s) ∝ p(a|s) exp(Q/α), or the prior among the best actions, stationary; the
            prior where V is infinite.
        states: (S,): the stationary distribution of the solution's own chain.

    >>> from cai import inference, models
    >>> model = models.tabular([[[0.9, 0.1]], [[0.5, 0.5]]], [[1.0], [0.0]], horizon=None)
    >>> found = inference.average_reward(model)
    >>> found.states.sum().round(decimals=6).item(), found.error < 1e-9
    (1.0, True)
    """

    table: Table
    optimism: float
    rule: bellman.Rule
    gain: float
    error: float
    V: Tensor
    Q: Tensor
    policy: TabularPolicy
    states: Tensor

    __repr__ = one_line.of_fields


def average_reward(
    model: TrajectoryModel | Table, optimism: float = 0.0, rule: bellman.Rule = "soft"
) -> AverageReward:
    """The best long-run average reward, minus the cost of control, at optimism η.

    Newton's method on g + V = T V, that is Howard's policy iteration with the dynamics at η in the
    place of the true ones. T is monotone, and T(V + c) = TV + c, so that for any V

        min_s (TV - V)(s) ≤ g ≤ max_s (TV - V)(s),

    which is the certificate (Collatz and Wielandt's for the eigenvalue at η = 1), with an allowance
    for rounding errors.

    The average may depend on the start even if there is only one set of states that is never left:
    at η > 0 luck can keep the chain in other states for ever, at η < 0 nature can, and so can the
    agent if it has suitable actions. The answer is then that from the model's start, and V is
    infinite in states with another average. From several starts it is the best of them for η > 0,
    the worst for η < 0.

    Args:
        model: a model with finitely many states and actions, infinite horizon and discount 1.
        optimism: η, any real number.
        rule: how actions are chosen, "soft" or "hard" (Howard's policy iteration at η = 0). The
            Boltzmann rule is not monotone, and has no certificate.

    Returns:
        An :class:`AverageReward`: gain per step, relative values and policy, with a
        certified error.

    Raises:
        ValueError: if the horizon is finite, there is a discount, a reward of -inf cannot be
            avoided from any state, there are several sets of states that are never left, each with
            its own average, at η = 0 chance decides between several averages, or floating-point
            numbers do not determine the average.

    >>> from cai import inference, models
    >>> model = models.tabular([[[0.9, 0.1]], [[0.5, 0.5]]], [[1.0], [0.0]], horizon=None)
    >>> round(inference.average_reward(model).gain, 4)
    0.8333
    """
    table = tabulate(model)
    eta = float(optimism)
    _check(table, eta, rule)
    with table.threads():
        held = _possible(table, eta, rule)
        check_one_long_run(table, held)
        problem = GainProblem(table, eta, rule)
        found = problem.solve(held)
        more = torch.zeros_like(held, dtype=torch.bool)
        if found.split:
            found, more = from_the_start(problem, found)
        return _result(problem, found, more)


def _check(table: Table, eta: float, rule: bellman.Rule) -> None:
    if table.horizon is not None:
        raise ValueError(
            f"horizon: a long-run average needs an infinite horizon, got {table.horizon}; try "
            "dataclasses.replace(model, horizon=None)"
        )
    if table.discount < 1:
        raise ValueError(
            f"discount: with a discount of {table.discount:g} every trajectory ends, and its "
            "long-run average is zero; take soft_values, or a discount of 1"
        )
    if not math.isfinite(eta):
        raise ValueError(f"optimism: expected a finite number, got {eta}; ±1e3 is close to ±inf")
    if bellman.check_rule(rule) not in ("soft", "hard"):
        advice = "that of an agent with noisy actions is cai.evaluate of its policy"
        checks.refuse("rule", '"soft" or "hard"', repr(rule), advice)


def _possible(table: Table, eta: float, rule: bellman.Rule) -> Tensor:
    """Zero for states that can avoid rewards of -inf for ever, -inf for the others."""
    possible = at_finite_cost(table, eta, torch.zeros(table.num_states, dtype=torch.bool), rule)
    if not possible.any():
        raise ValueError(
            "evidence: p(O) = 0, a reward of -inf cannot be avoided from any state; make it finite"
        )
    return torch.where(possible, 0.0, -torch.inf).double()


def _result(problem: GainProblem, found: Found, more: Tensor) -> AverageReward:
    table, eta, rule = problem.table, problem.eta, problem.rule
    v, inside = found.step.v, found.step.inside
    alpha = float(table.temperature)
    start = torch.where(inside, logspace.tilt(table.log_initial, v, eta).exp(), 0.0)[inside]
    if not start.sum() > 0:
        start = torch.ones_like(start)
    states = torch.zeros_like(v)
    try:
        long_run = LongRun(problem.chain(found.step))
        states[inside] = torch.as_tensor(long_run.visits(start.numpy()))
    except Singular:
        raise untold(problem, found) from None
    visited = states > 0
    v = v - states[visited] @ v[visited]
    q = bellman.action_values(table, v, eta)
    q = torch.where(inside.unsqueeze(-1), q, -torch.inf)
    log_pi = bellman.log_policy(table, q, rule)
    v, q = torch.where(more, torch.inf, v), torch.where(more.unsqueeze(-1), torch.inf, q)
    return AverageReward(
        table=table,
        optimism=eta,
        rule=rule,
        gain=alpha * (found.lower + found.upper) / 2,
        error=alpha * (found.upper - found.lower) / 2,
        V=alpha * v,
        Q=alpha * q,
        policy=TabularPolicy.from_log_probs(log_pi),
        states=states,
    )
