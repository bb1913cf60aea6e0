"""The gradient in all rewards at once: a second method, differences, and what is not identified."""

import math

import numpy as np
import pytest
import torch
from demonstrated import KINDS, every_path, features_of, objective, of_all_ends, random_case
from differences import numerically
from examples import endless

import cai
from cai import models
from cai.inference.inverse._objective import Objective
from cai.inference.inverse.observed import observed

RULES = [(*kind, "soft") for kind in KINDS] + [("actions", 0.4, "boltzmann")]


def by_gradient(table, seen, likelihood, eta, rule="soft"):
    """Table with some rewards -> the objective of each demonstration, differentiable."""
    found, _ = observed(table, seen, "error")
    return Objective(table, found, eta, rule, likelihood)


def check_against_scores(table, reward, weights, seen, likelihood, eta, rule):
    """Values and derivatives in the weights are those by forward sensitivities."""
    scored = objective(table, reward, seen, likelihood, eta, rule)(weights)
    psi = weights.clone().requires_grad_()
    values = by_gradient(table, seen, likelihood, eta, rule)(reward.on(table).rewards(table, psi))
    (slope,) = torch.autograd.grad(values.sum(), psi)
    torch.testing.assert_close(values.detach(), scored.values, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(slope, scored.scores.sum(0), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("likelihood", "eta", "rule"), RULES)
@pytest.mark.parametrize("discount", [1.0, 0.8])
@pytest.mark.parametrize("by_step", [False, True])
def test_values_and_gradients_are_those_of_forward_sensitivities(
    likelihood, eta, rule, discount, by_step
):
    _, table, reward, weights = random_case(3, discount, by_step)
    check_against_scores(table, reward, weights, of_all_ends(table), likelihood, eta, rule)


def costs_on(table):
    """Features of which none pays in the goal, and weights."""
    S, A = table.num_states, table.num_actions
    reward = features_of(5, S, A)
    lasting = torch.ones(S, A, dtype=torch.float64)
    lasting[-1] = table.discount < 1
    given = {name: f * lasting for name, f in reward.features.items()}
    arrival = {"g": reward.arrival["g"] * lasting.unsqueeze(-1)}
    reward = cai.LinearReward(given, arrival=arrival, offset=-2 * lasting)
    return reward, torch.tensor([0.2, -0.3, 0.1], dtype=torch.float64)


@pytest.mark.parametrize(("likelihood", "eta", "rule"), RULES)
@pytest.mark.parametrize("discount", [1.0, 0.8])
def test_the_same_with_an_infinite_horizon(likelihood, eta, rule, discount):
    eta = max(eta, -0.05)  # beyond it nature puts off the end for ever
    table = endless(5, discount=discount, sure=eta < 0)
    reward, weights = costs_on(table)
    seen = every_path(table, 3)[::7].with_ends("cut")
    check_against_scores(table, reward, weights, seen, likelihood, eta, rule)


@pytest.mark.parametrize("of", ["action", "state", "arrival"])
@pytest.mark.parametrize("T", [3, None])
def test_the_gradient_in_every_number_by_differences(of, T):
    table = random_case(8)[1] if T else endless(8)
    seen = every_path(table, 3)[::5]
    seen = seen if T else seen.with_ends("cut")
    arrays = cai.TabularReward(of, offset=-0.5 if T else costs_on(table)[0].offset).on(table)
    rng = np.random.default_rng(0)
    with torch.no_grad():
        arrays.values.copy_(torch.from_numpy(0.3 * rng.normal(size=arrays.values.shape)))
    values = by_gradient(table, seen, "paths", 0.6)
    values(arrays.rewards(table)).sum().backward()
    numbers = arrays.values.data.view(-1)
    for i in range(len(numbers)):
        before, totals = float(numbers[i]), []
        for h in (1e-5, -1e-5):
            numbers[i] = before + h
            with torch.no_grad():
                totals.append(values(arrays.rewards(table)).sum().item())
        numbers[i] = before
        slope = arrays.values.grad.view(-1)[i].item()
        assert slope == pytest.approx((totals[0] - totals[1]) / 2e-5, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(("likelihood", "eta"), [k for k in KINDS if k[1] in (0.0, 1.0)])
def test_a_reward_of_zero_on_an_endless_problem_has_the_same_derivatives(likelihood, eta):
    """Where nothing is paid values are zero by definition: but not since weights are zero now."""
    table = endless(5)
    reward = cai.LinearReward(costs_on(table)[0].features, arrival=costs_on(table)[0].arrival)
    weights = torch.zeros(3, dtype=torch.float64)
    seen = every_path(table, 3)[::7].with_ends("cut")
    score = objective(table, reward, seen, likelihood, eta)
    slopes, _ = numerically(score, weights)
    torch.testing.assert_close(score(weights).scores, slopes, rtol=1e-6, atol=1e-7)
    check_against_scores(table, reward, weights, seen, likelihood, eta, "soft")
    free = cai.TabularReward().on(table)
    by_gradient(table, seen, likelihood, eta)(free.rewards(table)).sum().backward()
    assert free.values.grad[:-1].abs().max() > 0.1
    assert free.values.grad[-1].abs().max() == 0  # in the goal nothing can be paid


def rank(table, pays, seen, likelihood, eta):
    """Of the information in a reward that is free where it pays, (S, A), and how much is free.

    That of "paths" is the span of the scores: away from the maximum its Hessian has curvature along
    rewards that cannot be told apart, where these are a curved set.
    """
    free = torch.eye(pays.numel(), dtype=torch.float64)[pays.flatten()].view(-1, *pays.shape)
    reward = cai.LinearReward({f"r{i}": f for i, f in enumerate(free)}, offset=-pays.double())
    weights = torch.from_numpy(0.3 * np.random.default_rng(1).normal(size=len(free)))
    scored = objective(table, reward, seen, likelihood, eta)(weights)
    if likelihood == "paths":
        values = torch.linalg.svdvals(scored.scores)
    else:
        values = torch.linalg.eigvalsh(scored.information).abs()
    return int((values > 1e-9 * values.max()).sum()), len(free)


INTO_RANKS = [("actions", 0.0), ("actions", 0.7), ("paths", 1.0), ("matching", 0.0)]


@pytest.mark.parametrize(("likelihood", "eta"), INTO_RANKS)
@pytest.mark.parametrize("seed", range(3))
def test_a_free_reward_with_an_infinite_horizon_leaves_one_direction_for_each_lasting_state(
    likelihood, eta, seed
):
    for discount in (0.8, 1.0):
        table = endless(seed, S=4, A=3, discount=discount)
        pays = torch.ones(4, 3, dtype=torch.bool)
        pays[-1] = discount < 1
        seen = every_path(table, 2).with_ends("cut")
        found, free = rank(table, pays, seen, likelihood, eta)
        lasting = int(pays.any(1).sum())
        # Dynamics that bend towards what is better tell of the values, if one believes in them.
        assert found == (free if likelihood == "paths" else free - lasting)


@pytest.mark.parametrize(("likelihood", "eta"), INTO_RANKS)
@pytest.mark.parametrize("seed", range(3))
def test_with_a_finite_horizon_only_the_constant_is_left_and_with_one_step_any_function_of_states(
    likelihood, eta, seed
):
    for T, left in ((1, 3), (2, 1), (4, 1)):
        _, table, _, _ = random_case(seed, S=3, A=2, T=T)
        pays = table.log_prior > -torch.inf
        left = int(pays.any(1).sum()) if T == 1 else left
        found, free = rank(table, pays, every_path(table, T), likelihood, eta)
        assert found == free - left


def test_a_policy_is_explained_by_any_values():
    """r = α log π/p + V - E[γV] has the policy π, whatever V."""
    table, rng = endless(2, discount=0.8), np.random.default_rng(3)
    S, A = table.num_states, table.num_actions
    pi = torch.from_numpy(rng.dirichlet(np.ones(A), size=S))
    V = torch.from_numpy(rng.normal(size=S))
    after = 0.8 * table.dense(table.log_dynamics) @ V
    r = table.temperature * (pi.log() - table.log_prior) + V.unsqueeze(1) - after
    paid = cai.TabularReward(values=r).on(table).rewards(table).detached()
    found = cai.inference.soft_values(paid)
    torch.testing.assert_close(found.policy.log_probs.exp().view(S, A), pi)
    torch.testing.assert_close(found.V, V)


def test_the_chance_of_termination_counts_for_paths():
    """One state, one action: it goes on with probability γ, and ends with 1 - γ."""
    model = models.tabular(torch.ones(1, 1, 1), torch.zeros(1, 1), horizon=2, discount=0.8)
    seen = cai.Demonstrations.from_paths(
        [[0, 0, 0], [0, 0], [0, 0]], [[0, 0], [0], [0]], ["horizon", "terminated", "cut"]
    )
    table = cai.tabulate(model)
    found = by_gradient(table, seen, "paths", 0.0)(table)
    expected = [2 * math.log(0.8), math.log(0.2), math.log(0.8)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
