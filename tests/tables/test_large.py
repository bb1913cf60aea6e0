"""Large, sparse and long: lists instead of rows, few numbers kept, and how much is stored."""

import math

import numpy as np
import oracles
import pyro
import pyro.distributions as dist
import pytest
import scipy.sparse
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

import cai
from cai import inference, models

seeds = st.integers(0, 10**6)


def close(one, other, tolerance=1e-12):
    np.testing.assert_allclose(np.asarray(one), np.asarray(other), rtol=tolerance, atol=tolerance)


# One step of many


@given(
    seed=seeds,
    eta=st.sampled_from([-math.inf, -1.0, 0.0, 1.0, 2.0]),
    discount=st.sampled_from([1.0, 0.8]),
    rule=st.sampled_from(["soft", "hard", "boltzmann", "planned"]),
)
def test_one_step_is_a_row_of_every_field(seed, eta, discount, rule):
    found = inference.soft_values(
        oracles.random_problem(seed, T=4, discount=discount).model(), eta, rule
    )
    for t in range(5):
        step = found.at(t)
        assert step.t == t
        close(step.V, found.V[t])
        close(step.states, found.states[t])
        if t < 4:
            close(step.Q, found.Q[t])
            close(step.policy, found.policy.log_probs[t].exp())
            close(step.state_actions, found.state_actions[t])
            close(step.dynamics(), found.dynamics(t))


def test_after_the_last_step_there_is_nothing_to_do():
    found = inference.posterior(models.ledge())
    for ask in ("Q", "policy", "state_actions"):
        with pytest.raises(ValueError, match="step 4: expected a step before the last"):
            getattr(found.at(4), ask)
    with pytest.raises(ValueError, match="step 4"):
        found.at(4).dynamics()
    for solution in (found, inference.soft_values(models.ledge(), recompute=True)):
        for t in (-1, 5, 1.5):
            with pytest.raises(ValueError, match=rf"0 … 4, got {t}"):
                solution.at(t)


# Checkpoints


@given(
    seed=seeds,
    eta=st.sampled_from([-2.0, 0.0, 0.01, 1.0, 2.0]),
    discount=st.sampled_from([1.0, 0.8]),
    T=st.integers(1, 17),
)
def test_checkpoints_give_what_all_values_give(seed, eta, discount, T):
    table = cai.tabulate(oracles.random_problem(seed, T=T, discount=discount).model())
    full = inference.soft_values(table, eta)
    found = inference.soft_values(table, eta, recompute=True)
    close(found.bound, full.bound)
    close(found.initial, full.initial)
    close(found.imagined_return, full.imagined_return, 1e-11)
    close(found.visits, full.visits)
    close(full.visits, full.state_actions.sum(0))
    steps = list(found.walk())
    assert [step.t for step in steps] == list(range(T + 1))
    for step in (*steps, found.at(T // 2), found.at(0), found.at(T)):
        close(step.V, full.V[step.t])
        close(step.states, full.states[step.t])
        if step.t < T:
            close(step.Q, full.Q[step.t])
            close(step.policy, full.policy.log_probs[step.t].exp())


def test_checkpoints_keep_few_numbers():
    """Of 10 000 steps 101 are kept, and their states where somebody walks."""
    model = oracles.random_problem(1, S=3, T=10_000).model()
    found = inference.soft_values(model, 1.0, recompute=True)
    _ = found.imagined_return, found.visits, found.at(4321)
    stored = sum(x.numel() for x in vars(found).values() if isinstance(x, torch.Tensor))
    assert stored == 2 * 101 * 3 + 6
    close(found.bound, inference.posterior(model).bound)


def test_checkpoints_are_for_sums():
    with pytest.raises(ValueError, match="recompute: expected True or False, got "):
        inference.soft_values(models.ledge(), recompute="values.pt")
    for eta, rule in ((math.inf, "soft"), (0.0, "hard")):
        with pytest.raises(ValueError, match="recompute: expected the soft rule"):
            inference.soft_values(models.ledge(), eta, rule, recompute=True)
    with pytest.raises(ValueError, match=r"p\(O\) = 0"):
        inference.soft_values(
            models.tabular([[[1.0]]], [[-math.inf]], horizon=2), 1.0, recompute=True
        )


# Built from sparse matrices, and from programs


@given(seed=seeds, discount=st.sampled_from([1.0, 0.9]))
def test_sparse_matrices_are_dense_ones(seed, discount):
    problem = oracles.random_problem(seed, S=7, discount=discount, zeros=0.7)
    A = problem.sizes[1]
    P, arrival = np.asarray(problem.P), np.asarray(problem.arrival)
    kinds = [scipy.sparse.coo_matrix, scipy.sparse.csc_array]
    model = models.tabular(
        [kinds[a](P[:, a]) for a in range(A)],
        problem.reward,
        arrival_reward=[scipy.sparse.csr_matrix(arrival[:, a]) for a in range(A)],
        horizon=problem.T,
        initial=problem.initial,
        action_prior=problem.prior,
        final_reward=problem.final,
        temperature=problem.temperature,
        discount=discount,
    )
    for eta in (0.0, 1.0):
        one, other = (inference.soft_values(m, eta) for m in (model, problem.model()))
        close(one.V, other.V)
        close(one.states, other.states)
        close(one.imagined_return, other.imagined_return)


def test_sparse_matrices_that_do_not_fit_are_named():
    eye = scipy.sparse.eye(3, format="csr")
    r = np.zeros((3, 2))
    with pytest.raises(ValueError, match=r"transitions: .*shape \[3, 3\] for each action, got .*2"):
        models.tabular([eye, eye[:2]], r, horizon=1)
    with pytest.raises(ValueError, match=r"transitions: .* got ndarray"):
        models.tabular([eye, np.eye(3)], r, horizon=1)
    with pytest.raises(ValueError, match="successors: expected none beside sparse matrices"):
        models.tabular([eye, eye], r, successors=np.zeros((3, 2, 1), int), horizon=1)
    with pytest.raises(ValueError, match="arrival_reward: expected 2 sparse matrices"):
        models.tabular([eye, eye], r, arrival_reward=np.zeros((3, 2, 3)), horizon=1)
    with pytest.raises(ValueError, match=r"transitions at state 1, action 0.*sum"):
        models.tabular([scipy.sparse.csr_matrix(np.diag([1, 0, 1.0])), eye], r, horizon=1)


class Largest(TorchDispatchMode):
    """The size of the largest tensor that any operation of torch takes or makes."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for x in torch.utils._pytree.tree_leaves((args, kwargs, made)):
            if isinstance(x, torch.Tensor):
                self.numel = max(self.numel, x.untyped_storage().nbytes() // x.element_size())
        return made


def a_program_with_latents(S, A):
    shift = torch.arange(3)

    def dynamics(s, a):
        slip = pyro.sample("slip", dist.Bernoulli(0.2)).long()
        gust = pyro.sample("gust", dist.Categorical(torch.ones(3)))
        return dist.Delta((s + a * 7 - slip * 3 + shift[gust]) % S)

    return cai.TrajectoryModel(
        initial=dist.Categorical(torch.ones(S)),
        dynamics=dynamics,
        reward=lambda s, a: -(s % 5.0),
        action_prior=dist.Categorical(torch.ones(A)),
        horizon=20,
    )


def sparse_matrices(S, A):
    s = np.arange(S)
    half = [[(np.full(S, 0.5), (s, (s + k + a) % S)) for k in (0, 9)] for a in range(A)]
    P = [sum(scipy.sparse.csr_matrix(x, shape=(S, S)) for x in pair) for pair in half]
    return models.tabular(P, np.zeros((S, A)), horizon=20)


@pytest.mark.parametrize("build", [a_program_with_latents, sparse_matrices])
def test_no_dense_row_is_ever_made(build, monkeypatch):
    """With 4 actions and at most 6 successors a (S, S) of 6000 states would stand out 16 times."""
    S, A = 6000, 4
    for kind in (scipy.sparse.csr_matrix, scipy.sparse.csr_array):
        monkeypatch.setattr(kind, "toarray", lambda *_, **__: pytest.fail("made dense"))
    with Largest() as largest:
        table = cai.tabulate(build(S, A))
        for eta in (0.0, 1.0):
            solution = inference.soft_values(table, eta)
            _ = solution.states, solution.imagined_return, solution.visits
    assert 2 <= table.successors.shape[-1] <= 6
    assert S * A * 2 <= largest.numel <= S * S / 16


def test_a_walk_between_checkpoints_makes_no_trajectory_of_values():
    """Of T = 900 steps of 40 states, no tensor holds more than a few times 30 steps."""
    S, T = 40, 900
    ways = torch.stack([(torch.arange(S) + k) % S for k in (0, 1)], 1).unsqueeze(1)
    P, reward = torch.full((S, 1, 2), 0.5), -torch.linspace(0, 1e-3, S).unsqueeze(1)
    table = cai.tabulate(models.tabular(P, reward, successors=ways, horizon=T))
    with Largest() as largest:
        found = inference.soft_values(table, 1.0, recompute=True)
        _ = found.imagined_return, found.visits, found.at(123).states
    assert 31 * S <= largest.numel <= 4 * 31 * S
    with Largest() as largest:
        _ = inference.soft_values(table, 1.0).imagined_return
    assert largest.numel >= T * S


@given(seed=seeds, forbidden=st.floats(0.1, 0.9))
def test_rewards_of_minus_infinity_on_arrival_stay_in_lists(seed, forbidden):
    """A list of successors, dense or from sparse matrices, forbids what an array does."""
    rng = np.random.default_rng(seed)
    problem = oracles.random_problem(seed, S=6, zeros=0.5)
    S, A = problem.sizes
    P, arrival = np.asarray(problem.P), np.array(problem.arrival)
    arrival[rng.random(arrival.shape) < forbidden] = -np.inf
    arrival[:, 0] = 0.0  # one action is always allowed
    settings = {"horizon": 3, "action_prior": np.full((S, A), 1 / A), "initial": problem.initial}
    dense = models.tabular(P, problem.reward, arrival_reward=arrival, **settings)
    every = np.tile(np.arange(S), (S, A, 1))
    lists = models.tabular(P, problem.reward, arrival_reward=arrival, successors=every, **settings)
    sparse = models.tabular(
        [scipy.sparse.csr_matrix(P[:, a]) for a in range(A)],
        problem.reward,
        arrival_reward=[scipy.sparse.csr_matrix(arrival[:, a]) for a in range(A)],
        **settings,
    )
    for eta in (-1.0, 0.0, 1.0):
        found = [inference.soft_values(model, eta).Q for model in (dense, lists, sparse)]
        close(found[1], found[0])
        close(found[2], found[0])


def test_a_matrix_alone_or_beside_arrays_is_named():
    eye = scipy.sparse.eye(2, format="csr")
    with pytest.raises(ValueError, match=r"transitions: expected a list of sparse matrices"):
        models.tabular(eye, np.zeros((2, 1)), horizon=1)
    with pytest.raises(ValueError, match=r"transitions: expected a sparse matrix .* got list"):
        models.tabular([[[1, 0], [0, 1]], eye], np.zeros((2, 2)), horizon=1)


def test_derivatives_of_any_size_are_summed_without_warnings():
    """(I - P)⁻¹ b where P is no chain and its powers leave the floats, as a trembling hand has."""
    from cai.infinite.transient import Transient

    S = 410
    table = cai.tabulate(
        models.tabular(
            np.ones((S, 1, 1)),
            np.zeros((S, 1)),
            successors=((np.arange(S) + 1) % S).reshape(S, 1, 1),
            horizon=None,
        )
    )
    moves, b = torch.full((S, 1, 1), -1e5).double(), torch.linspace(0, 1, S).double()
    found = Transient(table, moves, torch.ones(S, dtype=torch.bool)).sums(b)
    close(found + 1e5 * found.roll(-1), b)
