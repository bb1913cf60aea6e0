"""Importance sampling with a policy: evidence, weights, how many count, and the tail's shape."""

import itertools
import math

import numpy as np
import oracles
import pyro.distributions as dist
import pytest
import scipy.special
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro.infer import Importance

import cai
from cai import inference, models
from cai.inference.particles.pareto import generalised_pareto

makes = st.sampled_from(oracles.KINDS)
seeds = st.integers(0, 10**6)


def random_policy(seed, problem):
    rng = np.random.default_rng(seed)
    weights = (0.2 + rng.random((problem.T, *problem.sizes))) * (np.asarray(problem.prior) > 0)
    return cai.TabularPolicy.from_log_probs(
        torch.as_tensor(weights / weights.sum(-1, keepdims=True)).log()
    )


def weight_of(problem, path, q):
    """w = p(τ,O)/q(τ) of a path."""
    return math.exp(path.reward / problem.temperature - oracles.log_ratio(problem, path, q))


@settings(max_examples=10)
@given(make=st.sampled_from(oracles.KINDS), seed=seeds, discount=st.sampled_from([1.0, 0.8]))
def test_against_sums_over_all_paths(make, seed, discount):
    """Evidence and marginals, each as close as the mean of w and of w (x - E[x|O]) has to be."""
    problem, n = make(seed, discount=discount, scale=0.6), 4000
    model, policy = problem.latent_model(), random_policy(seed, problem)
    found = inference.importance(model, policy, n, seed)
    truth = oracles.posterior(problem)
    q = policy.log_probs.exp().numpy()
    weighted = [(path, weight_of(problem, path, q)) for path in oracles.paths(problem, policy=q)]
    evidence = oracles.deviation([(path.probability, w) for path, w in weighted], n)
    mean_weight = found.log_weights.exp().mean().item()
    rounding = n * np.finfo(float).eps * mean_weight  # all there is where one path is certain
    assert abs(mean_weight - truth["evidence"]) <= evidence + rounding
    paths, S = found.trajectories, problem.sizes[0]
    lives = torch.nn.functional.one_hot(paths.states, S) * paths.alive.unsqueeze(-1)
    error = (found.mean(lives) - torch.tensor(truth["states"])).abs() * mean_weight
    for t, s in itertools.product(range(problem.T + 1), range(S)):
        here = [path.alive_at(t) and path.states[t] == s for path, _ in weighted]
        away = [
            (path.probability, w * (x - truth["states"][t][s]))
            for (path, w), x in zip(weighted, here, strict=True)
        ]
        assert error[t, s] <= oracles.deviation(away, n) + rounding


@pytest.mark.parametrize("discount", [1.0, 0.8])
def test_standard_errors_by_all_paths(discount):
    """√(Var w/n)/E[w] of the log evidence; of a mean its influence w (x - E[x|O])/E[w]."""
    problem, n = oracles.random_problem(5, discount=discount, scale=0.3), 20_000
    model, policy = problem.model(), random_policy(5, problem)
    q = policy.log_probs.exp().numpy()
    weighted = [
        (p.probability, p.reward, p.reward / problem.temperature - oracles.log_ratio(problem, p, q))
        for p in oracles.paths(problem, policy=q)
    ]
    evidence = sum(p * math.exp(log_w) for p, _, log_w in weighted)
    mean = sum(p * math.exp(log_w) * x for p, x, log_w in weighted) / evidence
    one = oracles.spread([(p, math.exp(log_w) / evidence) for p, _, log_w in weighted])
    influence = oracles.spread(
        [(p, math.exp(log_w) * (x - mean) / evidence) for p, x, log_w in weighted]
    )
    found = inference.importance(model, policy, n, seed=0)
    assert found.log_evidence_stderr == pytest.approx(one / n**0.5, rel=0.08)
    stderr = found.stderr(found.trajectories.returns).item()
    assert stderr == pytest.approx(influence / n**0.5, rel=0.08)


@settings(max_examples=10)
@given(make=makes, seed=seeds)
def test_weights_are_those_of_the_path(make, seed):
    problem = make(seed, discount=0.8)
    policy = random_policy(seed, problem)
    q = policy.log_probs.exp().numpy()
    known = {
        (path.states, path.actions, path.survived): path.reward / problem.temperature
        - oracles.log_ratio(problem, path, q)
        for path in oracles.paths(problem, policy=q)
    }
    found = inference.importance(problem.model(), policy, 50, seed)
    paths = found.trajectories
    for s, a, alive, w in zip(
        paths.states.tolist(), paths.actions.tolist(), paths.alive, found.log_weights, strict=True
    ):
        steps = int(alive[:-1].sum())  # taken while alive
        key = (tuple(s[: steps + 1]), tuple(a[:steps]), bool(alive[-1]))
        assert w.item() == pytest.approx(known[key], abs=1e-9)


@settings(max_examples=8)
@given(make=makes, seed=seeds)
def test_nothing_beats_the_ceiling_and_optimism_two_attains_it(make, seed):
    """The effective fraction tends to exp(2 (log p(O) - R_2)), at most the ceiling."""
    problem = make(seed, scale=0.5)
    model, table = problem.model(), cai.tabulate(problem.model())
    ceiling = inference.effective_sample_ceiling(table)
    evidence = inference.posterior(table).bound
    for policy in (inference.soft_values(table, 2.0).policy, random_policy(seed, problem)):
        limit = math.exp(2 * (evidence - inference.renyi_bound(table, policy, 2.0).bound))
        q, n = policy.log_probs.exp().numpy(), 20_000
        w = inference.importance(model, policy, n, seed).log_weights.exp()
        one, two = (
            [
                (path.probability, weight_of(problem, path, q) ** power)
                for path in oracles.paths(problem, policy=q)
            ]
            for power in (1, 2)
        )
        first, second = (math.fsum(p * x for p, x in moment) for moment in (one, two))
        assert first**2 / second == pytest.approx(limit, rel=1e-9)
        assert abs(w.mean().item() - first) <= oracles.deviation(one, n) + 1e-12 * first
        assert abs(w.square().mean().item() - second) <= oracles.deviation(two, n) + 1e-12 * second
        assert limit <= ceiling + 1e-9
    best = inference.soft_values(table, 2.0).policy
    attained = inference.renyi_bound(table, best, 2.0).bound
    assert math.exp(2 * (evidence - attained)) == pytest.approx(ceiling, abs=1e-9)


def test_effective_size_by_hand():
    paths = models.ledge().simulate(cai.TabularPolicy(models.ledge()), 4, seed=0)
    found = inference.ImportanceSample(paths, torch.tensor([1.0, 1.0, 2.0, 0.0]).double().log())
    assert found.effective_sample_size == pytest.approx(16 / 6)
    assert found.effective_fraction == pytest.approx(4 / 6)
    assert found.log_evidence == pytest.approx(0.0)
    x = torch.tensor([[1.0], [3.0], [5.0], [math.pi]])
    assert found.mean(x).tolist() == pytest.approx([3.5])
    assert found.stderr(x).item() == pytest.approx(math.hypot(2.5, 0.5, 2 * 1.5) / 4)
    assert "effective 2.7 of 4" in repr(found)


def test_the_same_weights_as_pyro():
    """Pyro's Importance scores the program and its guide; on average both say the same."""
    model = models.ledge(discount=0.9)
    policy = inference.soft_values(model).policy
    pyro_says = Importance(model, model.rollout(policy), num_samples=60).run().log_weights
    w = torch.as_tensor(pyro_says).double().exp()
    ours = inference.importance(model, policy, 4000).log_weights.exp()
    error = math.hypot(w.std() / 60**0.5, ours.std() / 4000**0.5)
    assert abs(w.mean() - ours.mean()) < 4 * error


def regulator(cost):
    one = torch.ones(1, 1, dtype=torch.float64)
    return models.linear_gaussian(
        0.9 * one,
        one,
        horizon=4,
        noise=one,
        Q=cost * one,
        Q_final=cost * one,
        initial_mean=[1.0],
        initial_covariance=one,
        action_prior=dist.MultivariateNormal(torch.zeros(1), torch.eye(1)),
    )


def model_prior(model):
    return lambda t, s: model.prior(s, t)


def test_a_continuous_model_and_its_tail():
    """With noise that no policy can choose, the weights' tail is light or heavy with the cost."""
    for cost, heavy in ((0.05, False), (20.0, True)):
        model = regulator(cost)
        exact = inference.posterior(model)
        proposal = exact.policy if not heavy else model_prior(model)
        found = inference.importance(model, proposal, 4000)
        assert found.reliable is not heavy
        assert (found.pareto_k > 0.7) is heavy
        if not heavy:
            assert abs(found.log_evidence - exact.bound) < 4 * found.log_evidence_stderr
            mean = found.mean(found.trajectories.states)
            error = (mean - exact.states.mean).abs()
            assert (error < 4 * found.stderr(found.trajectories.states)).all()


def test_policies_with_a_memory_and_with_latents():
    model = models.ledge(discount=0.9)
    truth = inference.posterior(model).bound
    history = cai.HistoryPolicy(model)
    latent = cai.LatentPolicy(model, dist.Categorical(torch.ones(2)), hidden=(4,))
    for policy in (history, latent):
        for parameter in policy.parameters():  # both start at the prior, which has no memory
            torch.nn.init.normal_(parameter, std=0.7)
        found = inference.importance(model, policy, 4000)
        assert abs(found.log_evidence - truth) < 4 * found.log_evidence_stderr


def test_seeded():
    model = models.ledge()
    policy = cai.TabularPolicy(model)
    one, two, three = (inference.importance(model, policy, 50, seed) for seed in (1, 1, 2))
    assert torch.equal(one.log_weights, two.log_weights)
    assert not torch.equal(one.trajectories.states, three.trajectories.states)


def test_nothing_possible_says_so():
    model = cai.TrajectoryModel(
        initial=dist.Categorical(torch.ones(2)),
        dynamics=lambda s, a: dist.Delta(s),
        reward=lambda s, a: torch.full(s.shape, -math.inf),
        action_prior=dist.Categorical(torch.ones(2)),
        horizon=2,
    )
    with pytest.raises(ValueError, match=r"evidence: .* 10 of weight zero; .*inference\.smc"):
        inference.importance(model, lambda t, s: model.prior(s), 10)


# The tail


@pytest.mark.parametrize("shape", [0.2, 0.5, 0.9, 1.5])
def test_pareto_draws_have_their_shape(shape):
    """The mean of 30 estimates within 4 standard errors, less their pull towards ½."""
    n, tail = 4000, 189
    rng = np.random.default_rng(0)
    found = np.array(
        [inference.pareto_k(torch.as_tensor(shape * rng.exponential(size=n))) for _ in range(30)]
    )
    # Of the fit itself some bias of order 1/tail is left.
    assert (found.mean() * (tail + 10) - 5) / tail == pytest.approx(
        shape, abs=4 * found.std() / 30**0.5 + 2 / tail
    )
    # The spread is that of maximum likelihood, (1 + k)/√tail.
    assert found.std() == pytest.approx((1 + shape) / tail**0.5, rel=0.5)


def test_the_fit_against_maximum_likelihood():
    for shape in (-0.3, 0.4, 1.0):
        x = scipy.stats.genpareto.rvs(shape, size=2000, random_state=1)
        other, _, _ = scipy.stats.genpareto.fit(x, floc=0)
        pulled = generalised_pareto(torch.as_tensor(np.sort(x)))
        ours = (pulled * 2010 - 5) / 2000  # without the pull towards ½
        assert ours == pytest.approx(other, abs=0.02)


def zhang_and_stephens(x):
    """The shape, by the formulas of the paper, with 30 + √n points."""
    n, quartile = len(x), x[math.floor(len(x) / 4 + 0.5) - 1]
    points = 30 + math.floor(math.sqrt(n))
    j = np.arange(1, points + 1)
    theta = 1 / x[-1] + (1 - np.sqrt(points / (j - 0.5))) / (3 * quartile)
    k = -np.log1p(-theta[:, None] * x).mean(1)
    likelihood = n * (np.log(theta / k) + k - 1)
    best = scipy.special.softmax(likelihood) @ theta
    return np.log1p(-best * x).mean()


def test_the_tail_and_its_pull():
    """100 weights have a tail of 20, less the largest of the others, and ten more of shape ½."""
    log_w = torch.randn(100, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    w = log_w.exp().sort().values
    shape = zhang_and_stephens((w[80:] - w[79]).numpy())
    assert inference.pareto_k(log_w) == pytest.approx((20 * shape + 5) / 30, abs=1e-9)


def test_evenly_spaced_weights_have_a_tail_without_a_division_by_zero():
    """For about half of these steps a point of Pyro's grid is the exponential distribution."""
    for step in range(1, 60):
        even = torch.full((25,), 0.5, dtype=torch.float64)
        even[20:] += torch.arange(1, 6) * (step / 10)
        near = even.clone()
        near[-1] *= 1 + 1e-6
        near_k = inference.pareto_k(near.log())
        assert inference.pareto_k(even.log()) == pytest.approx(near_k, abs=1e-4)


def test_ties_that_put_a_point_of_the_grid_at_zero():
    """100 equal exceedances: the third of 40 points is 1/x + (1 - 4)/(3 x) = 0."""
    assert math.isfinite(generalised_pareto(torch.ones(100, dtype=torch.float64)))
    nearly = torch.linspace(1 - 1e-9, 1 + 1e-9, 100, dtype=torch.float64)
    near = generalised_pareto(nearly)
    assert generalised_pareto(torch.ones(100, dtype=torch.float64)) == pytest.approx(near, rel=1e-3)


@settings(max_examples=15)
@given(seed=seeds, shift=st.sampled_from([-1e5, -3.0, 800.0]))
def test_a_constant_factor_does_not_matter(seed, shift):
    log_w = torch.randn(200, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    assert inference.pareto_k(log_w + shift) == pytest.approx(inference.pareto_k(log_w), abs=1e-6)


def test_edges_of_the_tail():
    assert inference.pareto_k(torch.zeros(100)) == -math.inf
    one = torch.zeros(1000)
    one[3] = 20.0  # one weight carries all of it
    assert inference.pareto_k(one) == math.inf
    some = torch.randn(100)
    some[::2] = -math.inf
    assert math.isfinite(inference.pareto_k(some))
    assert inference.pareto_threshold(10**4) == 0.7
    assert inference.pareto_threshold(100) == 0.5
    with pytest.raises(ValueError, match=r"log_weights: expected shape \(n,\), n ≥ 25, got \[24\]"):
        inference.pareto_k(torch.zeros(24))
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="log_weights: expected finite numbers or -inf"):
            inference.pareto_k(torch.tensor([bad] + [0.0] * 50))
    with pytest.raises(ValueError, match="samples: expected at least 2"):
        inference.pareto_threshold(1)
