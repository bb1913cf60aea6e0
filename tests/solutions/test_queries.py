"""What one can ask of a solution, against sums over all paths of its chain."""

import collections
import math

import numpy as np
import oracles
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from paths import chain_paths, tilted_dynamics

import cai
from cai import inference, models

makes = st.sampled_from(oracles.KINDS)
seeds = st.integers(0, 10**6)
discounts = st.sampled_from([1.0, 0.8])
etas = st.sampled_from([-2.0, -0.4, 0.3, 1.0, 2.5])


# The tilt


def steps_of(path):
    return list(zip(path.states, path.actions, path.states[1:], strict=False))


@given(seed=seeds, discount=discounts, eta=etas)
def test_tilt_by_paths(seed, discount, eta):
    """E_q[log q/p] over paths, of the start and of the dynamics, termination included."""
    problem = oracles.random_problem(seed, discount=discount)
    found = inference.soft_values(problem.model(), eta)
    on, off = tilted_dynamics(found, problem)
    start = dynamics = 0.0
    for path in chain_paths(found, problem):
        s = path.states[0]
        start += path.probability * math.log(found.initial[s] / problem.initial[s])
        for t, (s, a, n) in enumerate(steps_of(path)):
            lives = path.alive_at(t + 1)
            q = (on if lives else off)[t][s][a][n]
            p = problem.P[s][a][n] * (discount if lives else 1 - discount)
            dynamics += path.probability * math.log(q / p)
    assert found.tilt_start == pytest.approx(start, abs=1e-11)
    assert found.tilt_dynamics == pytest.approx(dynamics, abs=1e-11)
    assert found.total_tilt == pytest.approx(start + dynamics, abs=1e-11)
    by_step = sum((found.state_actions[t] * found.tilt(t)).sum().item() for t in range(problem.T))
    assert by_step == pytest.approx(dynamics, abs=1e-11)


@given(seed=seeds, discount=discounts, eta=etas)
def test_slope_of_the_bound(seed, discount, eta):
    table = cai.tabulate(oracles.random_problem(seed, discount=discount).model())
    h = 1e-4 * abs(eta)
    up, down = (inference.soft_values(table, eta + d).bound for d in (h, -h))
    slope = inference.soft_values(table, eta).total_tilt / eta**2
    assert (up - down) / (2 * h) == pytest.approx(slope, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("discount", [1.0, 0.8])
@pytest.mark.parametrize("eta", [-1e-8, -1e-5, 1e-6, 1e-8])
def test_bend_near_zero_keeps_its_digits(discount, eta):
    """The tilt is of order η²: at 1e-8 it is 1e-16, and still half the variance of luck · η²."""
    table = cai.tabulate(oracles.random_problem(5, T=6, discount=discount).model())
    up, down = (inference.soft_values(table, d).bound for d in (1e-4, -1e-4))
    slope = (up - down) / 2e-4
    assert inference.soft_values(table, eta).total_tilt / eta**2 == pytest.approx(slope, rel=1e-4)


def test_no_bend_without_luck_or_at_zero():
    P = np.eye(4)[np.random.default_rng(0).integers(4, size=(4, 3))]
    sure = models.tabular(P, torch.zeros(4, 3), horizon=5, final_reward=torch.arange(4.0))
    assert inference.posterior(sure).total_tilt == 0
    problem = oracles.random_problem(3, discount=0.8)
    assert inference.soft_values(problem.model(), 0.0).total_tilt == 0


@pytest.mark.parametrize("eta", [-math.inf, math.inf])
def test_bend_at_the_ends_of_the_dial(eta):
    """The best and the worst case cost -log p of the outcomes that win."""
    found = inference.soft_values(models.ledge(), eta)
    assert found.tilt(0)[0, 0].item() == pytest.approx(math.log(2))


def test_bend_of_a_step_outside_the_horizon_is_an_error():
    for t in (4, 0.5):
        with pytest.raises(ValueError, match=rf"t: .*0 … 3, got {t}"):
            inference.posterior(models.ledge()).tilt(t)


# Entropy, marginals, messages


def random_evidence(problem, rng):
    """An action and a state of some path, and a mask."""
    paths = [path for path in oracles.paths(problem) if path.alive_at(2)]
    path = paths[rng.integers(len(paths))]
    optimal = rng.random(problem.T + 1) < 0.6
    return {"a_0": path.actions[0], "s_2": path.states[2]}, optimal


@given(
    make=makes,
    seed=seeds,
    discount=discounts,
    eta=st.sampled_from([-math.inf, 0.0, math.inf]) | etas,
)
def test_entropy_by_paths(make, seed, discount, eta):
    problem = make(seed, discount=discount)
    found = inference.soft_values(problem.model(), eta)
    entropy = 0.0
    for t in reversed(range(problem.T + 1)):  # by hand, from the chain's own rows
        if t == problem.T:
            onward = np.zeros(3)
            continue
        moves = found.dynamics(t).numpy()
        dies = found.log_transitions(slice(t, t + 1))[0].exp().numpy() - moves
        policy = found.policy.log_probs[t].exp().numpy()
        rows = (xlogx(moves) + xlogx(np.maximum(dies, 0))).sum(-1) + moves @ onward
        onward = (xlogx(policy) + policy * rows).sum(-1)
    start = found.initial.numpy()
    entropy = xlogx(start).sum() + start @ onward
    assert found.entropy == pytest.approx(entropy, abs=1e-10)
    if math.isfinite(eta):
        by_paths = sum(xlogx(path.probability) for path in chain_paths(found, problem))
        assert found.entropy == pytest.approx(by_paths, abs=1e-11)


def xlogx(p):
    """-p log p, with 0 log 0 = 0."""
    p = np.asarray(p)
    return -p * np.log(np.where(p > 0, p, 1.0))


@given(make=makes, seed=seeds, discount=discounts, T=st.integers(2, 9), conditioned=st.booleans())
def test_messages_make_marginals(make, seed, discount, T, conditioned):
    """log α + log β - log p(O) is the log of the marginals; α sums to p(O_{<t}, alive)."""
    problem = make(seed, T=T, discount=discount)
    model = problem.model()
    if conditioned:
        short = make(seed, T=2, discount=discount)
        known = random_evidence(short, np.random.default_rng(seed))[0]
        found = inference.posterior(model, known, torch.arange(T + 1) % 3 > 0)
    else:
        found = inference.posterior(model)
    log_marginals = found.log_forward + found.log_backward - found.log_evidence
    torch.testing.assert_close(log_marginals.exp(), found.states, rtol=0, atol=1e-11)
    torch.testing.assert_close(found.log_forward[0].exp(), found.table.log_initial.exp())


def test_messages_over_lists_and_of_what_underflows():
    """A walk on lists of successors that costs 1e5 nats a step: shifts are those of each state."""
    S = 200
    successors = np.stack([(np.arange(S) + k) % S for k in (0, 1)], -1)[:, None, :]
    P = np.full((S, 1, 2), 0.5)
    r = -1e5 * (np.arange(S) % 3)[:, None]
    found = inference.posterior(models.tabular(P, r, successors=successors, horizon=60))
    assert found.table.successors is not None
    log_marginals = found.log_forward + found.log_backward - found.log_evidence
    torch.testing.assert_close(log_marginals.exp(), found.states, rtol=0, atol=1e-8)
    assert (found.log_forward[60, :61] > -math.inf).all()
    assert found.log_forward[60, 61:].eq(-math.inf).all()


def test_messages_only_where_they_are():
    found = inference.soft_values(models.ledge(), 0.5)
    for name in ("log_forward", "log_backward"):
        with pytest.raises(AttributeError, match=f"{name}: messages .* not at optimism 0.5"):
            getattr(found, name)


@given(seed=seeds, discount=discounts, eta=st.sampled_from([0.0]) | etas)
def test_what_would_be_the_messages_at_other_optimism(seed, discount, eta):
    """Weights (p(τ,O)/π(τ))^η of the policy in the true dynamics: until t they sum to the forward
    one, log states - ηV/α + η bound, from t on to the backward one, ηV/α."""
    problem = oracles.random_problem(seed, discount=discount)
    found = inference.soft_values(problem.model(), eta)
    policy = found.policy.log_probs.exp().numpy()
    prior, alpha = np.asarray(problem.prior), problem.temperature
    forward, backward, times = np.zeros((4, 3)), np.zeros((4, 3)), np.zeros((4, 3))
    for path in oracles.paths(problem, policy=policy):
        gains = [  # log p(τ,O)/π(τ) of each step
            (problem.reward[s][a] + problem.arrival[s][a][n]) / alpha
            + math.log(prior[s][a] / policy[t][s][a])
            for t, (s, a, n) in enumerate(steps_of(path))
        ]
        gains.append(problem.final[path.states[-1]] / alpha if path.survived else 0.0)
        for t, s in enumerate(path.states):
            if path.alive_at(t):
                # A path is one way on from its beginning: p(path) sums to p(beginning).
                forward[t, s] += path.probability * math.exp(eta * sum(gains[:t]))
                backward[t, s] += path.probability * math.exp(eta * sum(gains[t:]))
                times[t, s] += path.probability
    reached = times > 0
    V, bound = found.V.numpy() / alpha, found.bound
    weights = forward * np.exp(eta * (V - bound))
    np.testing.assert_allclose(weights[reached], found.states.numpy()[reached], atol=1e-11)
    expected = (backward / np.where(reached, times, 1))[reached]
    np.testing.assert_allclose(np.log(expected), (eta * V)[reached], atol=1e-10)


# Samples


def agree(counts, probabilities, n):
    """A χ² test of counts of disjoint events, the rare ones lumped together."""
    expected = n * np.asarray(probabilities)
    counts = np.asarray(counts, float)
    assert counts[expected == 0].sum() == 0
    rare = expected < 5
    expected = np.append(expected[~rare], expected[rare].sum() + 1e-300)
    counts = np.append(counts[~rare], counts[rare].sum())
    keep = expected > 1
    statistic = ((counts - expected)[keep] ** 2 / expected[keep]).sum()
    return scipy.stats.chi2.sf(statistic, max(1, keep.sum() - 1))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("discount", [1.0, 0.7])
@pytest.mark.parametrize("eta", [-1.0, 0.0, 1.0, "conditioned"])
def test_samples_are_of_the_joint_distribution(seed, discount, eta):
    """Frequencies of whole trajectories, against the probability of every path."""
    problem = oracles.random_problem(seed, T=3, discount=discount)
    if eta == "conditioned":
        known, optimal = random_evidence(problem, np.random.default_rng(seed))
        found = inference.posterior(problem.model(), known, optimal)
        truth = oracles.posterior(problem, observed=known, optimal=optimal)
        exact = {key(path): p for path, p in truth["paths"]}
    else:
        found = inference.soft_values(problem.model(), eta)
        if eta == 0:
            policy = found.policy.log_probs.exp().numpy()
            everything = oracles.paths(problem, policy=policy)
        else:
            everything = chain_paths(found, problem)
        exact = {key(path): path.probability for path in everything}
    n = 20_000
    drawn = found.sample(n, seed=seed)
    dead = ~drawn.alive
    states = drawn.states.masked_fill(dead & dead.roll(1, 1), -1)  # but where they died
    rows = torch.cat([states, drawn.actions.masked_fill(dead[:, :-1], -1)], 1)
    rows = torch.cat([rows, drawn.alive[:, -1:]], 1)
    counts = collections.Counter()
    for row, count in zip(*rows.unique(dim=0, return_counts=True), strict=True):
        s, a = row[: problem.T + 1], row[problem.T + 1 : -1]
        counts[tuple(s[s >= 0].tolist()), tuple(a[a >= 0].tolist()), bool(row[-1])] += int(count)
    assert set(counts) <= set(exact), "an impossible trajectory was drawn"
    events = list(exact)
    assert agree([counts[e] for e in events], [exact[e] for e in events], n) > 1e-3


def key(path):
    return path.states, path.actions, path.survived


@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_samples_of_a_sparse_model_and_their_rewards(discount):
    """Few trajectories among many states take another way through the table; returns agree."""
    S, T, n = 3000, 12, 3000
    rng = np.random.default_rng(3)
    successors = (np.arange(S)[:, None, None] + rng.integers(-3, 4, size=(S, 4, 3))) % S
    successors[..., 1:] = (successors[..., :1] + np.array([7, 20])) % S
    P = rng.random((S, 4, 3))
    P[..., 2] *= rng.random((S, 4)) < 0.5
    P /= P.sum(-1, keepdims=True)
    model = models.tabular(
        P,
        rng.normal(size=(S, 4)),
        successors=successors,
        arrival_reward=np.cos(successors),
        final_reward=rng.normal(size=S),
        initial=np.eye(S)[:3].sum(0) / 3,
        horizon=T,
        discount=discount,
        temperature=0.8,
    )
    for known, optimal in ((None, None), ({"a_3": 2}, torch.arange(T + 1) % 2 == 0)):
        found = inference.posterior(model, known, optimal)
        drawn = found.sample(n, seed=1)
        table = found.table
        error = drawn.returns.std().item() / math.sqrt(n)
        assert abs(drawn.returns.mean().item() - found.imagined_return) < 4 * error
        for t in (1, 6, T):
            counts = torch.bincount(drawn.states[:, t][drawn.alive[:, t]], minlength=S)
            events = np.append(found.states[t], 1 - found.states[t].sum().clamp(max=1))
            dead = n - counts.sum()
            assert agree(np.append(counts, dead), np.maximum(events, 0), n) > 1e-3
        s, a, s_next = drawn.states[:, :-1], drawn.actions, drawn.states[:, 1:]
        listed = (table.successors[s, a] == s_next.unsqueeze(-1)) & (table.log_dynamics[s, a] > -60)
        assert listed.any(-1).all()


def test_ghosts_run_on_by_the_prior():
    """After death: the prior's actions and the true dynamics, unpaid, as in the program."""
    problem = oracles.random_problem(1, T=3, discount=0.3, forbidden=0.0)
    n = 40_000
    drawn = inference.posterior(problem.model()).sample(n, seed=0)
    dead = ~drawn.alive[:, 2]
    for s in range(3):
        here = dead & (drawn.states[:, 2] == s)
        acts = torch.bincount(drawn.actions[here, 2], minlength=2)
        assert agree(acts, problem.prior[s], int(here.sum())) > 1e-3
        for a in acts.nonzero().flatten().tolist():
            there = here & (drawn.actions[:, 2] == a)
            counts = torch.bincount(drawn.states[there, 3], minlength=3)
            assert agree(counts, problem.P[s][a], int(there.sum())) > 1e-3
    assert drawn.rewards[:, 2][dead].eq(0).all()
    assert drawn.final_rewards[~drawn.alive[:, 3]].eq(0).all()


def test_samples_are_seeded():
    found = inference.posterior(oracles.random_problem(1, discount=0.8).model())
    one, two, other = (found.sample(50, seed=seed).states for seed in (3, 3, 4))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    state = torch.get_rng_state()
    found.sample(5, seed=1)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(5)
    one = found.sample(50).states
    torch.manual_seed(5)
    assert torch.equal(one, found.sample(50).states)
    with pytest.raises(ValueError, match="samples: expected a whole number of at least 1"):
        found.sample(0)


def test_a_long_sample():
    """T = 1e5: marginals of the whole trajectory agree with the average occupancy."""
    rng = np.random.default_rng(0)
    P = rng.random((3, 2, 3))
    P /= P.sum(-1, keepdims=True)
    T = 100_000
    found = inference.posterior(models.tabular(P, rng.normal(size=(3, 2)), horizon=T))
    drawn = found.sample(4, seed=0)
    shares = torch.bincount(drawn.states.flatten(), minlength=3) / drawn.states.numel()
    np.testing.assert_allclose(shares, found.states.mean(0), atol=0.01)


def test_infinite_horizons_are_refused():
    P = np.full((2, 1, 2), 0.5)
    model = models.tabular(P, -torch.ones(2, 1), horizon=None, discount=0.9)
    table = cai.tabulate(model)
    with pytest.raises(ValueError, match=r"horizon: .* needs a finite number of steps"):
        cai.Solution(table, 1.0, torch.zeros(2, dtype=torch.float64))
