"""Rewards and dynamics that are changed against a policy, on tables of a finite horizon."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

import cai

_LOWEST = -700.0  # of log π where it is -inf, since a table takes no reward of +inf
_PRICES = (0.05, 1e6)  # nats of return per nat of KL, between which the adversary's is searched


def with_less(table: cai.Table, log_weight: Tensor) -> cai.Table:
    """The problem with r - Δ, Δ = α log_weight/p for weights of which Σ_a ≤ 1."""
    changed = table.temperature * (log_weight.clamp(min=_LOWEST) - table.log_prior)
    return dataclasses.replace(table, reward=table.reward - changed)


def other_weights(policy: cai.TabularPolicy, rng: np.random.Generator) -> Tensor:
    """Random weights (T, S, A), some near the policy and some not, and their sum at most one."""
    T, S, A = policy.log_probs.shape
    share = torch.as_tensor(rng.uniform(size=(T, S, 1)) ** rng.integers(1, 9))
    drawn = torch.as_tensor(rng.dirichlet(np.ones(A), size=(T, S)))
    total = 1 - 0.1 * rng.uniform() ** 8
    return (total * ((1 - share) * policy.log_probs.exp() + share * drawn)).log()


def bent(table: cai.Table, policy: cai.TabularPolicy, price: float, soft: bool) -> cai.Table:
    """The problem whose dynamics minimise what the policy gets, plus α price times their KL.

    What it gets is the return, or where ``soft`` the return minus α KL(policy‖prior).
    """
    alpha, log_pi = table.temperature, policy.log_probs
    paid = 0.0 if table.arrival_reward is None else table.arrival_reward / alpha
    values, dynamics = table.final_reward / alpha, []
    for t in reversed(range(table.steps)):
        log_q = table.log_dynamics - (paid + table.gather(values)) / price
        log_mean = log_q.logsumexp(-1)
        dynamics.append(log_q - log_mean.unsqueeze(-1))
        u = table.reward / alpha - price * log_mean
        u = u - (log_pi[t] - table.log_prior) if soft else u
        values = torch.where(log_pi[t] > -math.inf, log_pi[t].exp() * u, 0.0).sum(-1)
    return dataclasses.replace(table, log_dynamics=torch.stack(dynamics[::-1]), program=None)


def attacked(
    table: cai.Table, policy: cai.TabularPolicy, budget: float, soft: bool = False
) -> cai.Evaluation:
    """The policy where its dynamics are the worst within a budget of nats for the trajectory."""
    if budget == 0:
        return cai.evaluate(table, policy)

    def spent(log_price: float) -> tuple[float, cai.Evaluation]:
        worse = bent(table, policy, math.exp(log_price), soft)
        found, log_q = cai.evaluate(worse, policy), worse.log_dynamics
        possible = log_q > -math.inf
        nats = torch.where(possible, log_q.exp() * (log_q - table.log_dynamics), 0.0).sum(-1)
        assert found.state_actions is not None
        return (found.state_actions * nats).sum().item(), found

    low, high = map(math.log, _PRICES)
    if spent(low)[0] <= budget:  # more than the adversary can use
        return spent(low)[1]
    at = brentq(lambda u: spent(u)[0] - budget, low, high, xtol=1e-6)
    return spent(float(at))[1]
