"""The Rényi bound of a policy: exact, sampled, and Pyro's own."""

import itertools
import math

import numpy as np
import oracles
import pyro
import pyro.distributions as dist
import pytest
import torch
from examples import random_log_policy
from hypothesis import given
from hypothesis import strategies as st
from pyro.infer import SVI, Importance, RenyiELBO, Trace_ELBO

import cai
from cai import inference, models

makes = st.sampled_from(oracles.KINDS)
seeds = st.integers(0, 10**6)
discounts = st.sampled_from([1.0, 0.8])
etas = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(-4, 4).filter(lambda eta: abs(eta) > 1e-3))


@given(make=makes, seed=seeds, discount=discounts, eta=etas)
def test_exact_against_all_paths(make, seed, discount, eta):
    problem = make(seed, discount=discount)
    log_q = random_log_policy(seed, problem)
    found = inference.renyi_bound(problem.model(), cai.TabularPolicy.from_log_probs(log_q), eta)
    assert found.bound == pytest.approx(oracles.renyi(problem, log_q.exp().numpy(), eta), abs=1e-10)
    assert found.stderr is None


@given(seed=seeds, discount=discounts, eta=etas)
def test_renyi_theorem(seed, discount, eta):
    """bound_η = max over policies of R_η for η < 1, min for η > 1, no matter which at η = 1."""
    problem = oracles.random_problem(seed, discount=discount)
    table = cai.tabulate(problem.model())
    best = inference.soft_values(table, eta)
    attained = inference.renyi_bound(table, best.policy, eta).bound
    assert attained == pytest.approx(best.bound, abs=1e-10)
    assert oracles.renyi(problem, best.policy.log_probs.exp().numpy(), eta) == pytest.approx(
        best.bound, abs=1e-10
    )
    other = cai.TabularPolicy.from_log_probs(random_log_policy(seed, problem))
    gain = best.bound - inference.renyi_bound(table, other, eta).bound
    if eta == 1:
        assert gain == pytest.approx(0, abs=1e-10)
    else:
        assert gain * (1 if eta < 1 else -1) >= -1e-10


@given(make=makes, seed=seeds, discount=discounts)
def test_grows_with_eta_between_the_extremes(make, seed, discount):
    problem = make(seed, discount=discount)
    log_q = random_log_policy(seed, problem)
    table, policy = cai.tabulate(problem.model()), cai.TabularPolicy.from_log_probs(log_q)
    turned = [-math.inf, -1e4, -2.0, -1e-9, 0.0, 1e-9, 0.5, 1.0, 3.0, 1e4, math.inf]
    bounds = [inference.renyi_bound(table, policy, eta).bound for eta in turned]
    assert all(b >= a - 1e-12 for a, b in itertools.pairwise(bounds))
    weights = [
        path.reward / problem.temperature - oracles.log_ratio(problem, path, log_q.exp().numpy())
        for path in oracles.paths(problem, policy=log_q.exp().numpy())
    ]
    assert bounds[0] == pytest.approx(min(weights), abs=1e-11)
    assert bounds[-1] == pytest.approx(max(weights), abs=1e-11)
    assert bounds[4] == pytest.approx(cai.evaluate(table, policy).elbo, abs=1e-11)


@given(seed=seeds, discount=discounts)
def test_a_forbidden_or_deadly_action_counts_as_it_should(seed, discount):
    """Rewards of -inf, and a policy that leaves actions out, against sums over its own paths."""
    problem = oracles.random_problem(seed, discount=discount)
    rng = np.random.default_rng(seed)
    problem.reward[rng.random(problem.reward.shape) < 0.2] = -math.inf
    weights = rng.random((problem.T, *problem.sizes)) * (np.asarray(problem.prior) > 0)
    weights *= (rng.random(weights.shape) < 0.7) | (weights == weights.max(-1, keepdims=True))
    q = weights / weights.sum(-1, keepdims=True)
    policy = cai.TabularPolicy.from_log_probs(torch.as_tensor(q).log())
    table = cai.tabulate(problem.model())
    paths = [
        (path.probability, path.reward / problem.temperature - oracles.log_ratio(problem, path, q))
        for path in oracles.paths(problem, policy=q)
    ]
    for eta in (-math.inf, -1.0, 0.0, 0.5, 1.0, 2.0, math.inf):
        found = inference.renyi_bound(table, policy, eta).bound
        possible = [x for _, x in paths if x > -math.inf]
        if not possible or (eta <= 0 and len(possible) < len(paths)):
            assert found == -math.inf
        elif math.isinf(eta):
            assert found == pytest.approx((max if eta > 0 else min)(possible), abs=1e-11)
        elif eta == 0:
            assert found == pytest.approx(sum(p * x for p, x in paths), abs=1e-11)
        else:
            mass = sum(p * math.exp(eta * x) for p, x in paths if x > -math.inf)
            assert found == pytest.approx(math.log(mass) / eta, abs=1e-11)


def test_on_lists_of_successors():
    """FrozenLake keeps lists; the policy of the dial has its bound there too, dead ends and all."""
    table = cai.tabulate(models.gym("FrozenLake-v1", horizon=20, temperature=0.1, discount=0.95))
    assert table.successors is not None
    for eta in (-math.inf, -2.0, 0.0, 1e-9, 0.5, 2.0, 100.0, math.inf):
        best = inference.soft_values(table, eta)
        found = inference.renyi_bound(table, best.policy, eta).bound
        assert found == pytest.approx(best.bound, abs=1e-11)


# Sampled


def drift():
    """s ~ N(0,1), reward -s²/2, one action of prior N(0,1): closed forms for a Gaussian policy."""
    return cai.TrajectoryModel(
        initial=dist.Normal(0.0, 1.0),
        dynamics=lambda s, a: dist.Normal(s + a, 1.0),
        reward=lambda s, a: -(s**2) / 2,
        action_prior=lambda s: dist.Normal(torch.zeros_like(s), 1.0),
        horizon=1,
    )


@pytest.mark.parametrize("eta", [-0.4, -1e-9, 0.0, 1e-9, 0.5, 1.0, 1.7])
def test_sampled_where_no_table_is(eta):
    """R_η = -log(1 + η)/2η + (η - 1) μ²/2 of the policy N(μ, 1)."""
    mean = 0.5
    found = inference.renyi_bound(drift(), lambda t, s: dist.Normal(mean + 0 * s, 1.0), eta)
    luck = math.log1p(eta) / (2 * eta) if eta else 0.5
    assert abs(found.bound + luck - (eta - 1) * mean**2 / 2) < 4 * found.stderr
    assert 0 < found.stderr < 0.05
    other = inference.renyi_bound(drift(), lambda t, s: dist.Normal(mean + 0 * s, 1.0), eta, seed=1)
    assert other.bound != found.bound


def regulator():
    one = torch.ones(1, 1, dtype=torch.float64)
    return models.linear_gaussian(
        0.9 * one,
        0.5 * one,
        horizon=3,
        noise=0.2 * one,
        Q=one,
        R=0.3 * one,
        Q_final=one,
        initial_mean=0.5 * one[0],
        initial_covariance=0.4 * one,
        action_prior=dist.MultivariateNormal(0 * one[0], one),
    )


@pytest.mark.parametrize("eta", [-0.3, 0.0, 0.5, 1.0, 2.0])
def test_sampled_against_the_riccati_recursion(eta):
    """The policy of a linear-Gaussian solution has the bound as its R_η."""
    model = regulator()
    best = inference.soft_values(model, eta)
    found = inference.renyi_bound(model, best.policy, eta)
    assert abs(found.bound - best.bound) < 4 * found.stderr
    assert found.stderr < 0.03


def errors(eta, discount, samples, runs):
    """The errors of many simulations, and the standard error that they promise."""
    model = models.ledge(discount=discount, fall_reward=-1.0)
    policy = inference.soft_values(model).policy
    exact = inference.renyi_bound(model, policy, eta).bound
    found = [
        inference.renyi_bound(model, policy, eta, samples=samples, seed=k) for k in range(runs)
    ]
    promised = np.mean([run.stderr**2 for run in found]) ** 0.5
    return np.array([run.bound - exact for run in found]), promised


@pytest.mark.parametrize(("eta", "discount"), [(-1.0, 1.0), (0.0, 0.8), (0.5, 0.8), (1.5, 1.0)])
def test_errors_are_as_large_as_promised(eta, discount):
    found, promised = errors(eta, discount, samples=40, runs=250)
    assert found.std() == pytest.approx(promised, rel=0.15)
    assert abs(found.mean()) < 0.3 * promised


@pytest.mark.parametrize("eta", [-1.5, 1e-9, 0.7, 3.0])
def test_standard_error_by_the_delta_method(eta):
    """std(w)/(|η| E[w] √n) of the weights w of the very same trajectories."""
    model, n = models.ledge(), 50
    policy = inference.soft_values(model, 0.3).policy
    paths = model.simulate(policy, n, seed=5)
    log_q = policy(torch.arange(4).expand(n, 4), paths.states[:, :-1]).log_prob(paths.actions)
    log_w = paths.returns - (log_q - math.log(0.5)).sum(-1)
    w = (eta * (log_w - log_w.mean())).exp()
    found = inference.renyi_bound(model, policy, eta, samples=n, seed=5)
    expected = (w.std() / w.mean()).item() / abs(eta) / n**0.5
    assert found.stderr == pytest.approx(expected, rel=1e-6)


def test_a_logarithm_of_few_samples_is_biased_towards_zero_optimism():
    """By about -η stderr²/2: the first term of a series, and not to be trusted to two digits."""
    found, promised = errors(2.0, 0.8, samples=12, runs=2000)
    noise = found.std() / len(found) ** 0.5
    assert found.mean() < -5 * noise
    # Of twelve samples the second term is half of the first: 1.5 times it in 4000 runs.
    assert 0.75 < found.mean() / (-2.0 * promised**2 / 2) < 2.25


def test_samples_that_settle_it_and_samples_that_say_nothing():
    deadly = models.tabular([[[1.0]]], [[0.0]], horizon=1, final_reward=[-math.inf])
    policy = cai.TabularPolicy(deadly)
    for eta, stderr in ((-1.0, 0.0), (0.0, 0.0), (0.5, math.inf)):
        found = inference.renyi_bound(deadly, policy, eta, samples=3)
        assert (found.bound, found.stderr) == (-math.inf, stderr)
    ledge = models.ledge()
    assert inference.renyi_bound(ledge, cai.TabularPolicy(ledge), 0.5, samples=1).stderr == math.inf


def test_bad_arguments():
    model = models.ledge()
    policy = cai.TabularPolicy(model)
    with pytest.raises(ValueError, match="optimism: expected a real number"):
        inference.renyi_bound(model, policy, math.nan)
    with pytest.raises(ValueError, match="samples: a table is evaluated exactly"):
        inference.renyi_bound(cai.tabulate(model), policy, 0.5, samples=10)
    with pytest.raises(ValueError, match="optimism: expected a finite number if trajectories are"):
        inference.renyi_bound(model, policy, math.inf, samples=10)
    with pytest.raises(ValueError, match="horizon"):
        inference.renyi_bound(models.ledge(horizon=None), policy, 0.5)


# Pyro's own


@pytest.mark.parametrize("eta", [-2.0, 0.0, 0.5])
def test_plain_pyro_converges_to_the_dial(eta):
    """SVI with RenyiELBO(alpha=1-η) on the rollout reaches bound_η, from far below."""
    model = models.ledge()
    policy = cai.TabularPolicy(model)
    wrong = 1 if eta > 0.3 else 0
    policy.logits.data[0, 0, wrong] = 3.0
    bound = inference.soft_values(model, eta).bound
    assert inference.renyi_bound(model, policy, eta).bound < bound - 0.1
    options = {"vectorize_particles": True, "max_plate_nesting": 0}
    objective = inference.renyi_elbo(eta, 1000, **options)
    optimizer = pyro.optim.ClippedAdam({"lr": 0.3, "lrd": 0.96})
    svi = SVI(model, model.rollout(policy), optimizer, objective)
    for _ in range(80):
        svi.step()
    reached = inference.renyi_bound(model, policy, eta).bound
    assert bound - 0.02 < reached <= bound
    # Its loss is the sampled bound of the same policy.
    loss = inference.renyi_elbo(eta, 20_000, **options).loss(model, model.rollout(policy))
    assert -loss == pytest.approx(reached, abs=0.05)


def test_which_objective_is_meant():
    assert isinstance(inference.renyi_elbo(0.0), Trace_ELBO)
    for eta in (-1.5, 0.5, 1.0):
        objective = inference.renyi_elbo(eta, 7)
        assert isinstance(objective, RenyiELBO)
        assert (objective.alpha, objective.num_particles) == (1 - eta, 7)


def test_beyond_one_pyro_would_maximise_a_minimum():
    with pytest.raises(ValueError, match=r"at most 1, got 2; .* minimises .*optimism=eta"):
        inference.renyi_elbo(2.0)
    for eta in (math.nan, -math.inf):
        with pytest.raises(ValueError, match="optimism: expected a finite number"):
            inference.renyi_elbo(eta)


# The ceiling of effective samples


@given(seed=seeds, discount=discounts)
def test_ceiling_of_effective_samples(seed, discount):
    """(E w)²/E w² over all paths is below it for any policy, and π_2 attains it."""
    problem = oracles.random_problem(seed, discount=discount)
    table = cai.tabulate(problem.model())
    ceiling = inference.effective_sample_ceiling(table)

    def effective(q):
        moments = (0.0, 0.0)
        for path in oracles.paths(problem, policy=q):
            w = math.exp(path.reward / problem.temperature - oracles.log_ratio(problem, path, q))
            moments = moments[0] + path.probability * w, moments[1] + path.probability * w * w
        return moments[0] ** 2 / moments[1]

    assert 0 < ceiling <= 1
    best = inference.soft_values(table, 2.0).policy.log_probs.exp().numpy()
    assert effective(best) == pytest.approx(ceiling, rel=1e-9)
    others = [inference.soft_values(table, eta).policy for eta in (-1.0, 0.0, 1.0, 1.8, 5.0)]
    for q in [policy.log_probs.exp().numpy() for policy in others]:
        assert effective(q) <= ceiling * (1 + 1e-9)
    assert effective(random_log_policy(seed, problem).exp().numpy()) <= ceiling * (1 + 1e-9)


def test_plain_importance_sampling_obeys_the_ceiling():
    """The effective fraction of Pyro's Importance: what R_2 says of each policy, at best π_2's."""
    model, n = models.ledge(horizon=3), 300
    ceiling = inference.effective_sample_ceiling(model)
    one = inference.posterior(model).log_evidence
    fractions = {}
    for eta in (0.0, 2.0):
        policy = inference.soft_values(model, eta).policy
        run = Importance(model, model.rollout(policy), num_samples=n).run()
        fractions[eta] = run.get_ESS().item() / n
        second = inference.renyi_bound(model, policy, 2.0).bound
        assert fractions[eta] == pytest.approx(math.exp(2 * (one - second)), abs=0.08)
    assert fractions[0.0] < ceiling - 0.1
    assert fractions[2.0] == pytest.approx(ceiling, abs=0.08)


def test_ceiling_of_a_linear_gaussian_model():
    """exp(2 (R_1 - R_2)) of the policy at η = 2, sampled."""
    model = regulator()
    policy = inference.soft_values(model, 2.0).policy
    one, two = (inference.renyi_bound(model, policy, eta).bound for eta in (1.0, 2.0))
    ceiling = inference.effective_sample_ceiling(model)
    assert ceiling == pytest.approx(math.exp(2 * (one - two)), abs=0.03)


def test_without_luck_every_sample_counts():
    model = models.ledge(gives_way=0.0)
    assert inference.effective_sample_ceiling(model) == pytest.approx(1, abs=1e-12)
