"""Many steps as plain products, against log space, and when they are taken and when not."""

import dataclasses

import oracles
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import cai
from cai import inference
from cai.solutions import walk
from cai.sweeps import sweeps
from cai.sweeps.one_step import SoftBackup
from cai.tables import bellman

seeds = st.integers(0, 10**6)


def table_of(seed, T, scale=1.0, S=4, A=3):
    return cai.tabulate(oracles.random_problem(seed, S=S, A=A, T=T, scale=scale).model())


def check(table, tolerance):
    """Values and states are those of the recursion and of the tilted chain, both in log space."""
    found = inference.posterior(table)
    v = bellman.backward(table, 1.0)
    atol = tolerance * max(1.0, v.abs().max().item())
    torch.testing.assert_close(found.log_values, v, rtol=0, atol=atol)
    tilted = cai.Solution(table, 1.0, v)
    chain = walk.forward(tilted, [slice(0, table.steps)], tilted.policy.log_probs)[0]
    torch.testing.assert_close(found.states, chain, rtol=0, atol=atol)
    # Each step rounds the S terms of a sum, and what is lost is not made up for.
    lost = 4 * v.numel() * torch.finfo(torch.float32 if tolerance > 1e-6 else v.dtype).eps
    torch.testing.assert_close(found.states.sum(1), torch.ones(len(v)).double(), rtol=0, atol=lost)


@given(seed=seeds, T=st.integers(1, 200), scale=st.sampled_from([1e-3, 1.0, 10.0, 100.0]))
def test_products_of_many_steps_are_log_space(seed, T, scale):
    table = table_of(seed, T, scale)
    check(table, 1e-12)
    check(table.float32(), 1e-4)


def one_by_one(monkeypatch):
    """Counts the steps that are done alone: backward, and forward."""
    counts = [0, 0]
    back, push = SoftBackup.back, sweeps.push

    def counted_back(*arguments):
        counts[0] += 1
        return back(*arguments)

    def counted_push(*arguments):
        counts[1] += 1
        return push(*arguments)

    monkeypatch.setattr(SoftBackup, "back", counted_back)
    monkeypatch.setattr(sweeps, "push", counted_push)
    return counts


@pytest.mark.parametrize("S", [5, 150])
def test_ordinary_rewards_take_no_logarithm_on_the_way(monkeypatch, S):
    counts = one_by_one(monkeypatch)
    for T in (1, 5, 150):  # 5 are four at once, and one
        table = table_of(0, T, S=S, A=2)
        for form in (table, table.float32()):
            assert inference.posterior(form).states.sum().item() == pytest.approx(T + 1, rel=1e-6)
    assert counts == [0, 0]


def test_where_a_product_fails_one_step_after_the_other_is_done_before_it_is_tried_again(
    monkeypatch,
):
    """Two halves that never meet, 10^4 nats apart at the end only; both can be waited in."""
    T = 60
    table = table_of(1, T, S=6, A=2)
    P = torch.rand(6, 2, 6, generator=torch.Generator().manual_seed(1)).double()
    P[:3, :, 3:] = P[3:, :, :3] = 0
    P /= P.sum(-1, keepdim=True)
    final = torch.tensor([0.0, -1, -2, -1e4, -1e4, -1e4]).double()
    table = dataclasses.replace(
        table, log_dynamics=P.log(), successors=None, arrival_reward=None, final_reward=final
    )
    counts = one_by_one(monkeypatch)
    check(table, 1e-12)
    assert counts == [T, T]
    mixing = dataclasses.replace(table, log_dynamics=(0.9 * P + 0.1 / 6).log())
    counts[:] = 0, 0
    check(mixing, 1e-12)
    assert counts == [0, 1]  # the last values alone are out of reach of a product


def test_a_long_block_is_cut_where_its_numbers_become_too_small():
    """At a price of 40 nats a step but in one state, seven steps leave what a double holds."""
    table = table_of(2, 100, S=3, A=2)
    P = (torch.eye(3).double() + 1 / 3).unsqueeze(1).expand(3, 2, 3) / 2
    reward = torch.tensor([0.0, -40, -80]).double().unsqueeze(1).expand(3, 2)
    table = dataclasses.replace(
        table,
        log_dynamics=P.log(),
        successors=None,
        arrival_reward=None,
        reward=reward,
        temperature=1.0,
    )
    check(table, 1e-12)
    check(table.float32(), 1e-4)


def test_a_product_that_loses_a_value_and_then_recovers_is_not_taken():
    """States A → B → C: what ends in B is 800 nats worse, so that A is lost at one step alone."""
    state = torch.eye(3).double().log()
    table = cai.Table(
        log_initial=state[0],
        log_prior=torch.zeros(3, 1).double(),
        log_dynamics=state[[1, 2, 2]].unsqueeze(1),
        successors=None,
        reward=torch.zeros(3, 1).double(),
        arrival_reward=None,
        final_reward=torch.tensor([0.0, -800.0, 0.0]).double(),
        horizon=4,
        temperature=1.0,
        discount=1.0,
    )
    at_end, before = [0.0, -800.0, 0.0], [-800.0, 0.0, 0.0]
    assert inference.posterior(table).V.tolist() == [[0.0] * 3] * 3 + [before, at_end]
