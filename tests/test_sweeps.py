"""Sweeps by matrix products against the recursion in log space, and against Pyro and all paths."""

import dataclasses
import math

import numpy as np
import oracles
import torch
from hypothesis import given
from hypothesis import strategies as st

import cai
from cai import bellman

seeds = st.integers(0, 10**6)
discounts = st.sampled_from([1.0, 0.8])
scales = st.sampled_from([1e-3, 1.0, 30.0, 1e3, 1e6])
etas = st.one_of(st.sampled_from([-1.0, -1e-8, 0.0, 1e-8, 1e-3, 0.5, 1.0, 2.0]), st.floats(-30, 30))


def lists(table):
    """The same table as lists of all S successors, each twice, in two halves."""
    S, A = table.num_states, table.num_actions
    log_p = (table.log_dynamics - math.log(2)).repeat(1, 1, 2)
    arrival = table.arrival_reward
    return dataclasses.replace(
        table,
        log_dynamics=log_p,
        successors=torch.arange(S).repeat(2).expand(S, A, 2 * S).contiguous(),
        arrival_reward=None if arrival is None else arrival.repeat(1, 1, 2),
    )


def wide(table, n=140):
    """The table among n - S states that nobody reaches: too many for a dense matrix of lists."""
    S, A = table.num_states, table.num_actions
    assert table.successors is not None
    K = table.log_dynamics.shape[-1]
    stay = torch.arange(S, n)[:, None, None].expand(n - S, A, K)
    p = torch.full((n - S, A, K), -torch.inf).double()
    p[..., 0] = 0
    zeros = torch.zeros(n - S, A).double()
    arrival = table.arrival_reward
    return dataclasses.replace(
        table,
        log_initial=torch.cat([table.log_initial, torch.full((n - S,), -torch.inf).double()]),
        log_prior=torch.cat([table.log_prior, zeros - math.log(A)]),
        log_dynamics=torch.cat([table.log_dynamics, p]),
        successors=torch.cat([table.successors, stay]),
        reward=torch.cat([table.reward, zeros]),
        arrival_reward=None if arrival is None else torch.cat([arrival, p.exp() * 0]),
        final_reward=torch.cat([table.final_reward, zeros[:, 0]]),
    )


def log_space(table, eta):
    """Values, occupancies, imagined return and visits, summed outcome by outcome in log space."""
    v = bellman.in_log_space(table, eta)
    u = bellman.continuation(v[1:], eta, table.discount)
    x = table.gather(u).expand(table.steps, *table.log_dynamics.shape)
    if table.arrival_reward is not None:
        x = x + table.arrival_reward / table.temperature
    q = table.reward / table.temperature + bellman.soft_mean(table.log_dynamics, x, eta)
    policy = bellman.log_policy(table, q).exp()
    moves = bellman.tilt(table.log_dynamics, x, eta).exp() * policy.unsqueeze(-1)
    alive = bellman.survival(v[1:], eta, table.discount).exp()
    states = [bellman.tilt(table.log_initial, v[0], eta).exp()]
    index = table.successor_index.flatten()
    earned = torch.zeros(()).double()
    for t in range(table.steps):
        flow = states[t][:, None, None] * moves[t]
        pays = table.reward.unsqueeze(-1).expand_as(flow)
        if table.arrival_reward is not None:
            pays = pays + table.arrival_reward
        earned += bellman.product(flow, pays).sum()
        arrived = torch.zeros_like(states[0]).index_add(0, index, flow.flatten())
        states.append(arrived * alive[t])
    earned += bellman.product(states[-1], table.final_reward).sum()
    states = torch.stack(states)
    return {
        "log_values": v,
        "Q": table.temperature * q,
        "states": states,
        "imagined_return": earned,
        "visits": (states[:-1, :, None] * policy).sum(0),
    }


def agree(table, eta, rtol=1e-12):
    """Every field, to rounding errors of the largest number that it is made of."""
    solution = cai.Solution(table, eta, bellman.backward(table, eta))
    truth = log_space(table, eta)
    v = truth["log_values"]
    largest = max(1.0, v.abs().nan_to_num(posinf=0).max().item())
    assert torch.equal(v.isneginf(), solution.log_values.isneginf())
    torch.testing.assert_close(solution.log_values, v, rtol=rtol, atol=rtol * largest)
    if solution.bound == -math.inf and eta > 0:
        return
    # A value that is off by its own rounding shifts a probability by as many nats.
    shift = rtol + 1e-14 * table.steps * max(1.0, abs(eta)) * largest
    rewards = table.temperature * largest
    tolerances = {
        "Q": rtol * rewards,
        "states": shift,
        "visits": shift * table.steps,
        "imagined_return": (rtol + shift) * table.steps * rewards,
    }
    for name, tolerance in tolerances.items():
        found = np.asarray(getattr(solution, name))
        np.testing.assert_allclose(
            found, truth[name].numpy(), rtol=rtol, atol=tolerance, err_msg=name
        )


@given(seed=seeds, discount=discounts, scale=scales, eta=etas)
def test_products_are_the_recursion_in_log_space(seed, discount, scale, eta):
    problem = oracles.random_problem(seed, S=4, A=3, T=5, discount=discount, scale=scale)
    table = cai.tabulate(problem.model())
    for form in (table, lists(table), wide(lists(table))):
        agree(form, eta)
