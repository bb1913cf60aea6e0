"""Infinite horizons at optimism 1, against exact fractions, value iteration and counted paths."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cai
from cai import bellman, models
from cai.inference.linear_system import linear_system, linear_values

seeds = st.integers(0, 10**6)
discounts = st.sampled_from([1.0, 0.8])


def random_table(seed, discount=1.0, absorbing=1, zeros=0.5, arrival=True, level=-1.0):
    """A random model with absorbing states, forbidden actions and exact zeros."""
    rng = np.random.default_rng(seed)
    S, A = int(rng.integers(absorbing + 1, 8)), int(rng.integers(1, 4))
    P = rng.random((S, A, S)) * (rng.random((S, A, S)) >= zeros)
    P += 0.1 * (rng.integers(S, size=(S, A, 1)) == np.arange(S))
    prior = rng.random((S, A)) * (rng.random((S, A)) >= 0.3)
    prior += 0.1 * (rng.integers(A, size=(S, 1)) == np.arange(A))
    reward, more = level + rng.normal(size=(S, A)), rng.normal(size=(S, A, S)) * arrival
    for s in range(absorbing):
        P[s], reward[s], more[s] = np.arange(S) == s, 0.0, 0.0
    model = models.tabular(
        P / P.sum(-1, keepdims=True),
        reward,
        horizon=None,
        action_prior=prior,
        arrival_reward=more if arrival else None,
        discount=discount,
        temperature=0.7,
    )
    return cai.tabulate(model)


def one_step(table, v):
    """The spine's own Bellman operator."""
    return (table.log_prior + bellman.action_values(table, v, 1.0)).logsumexp(-1)


def dense_system(table):
    """M (S, S) without absorbing rows and columns, b (S,), and which states absorb, naively."""
    S, A = table.num_states, table.num_actions
    W, absorbing = np.zeros((S, S)), np.ones(S, dtype=bool)
    for s in range(S):
        for a in range(A):
            for k, p in enumerate(table.log_dynamics[s, a].exp().tolist()):
                p *= table.log_prior[s, a].exp().item()
                head = k if table.successors is None else int(table.successors[s, a, k])
                pay = table.reward[s, a].item()
                if table.arrival_reward is not None:
                    pay += table.arrival_reward[s, a, k].item()
                W[s, head] += p * math.exp(pay / table.temperature)
                absorbing[s] &= p == 0 or (head == s and pay == 0)
    M = table.discount * W * ~absorbing * ~absorbing[:, None]
    b = (W * (1 - table.discount * ~absorbing)).sum(1) * ~absorbing
    return M, b, absorbing


@given(seed=seeds, discount=discounts)
def test_dense_solve_and_spectral_radius(seed, discount):
    table = random_table(seed, discount)
    M, b, absorbing = dense_system(table)
    radius = np.abs(np.linalg.eigvals(M)).max()
    if radius >= 1:
        with pytest.raises(ValueError, match="spectral radius") as error:
            linear_values(table)
        assert float(str(error.value).split(" is ")[2].split(",")[0]) == pytest.approx(radius, 1e-4)
        return
    z = np.where(absorbing, 1.0, np.linalg.solve(np.eye(len(b)) - M, b))
    found = linear_values(table)
    assert not found.isnan().any()
    assert found.exp().numpy() == pytest.approx(z, rel=1e-9, abs=1e-12)


@settings(max_examples=30)
@given(seed=seeds, discount=discounts)
def test_value_iteration(seed, discount):
    """The second method: as many steps of the finite recursion as it takes."""
    table = random_table(seed, discount, level=-3.0)
    found = linear_system(table)
    v = torch.zeros(table.num_states, dtype=torch.float64)
    for _ in range(400):
        v = one_step(table, v)
    stuck = found.log_values == -torch.inf
    assert (v[stuck] < -50).all()  # it pays for ever
    assert torch.allclose(v[~stuck], found.log_values[~stuck], atol=1e-10, rtol=0)
    assert found.residual < 1e-12


def test_geometric_chain():
    """Stay with probability ½, else home, at cost c: z = ½e^{-c}(z + 1); infinite at c = -log 2."""
    P, prior = [[[0.5, 0.5]], [[0, 1]]], [1.0]
    for cost in [-0.6, -0.69, 0.0, 1.0, 40.0]:
        table = cai.tabulate(models.tabular(P, [[-cost], [0]], horizon=None, action_prior=prior))
        weight = math.exp(-cost) / 2
        assert linear_values(table)[0].item() == pytest.approx(math.log(weight / (1 - weight)))
    for cost, radius in [(-math.log(2), "1"), (-1.0, "1.35914"), (-1e4, r"exp\(9999.31\)")]:
        table = cai.tabulate(models.tabular(P, [[-cost], [0]], horizon=None, action_prior=prior))
        with pytest.raises(ValueError, match=f"absorbing is {radius}, expected below 1"):
            linear_values(table)


def test_a_finite_horizon_is_refused():
    table = random_table(0)
    with pytest.raises(ValueError, match=r"horizon: expected None.* got 5"):
        linear_values(dataclasses.replace(table, horizon=5))
