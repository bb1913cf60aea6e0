"""The dial: theorems on random models, each against sums over all paths or another method."""

import dataclasses
import itertools
import math

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import cai
from cai import inference, models

ETAS = [-3.0, -1.0, -0.3, 0.0, 0.4, 1.0, 2.5]
makes = st.sampled_from(oracles.KINDS)
seeds = st.integers(0, 10**6)
discounts = st.sampled_from([1.0, 0.8])
etas = st.one_of(st.just(0.0), st.floats(-4, 4).filter(lambda eta: abs(eta) > 1e-3))


def random_policy(seed, problem):
    """A random policy [t][s][a] on the actions that the prior allows."""
    rng = np.random.default_rng(seed)
    weights = rng.random((problem.T, *problem.sizes)) * (np.asarray(problem.prior) > 0)
    return weights / weights.sum(-1, keepdims=True)


def policy_of(solution):
    return solution.policy.log_probs.exp().numpy()


@given(make=makes, seed=seeds, discount=discounts, eta=etas)
def test_renyi_theorem(make, seed, discount, eta):
    """bound_η = max over policies of R_η for η < 1, min for η > 1, no matter which at η = 1.

    R_η is summed over all paths, so that this proves the recursion at every η by brute force.
    """
    problem = make(seed, discount=discount)
    found = inference.soft_values(problem.model(), eta)
    best = oracles.renyi(problem, policy_of(found), eta)
    assert found.bound == pytest.approx(best, abs=1e-10)
    other = oracles.renyi(problem, random_policy(seed, problem), eta)
    if eta == 1:
        assert other == pytest.approx(best, abs=1e-10)
    else:
        assert (best - other) * (1 if eta < 1 else -1) >= -1e-10


@given(make=makes, seed=seeds, discount=discounts)
def test_fixed_dynamics_is_the_best_elbo(make, seed, discount):
    problem = make(seed, discount=discount)
    found = inference.soft_values(problem.model())
    value, expected = oracles.elbo(problem, policy_of(found))
    assert found.elbo == pytest.approx(value, abs=1e-11)
    assert found.imagined_return == pytest.approx(expected, abs=1e-11)
    assert oracles.elbo(problem, random_policy(seed, problem))[0] <= found.elbo + 1e-12


@given(make=makes, seed=seeds, discount=discounts)
def test_elbo_below_soft_value_below_evidence_and_monotone(make, seed, discount):
    problem = make(seed, discount=discount)
    table = cai.tabulate(problem.model())
    bounds = [inference.soft_values(table, eta).bound for eta in [-math.inf, *ETAS, math.inf]]
    assert all(low <= high + 1e-12 for low, high in itertools.pairwise(bounds))
    acting = cai.evaluate(table, inference.posterior(table).policy).elbo
    assert acting <= inference.soft_values(table).elbo + 1e-12
    assert inference.soft_values(table).elbo <= inference.posterior(table).log_evidence + 1e-12


def random_chain(seed, problem):
    """A random tilted start and tilted dynamics, termination included, on what is possible."""
    rng = np.random.default_rng(seed + 1)
    start = rng.random(len(problem.initial)) * (np.asarray(problem.initial) > 0)
    shape = (problem.T, *np.shape(problem.P))
    allowed = np.asarray(problem.P) > 0
    on = rng.random(shape) * allowed
    off = rng.random(shape) * allowed * (problem.discount < 1)
    total = (on + off).sum(-1, keepdims=True)
    return start / start.sum(), (on / total, off / total)


def objective(problem, start, policy, dynamics, eta):
    """E_q[Σ r/α - Σ KL(π‖p) - Σ KL(q‖p)/η] - KL(q_0‖p_0)/η, path by path."""
    alpha, value = problem.temperature, 0.0
    for path in oracles.paths(problem, start, policy, dynamics):
        tilt = math.log(start[path.states[0]] / problem.initial[path.states[0]])
        for t, (s, a, n) in enumerate(
            zip(path.states, path.actions, path.states[1:], strict=False)
        ):
            alive = path.alive_at(t + 1)
            q = dynamics[0 if alive else 1][t][s][a][n]
            p = problem.P[s][a][n] * (problem.discount if alive else 1 - problem.discount)
            tilt += math.log(q / p)
        value += path.probability * (
            path.reward / alpha - oracles.log_ratio(problem, path, policy) - tilt / eta
        )
    return value


def tilted_chain(solution, problem):
    """Start and dynamics of a solution, as numbers: what survives and what dies, by hand."""
    eta, alpha, gamma = solution.optimism, problem.temperature, problem.discount
    V = solution.V.numpy()
    P, arrival = np.asarray(problem.P), np.asarray(problem.arrival)
    on = np.stack([P * gamma * np.exp(eta * (arrival + v) / alpha) for v in V[1:]])
    off = np.stack([P * (1 - gamma) * np.exp(eta * arrival / alpha) for _ in V[1:]])
    total = (on + off).sum(-1, keepdims=True)
    return solution.initial.numpy(), (on / total, off / total)


def divergence(p, q):
    p, q = np.broadcast_arrays(p, q)
    return (p[p > 0] * np.log(p[p > 0] / q[p > 0])).sum()


@given(seed=seeds, discount=discounts, eta=etas.filter(bool))
def test_gap_identity(seed, discount, eta):
    """bound_η - F(π,q) = E_q Σ KL(π‖π_η) + (1/η)[KL(q_0‖q_{0,η}) + E_q Σ KL(q‖q_η)], any π, q."""
    problem = oracles.random_problem(seed, T=2, discount=discount)
    found = inference.soft_values(problem.model(), eta)
    best, (best_start, best_dynamics) = policy_of(found), tilted_chain(found, problem)
    assert found.bound == pytest.approx(
        objective(problem, best_start, best, best_dynamics, eta), abs=1e-9
    )
    for t in range(problem.T):
        np.testing.assert_allclose(found.dynamics(t), best_dynamics[0][t], atol=1e-11)

    policy = random_policy(seed, problem)
    start, dynamics = random_chain(seed, problem)
    gap = divergence(start, best_start) / eta
    occupancy = np.zeros((problem.T, *problem.sizes))
    for path in oracles.paths(problem, start, policy, dynamics):
        for t, (s, a) in enumerate(zip(path.states, path.actions, strict=False)):
            occupancy[t, s, a] += path.probability
    for t, s, a in np.argwhere(occupancy):
        gap += occupancy[t, s, a] * math.log(policy[t, s, a] / best[t, s, a])
        both = np.stack(dynamics)[:, t, s, a], np.stack(best_dynamics)[:, t, s, a]
        gap += occupancy[t, s, a] * divergence(*both) / eta
    value = objective(problem, start, policy, dynamics, eta)
    assert found.bound - value == pytest.approx(gap, abs=1e-9)


def tilt(found, problem):
    """The whole tilt KL(q‖p) of a solution in nats, by sums over its own occupancies."""
    start, (on, off) = tilted_chain(found, problem)
    total = divergence(start, np.asarray(problem.initial))
    P, gamma = np.asarray(problem.P), problem.discount
    for (t, s, a), weight in np.ndenumerate(found.state_actions.numpy()):
        p = np.stack([P[s, a] * gamma, P[s, a] * (1 - gamma)])
        total += weight * divergence(np.stack([on[t, s, a], off[t, s, a]]), p)
    return total


@given(seed=seeds, discount=discounts, eta=etas.filter(bool))
def test_slope_is_the_bend_over_eta_squared(seed, discount, eta):
    problem = oracles.random_problem(seed, discount=discount)
    table = cai.tabulate(problem.model())
    h = 1e-4 * abs(eta)
    up, down = (inference.soft_values(table, eta + d).bound for d in (h, -h))
    slope = tilt(inference.soft_values(table, eta), problem) / eta**2
    assert (up - down) / (2 * h) == pytest.approx(slope, rel=1e-5, abs=1e-6)


@given(seed=seeds)
def test_slope_at_zero_is_half_the_variance_of_luck(seed):
    """½ (Var V_0/α + E_π Σ Var[(r⁺ + V_{t+1})/α | s,a]) at η = 0."""
    problem = oracles.random_problem(seed)
    table = cai.tabulate(problem.model())
    found = inference.soft_values(table)

    def variance(p, x):
        return (p * x**2).sum(-1) - (p * x).sum(-1) ** 2

    alpha = problem.temperature
    total = variance(np.asarray(problem.initial), found.V[0].numpy() / alpha)
    for t in range(problem.T):
        luck = (np.asarray(problem.arrival) + found.V[t + 1].numpy()) / alpha
        total += (found.state_actions[t].numpy() * variance(np.asarray(problem.P), luck)).sum()
    up, down = (inference.soft_values(table, eta).bound for eta in (1e-4, -1e-4))
    assert (up - down) / 2e-4 == pytest.approx(total / 2, rel=1e-5, abs=1e-8)


@given(seed=seeds, discount=discounts, eta=st.sampled_from([-1.0, 0.0, 0.5, 1.0]))
def test_gradients_are_occupancies(seed, discount, eta):
    """∂bound/∂r = occ/α; ∂bound/∂log p(a|s) = occ; ∂bound/∂log p(s'|s,a) = tilted counts/η."""
    problem = oracles.random_problem(seed, discount=discount)
    table = cai.tabulate(problem.model())
    found = inference.soft_values(table, eta)
    rng = np.random.default_rng(seed)
    shape = table.reward.shape
    direction = torch.as_tensor(rng.normal(size=shape))

    def derivative(field, direction, h=1e-5):
        """Along a direction; the fields need not be normalised for that."""
        up, down = (
            inference.soft_values(
                dataclasses.replace(table, **{field: getattr(table, field) + d * direction}), eta
            ).bound
            for d in (h, -h)
        )
        return (up - down) / (2 * h)

    occupancy = found.state_actions.sum(0)
    expected = (occupancy * direction).sum().item()
    assert derivative("reward", direction) == pytest.approx(expected / table.temperature, abs=1e-7)
    assert derivative("log_prior", direction) == pytest.approx(expected, abs=1e-7)
    s, a, n = (rng.integers(size) for size in table.log_dynamics.shape)
    if discount < 1 or table.log_dynamics[s, a, n] == -torch.inf:
        return
    towards = torch.zeros_like(table.log_dynamics)
    towards[s, a, n] = 1.0
    if eta == 0:
        onward = (problem.arrival[s, a, n] + found.V[1:, n]) / problem.temperature
        slope = found.state_actions[:, s, a] @ onward * problem.P[s, a, n]
    else:
        tilted = torch.stack([found.dynamics(t)[s, a, n] for t in range(problem.T)])
        slope = found.state_actions[:, s, a] @ tilted / eta
    assert derivative("log_dynamics", towards) == pytest.approx(slope.item(), abs=1e-7)


@given(seed=seeds)
def test_deterministic_dynamics_leave_nothing_to_hope_for(seed):
    """V(η=0) = V(η=1) where nothing is random; not with a discount, which is."""
    rng = np.random.default_rng(seed)
    P = np.eye(4)[rng.integers(4, size=(4, 3))]
    arrays = {"reward": rng.normal(size=(4, 3)), "final_reward": rng.normal(size=4) + 3}
    values = {
        (eta, discount): inference.soft_values(
            models.tabular(P, horizon=5, discount=discount, **arrays), eta
        ).V
        for eta in (0.0, 1.0)
        for discount in (1.0, 0.9)
    }
    torch.testing.assert_close(values[0.0, 1.0], values[1.0, 1.0], rtol=0, atol=1e-12)
    assert (values[1.0, 0.9][:-1] > values[0.0, 0.9][:-1] + 1e-6).any()


def winners(problem, limit, t):
    """p(s'|s,a) of the best outcomes, or the worst, in equal parts of what they had."""
    values = limit.V[t + 1].numpy()
    best, lives = (np.max, values > 0) if limit.optimism > 0 else (np.min, values < 0)
    if problem.discount == 1:
        lives = np.ones_like(lives)
    x = problem.arrival + np.where(lives, values, 0.0)
    possible = problem.P > 0
    worst = -math.copysign(math.inf, limit.optimism)
    extreme = best(np.where(possible, x, worst), axis=-1, keepdims=True)
    shares = np.where(possible & (abs(x - extreme) < 1e-9), problem.P, 0.0)
    return shares / shares.sum(-1, keepdims=True) * lives


@given(seed=seeds, discount=discounts)
def test_infinite_optimism_is_the_limit(seed, discount):
    """The tilted chain, too, unless outcomes tie: the same moves in another order pay the same.

    A loop at s and a detour from s and back can change places, wherever no other action is there.
    """
    problem = oracles.random_problem(seed, discount=discount)
    table = cai.tabulate(problem.model())
    for sign in (1, -1):
        limit = inference.soft_values(table, sign * math.inf)
        eta = 1e9  # where hardly ever two outcomes nearly tie; and η V is rounded
        near = inference.soft_values(table, sign * eta)
        torch.testing.assert_close(limit.V, near.V, rtol=0, atol=1e-7)
        torch.testing.assert_close(
            limit.policy.log_probs.exp(), near.policy.log_probs.exp(), rtol=0, atol=1e-6
        )
        assert limit.bound == pytest.approx(near.bound, abs=1e-7)
        shares = [winners(problem, limit, t) for t in range(problem.T)]
        for t, expected in enumerate(shares):
            assert np.abs(limit.dynamics(t).numpy() - expected).max() < 1e-12
        if any((q * (1 - q)).max() > 1e-9 for q in (limit.initial.numpy(), *shares)):
            continue
        rounding = 8 * np.finfo(float).eps * eta * max(1, limit.log_values.abs().max().item())
        torch.testing.assert_close(limit.states, near.states, rtol=0, atol=1e-7 + rounding)
        size = (problem.T + 1) * limit.V.abs().max().item()
        assert limit.imagined_return == pytest.approx(
            near.imagined_return, abs=size * (1e-7 + rounding)
        )


@pytest.mark.parametrize("sign", [1, -1])
def test_a_loop_and_a_detour_tie_in_either_order(sign):
    """0→0→1→0 and 0→1→0→0 are as lucky in all, ½ each in the limit; the loop alone is likelier."""
    P, arrival = [[[0.8, 0.2]], [[1.0, 0.0]]], torch.zeros(2, 1, 2)
    arrival[0, 0, 0], arrival[1, 0, 0] = sign, 3 * sign
    model = models.tabular(P, torch.zeros(2, 1), horizon=3, arrival_reward=arrival)
    near, limit = (inference.soft_values(model, sign * eta) for eta in (1e9, math.inf))
    assert near.dynamics(0)[0, 0].tolist() == pytest.approx([0.5, 0.5], abs=1e-5)
    assert limit.dynamics(0)[0, 0].tolist() == pytest.approx([0.8, 0.2])
    assert limit.bound == 4 * sign


def test_infinite_optimism_on_the_ledge():
    """The best case holds the ledge, the worst breaks it: ½ e^-1 + ½ e^-3, and with e^-7."""
    for eta, ledge in ((math.inf, -1), (-math.inf, -7)):
        found = inference.soft_values(models.ledge(), eta)
        value = math.log(0.5 * math.exp(ledge) + 0.5 * math.exp(-3))
        assert found.bound == pytest.approx(value, abs=1e-13)
        landing = [0, 0, 0, 1.0, 0] if eta > 0 else [0, 0, 0, 0, 1.0]
        assert found.dynamics(0)[0, 0].tolist() == landing


@pytest.mark.parametrize("eta", [math.inf, -math.inf])
def test_outcomes_that_tie_share_what_they_had(eta):
    """0.1 + 0.2 and 0.3 are one number; only rounding tells them apart."""
    P = torch.zeros(4, 1, 4)
    P[0, 0] = torch.tensor([0.0, 0.25, 0.25, 0.5])
    P[1:] = torch.eye(4)[1:].unsqueeze(1)
    end = torch.tensor([0.0, 0.1 + 0.2, 0.3, 0.5 if eta < 0 else 0.1], dtype=torch.float64)
    assert 0.1 + 0.2 != 0.3
    model = models.tabular(P, torch.zeros(4, 1), horizon=1, final_reward=end.tolist())
    found = inference.soft_values(model, eta)
    assert found.dynamics(0)[0, 0].tolist() == pytest.approx([0, 0.5, 0.5, 0])


@pytest.mark.parametrize("eta", [1e-1, 1e-3, 1e-6, 1e-8, 1e-12, 1e-300])
def test_stable_near_zero(eta):
    """Against bound(0) + slope · η, symmetric in ±η, at rewards of any scale."""
    problem = oracles.random_problem(5, T=6)
    table = cai.tabulate(problem.model())
    zero = inference.soft_values(table)
    plus, minus = (inference.soft_values(table, sign * eta).bound for sign in (1, -1))
    slope = (inference.soft_values(table, 1e-4).bound - zero.bound) / 1e-4
    assert plus - zero.bound == pytest.approx(slope * eta, rel=0.2, abs=1e-13)
    assert zero.bound - minus == pytest.approx(slope * eta, rel=0.2, abs=1e-13)


@pytest.mark.parametrize("eta", [-1e8, -1e3, 1e3, 1e8])
def test_stable_far_from_zero(eta):
    found = inference.soft_values(oracles.random_problem(5, T=6, discount=0.9).model(), eta)
    limit = inference.soft_values(found.table, math.copysign(math.inf, eta))
    assert found.bound == pytest.approx(limit.bound, abs=20 / abs(eta) * 10)
    assert math.isfinite(found.imagined_return)


@pytest.mark.parametrize("eta", [-math.inf, -1.0, 0.0, 1e-9, 1.0, math.inf])
@pytest.mark.parametrize("scale", [1e6, 1e-6])
def test_extreme_rewards(eta, scale):
    """Shifts are taken row by row: no underflow, no NaN, and policies that sum to one."""
    problem = oracles.random_problem(7, T=4, scale=scale, temperature=1.0)
    found = inference.soft_values(problem.model(), eta)
    assert math.isfinite(found.bound)
    for field in (found.V, found.Q, found.states, found.state_actions, found.dynamics(1)):
        assert field.isfinite().all()
    sums = found.policy.log_probs.exp().sum(-1)
    torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-12)


def test_policies_of_large_values_keep_their_digits():
    """At values of 1e6, exp(Q - V) would be off by 1e-10 and more; a log-softmax is not."""
    r = torch.tensor([[1e6 + math.log(3.0), 1e6]], dtype=torch.float64)
    found = inference.soft_values(models.tabular([[[1.0], [1.0]]], r, horizon=1))
    odds = found.policy.log_probs[0, 0, 0] - found.policy.log_probs[0, 0, 1]
    assert odds.item() == pytest.approx(math.log(3.0), abs=2e-10)
    assert found.policy.log_probs.exp().sum().item() == pytest.approx(1, abs=1e-15)


def test_hard_values_as_the_temperature_falls():
    """α → 0 at η = 0 is value iteration."""
    problem = oracles.random_problem(11, S=4, A=3, T=6, forbidden=0)
    found = inference.soft_values(problem.model(temperature=1e-7))
    hard = np.asarray(problem.final, float)
    for _ in range(problem.T):
        onward = (problem.P * (problem.arrival + hard)).sum(-1)
        hard = (problem.reward + onward).max(-1)
    np.testing.assert_allclose(found.V[0], hard, atol=1e-5)


@given(seed=seeds, eta=etas, discount=discounts)
def test_relabelled_states_relabel_the_answers(seed, eta, discount):
    problem = oracles.random_problem(seed, S=4, discount=discount)
    order = np.random.default_rng(seed).permutation(4)
    moved = dataclasses.replace(
        problem,
        initial=problem.initial[order],
        prior=problem.prior[order],
        P=problem.P[order][:, :, order],
        reward=problem.reward[order],
        arrival=problem.arrival[order][:, :, order],
        final=problem.final[order],
    )
    here, there = (inference.soft_values(p.model(), eta) for p in (problem, moved))
    torch.testing.assert_close(here.V[:, order], there.V, rtol=0, atol=1e-10)
    torch.testing.assert_close(here.states[:, order], there.states, rtol=0, atol=1e-10)


def test_a_certain_loss_is_an_answer_below_zero_optimism():
    """One action can lead to -inf by bad luck: -inf for η ≤ 0, while p(O) > 0."""
    P = torch.zeros(2, 1, 2)
    P[0, 0] = torch.tensor([0.5, 0.5])
    P[1, 0, 1] = 1
    r = torch.tensor([[0.0], [-torch.inf]])
    model = models.tabular(P, r, horizon=2)
    for eta in (-math.inf, -1.0, 0.0):
        found = inference.soft_values(model, eta)
        assert found.bound == -math.inf
        for field in (found.policy.log_probs, found.states, found.dynamics(0)):
            assert not field.isnan().any()
    assert inference.soft_values(model, 1.0).bound == pytest.approx(math.log(0.5))


@pytest.mark.parametrize("eta", [-math.inf, -1.0, 0.0, 1.0, math.inf])
def test_evidence_zero_is_an_error_at_every_optimism(eta):
    model = models.tabular([[[1.0]]], [[-torch.inf]], horizon=2)
    with pytest.raises(ValueError, match=r"p\(O\) = 0"):
        inference.soft_values(model, eta)


@pytest.mark.parametrize("eta", [math.nan, "high", "1", None, torch.tensor([0.0, 1.0])])
def test_optimism_must_be_a_number(eta):
    for method in (inference.soft_values, inference.differentiable_bound):
        with pytest.raises(ValueError, match="optimism: expected a real number or ±inf, got "):
            method(cai.tabulate(models.ledge()), eta)
    one = inference.soft_values(models.ledge(), torch.tensor(1.0))
    assert one.log_evidence == inference.posterior(models.ledge()).log_evidence


def test_bounds_by_other_names_only_where_they_are():
    tilted, fixed = (
        inference.soft_values(models.ledge(), 1.0),
        inference.soft_values(models.ledge()),
    )
    assert tilted.log_evidence == tilted.bound
    assert fixed.elbo == fixed.bound
    with pytest.raises(AttributeError, match=r"log_evidence: .* not log p\(O\)"):
        _ = fixed.log_evidence
    with pytest.raises(AttributeError, match=r"elbo: .* is under changed dynamics"):
        _ = tilted.elbo
