"""Derivatives by matrix products: against the sweep in log space, which second ones still take."""

import dataclasses
import math

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import cai
from cai import inference, models
from cai.inference.derivatives import _adjoint, _mass
from cai.inference.derivatives._linearised import Recursion
from cai.sweeps import sweeps
from cai.sweeps.one_step import SoftBackup

FIELDS = ("reward", "arrival_reward", "final_reward", "log_prior", "log_dynamics", "temperature")
SCALE = ("reward", "arrival_reward", "final_reward", "V")
seeds = st.integers(0, 10**6)
etas = st.one_of(st.just(0.0), st.just(1.0), st.floats(-3, -0.1), st.floats(0.1, 3))


def lists(seed, S=140, A=3, K=4, T=7, discount=1.0):
    """Successor lists, some states listed twice; some actions forbidden, outcomes improbable."""
    rng = np.random.default_rng(seed)
    P = rng.random((S, A, K)) * (rng.random((S, A, K)) > 0.3) + 1e-3
    prior = rng.random((S, A)) * (rng.random((S, A)) > 0.3) + np.eye(A)[0]
    table = cai.tabulate(
        models.tabular(
            P / P.sum(-1, keepdims=True),
            rng.normal(size=(S, A)),
            successors=rng.integers(S, size=(S, A, K)),
            horizon=T,
            initial=rng.random(S),
            action_prior=prior / prior.sum(-1, keepdims=True),
            final_reward=rng.normal(size=S),
            temperature=0.6,
            discount=discount,
        )
    )
    assert table.successors is not None
    return dataclasses.replace(table, arrival_reward=torch.as_tensor(rng.normal(size=(S, A, K))))


def gradients(table, eta, fields=FIELDS, seen=None, seed=0):
    """By products and in log space, of a loss with signs of its own in every value and choice.

    Returns:
        For each field its name, both derivatives, and the size of the terms that these are sums of.
    """
    assert _mass.suits(Recursion(table, eta, "soft", None), dynamics=True)
    rng = np.random.default_rng(seed)
    leaves = {
        name: torch.as_tensor(getattr(table, name)).double().clone().requires_grad_()
        for name in fields
        if getattr(table, name) is not None
    }
    version = dataclasses.replace(table, **leaves)
    V = inference.differentiable_values(version, eta)
    loss = (torch.as_tensor(rng.normal(size=V.shape)) * torch.where(-torch.inf < V, V, 0.0)).sum()
    if seen is not None:
        likely = inference.log_likelihood(version, seen, eta)
        loss = loss + (torch.as_tensor(rng.normal(size=likely.shape)) * likely).sum()
    products = torch.autograd.grad(loss, list(leaves.values()), retain_graph=True)
    in_log_space = torch.autograd.grad(loss, list(leaves.values()), create_graph=True)
    sizes = {name: x.abs().max().item() for name, x in zip(leaves, in_log_space, strict=True)}
    if "temperature" in leaves:
        # V scales with α and the rewards x: α ∂L/∂α = V·∂L/∂V - Σ x·∂L/∂x, and that may cancel.
        by = dict(zip(leaves, in_log_space, strict=True)) | {"V": torch.autograd.grad(loss, V)[0]}
        terms = [oracles.terms(x * by[n]) for n, x in (leaves | {"V": V}).items() if n in SCALE]
        sizes["temperature"] = sum(terms) / table.temperature
    return list(zip(leaves, products, in_log_space, sizes.values(), strict=True))


def assert_same(found, rtol=1e-10):
    for name, products, in_log_space, size in found:
        assert math.isfinite(size), name
        torch.testing.assert_close(products, in_log_space, rtol=rtol, atol=rtol * size, msg=name)


def walks(table, seed, n=20):
    rng = np.random.default_rng(seed)
    shape = n, table.steps
    states = rng.integers(table.num_states, size=shape)
    return torch.as_tensor(states), torch.as_tensor(rng.integers(table.num_actions, size=shape))


@given(seed=seeds, eta=etas, discount=st.sampled_from([1.0, 0.8]))
def test_dense(seed, eta, discount):
    table = cai.tabulate(oracles.random_problem(seed, discount=discount).model())
    assert_same(gradients(table, eta, seen=walks(table, seed), seed=seed))


@pytest.mark.parametrize("discount", [1.0, 0.8])
@pytest.mark.parametrize("eta", [-0.7, 0.0, 0.1, 1.0])
def test_lists_a_few_steps_at_a_time(eta, discount, monkeypatch):
    monkeypatch.setattr(sweeps, "_CHUNK", 3 * 140 * 3)  # three of seven steps by products,
    monkeypatch.setattr(_adjoint, "_CHUNK", 2 * 140 * 3 * 4)  # two in log space
    table = lists(1, discount=discount)
    assert_same(gradients(table, eta, seen=walks(table, 1)))


@pytest.mark.parametrize("wanted", ["reward", "arrival_reward", "log_dynamics"])
def test_one_field_alone(wanted):
    """What is not asked for is not computed, and what is does not depend on it."""
    table = lists(2)
    for eta in (0.0, 0.5):
        assert_same(gradients(table, eta, (wanted,)))


@pytest.mark.parametrize("eta", [-0.5, 0.0, 0.3, 1.0])
@pytest.mark.parametrize("kind", ["dense", "lists"])
@pytest.mark.parametrize("scale", [1e3, 1e6])
def test_rewards_that_no_product_could_sum(scale, kind, eta):
    """Rows that underflow: outcomes worth thousands of nats less than the best of another row."""
    table = lists(3) if kind == "lists" else cai.tabulate(oracles.random_problem(3, T=5).model())
    changes = {
        name: scale * getattr(table, name) for name in ("reward", "arrival_reward", "final_reward")
    }
    table = dataclasses.replace(table, **changes)
    assert_same(gradients(table, eta, seen=walks(table, 3)), 1e-8)


@pytest.mark.parametrize("eta", [-0.5, 0.0, 0.3, 1.0])
def test_the_impossible_and_the_hopeless(eta):
    """Forbidden actions, outcomes, rewards and ends of -inf; dead ends that walks were seen in."""
    table = lists(4, T=3)
    rng = np.random.default_rng(4)

    def ruined(x, share):
        return torch.where(torch.as_tensor(rng.random(x.shape) < share), -torch.inf, x)

    table = dataclasses.replace(
        table,
        reward=ruined(table.reward, 0.3),
        arrival_reward=ruined(table.arrival_reward, 0.3 if eta > 0 else 0.02),
        final_reward=ruined(table.final_reward, 0.3 if eta > 0 else 0.02),
    )
    V = inference.soft_values(table, eta).V
    assert (V[0] == -torch.inf).any()
    assert (V[0] > -torch.inf).any()
    found = gradients(table, eta, seen=walks(table, 4))
    assert_same(found)
    for name, products, *_ in found:
        assert (products[getattr(table, name) == -torch.inf] == 0).all(), name


def test_large_weak_or_hard_bends_go_the_other_way():
    """Where (q - p)/η would cancel, numbers would overflow, or the best action alone counts."""
    table = cai.tabulate(oracles.random_problem(1).model())

    def suits(eta, rule="soft", dynamics=True):
        return _mass.suits(Recursion(table, eta, rule, None), dynamics)

    assert not suits(1e-6)
    assert suits(1e-6, dynamics=False)
    assert not suits(math.inf)
    assert not suits(1e9)
    assert not suits(0.0, "hard")
    assert not suits(1.0, "boltzmann")


def _without_weights(back):
    def checked(step, v_next, t=0, keep=None):
        assert keep is None
        return back(step, v_next, t, keep)

    return checked


def test_between_the_passes_waits_no_policy(monkeypatch):
    """What a forward sweep would save work with, T × S × A, is not even made."""
    monkeypatch.setattr(SoftBackup, "back", _without_weights(SoftBackup.back))
    table = lists(5, T=50)
    inference.differentiable_values(
        dataclasses.replace(table, reward=table.reward.requires_grad_()), 0.5
    )
