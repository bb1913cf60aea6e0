"""The most probable trajectory, against all paths, Pyro's infer_discrete, and value iteration."""

import math

import numpy as np
import oracles
import pyro
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pyro.infer import config_enumerate, infer_discrete

import cai
from cai import inference, models

makes = st.sampled_from(oracles.KINDS)
seeds = st.integers(0, 10**6)
discounts = st.sampled_from([1.0, 0.8, 0.3])


def best_paths(problem, observed=None, optimal=None, start=None):
    """All paths of the highest log p(τ, O), and that number; given s_0 where it is."""
    if start is not None:
        initial = np.eye(problem.sizes[0])[start]
        everything = oracles.paths(problem, initial=initial)
    else:
        everything = oracles.paths(problem)
    scored = [
        (oracles.mass(problem, path, optimal), path)
        for path in everything
        if oracles.agrees(path, observed or {})
    ]
    top = max(mass for mass, _ in scored)
    return math.log(top), [path for mass, path in scored if mass >= top * (1 - 1e-12)]


def as_path(found):
    """(states, actions, survived) until death, as the oracle writes them."""
    n = int((found.actions >= 0).sum())
    assert (found.actions[n:] == -1).all()
    assert (found.states[n + 1 :] == -1).all()
    assert found.alive.tolist() == [True] * (n + bool(found.alive[-1])) + [False] * (
        len(found.states) - n - bool(found.alive[-1])
    )
    return (
        tuple(found.states[: n + 1].tolist()),
        tuple(found.actions[:n].tolist()),
        bool(found.alive[-1]),
    )


def first(candidates):
    """First in the order of s_0, a_0, s_1, lives or not, a_1, …"""

    def key(path):
        lives = [not path.alive_at(t) for t in range(len(path.states))]
        moves = zip(path.actions, path.states[1:], lives[1:], strict=True)
        return [path.states[0], *(x for move in moves for x in move)]

    best = min(candidates, key=key)
    return best.states, best.actions, best.survived


@given(make=makes, seed=seeds, discount=discounts)
def test_against_all_paths(make, seed, discount):
    problem = make(seed, discount=discount)
    value, candidates = best_paths(problem)
    found = inference.map_trajectory(problem.model())
    assert found.log_probability == pytest.approx(value, abs=1e-12)
    assert as_path(found) == first(candidates)
    assert found.log_probability <= inference.posterior(problem.model()).log_evidence + 1e-12


@given(make=makes, seed=seeds, discount=discounts)
def test_from_every_state_and_given_evidence(make, seed, discount):
    problem = make(seed, discount=discount)
    rng = np.random.default_rng(seed)
    optimal = (rng.random(problem.T + 1) < 0.6).tolist()
    everything = list(oracles.paths(problem))
    path = everything[rng.integers(len(everything))]
    observed = {f"a_{t}": a for t, a in enumerate(path.actions) if rng.random() < 0.5}
    observed |= {f"s_{t}": s for t, s in enumerate(path.states) if t and path.alive_at(t) and t % 2}
    model = problem.model()
    found = inference.map_trajectory(model, observed=observed, optimal=optimal)
    value, candidates = best_paths(problem, observed, optimal)
    assert found.log_probability == pytest.approx(value, abs=1e-12)
    assert as_path(found) == first(candidates)
    for s in range(3):
        if found.log_values[0, s] == -math.inf:
            with pytest.raises(ValueError, match=f"no trajectory from state {s}"):
                found.from_state(s)
            continue
        value, candidates = best_paths(problem, observed, optimal, start=s)
        again = found.from_state(s)
        assert again.log_probability == found.log_values[0, s]
        assert again.log_probability == pytest.approx(value, abs=1e-12)
        assert as_path(again) == first(candidates)
        direct = inference.map_trajectory(model, s, observed=observed, optimal=optimal)
        assert as_path(direct) == as_path(again)


@given(seed=seeds)
def test_ties_go_to_the_first(seed):
    """Weights that are powers of two, and many of them alike: ties in exact arithmetic."""
    rng = np.random.default_rng(seed)
    discount = rng.choice([1.0, 0.5])
    P = np.zeros((3, 2, 3))
    for s in range(3):
        for a in range(2):
            P[s, a, rng.permutation(3)[:2]] = 0.5
    problem = oracles.Problem(
        initial=np.array([0.25, 0.25, 0.5]),
        prior=np.full((3, 2), 0.5),
        P=P,
        reward=math.log(2) * rng.integers(-1, 2, size=(3, 2)),
        arrival=np.zeros((3, 2, 3)),
        final=math.log(2) * rng.integers(-1, 2, size=3),
        T=4,
        discount=discount,
        temperature=1.0,
    )
    value, candidates = best_paths(problem)
    found = inference.map_trajectory(problem.model())
    assert found.log_probability == pytest.approx(value, abs=1e-12)
    assert as_path(found) == first(candidates)


def test_ties_that_rounding_parts():
    """-0.1 - 0.2 - 0.3 in either order: the sums differ in the last digit, the paths tie."""
    P, r = np.zeros((8, 2, 8)), np.zeros((8, 2))
    P[0, 0, 1] = P[0, 1, 4] = P[7, :, 7] = 1
    for first_node, costs in ((1, (0.3, 0.2, 0.1)), (4, (0.1, 0.2, 0.3))):
        for i, cost in enumerate(costs):
            P[first_node + i, :, first_node + i + 1 if i < 2 else 7] = 1
            r[first_node + i] = -cost
    prior = np.array([[0.5, 0.5]] + [[1.0, 0.0]] * 7)
    found = inference.map_trajectory(models.tabular(P, r, horizon=4, action_prior=prior))
    assert found.log_values[1, 1] < found.log_values[1, 4]  # exact comparison would go down
    assert found.states.tolist() == [0, 1, 2, 3, 7]
    assert found.actions.tolist() == [0, 0, 0, 0]


@given(seed=seeds)
def test_against_infer_discrete(seed):
    """Pyro's own MAP of the collapsed program has the same probability."""
    problem = oracles.random_problem(seed, T=4)
    model = cai.collapse(problem.model())
    program = config_enumerate(model, "parallel")
    chosen = infer_discrete(program, first_available_dim=-1, temperature=0)
    trace = pyro.poutine.trace(chosen).get_trace()
    data = {name: site["value"] for name, site in trace.nodes.items() if name[:2] in ("s_", "a_")}
    log_p = pyro.poutine.trace(pyro.condition(model, data)).get_trace().log_prob_sum().item()
    assert inference.map_trajectory(model).log_probability == pytest.approx(log_p, abs=1e-11)


@given(seed=seeds)
def test_planning_where_the_dynamics_are_deterministic(seed):
    """There it is value iteration, with log p(a|s) as a reward of actions."""
    rng = np.random.default_rng(seed)
    P = np.eye(6)[rng.integers(6, size=(6, 3))]
    prior = rng.random((6, 3)) + 0.1
    prior /= prior.sum(-1, keepdims=True)
    r, final = rng.normal(size=(6, 3)), rng.normal(size=6)
    arrays = {"final_reward": final, "horizon": 7, "temperature": 0.6}
    found = inference.map_trajectory(models.tabular(P, r, action_prior=prior, **arrays))
    priced = models.tabular(P, r + 0.6 * np.log(prior), **arrays)
    hard = inference.soft_values(priced, rule="hard").log_values
    torch.testing.assert_close(found.log_values, hard, rtol=0, atol=1e-12)


def test_the_most_probable_trajectory_may_die_at_once():
    """Ten coins of 0.6 are worth less than dying at the first, log 0.4."""
    found = inference.map_trajectory(models.tabular([[[1.0]]], [[0.0]], horizon=10, discount=0.6))
    assert found.log_probability == pytest.approx(math.log(0.4))
    assert found.states.tolist() == [0, 0] + [-1] * 9
    assert found.actions.tolist() == [0] + [-1] * 9
    assert found.alive.tolist() == [True] + [False] * 10
    alive = inference.map_trajectory(found.table, observed={"alive_10": 1})
    assert alive.log_probability == pytest.approx(10 * math.log(0.6))
    assert alive.alive.all()


def test_a_tie_of_life_and_death_goes_to_life():
    found = inference.map_trajectory(models.tabular([[[1.0]]], [[0.0]], horizon=1, discount=0.5))
    assert found.log_probability == pytest.approx(math.log(0.5))
    assert found.alive.tolist() == [True, True]


def test_lists_of_successors_and_relabelling():
    """Sparse and dense tables of one problem find the same trajectory."""
    rng = np.random.default_rng(1)
    S = 150
    successors = np.stack([rng.permutation(S)[:3] for _ in range(S * 2)]).reshape(S, 2, 3)
    P = rng.random((S, 2, 3))
    P /= P.sum(-1, keepdims=True)
    r = rng.normal(size=(S, 2))
    arrays = {"horizon": 30, "final_reward": rng.normal(size=S), "discount": 0.95}
    sparse = inference.map_trajectory(models.tabular(P, r, successors=successors, **arrays))
    full = np.zeros((S, 2, S))
    np.put_along_axis(full, successors, P, -1)
    dense_table = cai.tabulate(models.tabular(full, r, **arrays))
    assert sparse.table.successors is not None
    dense = inference.map_trajectory(dense_table)
    assert dense.states.tolist() == sparse.states.tolist()
    assert dense.actions.tolist() == sparse.actions.tolist()
    assert dense.log_probability == pytest.approx(sparse.log_probability, abs=1e-11)


def test_long_horizons_and_large_rewards():
    rng = np.random.default_rng(0)
    P = rng.random((3, 2, 3))
    P /= P.sum(-1, keepdims=True)
    r = rng.normal(size=(3, 2)) * 1e6
    found = inference.map_trajectory(models.tabular(P, r, horizon=100_000))
    table, s, a = found.table, found.states, found.actions
    terms = (
        table.log_dynamics[s[:-1], a, s[1:]] + table.log_prior[s[:-1], a] + table.reward[s[:-1], a]
    )
    assert found.log_probability == pytest.approx(terms.sum().item(), rel=1e-12)


@pytest.mark.parametrize("state", [-1, 5, 1.5, "s_0"])
def test_a_start_that_is_no_state(state):
    with pytest.raises(ValueError, match="start: expected a state in 0 … 4"):
        inference.map_trajectory(models.ledge(), state)


def test_nothing_possible_is_an_error():
    model = models.tabular([[[1.0]]], [[-torch.inf]], horizon=2)
    with pytest.raises(ValueError, match=r"evidence: p\(O\) = 0"):
        inference.map_trajectory(model)
    with pytest.raises(ValueError, match="no trajectory from state 0"):
        inference.map_trajectory(model, 0)
    with pytest.raises(ValueError, match="observed s_4 = 0 is impossible"):
        inference.map_trajectory(models.ledge(), observed={"s_1": 3, "s_4": 0})
    with pytest.raises(ValueError, match=r"horizon"):
        inference.map_trajectory(models.ledge(horizon=None))
