"""What policies are robust to: maximum entropy to changed rewards, η < 0 to changed dynamics.

That maximum entropy makes a policy robust to changed dynamics is not true in general; where it is
true and where it is not are both tested.
"""

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

seeds = st.integers(0, 10**6)


def gets(table, policy):
    return cai.evaluate(table, policy).expected_return


def drawn(rng, table):
    """A random policy (T, S, A) on the actions that the prior allows."""
    weights = rng.random((table.steps, table.num_states, table.num_actions)) ** 2
    weights = torch.as_tensor(weights) * (table.log_prior > -math.inf)
    return cai.TabularPolicy.from_log_probs((weights / weights.sum(-1, keepdim=True)).log())


def with_less(table, log_weight):
    """The rewards r - Δ, where p exp(Δ/α) are these weights."""
    allowed = table.log_prior > -math.inf
    changed = torch.where(allowed, log_weight - table.log_prior, 0.0) * table.temperature
    return dataclasses.replace(table, reward=table.reward - changed)


# Rewards.


@given(seed=seeds, discount=st.sampled_from([1.0, 0.8]), soft=st.booleans())
def test_the_elbo_is_the_least_return_under_changed_rewards(seed, discount, soft):
    """Levine (2018, section 6): reached at Δ = α log π/p, and no other Δ at this price gets below.

    The price is Σ_a p exp(Δ/α) ≤ 1 in each state, at each step. For any policy, not just the best.
    """
    problem = oracles.random_problem(seed, S=4, A=3, T=4, discount=discount)
    table, rng = cai.tabulate(problem.model()), np.random.default_rng(seed)
    policy = inference.soft_values(table).policy if soft else drawn(rng, table)
    least = table.temperature * cai.evaluate(table, policy).elbo
    assert gets(with_less(table, policy.log_probs), policy) == pytest.approx(least, abs=1e-12)
    for nearness in (0.0, 0.9, 0.999):
        other = drawn(rng, table).log_probs.exp()
        mixed = nearness * policy.log_probs.exp() + (1 - nearness) * other
        for total in (1.0, 0.8):
            changed = gets(with_less(table, (total * mixed).log()), policy)
            assert changed >= least - 1e-12


# Dynamics.


def cliff(slip, temperature=1.0):
    model = models.gridworld("cliff", horizon=40, slip=slip, temperature=temperature)
    return cai.tabulate(model)


def test_on_the_cliff_walk_the_soft_policy_is_the_safer_one():
    """It pays for it where nothing slips: the shortest way along the edge has 13 steps."""
    table = cliff(0.0)
    soft, hard = (inference.soft_values(table, rule=rule).policy for rule in ("soft", "hard"))
    assert gets(table, hard) == pytest.approx(-13)
    assert gets(table, soft) < -15
    for slip in (0.05, 0.2, 0.5):
        assert gets(cliff(slip), soft) > gets(cliff(slip), hard) + 2


def test_on_the_lake_the_soft_policy_loses_more():
    def lake(rate, temperature=1.0):
        model = models.gym("FrozenLake-v1", success_rate=rate, horizon=60, temperature=temperature)
        return cai.tabulate(model)

    hard = inference.soft_values(lake(0.8), rule="hard").policy
    warm, cool = (inference.soft_values(lake(0.8, alpha)).policy for alpha in (0.01, 0.001))
    before = {policy: gets(lake(0.8), policy) for policy in (hard, warm, cool)}
    for rate in (0.7, 0.6, 0.5, 0.4):
        now = {policy: gets(lake(rate), policy) for policy in (hard, warm, cool)}
        assert now[warm] < now[cool] < now[hard]
        loss = {policy: before[policy] - now[policy] for policy in now}
        assert loss[hard] < loss[cool] < loss[warm]
    assert gets(lake(0.9), cool) > gets(lake(0.9), hard)  # where the ice is kinder


def test_on_random_problems_the_soft_policy_is_seldom_the_better_one():
    better = less = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        P, other = (torch.as_tensor(rng.dirichlet(np.full(6, 0.5), size=(6, 3))) for _ in "pq")
        model = models.tabular(P, rng.normal(size=(6, 3)), horizon=20, temperature=0.3)
        table = cai.tabulate(model)
        changed = dataclasses.replace(table, log_dynamics=(0.9 * P + 0.1 * other).log())
        plans = [inference.soft_values(table, rule=rule).policy for rule in ("soft", "hard")]
        before, now = ([gets(x, policy) for policy in plans] for x in (table, changed))
        better += now[0] > now[1]
        less += before[0] - now[0] < before[1] - now[1]
    assert better <= 5
    assert 30 <= less <= 70  # who loses less by the change is a matter of chance


# An adversary.


def attacked(table, policy, price):
    """min over q of E_q[return] + price · KL(q‖p) from the start, its return and its nats."""
    log_pi, values, log_q = policy.log_probs, table.final_reward, []
    for t in reversed(range(table.steps)):
        paid = table.arrival_reward + table.gather(values)
        tilted = table.log_dynamics - paid / price
        log_mean = tilted.logsumexp(-1)
        log_q.append(tilted - log_mean.unsqueeze(-1))
        action_values = table.reward - price * log_mean
        values = (log_pi[t].exp() * action_values).sum(-1)
    value = (table.log_initial.exp() * values).sum().item()
    bent = dataclasses.replace(table, log_dynamics=torch.stack(log_q[::-1]), program=None)
    found = gets(bent, policy)
    return value, found, (value - found) / price


def test_against_an_adversary_a_pessimist_gets_more():
    """Whatever is done to it within the nats that an attack on the other one takes.

    Each price λ bounds what any attack of ρ nats can do: the return is at least value(λ) - λρ.
    """
    table = cliff(0.1, temperature=0.3)
    plain, pessimist = (inference.soft_values(table, eta).policy for eta in (0.0, -0.04))
    assert gets(table, plain) > gets(table, pessimist) + 5  # it is not for nothing
    prices = np.geomspace(0.3, 300, 40)
    bounds = [attacked(table, pessimist, price)[0] for price in prices]
    for price in (40.0, 25.0, 15.0):
        _, found, nats = attacked(table, plain, price)
        assert nats > 0.3
        assert max(bounds - prices * nats) > found + 4
    assert found < -60
