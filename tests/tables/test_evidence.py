"""More observed than optimality, or less: against sums over all paths, and against Pyro."""

import dataclasses
import itertools
import math

import numpy as np
import oracles
import pyro
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pyro.infer import TraceEnum_ELBO, config_enumerate
from pyro.poutine.messenger import Messenger

import cai
from cai import inference, models

makes = st.sampled_from(oracles.KINDS)
seeds = st.integers(0, 10**6)
discounts = st.sampled_from([1.0, 0.8])


def close(x, y, tolerance=1e-11):
    np.testing.assert_allclose(np.asarray(x, float), np.asarray(y, float), rtol=0, atol=tolerance)


def random_evidence(seed, problem, share=0.4):
    """Some of the sites of a path that is possible, and a mask of optimality."""
    rng = np.random.default_rng(seed)
    possible = [path for path in oracles.paths(problem) if path.probability > 0]
    path = possible[rng.integers(len(possible))]
    sites = {f"s_{t}": s for t, s in enumerate(path.states) if path.alive_at(t)}
    sites |= {f"a_{t}": a for t, a in enumerate(path.actions)}
    if problem.discount < 1:
        sites |= {f"alive_{t}": int(path.alive_at(t)) for t in range(1, problem.T + 1)}
    observed = {name: value for name, value in sites.items() if rng.random() < share}
    return observed, rng.random(problem.T + 1) < 0.6


@given(make=makes, seed=seeds, discount=discounts)
def test_every_field_against_all_paths(make, seed, discount):
    problem = make(seed, discount=discount)
    observed, optimal = random_evidence(seed, problem)
    truth = oracles.posterior(problem, observed=observed, optimal=optimal)
    found = inference.posterior(problem.model(), observed, torch.as_tensor(optimal))
    assert found.bound == pytest.approx(math.log(truth["evidence"]), abs=1e-12)
    assert found.log_evidence == found.bound
    assert found.imagined_return == pytest.approx(truth["imagined_return"], abs=1e-11)
    close(found.states, truth["states"])
    close(found.state_actions, truth["state_actions"])
    close(found.visits, np.sum(truth["state_actions"], 0))
    close(found.initial, truth["states"][0])
    for t in range(problem.T):
        pairs = np.array(truth["state_actions"][t])
        close(found.dynamics(t).numpy() * pairs[..., None], truth["transitions"][t])
    entropy = -sum(p * math.log(p) for _, p in truth["paths"])
    assert found.entropy == pytest.approx(entropy, abs=1e-11)


def log(x):
    return math.log(x) if x > 0 else -math.inf


def suffix_mass(problem, path, observed, optimal, t):
    """p(what is observed at t or later, and the path from there on | s_t)."""
    later = {name: value for name, value in observed.items() if int(name.split("_")[1]) >= t}
    if not oracles.agrees(path, later):
        return 0.0
    return oracles.mass(problem, path, [o and u >= t for u, o in enumerate(optimal)])


@given(seed=seeds, discount=discounts)
def test_values_and_messages_against_all_paths(seed, discount):
    """V_t(s) is what is observed from s_t on; the forward message what is observed before.

    Compared as logarithms: sums of positive terms err relative to themselves, by ε of the largest
    exponent among them, however large or small they are.
    """
    problem = oracles.random_problem(seed, S=2, discount=discount, zeros=0)
    observed, optimal = random_evidence(seed, problem, 0.25)
    found = inference.posterior(problem.model(), observed, torch.as_tensor(optimal))
    everything = list(oracles.paths(problem))
    for t, s in itertools.product(range(problem.T + 1), range(2)):
        here = [p for p in everything if p.alive_at(t) and p.states[t] == s]
        total = sum(path.probability for path in here)
        onward = sum(suffix_mass(problem, path, observed, optimal, t) for path in here) / total
        close(found.V[t, s], problem.temperature * log(onward))
        close(found.log_backward[t, s], log(onward))
        before = {name: x for name, x in observed.items() if int(name.split("_")[1]) < t}
        arrived = sum(
            oracles.mass(problem, path, [o and u < t for u, o in enumerate(optimal)])
            for path in here
            if oracles.agrees(path, before)
        )
        close(found.log_forward[t, s], log(arrived))
        if t < problem.T:
            prior = torch.as_tensor(problem.prior[s]).log()
            known = observed.get(f"s_{t}", s) == s and observed.get(f"alive_{t}", 1)
            value = torch.logsumexp(prior + found.Q[t, s] / problem.temperature, -1)
            close(found.log_values[t, s], value if known else -math.inf)


class Unobserved(Messenger):
    """Runs a program without the scores of the o_t that are not observed."""

    def __init__(self, program, optimal):
        super().__init__()
        self.program = program
        self.hidden = {f"o_{t}" for t, seen in enumerate(optimal) if not seen}

    def _pyro_sample(self, msg):
        if msg["name"] in self.hidden:
            msg["mask"] = False

    def __call__(self):
        with self:
            self.program()


@given(seed=seeds, discount=discounts)
def test_evidence_against_pyro(seed, discount):
    """pyro.condition and hidden o_t; who is observed there is alive there."""
    problem = oracles.random_problem(seed, discount=discount)
    observed, optimal = random_evidence(seed, problem)
    model = cai.collapse(problem.latent_model())
    data = {name: torch.tensor(value) for name, value in observed.items()}
    if discount < 1:
        for name in observed:
            kind, t = name.split("_")
            if kind != "alive" and int(t) > 0:
                data[f"alive_{t}"] = torch.tensor(1.0)
        data = {name: x.double() if "alive" in name else x for name, x in data.items()}
    program = Unobserved(pyro.condition(model, data), optimal)
    second = -TraceEnum_ELBO(max_plate_nesting=0).loss(
        config_enumerate(program, "parallel"), lambda: None
    )
    found = inference.posterior(model, observed, optimal.tolist())
    assert found.bound == pytest.approx(second, abs=1e-11)


@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_nothing_more_observed_is_the_posterior(discount):
    problem = oracles.random_problem(4, S=5, A=3, T=6, discount=discount)
    fast, slow = (inference.posterior(problem.model(), x) for x in (None, {}))
    for field in ("log_values", "Q", "states", "state_actions", "log_forward", "initial"):
        close(getattr(fast, field), getattr(slow, field), 1e-12)
    for field in ("bound", "imagined_return", "entropy", "total_tilt"):
        assert getattr(fast, field) == pytest.approx(getattr(slow, field), abs=1e-11)


def ring(S=40, T=12, discount=1.0, **changes):
    """Steps left, none and right on a ring, that sometimes go nowhere: three successors."""
    rng = np.random.default_rng(0)
    successors = (np.arange(S)[:, None, None] + np.array([-1, 0, 1])) % S
    successors = np.repeat(successors, 2, 1)
    P = rng.random((S, 2, 3)) + 0.05
    arguments = {"successors": successors, "horizon": T}
    arguments |= {"arrival_reward": np.sin(successors)}
    arguments |= {"final_reward": rng.normal(size=S), "discount": discount, "temperature": 0.5}
    P = P / P.sum(-1, keepdims=True)
    return models.tabular(P, rng.normal(size=(S, 2)), **(arguments | changes))


@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_lists_of_successors_and_the_marginals_agree(discount):
    """p(s_5, a_7, s_12 | O) by the chain rule of conditional evidence, on a sparse model."""
    model = ring(discount=discount)
    table = cai.tabulate(model)
    assert table.successors is not None
    free = inference.posterior(table)
    one = inference.posterior(table, {"s_5": 3})
    assert math.exp(one.bound - free.bound) == pytest.approx(free.states[5, 3].item(), rel=1e-12)
    two = inference.posterior(table, {"s_5": 3, "a_7": 1})
    share = one.state_actions[7, :, 1].sum().item()
    assert math.exp(two.bound - one.bound) == pytest.approx(share, rel=1e-12)
    close(two.states[5], torch.eye(40)[3])
    end = inference.posterior(table, {"s_5": 3, "a_7": 1, "s_12": 2})
    assert math.exp(end.bound - two.bound) == pytest.approx(two.states[12, 2].item(), rel=1e-12)
    close(end.states[:, :].sum(-1), torch.ones(13))


def test_a_prefix_is_a_later_start():
    """After s_0, a_0, s_1 the rest is the posterior of a shorter problem that starts in s_1."""
    problem = oracles.random_problem(2, S=4, T=6, zeros=0.0, forbidden=0.0)
    found = inference.posterior(problem.model(), {"s_0": 1, "a_0": 0, "s_1": 2})
    rest = inference.posterior(problem.model(horizon=5, initial=np.eye(4)[2]))
    close(found.states[1:], rest.states)
    close(found.state_actions[1:], rest.state_actions)
    first = problem.initial[1] * problem.prior[1][0] * problem.P[1][0][2]
    paid = (problem.reward[1][0] + problem.arrival[1][0][2]) / problem.temperature
    assert found.bound == pytest.approx(math.log(first) + paid + rest.bound, abs=1e-12)


def test_no_step_optimal_is_the_prior_and_a_goal_a_bridge():
    model = ring()
    none = torch.zeros(13, dtype=torch.bool)
    prior = inference.posterior(model, optimal=none)
    assert prior.bound == pytest.approx(0, abs=1e-12)
    table = cai.tabulate(model)
    uniform = torch.full((12, 40, 2), 0.5, dtype=torch.float64).log()
    by_the_prior = cai.evaluate(table, cai.TabularPolicy.from_log_probs(uniform))
    close(prior.states, by_the_prior.states, 1e-12)
    bridge = inference.posterior(model, {"s_12": 5}, none)
    assert bridge.bound == pytest.approx(math.log(prior.states[12, 5]), abs=1e-11)
    close(bridge.states[12], torch.eye(40)[5])


@pytest.mark.parametrize("eta", [0.3, 1.0, 2.0, math.inf])
@pytest.mark.parametrize("seed", range(4))
def test_insisting_on_a_state_at_any_optimism_above_zero(seed, eta):
    """In two parts, as the documentation says; with states that know the time; and at η = 1."""
    problem = oracles.random_problem(seed, T=5)
    model, x, t, S = problem.model(), seed % 3, 2, 3
    later = inference.soft_values(dataclasses.replace(model, horizon=5 - t), eta)
    final = lambda s: torch.where(s == x, later.V[0, x], -math.inf)  # noqa: E731
    found = inference.soft_values(dataclasses.replace(model, horizon=t, final_reward=final), eta)
    P, arrival = np.zeros((6 * S, 2, 6 * S)), np.zeros((6 * S, 2, 6 * S))
    for time in range(6):
        here, there = slice(time * S, (time + 1) * S), slice((time + 1) * S, (time + 2) * S)
        if time == 5:
            P[here, :, here] = np.eye(S)[:, None]
            break
        P[here, :, there], arrival[here, :, there] = problem.P, problem.arrival
        if time + 1 == t:
            arrival[here, :, (time + 1) * S + np.delete(np.arange(S), x)] = -math.inf
    knows = oracles.Problem(
        initial=np.append(problem.initial, np.zeros(5 * S)),
        prior=np.tile(problem.prior, (6, 1)),
        P=P,
        reward=np.tile(problem.reward, (6, 1)),
        arrival=arrival,
        final=np.tile(problem.final, 6),
        T=5,
        discount=1.0,
        temperature=problem.temperature,
    )
    whole = inference.soft_values(knows.model(), eta)
    assert found.bound == pytest.approx(whole.bound, abs=1e-10)
    close(found.states[1], whole.states[1].view(6, S)[1])
    close(whole.states[t, t * S + x], 1.0)
    if eta == 1:
        observed = inference.posterior(model, {f"s_{t}": x})
        assert found.bound == pytest.approx(observed.bound, abs=1e-10)
        close(found.states, observed.states[: t + 1])
    for other in (0.0, -0.5):
        assert inference.soft_values(knows.model(), other).bound == -math.inf


def test_dead_at_a_step_is_dead_for_good():
    problem = oracles.random_problem(6, T=5, discount=0.7)
    found = inference.posterior(problem.model(), {"alive_2": 1, "alive_4": 0})
    alive = found.states.sum(-1)
    close(alive[:3], 1)
    assert 0 < alive[3] < 1
    close(alive[4:], 0)
    free = inference.posterior(problem.model())
    share = free.states[2].sum() - free.states[4].sum()
    assert math.exp(found.bound - free.bound) == pytest.approx(share.item(), rel=1e-11)


def test_extreme_rewards_long_horizons_and_forbidden_rewards():
    """±1e6 and -inf where unobserved, T = 1e5: no NaN, and what is not observed is not paid."""
    P = torch.eye(2).repeat(2, 1, 1).double()
    r = torch.tensor([[1e6, -torch.inf], [-1e6, 0.0]])
    model = models.tabular(P, r, horizon=3)
    found = inference.posterior(model, {"a_1": 1, "s_3": 1}, [True, False, True, True])
    assert found.bound == pytest.approx(1e6 - 3 * math.log(2), abs=1e-8)
    assert found.imagined_return == -math.inf
    close(found.states.sum(-1), 1)
    far = ring(S=3, T=100_000, successors=None, arrival_reward=None)
    seen = inference.posterior(far, {"s_100000": 2, "a_50000": 1})
    assert math.isfinite(seen.bound)
    close(seen.states.sum(-1), 1, 1e-9)
    close(seen.states[-1], [0, 0, 1])


# What cannot be


@pytest.mark.parametrize(
    ("observed", "named"),
    [
        ({"s_0": 3}, "observed s_0 = 3 is impossible given optimality;"),
        ({"a_0": 0, "s_1": 1}, "observed s_1 = 1 is impossible given optimality and a_0 = 0;"),
        ({"s_4": 0, "s_1": 3}, "observed s_4 = 0 is impossible given optimality and s_1 = 3;"),
        ({"s_2": 1, "a_0": 1, "s_1": 4}, "observed s_1 = 4 is impossible given optimality and a_0"),
    ],
)
def test_what_is_impossible_is_named(observed, named):
    with pytest.raises(ValueError, match=r"evidence: p\(observed, O\) = 0, ") as error:
        inference.posterior(models.ledge(), observed)
    assert named in str(error.value)


def test_optimality_that_is_impossible_is_named():
    model = models.tabular([[[1.0]]], [[-torch.inf]], horizon=2)
    with pytest.raises(ValueError, match=r"evidence: p\(O\) = 0, .*leave those steps out"):
        inference.posterior(model, {"s_0": 0}, [False, True, True])
    assert inference.posterior(model, optimal=[False, False, True]).bound == 0


def test_dying_cannot_be_undone():
    model = ring(discount=0.9)
    with pytest.raises(ValueError, match="observed s_5 = 3 is impossible given optimality and"):
        inference.posterior(model, {"alive_4": 0, "s_5": 3})


@pytest.mark.parametrize(
    ("observed", "message"),
    [
        ({"s_5": 0}, r"observed: expected one of the sites s_0 … s_4, a_0 … a_3, got 's_5'"),
        ({"a_4": 0}, r"got 'a_4'"),
        ({"s_01": 0}, r"got 's_01'"),
        ({"t3/slip": 0}, r"got 't3/slip'"),
        ({3: 0}, r"got 3"),
        ({"o_1": 1}, r"got 'o_1'; choose the observed o_t by optimal="),
        ({"alive_1": 1}, r"got 'alive_1'; .* only if the discount is below 1"),
        ({"s_1": 5}, r"observed\['s_1'\]: expected an integer in 0 … 4, got 5"),
        ({"s_1": -1}, r"expected an integer in 0 … 4, got -1"),
        ({"a_1": 2}, r"observed\['a_1'\]: expected an integer in 0 … 1, got 2"),
        ({"s_1": 1.0}, r"expected an integer in 0 … 4, got 1.0"),
    ],
)
def test_unknown_sites_and_values_out_of_range(observed, message):
    with pytest.raises(ValueError, match=message):
        inference.posterior(models.ledge(), observed)


@pytest.mark.parametrize("mask", [[True] * 4, [1.0] * 5, torch.ones(5), [[True] * 5]])
def test_a_mask_of_another_kind(mask):
    with pytest.raises(ValueError, match=r"optimal: expected 5 booleans, one for each o_0 … o_4"):
        inference.posterior(models.ledge(), optimal=mask)


def test_values_may_be_tensors_and_numpy_integers():
    model = models.ledge()
    bounds = {
        inference.posterior(model, {"s_1": value}).bound
        for value in (3, np.int64(3), torch.tensor(3))
    }
    assert len(bounds) == 1


def test_infinite_horizons_have_no_sites():
    with pytest.raises(ValueError, match="horizon"):
        inference.posterior(models.ledge(horizon=None), {"s_1": 0})
