"""Marginals of sites by name, jointly, far apart, and of latents, against sums over all paths."""

import dataclasses
import math
import pickle

import numpy as np
import oracles
import pyro
import pyro.distributions as dist
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from paths import chain_paths
from pyro.infer import TraceEnum_ELBO, config_enumerate

import cai
from cai import inference, models

makes = st.sampled_from(oracles.KINDS)
seeds = st.integers(0, 10**6)
discounts = st.sampled_from([1.0, 0.8])
etas = st.sampled_from([-2.0, -0.4, 0.3, 1.0, 2.5])


def weights_of(paths, problem, sites):
    """The joint distribution of sites over paths that are alive at all of them."""
    sizes = {"s": problem.sizes[0], "a": problem.sizes[1]}
    found = np.zeros([sizes[name[0]] for name in sites])
    for path in paths:
        steps = [(name[0], int(name[2:])) for name in sites]
        if all(path.alive_at(t) for _, t in steps):
            index = tuple((path.states if kind == "s" else path.actions)[t] for kind, t in steps)
            found[index] += path.probability
    return found


@given(make=makes, seed=seeds, discount=discounts, eta=etas)
def test_marginals_by_paths(make, seed, discount, eta):
    problem = make(seed, T=4, S=2, discount=discount)
    found = inference.soft_values(problem.model(), eta)
    paths = chain_paths(found, problem)
    for sites in (
        *((f"s_{t}",) for t in range(problem.T + 1)),
        *((f"a_{t}",) for t in range(problem.T)),
        ("s_1", "a_1"),
        ("s_2", "a_1", "s_1"),
        ("a_2", "s_3"),
        ("s_2", "s_3"),
        ("s_0", "s_4"),
        ("a_3", "s_1"),
        ("s_0", "a_3"),
        ("a_3", "s_0", "s_2"),
        ("s_0", "a_1", "a_0", "s_3", "a_3"),
        ("a_0", "a_3"),
        ("s_4", "a_0", "s_2"),
        ("a_2", "s_0", "a_1", "s_1", "s_3"),
        ("s_0", "s_1", "s_2", "s_3", "s_4", "a_0", "a_1", "a_2", "a_3"),
    ):
        np.testing.assert_allclose(
            found.marginal(*sites), weights_of(paths, problem, sites), atol=1e-11
        )
    if discount < 1:
        alive = sum(path.probability for path in paths if path.alive_at(2))
        np.testing.assert_allclose(found.marginal("alive_2"), [1 - alive, alive], atol=1e-11)


@pytest.mark.parametrize("discount", [1.0, 0.9])
@pytest.mark.parametrize("S", [4, 200])
def test_far_apart_by_conditioning(discount, S):
    """p(s_1, a_30 | O) is what it takes to observe both; by matrices, and by lists of many."""
    rng = np.random.default_rng(S)
    successors = (rng.integers(S, size=(S, 3, 1)) + np.arange(2)) % S
    P = rng.dirichlet([1, 1], size=(S, 3))
    model = models.tabular(
        P,
        rng.normal(size=(S, 3)),
        successors=successors,
        initial=np.full(S, 1 / S),
        horizon=40,
        discount=discount,
    )
    table = cai.tabulate(model)
    assert (table.successors is None) == (S == 4)
    found = inference.posterior(table)
    joint = found.marginal("a_30", "s_1")
    assert joint.shape == (3, S)
    for s, a in ((1, 0), (1, 2), (3, 1)):
        both = inference.posterior(table, {"s_1": s, "a_30": a}).bound
        assert joint[a, s].item() == pytest.approx(math.exp(both - found.bound), abs=1e-12)
    later = found.marginal("a_1", "s_30")
    both = inference.posterior(table, {"a_1": 2, "s_30": 2}).bound
    assert later[2, 2].item() == pytest.approx(math.exp(both - found.bound), abs=1e-12)
    torch.testing.assert_close(later.sum(0), found.states[30])


def test_given_evidence():
    """What is observed is certain, and joints are conditional on it."""
    problem = oracles.random_problem(1, T=4, zeros=0.0, forbidden=0.0)
    known, optimal = {"s_2": 1, "a_3": 0}, [True, False, True, False, True]
    found = inference.posterior(problem.model(), known, optimal)
    paths = oracles.posterior(problem, observed=known, optimal=optimal)["paths"]
    paths = [dataclasses.replace(path, probability=p) for path, p in paths]
    for sites in (
        ("s_0", "s_4"),
        ("a_0", "s_2", "a_3"),
        ("a_1", "a_2"),
        ("s_1", "a_1", "s_2", "a_2", "a_3"),
    ):
        np.testing.assert_allclose(
            found.marginal(*sites), weights_of(paths, problem, sites), atol=1e-12
        )


# Latents of the dynamics' own


def latent_problem(seed, form, T=3, discount=1.0, S=3, A=2):
    """A program with two latents, wind (3) and yaw (2), and the same with them in the state.

    The second is a problem whose state (s, wind, coin) remembers how it was reached.
    """
    rng = np.random.default_rng(seed)
    problem = oracles.random_problem(seed, S, A, T, discount)
    wind = rng.dirichlet(np.ones(3), size=(S, A))
    coin = rng.random((3, S))  # p(coin = 1 | wind, s)
    if form == "categorical":
        land = rng.dirichlet(np.ones(S), size=(3, 2, S, A))
        land *= rng.random(land.shape) < 0.6
        land[..., 0] += 0.1
        land /= land.sum(-1, keepdims=True)
    else:
        land = np.eye(S)[rng.integers(S, size=(3, 2, S, A))]
    wind_, coin_, land_ = (torch.as_tensor(x) for x in (wind, coin, land))

    def dynamics(s, a):
        w = pyro.sample("wind", dist.Categorical(wind_[s, a]))
        c = pyro.sample("yaw", dist.Bernoulli(coin_[w, s])).long()
        p = land_[w, c, s, a]
        if form == "categorical":
            return dist.Categorical(p)
        if form == "delta":
            return dist.Delta(p.argmax(-1))
        where = torch.stack([p.argmax(-1), (p.argmax(-1) + 1) % S], -1)
        log_p = torch.tensor([0.75, 0.25]).double().log()
        return cai.SparseCategorical(log_p.expand(where.shape), where, S)

    if form == "successors":
        land = 0.75 * land + 0.25 * np.roll(land, 1, -1)
    given = np.stack([1 - coin, coin], -1).transpose(1, 0, 2)  # s, wind, coin
    P = np.einsum("saw,swc,wcsan->sanwc", wind, given, land)
    remembers = oracles.Problem(
        initial=np.repeat(problem.initial, 6) * np.tile([1, 0, 0, 0, 0, 0], S),
        prior=np.repeat(problem.prior, 6, 0),
        P=np.repeat(P.reshape(S, A, S * 6), 6, 0),
        reward=np.repeat(problem.reward, 6, 0),
        arrival=np.repeat(np.repeat(problem.arrival, 6, 0), 6, 2),
        final=np.repeat(problem.final, 6),
        T=T,
        discount=discount,
        temperature=problem.temperature,
    )
    arrays = {name: torch.as_tensor(getattr(problem, name)) for name in ("prior", "reward")}
    arrival, final = torch.as_tensor(problem.arrival), torch.as_tensor(problem.final)
    model = cai.TrajectoryModel(
        initial=dist.Categorical(torch.as_tensor(problem.initial)),
        dynamics=dynamics,
        reward=lambda s, a: arrays["reward"][s, a],
        arrival_reward=lambda s, a, s_next: arrival[s, a, s_next],
        final_reward=lambda s: final[s],
        action_prior=lambda s: dist.Categorical(arrays["prior"][s]),
        horizon=T,
        temperature=problem.temperature,
        discount=discount,
    )
    return model, remembers


FORMS = "categorical", "delta", "successors"


@pytest.mark.parametrize("form", FORMS)
@given(seed=seeds, discount=discounts, eta=etas)
def test_latents_by_paths(form, seed, discount, eta):
    """Every path of a chain whose states remember the latents, tilted as a whole."""
    model, remembers = latent_problem(seed, form, T=2, discount=discount)
    found = inference.soft_values(model, eta)
    paths = chain_paths(inference.soft_values(remembers.model(), eta), remembers)
    wind, both, later = np.zeros(3), np.zeros((2, 3, 3)), np.zeros((2, 3, 2))
    for path in paths:
        if path.alive_at(1):
            _, w, c = np.unravel_index(path.states[2], (3, 3, 2))
            wind[w] += path.probability
            both[c, path.states[1] // 6, w] += path.probability
        if path.alive_at(2):
            _, w, _ = np.unravel_index(path.states[1], (3, 3, 2))
            _, _, c = np.unravel_index(path.states[2], (3, 3, 2))
            later[path.actions[1], w, c] += path.probability
    np.testing.assert_allclose(found.marginal("t1/wind"), wind, atol=1e-11)
    np.testing.assert_allclose(found.marginal("t1/yaw", "s_1", "t1/wind"), both, atol=1e-11)
    joint = found.marginal("a_1", "t0/wind", "t1/yaw", "s_2").sum(-1)
    np.testing.assert_allclose(joint, later, atol=1e-11)


@pytest.mark.parametrize("seed", range(3))
def test_latents_against_pyro(seed):
    """Pyro enumerates the whole program, its latents included."""
    model, _ = latent_problem(seed, "categorical")
    program = config_enumerate(model, "parallel")
    second = TraceEnum_ELBO(max_plate_nesting=0).compute_marginals(program, lambda: None)
    found = inference.posterior(model)
    for t in range(model.horizon):
        for name, size in (("wind", 3), ("yaw", 2)):
            p = second[f"t{t}/{name}"].log_prob(torch.arange(size)).exp()
            torch.testing.assert_close(
                found.marginal(f"t{t}/{name}"), p.double(), atol=1e-6, rtol=0
            )


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("eta", [-math.inf, 0.0, math.inf])
@pytest.mark.parametrize("rule", ["soft", "hard"])
def test_latents_at_the_ends_of_the_dial(form, eta, rule):
    """A latent does what leads to the next state; at η = 0 it is what the program says."""
    model, remembers = latent_problem(4, form, discount=0.9)
    found = inference.soft_values(model, eta, rule)
    other = inference.soft_values(remembers.model(), eta, rule)
    coin = other.marginal("s_1").view(3, 3, 2).sum((0, 1))
    torch.testing.assert_close(found.marginal("t0/yaw", "s_1").sum(1), coin)
    if eta == 0:
        wind = remembers.P[::6].reshape(3, 2, 3, 3, 2).sum((2, 4))
        expected = found.state_actions[2].unsqueeze(-1) * torch.as_tensor(wind)
        torch.testing.assert_close(found.marginal("s_2", "a_2", "t2/wind"), expected)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("discount", [1.0, 0.8])
def test_latents_given_a_state(form, discount):
    """p(z | s_2, O) is p(z, s_2 | O) over p(s_2 | O)."""
    model, _ = latent_problem(6, form, discount=discount)
    found = inference.posterior(model)
    for s in range(3):
        seen = inference.posterior(model, {"s_2": s})
        for name in ("t0/yaw", "t1/wind", "t2/yaw"):
            joint = found.marginal(name, "s_2")[:, s]
            torch.testing.assert_close(seen.marginal(name), joint / found.states[2, s])


def test_latents_on_lists_of_successors():
    """Six hundred states: the table has lists, and moves are found in them."""
    S = 600
    slips = torch.linspace(0.1, 0.4, S).double()

    def dynamics(s, a):
        slip = pyro.sample("slip", dist.Bernoulli(slips[s]))
        gust = pyro.sample("gust", dist.Categorical(torch.tensor([0.5, 0.3, 0.2])))
        return dist.Delta((s + torch.where(slip.bool(), 2 - a, 1 + a) * gust) % S)

    model = cai.TrajectoryModel(
        initial=dist.Categorical(torch.eye(S)[0]),
        dynamics=dynamics,
        reward=0.0,
        arrival_reward=lambda s, a, s_next: (s_next % 5 == 3).double(),
        action_prior=dist.Categorical(torch.ones(2)),
        horizon=9,
    )
    found = inference.posterior(model)
    assert found.table.successors is not None
    drawn = found.sample(1, seed=0)
    joint = found.marginal("t3/slip", "t3/gust", "a_3")
    assert joint.sum().item() == pytest.approx(1)
    # By hand, over the states of the whole: p(s,a|O) p(z) exp(V(s') - Q(s,a)).
    s, a = torch.arange(S).unsqueeze(1), torch.arange(2)
    assert drawn.states.max() < S
    for slip in (0, 1):
        for gust, p in enumerate((0.5, 0.3, 0.2)):
            after = (s + (2 - a if slip else 1 + a) * gust) % S
            weight = p * (slips if slip else 1 - slips)[:, None]
            value = (after % 5 == 3) + found.V[4][after] - found.Q[3]
            expected = (found.state_actions[3] * weight * value.exp()).sum(0)
            torch.testing.assert_close(joint[slip, gust], expected, rtol=1e-6, atol=1e-9)


def test_latents_need_their_program():
    model, _ = latent_problem(0, "delta")
    table = cai.tabulate(model)
    expected = inference.posterior(model).marginal("t1/yaw")
    torch.testing.assert_close(inference.posterior(table).marginal("t1/yaw"), expected)
    alone = dataclasses.replace(table, program=None)
    stored = pickle.loads(pickle.dumps(table))
    for bare in (alone, stored):
        with pytest.raises(ValueError, match=r"table without a program.*solve the model itself"):
            inference.posterior(bare).marginal("t1/yaw")
        assert inference.posterior(bare).marginal("s_1", "s_3").sum().item() == pytest.approx(1)
    other = dataclasses.replace(table, log_dynamics=table.log_dynamics.roll(1, 0))
    with pytest.raises(ValueError, match="dynamics were replaced"):
        inference.posterior(other).marginal("t1/yaw")
    for name, message in (
        ("t1/slip", "expected a latent that the dynamics sample, wind, yaw, got 'slip'"),
        ("t3/yaw", r"expected one of the sites .* got 't3/yaw'"),
        ("t01/yaw", "got 't01/yaw'"),
    ):
        with pytest.raises(ValueError, match=message):
            inference.posterior(model).marginal(name)
    with pytest.raises(ValueError, match="of which none"):
        inference.posterior(cai.collapse(model)).marginal("t1/yaw")
    with pytest.raises(ValueError, match="can be queried but not observed"):
        inference.posterior(model, {"t1/yaw": 1})


@pytest.mark.parametrize(
    ("sites", "message"),
    [
        ((), "got none"),
        (("s_1", "s_1"), "each named once"),
        (("s_5",), "marginal: expected one of the sites s_0 … s_4, a_0 … a_3, got 's_5'"),
        (("a_4",), "got 'a_4'"),
        (("alive_1",), "only if the discount is below 1"),
        (("o_1",), "got 'o_1'"),
    ],
)
def test_marginals_of_what_is_no_site(sites, message):
    with pytest.raises(ValueError, match=message):
        inference.posterior(models.ledge()).marginal(*sites)


def test_alive_stands_alone():
    found = inference.posterior(oracles.random_problem(0, discount=0.8).model())
    with pytest.raises(ValueError, match="query alive_t alone"):
        found.marginal("alive_1", "s_1")


def test_a_joint_too_large_is_refused():
    S = 20_000
    successors = (np.arange(S)[:, None, None] + [1]) % S
    model = models.tabular(np.ones((S, 1, 1)), np.zeros((S, 1)), successors=successors, horizon=9)
    found = inference.posterior(model)
    for sites in (("s_1", "s_5"), ("s_1", "s_5", "a_6"), ("a_1", "s_5", "s_6")):
        with pytest.raises(ValueError, match=r"at most 134217728 numbers, got 400000000"):
            found.marginal(*sites)
    assert found.marginal("a_1", "s_5").shape == (1, S)
    torch.testing.assert_close(found.marginal("s_1", "a_5").squeeze(1), found.states[1])
