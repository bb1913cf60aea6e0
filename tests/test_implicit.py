"""Derivatives at a fixed point: against finite differences and long finite horizons."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import cai
from cai import inference, models

seeds = st.integers(0, 10**6)
FIELDS = ("reward", "arrival_reward", "log_prior", "log_dynamics", "log_initial", "temperature")
SEEN = torch.tensor([[0, 1, 2, 1], [1, 1, 0, 3]]), torch.tensor([[0, 1, 0, 1], [1, 0, 0, 1]])


def endless(seed, S=4, A=2, discount=1.0, zeros=0.3, temperature=0.7):
    """A random problem with costs and, without a discount, a goal: the last state."""
    rng = np.random.default_rng(seed)
    P = rng.random((S, A, S)) * (rng.random((S, A, S)) > zeros) + 0.1 * np.eye(S)[-1]
    reward, arrival = -rng.random((S, A)) - 0.2, -rng.random((S, A, S))
    if discount == 1:
        P[-1] = np.eye(S)[-1]
        reward[-1] = arrival[-1] = 0
    return cai.tabulate(
        models.tabular(
            P / P.sum(-1, keepdims=True),
            reward,
            horizon=None,
            arrival_reward=arrival,
            initial=rng.random(S) + 0.1,
            action_prior=rng.random((S, A)) + 0.1,
            temperature=temperature,
            discount=discount,
        )
    )


def parameters(table):
    """What is finite and has a say, all but the goal's, as leaves; and the way back."""
    fields = {name: torch.as_tensor(getattr(table, name)).double() for name in FIELDS}
    masks = {name: x > -torch.inf for name, x in fields.items()}
    if table.discount == 1:
        for name in FIELDS[:4]:
            masks[name][-1] = False
    leaves = [x[masks[name]].clone().requires_grad_() for name, x in fields.items()]

    def rebuild(*leaves):
        pairs = zip(fields.items(), leaves, strict=True)
        new = {name: x.masked_scatter(masks[name], leaf) for (name, x), leaf in pairs}
        return dataclasses.replace(table, **new)

    return leaves, rebuild


def everything(table, eta):
    likely = inference.log_likelihood(table, SEEN, eta)
    return inference.values(table, eta), inference.bound(table, eta), likely


CASES = [(1.0, 1.0), (1.0, 0.9)]


@pytest.mark.parametrize(("eta", "discount"), CASES)
def test_gradcheck(eta, discount):
    """Every field at once, first and second derivatives."""
    leaves, rebuild = parameters(endless(3, discount=discount))
    assert inference.values(rebuild(*leaves), eta).shape == (4,)
    assert torch.autograd.gradcheck(lambda *x: everything(rebuild(*x), eta), leaves, atol=1e-6)
    assert torch.autograd.gradgradcheck(
        lambda *x: everything(rebuild(*x), eta), leaves, atol=1e-6, fast_mode=True
    )


@pytest.mark.parametrize(("eta", "discount"), CASES)
def test_as_a_long_finite_horizon(eta, discount):
    """V, likelihoods and gradients, against a horizon in which all is over."""
    table = endless(5, discount=discount)
    leaves, rebuild = parameters(table)
    cotangent = torch.arange(1.0, 5.0).double()
    cotangent[-1] = 0 if discount == 1 else 1
    answers = []
    for horizon in (None, 400):
        version = dataclasses.replace(rebuild(*leaves), horizon=horizon)
        V = inference.values(version, eta)
        V = V if horizon is None else V[0]
        likely = inference.log_likelihood(version, SEEN, eta)
        loss = (cotangent * V).sum() + likely.sum() + inference.bound(version, eta)
        answers.append((V, likely, *torch.autograd.grad(loss, leaves)))
    for endless_one, long_one in zip(*answers, strict=True):
        torch.testing.assert_close(endless_one, long_one, rtol=1e-8, atol=1e-8)


def test_the_goal_and_the_hopeless_have_gradient_zero():
    """Absorbing states, circles in which nothing is paid, and states that pay for ever."""
    P = torch.eye(6)[torch.tensor([[1, 2], [0, 5], [2, 2], [4, 4], [3, 3], [5, 5]])]
    reward = torch.tensor([[-1.0, -2], [-1, -1], [0, 0], [0, 0], [0, 0], [-1, -1]])
    table = cai.tabulate(models.tabular(P, reward, horizon=None, initial=[1, 1, 1, 1, 1, 0]))
    fields = {
        name: torch.as_tensor(getattr(table, name)).double().requires_grad_()
        for name in ("reward", "log_prior", "log_dynamics", "log_initial", "temperature")
    }
    table = dataclasses.replace(table, **fields)
    V = inference.values(table, 1.0)
    assert V[5] == -torch.inf
    seen = torch.tensor([[0, 1, 0, 2], [3, 4, 3, 4]]), torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1]])
    (
        inference.bound(table, 1.0) + V[:5].sum() + inference.log_likelihood(table, seen, 1.0).sum()
    ).backward()
    for name, x in fields.items():
        assert x.grad.isfinite().all(), name
    assert (fields["reward"].grad[2:] == 0).all()
    assert (fields["reward"].grad[:2] != 0).any()


@given(seed=seeds)
def test_gradient_of_the_evidence_is_an_occupancy(seed):
    """∂ log p(O)/∂r · α sums to the expected lifetime, whatever the sparse solver did."""
    table = endless(seed)
    reward = table.reward.clone().requires_grad_()
    inference.bound(dataclasses.replace(table, reward=reward), 1.0).backward()
    shorter = dataclasses.replace(table, horizon=600)
    expected = inference.posterior(shorter).state_actions[:, :-1].sum((0, 1))
    torch.testing.assert_close(reward.grad[:-1].sum(0) * table.temperature, expected)


def test_what_diverges_is_an_error():
    table = endless(1)
    table = dataclasses.replace(table, reward=table.reward + math.log(100.0))
    with pytest.raises(ValueError, match="spectral radius"):
        inference.values(table, 1.0)


@pytest.mark.parametrize(("eta", "rule"), [(0.0, "soft"), (1.0, "hard"), (1.0, "boltzmann")])
def test_what_has_no_derivative_without_an_end_says_what_to_take(eta, rule):
    with pytest.raises(ValueError, match=r"horizon: .* at optimism 1 with the soft rule.*horizon="):
        inference.values(endless(1), eta, rule)
