"""Chains that end, by every method against dense algebra; and large ones without geography."""

import dataclasses
from functools import cache

import numpy as np
import oracles
import pyro.distributions as dist
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array, kron

import cai
from cai import inference, models
from cai.inference.infinite import _approach
from cai.infinite import transient
from cai.infinite.transient import Transient, fills_in
from cai.numerics.sparse_lu import factorise
from cai.tables import bellman

seeds = st.integers(0, 10**6)


def chain(seed, S=12, rare=1.0):
    """A table and its moves under a random policy; they end with a probability of about `rare`."""
    problem = oracles.random_problem(seed, S=S, zeros=0.5)
    table = cai.tabulate(problem.model())
    rng = np.random.default_rng(seed)
    policy = torch.from_numpy(rng.dirichlet(np.ones(table.num_actions), S))
    ends = torch.from_numpy(1 - rare * rng.random(S))
    moves = policy.unsqueeze(-1) * table.log_dynamics.exp() * ends[:, None, None]
    return table, moves, torch.from_numpy(rng.random(S) < 0.9)


def truth(table, moves, keep, b, transposed):
    P = torch.zeros(len(b), len(b)).double()
    P.scatter_add_(1, table.successor_index, moves.flatten(1))
    P *= keep.unsqueeze(1) & keep
    A = torch.eye(len(b)).double() - (P.T if transposed else P)
    return torch.linalg.solve(A, torch.where(keep, b, 0.0))


@given(seed=seeds, rare=st.sampled_from([1.0, 0.1, 1e-4]), signs=st.booleans())
def test_every_method_solves_the_same_system(seed, rare, signs):
    table, moves, keep = chain(seed, rare=rare)
    rng = np.random.default_rng(seed)
    b = torch.from_numpy(rng.standard_normal(12) if signs else rng.random(12))
    patch = pytest.MonkeyPatch()
    for forbid in ((), ("dense",), ("dense", "series"), ("dense", "series", "factors")):
        with patch.context() as patched:
            if "dense" in forbid:
                patched.setattr(transient, "_DENSE", 0)
            if "series" in forbid:
                patched.setattr(transient, "_series", lambda P, b: None)
            if "factors" in forbid:
                patched.setattr(transient, "_NARROW", 0)
            solver = Transient(table, moves, keep)
            for found, transposed in ((solver.sums(b), False), (solver.visits(b), True)):
                expected = truth(table, moves, keep, b, transposed)
                scale = expected.abs().max().item()
                torch.testing.assert_close(found, expected, rtol=0, atol=1e-9 * max(1.0, scale))


@pytest.mark.parametrize("ways", [[2, 1, 2, 2, 1, 2, 2], [0, 0], [1, 2, 2]])
def test_a_state_that_is_never_left_is_told_and_crashes_nothing(monkeypatch, ways):
    """SuperLU falls over the first of these, where pivots are missing, and the process with it."""
    S = len(ways) + 1
    P = np.zeros((S, S))
    P[np.arange(S - 1), ways] = 1
    P[ways, 2 % S] += 1e-320  # as good as never, but it is stored
    with pytest.raises(RuntimeError, match="singular"):
        factorise(csr_array(P))
    monkeypatch.setattr(transient, "_DENSE", 0)
    uniform = models.tabular(np.full((S, 1, S), 1 / S), np.ones((S, 1)), horizon=1)
    table = cai.tabulate(uniform)
    solver = Transient(table, torch.from_numpy(P[:, None]), torch.arange(S) < S - 1)
    assert not solver.sums(torch.ones(S, dtype=torch.float64)).isfinite().all()


def test_a_series_with_one_mode_that_lasts_is_cut_short():
    """A discount of 0.999 and quick mixing: ten thousand terms, of which a few dozen are needed."""
    rng = np.random.default_rng(0)
    P, b = 0.999 * rng.dirichlet(np.ones(50), 50), rng.random(50)
    found = transient._series(csr_array(P), b)
    np.testing.assert_allclose(found, np.linalg.solve(np.eye(50) - P, b), rtol=1e-12)
    circle = csr_array(0.999 * np.roll(np.eye(50), 1, 1))  # never mixes
    assert transient._series(circle, b) is None


@cache
def scattered(discount):
    """3500 states, successors anywhere; without a discount a step costs until the one goal."""
    S, rng = 3500, np.random.default_rng(0)
    P, successors = rng.random((S, 2, 3)) + 0.1, rng.integers(S, size=(S, 2, 3))
    reward = -rng.random((S, 2)) * (0.1 if discount < 1 else 1e-4)
    if discount == 1:
        successors[-1], reward[-1] = S - 1, 0
    P = P / P.sum(-1, keepdims=True)
    return cai.tabulate(
        models.tabular(P, reward, successors=successors, horizon=None, discount=discount)
    )


@pytest.mark.parametrize(("discount", "eta"), [(0.95, 0.0), (0.95, 1.0), (0.95, -0.5), (1.0, 0.1)])
def test_large_random_graphs_are_solved_without_a_factorisation(monkeypatch, discount, eta):
    """Their factors would be half full: at 50 000 states that is ten gigabytes and hours."""
    table = scattered(discount)
    monkeypatch.setattr(transient, "factorise", None)
    found = inference.soft_values(table, eta)
    assert found.error < 1e-8
    v = found.log_values
    assert (bellman.backup(table, v, eta) - v).abs().max() < 1e-13 * max(1.0, v.abs().max().item())
    assert found.states.sum() > 10
    if discount < 1:
        long = dataclasses.replace(table, horizon=1500)
        torch.testing.assert_close(inference.soft_values(long, eta).V[0], v, rtol=0, atol=1e-8)


def test_a_large_random_graph_without_values_names_its_spectral_radius():
    table = scattered(0.95)
    paid = dataclasses.replace(table, reward=table.reward + 0.2)
    with pytest.raises(ValueError, match=r"spectral radius .* is 1\.\d+, expected below 1"):
        inference.soft_values(paid, 1.0)


def test_only_graphs_without_geography_fill_in():
    n = 80
    line = csr_array(np.eye(n, k=1) + np.eye(n, k=-1))
    grid = kron(line, np.eye(n), "csr") + kron(np.eye(n), line, "csr")
    mixed = np.random.default_rng(0).permutation(n * n)
    assert not fills_in(csr_array(grid[mixed][:, mixed]))
    ends = np.random.default_rng(0).integers(n * n, size=(2, 6 * n * n))
    assert fills_in(csr_array((np.ones(ends.shape[1]), ends), shape=grid.shape))


@settings(max_examples=25)
@given(
    seed=seeds, discount=st.sampled_from([0.9, 1.0]), eta=st.sampled_from([-0.02, 0.0, 0.5, 1.0])
)
def test_value_iteration_leads_where_newton_does(seed, discount, eta):
    """What it settles at is a fixed point; what it leaves open others solve."""
    problem = oracles.random_problem(seed, S=6, discount=discount)
    problem.P[:] = 0.7 * problem.P + 0.3 * np.eye(6)[-1]
    problem.P[-1] = np.eye(6)[-1]
    for rewards in (problem.reward, problem.arrival):
        rewards[:] = -np.abs(rewards)
    problem.reward[-1] = problem.arrival[-1] = problem.final[:] = 0
    table = dataclasses.replace(cai.tabulate(problem.model()), horizon=None)
    exact = inference.soft_values(table, eta).log_values
    with pytest.MonkeyPatch().context() as patch:
        patch.setattr(_approach, "_FEW", 0)
        found = _approach.approach(table, eta)
        if found is not None:
            torch.testing.assert_close(found, exact, rtol=0, atol=1e-8)
        again = inference.soft_values(table, eta)
    torch.testing.assert_close(again.log_values, exact, rtol=0, atol=1e-8)


def test_value_iteration_is_not_waited_for_where_news_travel_far():
    """On a long road a sweep carries them one state on."""
    S = 600
    road = np.minimum(np.arange(S)[:, None, None] + 1, S - 1)
    reward = np.full((S, 1), -1.0)
    reward[-1] = 0
    table = cai.tabulate(models.tabular(np.ones((S, 1, 1)), reward, successors=road, horizon=None))
    assert _approach.approach(table, 0.0) is None
    quick = dataclasses.replace(table, discount=0.5)
    expected = -2 * (1 - 0.5 ** torch.arange(S - 1, -1, -1.0, dtype=torch.float64))
    torch.testing.assert_close(_approach.approach(quick, 0.0), expected, rtol=0, atol=1e-9)


def rarely_out(n, p):
    """A corridor in which a step forward succeeds with p, and else it is back to the start."""
    T = torch.zeros(n + 1, 1, n + 1, dtype=torch.float64)
    s = torch.arange(n)
    T[s, 0, 0], T[n, 0, n] = 1 - p, 1.0
    T[s, 0, s + 1] = p
    reward = torch.full((n + 1, 1), -1.0)
    reward[n] = 0.0
    start = torch.zeros(n + 1)
    start[0] = 1.0
    return models.tabular(T, reward, initial=start, horizon=None)


def only_action(t, s):
    return dist.Categorical(torch.ones(*s.shape, 1))


@pytest.mark.parametrize("n", [5, 12, 16, 40, 200])
def test_a_policy_that_ends_once_in_a_long_time_in_closed_form(n):
    """(p^-n - 1)/(1 - p) steps, also where 1 - P has lost the probability to leave."""
    p = 0.1
    found = cai.evaluate(rarely_out(n, p), only_action)
    visits = p ** (torch.arange(n, dtype=torch.float64) - n)  # of s, p times those of s - 1
    steps = visits.sum().item()
    rel = 1e-10 if n == 5 else 1e-12  # by a factorisation whose smallest pivot is 1e-5
    assert found.expected_return == pytest.approx(-steps, rel=rel)
    torch.testing.assert_close(found.states[:n], visits, rtol=rel, atol=0)


def test_where_the_lifetime_is_lost_it_is_refused():
    """Beyond 400 states nothing eliminates without subtraction."""
    model = rarely_out(450, 0.5)
    with pytest.raises(ValueError, match="policy: the trajectory ends so rarely that its"):
        cai.evaluate(model, only_action)
    with pytest.raises(ValueError, match="policy: the trajectory ends so rarely"):  # 1e320 steps
        cai.evaluate(rarely_out(320, 0.1), only_action)
