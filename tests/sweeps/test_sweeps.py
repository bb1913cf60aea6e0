"""Sweeps by matrix products against the recursion in log space, and against Pyro and all paths."""

import dataclasses
import math

import numpy as np
import oracles
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cai
from cai import inference, models
from cai.numerics import logspace
from cai.sweeps import sweeps
from cai.sweeps.sweeps import step_of
from cai.tables import bellman

seeds = st.integers(0, 10**6)
discounts = st.sampled_from([1.0, 0.8])
scales = st.sampled_from([1e-3, 1.0, 30.0, 1e3, 1e6])
etas = st.one_of(
    st.sampled_from([-1.0, -1e-8, 0.0, 1e-8, 1e-3, 0.5, 1.0, 2.0]),
    st.floats(-30, 30).filter(lambda eta: abs(eta) > 1e-6),
)


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
    v = bellman.backward(table, eta)
    u = bellman.continuation(v[1:], eta, table.discount)
    x = table.gather(u).expand(table.steps, *table.log_dynamics.shape)
    if table.arrival_reward is not None:
        x = x + table.arrival_reward / table.temperature
    q = table.reward / table.temperature + logspace.soft_mean(table.log_dynamics, x, eta)
    policy = bellman.log_policy(table, q).exp()
    moves = logspace.tilt(table.log_dynamics, x, eta).exp() * policy.unsqueeze(-1)
    alive = bellman.survival(v[1:], eta, table.discount).exp()
    states = [logspace.tilt(table.log_initial, v[0], eta).exp()]
    index = table.successor_index.flatten()
    earned = torch.zeros(()).double()
    for t in range(table.steps):
        flow = states[t][:, None, None] * moves[t]
        pays = table.at(t).reward.unsqueeze(-1).expand_as(flow)
        if table.arrival_reward is not None:
            pays = pays + table.arrival_reward
        earned += logspace.product(flow, pays).sum()
        arrived = torch.zeros_like(states[0]).index_add(0, index, flow.flatten())
        states.append(arrived * alive[t])
    earned += logspace.product(states[-1], table.final_reward).sum()
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
    solution = cai.Solution.solve(table, eta)
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


def hard(seed, scale, discount=1.0):
    """Rewards of -inf on acting, arriving and ending, forbidden actions, states out of reach."""
    problem = oracles.random_problem(
        seed, S=5, A=3, T=6, discount=discount, zeros=0.7, forbidden=0.5, scale=scale
    )
    rng = np.random.default_rng(seed)
    for rewards in (problem.reward, problem.arrival, problem.final):
        rewards[rng.random(rewards.shape) < 0.15] = -np.inf
    problem.P[:, :, 4] = np.where(np.arange(5)[:, None] == 4, problem.P[:, :, 4], 0)
    problem.P[:4, :, :4] += 1e-3
    problem.P /= problem.P.sum(-1, keepdims=True)
    return problem


@given(seed=seeds, discount=discounts, scale=scales, eta=etas)
def test_what_is_impossible_or_never_reached(seed, discount, scale, eta):
    table = cai.tabulate(hard(seed, scale, discount).model())
    for form in (table, wide(lists(table))):
        agree(form, eta)


def at_each_step(table, seed, impossible):
    """The table with rewards and an action prior that differ from step to step."""
    rng = np.random.default_rng(seed)
    T, shape = table.steps, table.reward.shape
    reward = table.reward * torch.from_numpy(rng.normal(size=(T, 1, 1)))
    log_prior = table.log_prior + torch.from_numpy(rng.normal(size=(T, *shape)))
    if impossible:
        reward = reward.masked_fill(torch.from_numpy(rng.random((T, *shape)) < 0.2), -torch.inf)
        log_prior[..., 1:] = log_prior[..., 1:].masked_fill(
            torch.from_numpy(rng.random((T, shape[0], shape[1] - 1)) < 0.3), -torch.inf
        )
        log_prior[..., 0] = log_prior[..., 0].nan_to_num(neginf=0.0)
    return dataclasses.replace(table, reward=reward, log_prior=log_prior.log_softmax(-1))


@pytest.fixture
def two_steps_at_once(monkeypatch):
    """What sums over blocks of steps begins anew at each."""
    monkeypatch.setattr(sweeps, "_CHUNK", 24)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=seeds, discount=discounts, scale=scales, eta=etas, impossible=st.booleans())
def test_rewards_and_priors_that_depend_on_the_step(
    seed, discount, scale, eta, impossible, two_steps_at_once
):
    problem = oracles.random_problem(seed, S=4, A=3, T=5, discount=discount, scale=scale)
    table = at_each_step(cai.tabulate(problem.model()), seed, impossible)
    assert table.by_step == ("log_prior", "reward")
    for form in (table, lists(table), table.at(slice(1, 4))):
        assert sweeps.by_products(form, eta)
        agree(form, eta)


@pytest.mark.parametrize("cost", [200.0, 1e6])
@pytest.mark.parametrize("eta", [-1.0, 0.09, 0.5, 1.0])
def test_values_that_underflow_at_each_step(cost, eta):
    """Rows that are computed again in log space take the reward and the prior of their own step."""
    table = at_each_step(corridor(50, 60, cost), 0, False)
    agree(table, eta)


@pytest.mark.parametrize("eta", [-0.7, 0.0, 0.5, 1.0])
def test_steps_are_recomputed_with_their_own_rewards_and_priors(eta):
    problem = oracles.random_problem(3, S=4, A=3, T=11, discount=0.9)
    table = at_each_step(cai.tabulate(problem.model()), 0, False)
    kept, long = (inference.soft_values(table, eta, recompute=x) for x in (False, True))
    assert len(long.times) < 6
    assert long.bound == pytest.approx(kept.bound, abs=1e-12)
    assert long.imagined_return == pytest.approx(kept.imagined_return, abs=1e-12)
    torch.testing.assert_close(long.visits, kept.visits, rtol=1e-12, atol=1e-13)
    for t, step in enumerate(long.walk()):
        torch.testing.assert_close(step.states, kept.states[t], rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(step.V, kept.V[t], rtol=1e-12, atol=1e-12)
        if t < 11:
            torch.testing.assert_close(step.policy, kept.at(t).policy, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(long.at(t).Q, kept.Q[t], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["log_dynamics", "arrival_reward"])
def test_views_of_steps_with_dynamics_of_their_own_share_no_matrix(name):
    table = cai.tabulate(oracles.random_problem(3, T=2).model())
    table = dataclasses.replace(
        table, **{name: torch.stack([x := getattr(table, name), x.flip(0)])}
    )
    for step in (table.at(0), table.at(1)):
        torch.testing.assert_close(
            sweeps.backward(step, 0.5), bellman.backward(step, 0.5), rtol=1e-12, atol=1e-12
        )


@pytest.mark.parametrize("name", ["log_dynamics", "arrival_reward"])
def test_dynamics_of_each_step_are_not_recomputed(name):
    table = cai.tabulate(oracles.random_problem(3, T=4).model())
    x = getattr(table, name)
    table = dataclasses.replace(table, **{name: torch.stack([x, x.flip(0), x, x])})
    with pytest.raises(ValueError, match=f"recompute: expected dynamics .*{name} depend"):
        inference.soft_values(table, 1.0, recompute=True)


@given(seed=seeds, eta=st.sampled_from([0.0, 1.0]), discount=discounts)
def test_lists_and_rows_are_all_paths_and_enumeration(seed, eta, discount):
    problem = oracles.random_problem(seed, T=3, discount=discount)
    table = cai.tabulate(problem.model())
    second = inference.enumeration(problem.latent_model()) if seed % 5 == 0 else None
    for form in (table, lists(table), wide(lists(table))):
        found = inference.soft_values(form, eta)
        policy = found.policy.log_probs.exp().numpy()
        assert found.bound == pytest.approx(oracles.renyi(problem, policy, eta), abs=1e-11)
        if eta == 1:
            truth = oracles.posterior(problem)
            np.testing.assert_allclose(found.states[:, :3], truth["states"], atol=1e-12)
            assert found.imagined_return == pytest.approx(truth["imagined_return"], abs=1e-11)
            if second is not None:
                assert found.log_evidence == pytest.approx(second.log_evidence, abs=1e-11)


def corridor(S, T, cost, slip=0.1):
    """Two ways to walk, a reward at one end, and values that differ by thousands of nats."""
    s = torch.arange(S)
    ways = torch.stack([(s - 1).clamp(min=0), (s + 1).clamp(max=S - 1)], 1)
    successors = torch.stack([ways, ways.flip(1)], 2)
    P = torch.tensor([1 - slip, slip], dtype=torch.float64).expand(S, 2, 2)
    reward = torch.full((S, 2), -cost, dtype=torch.float64)
    reward[0] = 0
    start = torch.zeros(S).index_fill(0, torch.tensor([S - 1]), 1.0)
    return cai.tabulate(models.tabular(P, reward, successors=successors, horizon=T, initial=start))


@pytest.mark.parametrize("S", [50, 200])
@pytest.mark.parametrize("cost", [200.0, 1e6])
@pytest.mark.parametrize("eta", [-1.0, 0.09, 0.5, 1.0])
def test_values_that_underflow(S, cost, eta):
    """Rows next to each other are worth e^-40 and less: one shift for all would lose most."""
    table = corridor(S, 60, cost)
    step = step_of(table, eta)
    with np.errstate(divide="ignore"):
        _, _, E = step.log_rows(-cost * np.arange(S))
    assert step.rows.underflowed(E).any()
    agree(table, eta)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_long_horizons(eta):
    """A coin that pays: after 100 000 steps, 100 000 times what one is worth."""
    P = torch.tensor([[[0.25, 0.75]], [[0.25, 0.75]]])
    table = cai.tabulate(
        models.tabular(P, torch.zeros(2, 1), arrival_reward=P * 0 + torch.tensor([1.0, -1.0]),
                       horizon=100_000)
    )  # fmt: skip
    found = inference.soft_values(table, eta)
    once = -0.5 if eta == 0 else math.log(0.25 * math.e + 0.75 / math.e)
    heads = 0.25 if eta == 0 else 0.25 * math.e / (0.25 * math.e + 0.75 / math.e)
    assert found.bound == pytest.approx(100_000 * once, rel=1e-11)
    np.testing.assert_allclose(found.states[1:, 0], heads, rtol=1e-10)
    np.testing.assert_allclose(found.states.sum(-1), 1, rtol=1e-10)
    assert found.imagined_return == pytest.approx(100_000 * (2 * heads - 1), rel=1e-10)


@given(seed=seeds, discount=discounts, scale=scales, eta=etas)
def test_float32_is_close_and_never_nan(seed, discount, scale, eta):
    for problem in (
        oracles.random_problem(seed, S=4, A=3, T=5, discount=discount, scale=scale),
        hard(seed, scale, discount),
    ):
        table = cai.tabulate(problem.model())
        v = bellman.backward(table, eta)
        found = cai.Solution.solve(table.float32(), eta)
        assert torch.equal(found.log_values.isneginf(), v.isneginf())
        spread = max(1.0, v[v.isfinite()].abs().max().item())
        if abs(eta) < 0.1:  # a logarithm near one keeps 1e-7 of one, and is divided by η
            spread = max(spread, 1 / abs(eta) if eta else 1.0)
        torch.testing.assert_close(found.log_values, v, rtol=1e-5, atol=1e-5 * spread)
        if found.bound == -math.inf:
            continue
        for field in (found.states, found.visits, found.Q, torch.tensor(found.imagined_return)):
            assert not field.isnan().any()
        alive = 1 if discount == 1 else found.states.sum(-1)[-1].clamp(max=1)
        assert found.states.sum(-1)[-1].item() == pytest.approx(float(alive), abs=1e-4)
        assert found.states.dtype == torch.float64


def test_float32_errs_by_the_spread_of_the_values_only():
    """Ten thousand nats that all states share are not a product's to sum."""
    problem = oracles.random_problem(4, S=5, T=100)
    problem.reward += 100 * problem.temperature
    table = cai.tabulate(problem.model())
    for eta in (0.0, 0.05, 1.0):
        exact, single = (inference.soft_values(t, eta).log_values for t in (table, table.float32()))
        assert exact[0].min() > 9_000
        assert (exact - single).abs().max() < 1e-4


@pytest.mark.parametrize("eta", [1e-3, 1e-8])
def test_a_small_chance_of_losing_all_near_no_optimism(eta):
    """log(1 - p)/η with p = 1e-12, arriving at -inf or paid it: a logarithm near one."""
    p, best = 1e-12, 2.0
    P = torch.tensor([[[1 - p, p]], [[0.0, 1.0]]], dtype=torch.float64)
    lost = torch.tensor([0.0, -math.inf])
    expected = math.log1p(-p) / eta + best
    for rewards in (
        {"reward": torch.tensor([[best], [0.0]]), "final_reward": lost},
        {"reward": torch.tensor([[best], [0.0]]), "arrival_reward": lost.expand(2, 1, 2)},
    ):
        found = inference.soft_values(models.tabular(P, horizon=1, **rewards), eta)
        assert found.bound == pytest.approx(expected, rel=1e-13)
        assert found.states[1].tolist() == [1.0, 0.0]


def test_weights_of_the_backward_sweep_are_used_once():
    table = cai.tabulate(oracles.random_problem(0).model())
    solution = inference.soft_values(table)
    assert solution.weights.shape == (table.steps, table.num_states * table.num_actions)
    again = cai.Solution(table, 0.0, solution.log_values.clone())
    torch.testing.assert_close(again.states, solution.states, rtol=0, atol=1e-15)
    assert solution.weights is None


def test_steps_of_a_solution_do_not_take_the_weights_of_others():
    solution = inference.soft_values(cai.tabulate(oracles.random_problem(0).model()))
    piece = solution.piece(slice(1, 3))
    assert piece.weights is None
    again = cai.Solution(solution.table, 0.0, solution.log_values[1:4])
    torch.testing.assert_close(piece.states, again.states, rtol=0, atol=1e-15)


def test_a_table_keeps_few_matrices():
    table = cai.tabulate(oracles.random_problem(0).model())
    for eta in range(20):
        inference.soft_values(table, eta)
    assert len(table.matrices) == 4
