"""Linearly solvable problems against Todorov's own equations, solved with numpy."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from examples import passive
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

import cai
from cai import inference, models

seeds = st.integers(0, 10**6)


@given(seed=seeds, eta=st.sampled_from([-3.0, 0.0, 1.0, 2.0]))
def test_finite_horizons_are_linear(seed, eta):
    """z_t = exp(-cost/α) P z_{t+1}, at every optimism, since nothing is random."""
    P, cost = passive(seed)
    final = np.random.default_rng(seed).normal(size=6)
    model = models.linearly_solvable(P, cost, horizon=5, final_cost=final, temperature=0.5)
    z = [np.exp(-final / 0.5)]
    for _ in range(5):
        z.insert(0, np.exp(-cost / 0.5) * (P @ z[0]))
    found = inference.soft_values(model, eta)
    np.testing.assert_allclose(found.log_values, np.log(z), atol=1e-12)
    for t in range(5):  # the optimal control is u(s'|s) ∝ p(s'|s) z(s')
        u = P * z[t + 1]
        chosen = torch.einsum("sa,san->sn", found.policy.log_probs[t].exp(), found.dynamics(t))
        np.testing.assert_allclose(chosen, u / u.sum(1, keepdims=True), atol=1e-12)


def test_an_action_is_a_successor_not_a_state():
    """A ring of 500 states with two ways on has two actions; a padded one is forbidden."""
    S = 500
    P = sparse.diags_array([0.5, 0.5], offsets=[1, 2], shape=(S, S)).tolil()
    P[S - 2, S - 1], P[S - 1, 0] = 1.0, 1.0
    table = cai.tabulate(models.linearly_solvable(P, 1.0, horizon=3))
    assert table.log_prior.shape == (S, 2)
    assert table.log_dynamics.shape == (S, 2, 1)
    assert table.log_prior[S - 1].exp().tolist() == [1, 0]
    assert table.successors[7].flatten().tolist() == [8, 9]


def test_sparse_and_dense_are_the_same():
    P, cost = passive(3)
    bounds = {
        inference.posterior(models.linearly_solvable(p, cost, horizon=4)).bound
        for p in (P, P.tolist(), sparse.csc_matrix(P), sparse.coo_array(P))
    }
    assert len(bounds) == 1


def test_the_program_runs_and_agrees_with_enumeration():
    P, cost = passive(1, S=4)
    model = models.linearly_solvable(P, cost, horizon=4, final_cost=cost, discount=0.9)
    exact = inference.posterior(model)
    assert inference.enumeration(model).log_evidence == pytest.approx(exact.bound, abs=1e-12)
    paths = model.simulate(exact.policy, 50, seed=0)
    assert (torch.as_tensor(P)[paths.states[:, :-1], paths.states[:, 1:]] > 0).all()


@given(seed=seeds, eta=st.sampled_from([-1.0, 0.0, 1.0, 3.0]), rule=st.sampled_from([None, "hard"]))
def test_first_exit_is_a_linear_system(seed, eta, rule):
    """z = exp(-cost/α) P z, z = exp(-exit cost/α) at the exits; at every optimism the same."""
    P, cost = passive(seed, exits=2)
    exit_cost = np.random.default_rng(seed).normal(size=6)
    model = models.linearly_solvable(
        P, cost + (np.arange(6) < 4), horizon=None, exit_cost=exit_cost, temperature=0.5
    )
    inside, out = slice(0, 4), slice(4, 6)
    M = np.exp(-(cost[inside] + 1) / 0.5)[:, None] * P[inside]
    z = np.linalg.solve(np.eye(4) - M[:, inside], M[:, out] @ np.exp(-exit_cost[out] / 0.5))
    if rule is None:
        found = inference.soft_values(model, eta)
        np.testing.assert_allclose(found.log_values[inside], np.log(z), atol=1e-11)
        to = np.concatenate(
            [z, np.exp(-exit_cost[out] / 0.5)]
        )  # u ∝ p z, and z of an exit on entry
        u = P[inside] * to
        chosen = torch.einsum("sa,san->sn", found.policy.log_probs.exp(), found.dynamics())
        np.testing.assert_allclose(chosen[inside], u / u.sum(1, keepdims=True), atol=1e-10)
    else:  # no price on leaving the passive dynamics: a shortest path
        found = inference.soft_values(model, eta, "hard")
        d = np.concatenate([np.zeros(4), exit_cost[out]]) + np.where(np.arange(6) < 4, 1e9, 0.0)
        for _ in range(6):
            ahead = np.where(P[inside] > 0, d, np.inf).min(1)
            d = np.concatenate([cost[inside] + 1 + ahead, exit_cost[out]])
        np.testing.assert_allclose(found.V[inside], -d[inside], atol=1e-11)


@given(seed=seeds, discount=st.sampled_from([0.3, 0.8]))
def test_discounted_desirability_is_optimism_zero(seed, discount):
    """Todorov's z = exp(-cost/α) E[z^γ]; the exact posterior, which beats death, is above it."""
    P, cost = passive(seed)
    model = models.linearly_solvable(P, cost, horizon=None, discount=discount, temperature=0.5)
    z = np.ones(6)
    for _ in range(300):
        z = np.exp(-cost / 0.5) * (P @ z**discount)
    found = inference.soft_values(model)
    np.testing.assert_allclose(found.log_values, np.log(z), atol=1e-12)
    assert found.error < 1e-11
    assert (inference.soft_values(model, 1.0).V >= found.V - 1e-12).all()


def test_the_long_run_is_an_eigenvector():
    """λ z = exp(-cost/α) P z, and the average cost is -α log λ."""
    P, cost = passive(9)
    found = inference.average_reward(
        models.linearly_solvable(P, cost, horizon=None, temperature=0.5)
    )
    values, vectors = np.linalg.eig(np.exp(-cost / 0.5)[:, None] * P)
    top = values.real.argmax()
    assert found.gain == pytest.approx(0.5 * math.log(values[top].real), abs=1e-12)
    z = np.abs(vectors[:, top].real)
    np.testing.assert_allclose(((found.V - found.V[0]) / 0.5).exp(), z / z[0], atol=1e-10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"passive": [[0.5, 0.4], [0, 1]]}, "passive at state 0: .* a sum of 0.9"),
        ({"passive": [[0.5, 0.5], [0, 0]]}, "passive at state 1: .* a sum of 0"),
        ({"passive": [[1.5, -0.5], [0, 1]]}, "passive: expected probabilities, got -0.5"),
        ({"passive": [[0.5, 0.5]]}, r"passive: expected an array of shape \(S, S\)"),
        ({"passive": "maze"}, r"passive: expected an array of shape \(S, S\)"),
        ({"cost": [1.0, 2.0, 3.0]}, "cost: expected one number for each of the 2 states"),
        ({"cost": [math.nan, 0.0]}, "cost: expected numbers above -inf"),
        ({"cost": [1.0, 1.0], "horizon": None}, "cost at state 1: expected zero.* exit_cost"),
        ({"initial": [0.0, 0.0]}, "initial: expected finite weights"),
        ({"final_cost": [[1.0]]}, "final_cost: expected one number"),
        ({"temperature": -1.0}, "temperature: expected a finite number above 0"),
    ],
)
def test_bad_arguments(change, message):
    arguments = {"passive": [[0.5, 0.5], [0.0, 1.0]], "cost": [1.0, 0.0], "horizon": 3} | change
    with pytest.raises(ValueError, match=message):
        models.linearly_solvable(arguments.pop("passive"), arguments.pop("cost"), **arguments)


def test_a_state_may_be_forbidden():
    """A cost of +inf: no trajectory goes there."""
    P = [[0.0, 0.5, 0.5], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]
    model = models.linearly_solvable(P, [1.0, math.inf, 0.0], horizon=3)
    found = inference.soft_values(model)
    assert found.bound == pytest.approx(-1 - math.log(2))
    assert found.states[:, 1].tolist() == [0, 0, 0, 0]


def test_vary_the_model_as_any_other():
    P, cost = passive(2)
    model = dataclasses.replace(models.linearly_solvable(P, cost, horizon=3), temperature=0.25)
    assert inference.soft_values(model).table.temperature == 0.25
