"""Hessian-vector products: against differences, double differentiation, and sums over paths."""

import dataclasses
import math

import numpy as np
import oracles
import pytest
import torch
from examples import endless
from hypothesis import given
from hypothesis import strategies as st

import cai
from cai import inference, models

makes = st.sampled_from(oracles.KINDS)
seeds = st.integers(0, 10**6)
discounts = st.sampled_from([1.0, 0.8])
etas = st.one_of(st.just(0.0), st.floats(-3, 3))


def hessian(table, eta):
    """Column by column, (S·A, S·A)."""
    n = table.reward.numel()
    columns = torch.eye(n, dtype=torch.float64).reshape(n, *table.reward.shape)
    return torch.stack(
        [inference.reward_hessian_vector_product(table, u, eta).flatten() for u in columns]
    )


@given(seed=seeds, discount=discounts)
def test_covariance_of_counts_by_paths(seed, discount):
    """At η = 1, α² H is the covariance of the counts n(s,a) under p(τ|O), path by path."""
    problem = oracles.random_problem(seed, discount=discount)
    S, A = problem.sizes
    counts, masses = [], []
    for path in oracles.paths(problem):
        n = np.zeros((S, A))
        for s, a in zip(path.states, path.actions, strict=False):
            n[s, a] += 1
        counts.append(n.flatten())
        masses.append(path.probability * math.exp(path.reward / problem.temperature))
    expected = np.cov(np.array(counts).T, aweights=masses, ddof=0) / problem.temperature**2
    found = hessian(cai.tabulate(problem.model()), 1.0)
    np.testing.assert_allclose(found, expected, atol=1e-11)


@given(make=makes, seed=seeds, eta=etas, discount=discounts)
def test_against_differentiating_twice(make, seed, eta, discount):
    """Symmetric, the derivative of the gradient, and convex where η ≥ 0."""
    table = cai.tabulate(make(seed, discount=discount).model())
    found = hessian(table, eta)
    reward = table.reward.clone().requires_grad_()
    bound = inference.differentiable_bound(dataclasses.replace(table, reward=reward), eta)
    (gradient,) = torch.autograd.grad(bound, reward, create_graph=True)
    rows = [torch.autograd.grad(x, reward, retain_graph=True)[0] for x in gradient.flatten()]
    torch.testing.assert_close(found, found.T, rtol=0, atol=1e-11)
    torch.testing.assert_close(found, torch.stack(rows).flatten(1), rtol=0, atol=1e-10)
    if eta >= 0:
        assert torch.linalg.eigvalsh(found).min() >= -1e-11


@pytest.mark.parametrize("eta", [5e-324, -1e-310])
def test_an_optimism_of_few_digits_is_none(eta):
    """1/η is infinite there, and second derivatives by the tape would be NaN."""
    table = cai.tabulate(oracles.random_problem(0).model())
    reward = table.reward.clone().requires_grad_()
    bound = inference.differentiable_bound(dataclasses.replace(table, reward=reward), eta)
    (gradient,) = torch.autograd.grad(bound, reward, create_graph=True)
    (row,) = torch.autograd.grad(gradient[0, 0], reward)
    torch.testing.assert_close(row.flatten(), hessian(table, 0.0)[0], rtol=0, atol=1e-12)
    assert inference.soft_values(table, eta).bound == inference.soft_values(table).bound


def test_neither_convex_nor_concave_below_zero():
    table = cai.tabulate(oracles.random_problem(3).model())
    eigenvalues = torch.linalg.eigvalsh(hessian(table, -2.0))
    assert eigenvalues.min() < -0.01
    assert eigenvalues.max() > 0.01


@pytest.mark.parametrize("eta", [-math.inf, -0.5, 0.0, 1.0, math.inf])
def test_large_lists_against_differences(eta, monkeypatch):
    """On successor lists, several chunks of steps, an impossible reward and a discount."""
    monkeypatch.setattr("cai.inference.derivatives._adjoint._CHUNK", 5000)
    rng = np.random.default_rng(0)
    S, A, K = 200, 3, 2
    reward = rng.normal(size=(S, A))
    reward[::7, 1] = -np.inf
    table = cai.tabulate(
        models.tabular(
            rng.dirichlet(np.ones(K), size=(S, A)),
            reward,
            successors=np.stack([rng.permutation(S)[:K] for _ in range(S * A)]).reshape(S, A, K),
            horizon=30,
            temperature=0.5,
            discount=0.97,
        )
    )
    u = torch.as_tensor(rng.normal(size=(S, A)))

    def gradient(h):
        reward = (table.reward + h * u).requires_grad_()
        found = inference.differentiable_bound(dataclasses.replace(table, reward=reward), eta)
        return torch.autograd.grad(found, reward)[0]

    found = inference.reward_hessian_vector_product(table, u, eta)
    slope = (gradient(1e-5) - gradient(-1e-5)) / 2e-5
    assert found.abs().max() > 0.01
    torch.testing.assert_close(found, slope, rtol=1e-6, atol=1e-8)


@given(
    seed=seeds,
    eta=st.sampled_from([-1.3, 0.0, 0.5, 1.0, 2.0]),
    discount=st.sampled_from([1.0, 0.8]),
    sure=st.booleans(),
)
def test_without_an_end(seed, eta, discount, sure):
    """As with an end that is far off; with a goal or without, where nature may put it off."""
    table = endless(seed, discount=discount, sure=sure or eta < 0)
    rng = np.random.default_rng(seed)
    u = torch.as_tensor(rng.normal(size=table.reward.shape))
    if discount == 1:
        u[-1] = 0
    found = inference.reward_hessian_vector_product(table, u, eta)
    long = dataclasses.replace(table, horizon=400)
    expected = inference.reward_hessian_vector_product(long, u, eta)
    if discount == 1:
        assert (found[-1] == 0).all()
        expected[-1] = 0
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8 * expected.abs().max())


@pytest.mark.parametrize("eta", [-math.inf, -0.7, 1.0])
def test_without_an_end_against_differences(eta):
    table = endless(8, discount=0.9, sure=True)
    rng = np.random.default_rng(8)
    u = torch.as_tensor(rng.normal(size=table.reward.shape))
    u[-1] = 0

    def gradient(h):
        reward = (table.reward + h * u).requires_grad_()
        found = inference.differentiable_bound(dataclasses.replace(table, reward=reward), eta)
        return torch.autograd.grad(found, reward)[0]

    found = inference.reward_hessian_vector_product(table, u, eta)
    slope = (gradient(1e-5) - gradient(-1e-5)) / 2e-5
    assert found.abs().max() > 0.01
    torch.testing.assert_close(found, slope, rtol=1e-6, atol=1e-8)


def test_errors():
    table = cai.tabulate(oracles.random_problem(3).model())
    with pytest.raises(ValueError, match=r"direction: expected shape \[3, 2\].*got \[6\]"):
        inference.reward_hessian_vector_product(table, torch.ones(6))
    with pytest.raises(ValueError, match="optimism"):
        inference.reward_hessian_vector_product(table, table.reward, math.nan)
    hopeless = cai.tabulate(models.tabular([[[1.0]]], [[-torch.inf]], horizon=2))
    with pytest.raises(ValueError, match="bound: expected a finite number"):
        inference.reward_hessian_vector_product(hopeless, torch.ones(1, 1))
