"""Infinite horizons at optimism 1, against exact fractions, value iteration and counted paths."""

import dataclasses
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from examples import grid_edges, random_table
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import cai
from cai import models
from cai.inference.infinite.linear_system import linear_system
from cai.tables import bellman

seeds = st.integers(0, 10**6)
discounts = st.sampled_from([1.0, 0.8])


def values_of(table):
    return linear_system(table).log_values


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
            values_of(table)
        assert float(str(error.value).split(" is ")[2].split(",")[0]) == pytest.approx(radius, 1e-4)
        return
    z = np.where(absorbing, 1.0, np.linalg.solve(np.eye(len(b)) - M, b))
    found = values_of(table)
    assert not found.isnan().any()
    assert found.exp().numpy() == pytest.approx(z, rel=1e-9, abs=1e-12)


@settings(max_examples=30)
@given(seed=seeds, discount=discounts)
def test_value_iteration(seed, discount):
    """The second method: as many steps of the finite recursion as it takes."""
    table = random_table(seed, discount, level=-3.0)
    assume(np.abs(np.linalg.eigvals(dense_system(table)[0])).max() < 0.9)
    found = linear_system(table)
    v = torch.zeros(table.num_states, dtype=torch.float64)
    for _ in range(700):  # of which 0.9^700 = e^-74 is left, beside values of e^-30 and more
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
        assert values_of(table)[0].item() == pytest.approx(math.log(weight / (1 - weight)))
    for cost, radius in [(-math.log(2), "1"), (-1.0, "1.35914"), (-1e4, r"exp\(9999.31\)")]:
        table = cai.tabulate(models.tabular(P, [[-cost], [0]], horizon=None, action_prior=prior))
        with pytest.raises(ValueError, match=f"absorbing is {radius}, expected below 1"):
            values_of(table)


def test_a_finite_horizon_is_refused():
    table = random_table(0)
    with pytest.raises(ValueError, match=r"horizon: expected None.* got 5"):
        values_of(dataclasses.replace(table, horizon=5))


# Counted paths


@pytest.mark.parametrize("n", [2, 5, 24])
def test_unit_grid(n):
    """V = -cost (2n - 2) + log C(2n - 2, n - 1) where a detour costs more than 300 nats."""
    S, tails, heads = grid_edges(n)
    model = models.road_network(tails, heads, -150.0, goals=0, recursive_logit=True)
    found = linear_system(model)
    for cell in (S - 1, 1, n + 1):
        down, right = divmod(cell, n)
        expected = -150 * (down + right) + math.log(math.comb(down + right, down))
        assert found.log_values[cell].item() == pytest.approx(expected, abs=1e-10)
    assert found.residual < 1e-11


def test_unit_grid_with_its_uniform_prior():
    """Without the logit every path pays its own prior: summed in fractions, cell by cell."""
    n = 12
    S, tails, heads = grid_edges(n)
    degree = np.bincount(tails)
    ways = [Fraction(0)] * S
    ways[0] = Fraction(1)
    for cell in range(1, S):
        down, right = divmod(cell, n)
        before = [cell - n] * (down > 0) + [cell - 1] * (right > 0)
        ways[cell] = sum((ways[b] for b in before), Fraction(0)) / int(degree[cell])
    found = values_of(
        cai.tabulate(models.road_network(tails, heads, -7.0 * 25, goals=0, temperature=7.0))
    )
    for cell in range(S):
        logs = math.log(ways[cell].numerator) - math.log(ways[cell].denominator)
        expected = -25 * sum(divmod(cell, n)) + logs
        # A detour of two more steps weighs at most e^-50 times the number of its places.
        assert found[cell].item() == pytest.approx(expected, abs=1e-10)


def tall_ladder(rungs, width):
    """Width parallel streets from each of many places to the next: width^rungs paths, all tied."""
    tails = np.repeat(np.arange(1, rungs + 1), width)
    return models.road_network(tails, tails - 1, -9.0, goals=0, recursive_logit=True)


@pytest.mark.parametrize("rungs", [300, 700, 2500])
def test_ties_beyond_every_float(rungs):
    """8^700 paths (1456 nats) overflow any potential that is a distance; it is improved."""
    found = linear_system(tall_ladder(rungs, 8))
    expected = rungs * (math.log(8) - 9)
    assert found.log_values[-1].item() == pytest.approx(expected, rel=1e-13)
    assert found.residual < 1e-9
    assert found.error < 1e-6


def test_rewards_on_the_way():
    """What pays cannot be a distance: +2000 on the way once, and then 500 times."""
    n = 600
    tails, heads = np.arange(1, n + 1), np.arange(n)
    reward = np.where(tails % 2 == 0, 30.0, -5.0)
    reward[n // 2] = 2000.0
    found = linear_system(models.road_network(tails, heads, reward, goals=0))
    assert found.log_values[1:].numpy() == pytest.approx(np.cumsum(reward), rel=1e-13)


def test_numbers_of_a_million():
    """Rewards of ±1e6: no NaN, no overflow, no warning."""
    for reward in ([-1e6, -1e6], [1e6, -1e6], [1e6, 1e6]):
        found = linear_system(models.road_network([2, 1], [1, 0], reward, goals=0))
        expected = [0.0, reward[1], sum(reward)]
        assert found.log_values.tolist() == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ValueError, match=r"absorbing is exp\(500000\)"):
        linear_system(models.road_network([1, 2, 2], [2, 1, 0], [1e6, 1e-9, 0.0], goals=0))


# States that never end


def test_states_that_reach_no_goal():
    """Paying for ever is worth -inf, walking for nothing is worth nothing, gaining is an error."""
    tails, heads = [0, 1, 2, 3, 4], [1, 2, 1, 4, 3]
    for pay, value in [(-0.1, -math.inf), (0.0, 0.0)]:
        reward = [-1.0, pay, pay, 0.0, 0.0]
        found = values_of(
            cai.tabulate(models.road_network(tails, heads, reward, goals=5, num_states=6))
        )
        assert found.tolist() == [value - 1, value, value, 0.0, 0.0, 0.0]
    for up, down, radius in [(1.0, -1.0, "1"), (0.5, 0.5, "1.64872"), (3.0, -1.0, "2.71828")]:
        model = models.road_network(tails, heads, [-1, up, down, 0, 0], goals=5, num_states=6)
        with pytest.raises(ValueError, match=f"absorbing is {radius}, expected below 1"):
            linear_system(model)


def test_a_forbidden_or_missing_way():
    """Dead ends and rewards of -inf are worth -inf; every state may absorb; one state is enough."""
    reward = [-1.0, -math.inf, -2.0]
    found = values_of(
        cai.tabulate(models.road_network([1, 2, 3], [0, 0, 4], reward, goals=0, num_states=5))
    )
    assert found.tolist() == [0.0, -1.0, -math.inf, -math.inf, -math.inf]
    for S in (1, 3):
        model = models.road_network([], [], [], goals=range(S), num_states=S)
        assert values_of(cai.tabulate(model)).tolist() == [0.0] * S


def test_spectral_radius_of_many_states():
    """A circle of 1000 that gains, of which each power keeps its period."""
    n = 1000
    tails = np.arange(1, n)
    heads = np.where(tails == n - 1, 1, tails + 1)
    model = models.road_network(
        np.append(tails, 5), np.append(heads, 0), np.full(n, 0.01), goals=0, recursive_logit=True
    )
    with pytest.raises(ValueError, match=r"absorbing is 1\.01005, expected below 1"):
        linear_system(model)


# Bounds and gradients


@given(seed=seeds, discount=discounts)
def test_error_is_a_bound(seed, discount):
    """Against the same system in rational numbers, exactly."""
    table = random_table(seed, discount, level=-2.0)
    found = linear_system(table) if spectral_radius(table) < 1 else None
    if found is None:
        return
    assert found.error < 1e-10
    live = found.log_values > -torch.inf
    exact = rational_solution(table)
    for s in live.nonzero().flatten().tolist():
        assert abs(math.log(exact[s]) - found.log_values[s].item()) <= found.error


def spectral_radius(table):
    return np.abs(np.linalg.eigvals(dense_system(table)[0])).max()


def rational_solution(table):
    """z by Gauss in fractions, from the float64 weights as they are."""
    M, b, absorbing = dense_system(table)
    S = len(b)
    rows = [
        [Fraction(float(i == j)) - Fraction(M[i, j]) for j in range(S)] + [Fraction(b[i])]
        for i in range(S)
    ]
    for i in range(S):
        for j in range(S):
            if j != i and rows[j][i] != 0:
                factor = rows[j][i] / rows[i][i]
                rows[j] = [x - factor * y for x, y in zip(rows[j], rows[i], strict=True)]
    return [1 if absorbing[i] else rows[i][-1] / rows[i][i] for i in range(S)]


@settings(max_examples=10)
@given(seed=seeds, discount=discounts)
def test_expected_transitions_are_the_derivatives_of_the_values(seed, discount):
    table = random_table(seed, discount, level=-3.0)
    assume(np.abs(np.linalg.eigvals(dense_system(table)[0])).max() < 0.9)
    found = linear_system(table)
    start = torch.where(found.log_values > -torch.inf, torch.rand(table.num_states).double(), 0.0)
    counts = found.expected_transitions(start)
    assert counts.shape == table.log_dynamics.shape
    step = 1e-4
    for place in np.ndindex(*counts.shape):
        if table.log_prior[place[:2]] == -torch.inf or found.graph.absorbing[place[0]]:
            assert counts[place] == 0
            continue
        slope = 0.0
        for k, weight in ((1, 8), (-1, -8), (2, -1), (-2, 1)):  # by differences, up to step⁴
            moved = table.arrival_reward.clone()
            moved[place] += k * step
            v = values_of(dataclasses.replace(table, arrival_reward=moved))
            slope += weight * torch.where(start > 0, start * v, 0.0).sum().item() / (12 * step)
        assert counts[place].item() == pytest.approx(0.7 * slope, abs=1e-7)
