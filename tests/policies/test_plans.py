"""Open loop and partial sight: the ladder of what is seen, by all plans and in closed form."""

import dataclasses
import itertools
import math

import oracles
import pyro
import pyro.distributions as dist
import pytest
import torch
from examples import parity, random_model, scramble
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import value_of
from pyro.infer import SVI, Trace_ELBO, TraceEnum_ELBO, config_enumerate

import cai
from cai import inference, models
from cai.distributions.squash import Squash
from cai.program.scoring import log_probs_along

makes = st.sampled_from(oracles.KINDS)
seeds = st.integers(0, 10**6)


@settings(max_examples=10)
@given(make=makes, seed=seeds)
def test_the_best_plan_is_the_log_sum_over_all_plans(make, seed):
    problem = make(seed, forbidden=0.0)
    model = problem.model()
    best = inference.belief_values(model, cai.blind)
    values = {p: value_of(problem, p) for p in itertools.product(range(2), repeat=problem.T)}
    bound = torch.tensor(list(values.values())).double().logsumexp(0).item()
    assert best.elbo == pytest.approx(bound, abs=1e-11)
    assert cai.evaluate(model, best.policy).elbo == pytest.approx(bound, abs=1e-11)
    log_probs = best.policy.log_probs
    for plan, value in values.items():
        history, log_q = 0, 0.0
        for t, a in enumerate(plan):
            log_q += log_probs[t][history, a].item()
            history = history * 2 + a
        assert log_q == pytest.approx(value - bound, abs=1e-10)


@given(make=makes, seed=seeds, discount=st.sampled_from([1.0, 0.8]))
def test_the_ladder(make, seed, discount):
    """What sees more does better, up to the best policy on states; no scrambled one does better."""
    model = make(seed, S=4, discount=discount, forbidden=0.0).model()
    top = inference.soft_values(model).elbo
    rungs = []
    for observe in (cai.blind, parity, None):
        best = inference.belief_values(model, observe)
        assert cai.evaluate(model, best.policy).elbo == pytest.approx(best.elbo, abs=1e-10)
        other = cai.evaluate(model, scramble(cai.HistoryPolicy(model, observe)))
        assert other.elbo <= best.elbo + 1e-10
        rungs.append(best.elbo)
    assert rungs[0] <= rungs[1] + 1e-10
    assert rungs[1] <= top + 1e-10
    assert rungs[2] == pytest.approx(top, abs=1e-10)
    assert cai.evaluate(model, scramble(cai.Plan(model))).elbo <= rungs[0] + 1e-10


def test_what_seeing_is_worth():
    """fit climbs to each rung, and compare says what is lost by each blindness."""
    model = oracles.random_problem(3, S=4, A=3, forbidden=0.0, scale=2.0).model()
    how = {"learning_rate": 0.2, "steps": 250}
    plan = inference.fit(model, cai.Plan(model), **how)
    joint = inference.fit(model, cai.HistoryPolicy(model, cai.blind), **how)
    partly = inference.fit(model, cai.HistoryPolicy(model, parity), **how)
    top = inference.soft_values(model)
    assert joint.elbo == pytest.approx(inference.belief_values(model, cai.blind).elbo, abs=1e-3)
    assert partly.elbo == pytest.approx(inference.belief_values(model, parity).elbo, abs=1e-3)
    assert plan.elbo < joint.elbo - 1e-3 < partly.elbo < top.elbo
    report = cai.compare(model, {"plan": plan, "joint": joint, "partly": partly, "best": top})
    for name in report:
        assert report[name].kl == pytest.approx(report.log_evidence - report[name].elbo, abs=1e-9)
        assert report[name].kl_actions > -1e-9
        assert report[name].kl_start == pytest.approx(report["best"].kl_start, abs=1e-12)


def by_enumeration(model, policy):
    guide = config_enumerate(cai.collapse(model).rollout(policy), "parallel")
    return -TraceEnum_ELBO(max_plate_nesting=0).loss(cai.collapse(model), guide)


@pytest.mark.parametrize("discount", [1.0, 0.8])
@pytest.mark.parametrize("observe", [None, cai.blind, parity])
def test_a_memory_is_enumerated_by_pyro_whole(observe, discount):
    """Its dimensions outlast ``pyro.markov``; a blind plan is a policy like any other."""
    model = oracles.random_problem(8, forbidden=0.0, discount=discount).model()
    policy = scramble(cai.HistoryPolicy(model, observe))
    assert by_enumeration(model, policy) == pytest.approx(
        cai.evaluate(model, policy).elbo, abs=1e-11
    )
    plan = scramble(cai.Plan(model))
    assert by_enumeration(model, plan) == pytest.approx(cai.evaluate(model, plan).elbo, abs=1e-11)


@pytest.mark.parametrize("observe", [None, cai.blind, parity])
def test_histories_by_simulation_and_by_svi(observe):
    model = oracles.random_problem(8, S=4, forbidden=0.0, discount=0.9).model()
    policy = scramble(cai.HistoryPolicy(model, observe))
    exact = cai.evaluate(model, policy)
    found = cai.evaluate(model, policy, samples=4000)
    for name in ("elbo", "expected_return", "entropy"):
        error = getattr(found, f"{name}_stderr")
        assert abs(getattr(found, name) - getattr(exact, name)) < 4 * error
    torch.testing.assert_close(found.state_actions, exact.state_actions, rtol=0, atol=0.05)
    loss = Trace_ELBO(num_particles=4000, vectorize_particles=True, max_plate_nesting=0)
    pyros = -loss.loss(model, model.rollout(policy))
    assert abs(pyros - exact.elbo) < 6 * found.elbo_stderr


def test_a_prior_forbids_a_plan_what_it_forbids_anywhere():
    problem = oracles.random_problem(4, S=3, A=3, forbidden=0.0)
    problem.prior[1] = [0.5, 0.0, 0.5]
    model = problem.model()
    for policy in (
        cai.Plan(model),
        cai.HistoryPolicy(model, cai.blind),
        cai.HistoryPolicy(model, parity),
    ):
        assert math.isfinite(cai.evaluate(model, scramble(policy)).elbo)
    assert cai.Plan(model)(0, torch.tensor(0)).probs[1] == 0
    problem.prior[0] = [0.0, 1.0, 0.0]
    for make in (cai.Plan, lambda model: cai.HistoryPolicy(model, cai.blind)):
        with pytest.raises(ValueError, match=r"an action that is allowed in all .* \[0, 1"):
            make(problem.model())


# Gaussian plans in linear-Gaussian models


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_gaussian_plans_in_closed_form(seed, flat):
    """By simulation of both plans: their ELBOs, and so the gap between them."""
    model = random_model(seed, T=4, n=2, m=2, flat=flat)
    found = inference.gaussian_plan(model)
    assert found.factorised_elbo < found.elbo - 1e-3
    assert found.elbo < inference.soft_values(model).elbo
    plans = (found.policy, found.elbo), (found.factorised, found.factorised_elbo)
    for policy, expected in plans:
        had = cai.evaluate(model, policy, samples=20_000)
        assert abs(had.elbo - expected) < 4 * had.elbo_stderr


@pytest.mark.parametrize("seed", range(3))
def test_the_best_gaussian_plan_leaves_no_choice(seed):
    """log joint - log q is the same for every plan where states cannot differ: p(O) itself."""
    model = random_model(seed, T=3, n=2, m=2)
    certain = dataclasses.replace(
        model, noise=torch.zeros(2, 2), initial_covariance=torch.zeros(2, 2)
    )
    found = inference.gaussian_plan(certain)
    assert found.elbo == pytest.approx(inference.posterior(certain).bound, abs=1e-9)
    had = cai.evaluate(certain, found.policy, samples=50)
    assert had.elbo == pytest.approx(found.elbo, abs=1e-8)
    assert had.elbo_stderr < 1e-8


def test_a_gaussian_plan_scores_as_a_gaussian():
    """The product of its conditionals is the joint density, and its samples have its covariance."""
    model = random_model(1, T=3, n=2, m=2)
    policy = scramble(cai.GaussianPlan(model))
    paths = model.simulate(policy, 5000, seed=0)
    u = paths.actions.flatten(1)
    joint = dist.MultivariateNormal(policy.mean, scale_tril=policy.scale_tril)
    scores = log_probs_along(policy, paths.states[:, :-1], paths.actions).sum(-1)
    torch.testing.assert_close(scores, joint.log_prob(u), rtol=1e-10, atol=1e-10)
    spread = torch.linalg.solve_triangular(policy.scale_tril, (u - policy.mean).T, upper=False)
    torch.testing.assert_close(spread @ spread.T / 5000, torch.eye(6).double(), rtol=0, atol=0.1)


def test_svi_finds_the_best_gaussian_plans_by_pathwise_gradients():
    model = random_model(0, T=3, n=2, m=1)
    best = inference.gaussian_plan(model)
    plans = (cai.GaussianPlan(model), best.elbo), (cai.Plan(model), best.factorised_elbo)
    for policy, reach in plans:
        optim = pyro.optim.ClippedAdam({"lr": 0.1, "lrd": 0.96})
        loss = Trace_ELBO(num_particles=128, vectorize_particles=True, max_plate_nesting=0)
        svi = SVI(model, model.rollout(policy), optim, loss)
        for _ in range(100):
            svi.step()
        found = cai.evaluate(model, policy, samples=20_000)
        assert abs(found.elbo - reach) < 4 * found.elbo_stderr + 0.02


def test_a_squashed_plan_keeps_to_its_box_and_its_score_is_exact():
    model = cai.TrajectoryModel(
        initial=dist.Normal(0.0, 1.0),
        dynamics=lambda s, a: dist.Normal(s + a, 0.1),
        reward=lambda s, a: -(s**2),
        action_prior=dist.Uniform(-1.0, 3.0),
        horizon=3,
    )
    policy = scramble(cai.GaussianPlan(model))
    paths = model.simulate(policy, 200, seed=0)
    a = paths.actions.double()
    assert ((a > -1) & (a < 3)).all()
    joint = dist.TransformedDistribution(
        dist.MultivariateNormal(policy.mean, scale_tril=policy.scale_tril),
        [Squash(-1.0, 3.0)],
    )
    scores = log_probs_along(policy, paths.states[:, :-1], paths.actions.double())
    torch.testing.assert_close(scores.sum(-1), joint.log_prob(a), rtol=1e-9, atol=1e-9)
    fitted = inference.fit(model, cai.Plan(model), steps=100, learning_rate=0.1)
    assert fitted.elbo > cai.evaluate(model, cai.Plan(model)).elbo + 1


def test_what_no_plan_can_be_made_for():
    ledge = models.ledge()
    with pytest.raises(ValueError, match="a plan needs a finite number of steps"):
        cai.Plan(models.ledge(horizon=None))
    with pytest.raises(ValueError, match="action_prior: expected a density, for a Gaussian plan"):
        cai.GaussianPlan(ledge)
    with pytest.raises(ValueError, match="model: expected a linear-Gaussian one without"):
        inference.gaussian_plan(ledge)
    wild = dataclasses.replace(random_model(0, T=2, flat=True), R=-100 * torch.eye(2))
    with pytest.raises(ValueError, match="reward: expected one that falls off with the size of"):
        inference.gaussian_plan(wild)
    with pytest.raises(ValueError, match="horizon: expected at most 16777216 numbers"):
        cai.HistoryPolicy(models.ledge(horizon=40))
    with pytest.raises(ValueError, match=r"observe: expected a tensor .* got shape \[\]"):
        cai.HistoryPolicy(ledge, lambda s: s.sum())
    with pytest.raises(ValueError, match="observe: expected the same observation of a state alone"):
        cai.HistoryPolicy(ledge, lambda s: s - s.max())
    with pytest.raises(ValueError, match="policy: expected a policy on histories of 3 steps"):
        cai.evaluate(models.ledge(horizon=3), cai.HistoryPolicy(ledge))
    moving = cai.TrajectoryModel(
        initial=dist.Normal(0.0, 1.0),
        dynamics=lambda s, a: dist.Normal(s + a, 0.1),
        reward=0.0,
        action_prior=lambda s: dist.Normal(s, 1.0),
        horizon=3,
    )
    with pytest.raises(ValueError, match="action_prior: expected one density for all states"):
        cai.Plan(moving)
    with pytest.raises(ValueError, match="policy: with a memory it is simulated"):
        cai.evaluate(cai.tabulate(ledge), ReactsOnce())
    with pytest.raises(ValueError, match=r'estimator "exact": .* a policy without a memory'):
        inference.fit(ledge, ReactsOnce(), estimator="exact")


class ReactsOnce(torch.nn.Module):
    """A memory of one's own: after the first action, more of the same."""

    def __init__(self):
        super().__init__()
        self.habit = torch.nn.Parameter(torch.zeros(2))
        self.taste = torch.nn.Parameter(torch.zeros(2))

    def start(self):
        first = None

        def step(t, s, before):
            nonlocal first
            first = before if t == 1 else first
            habit = 0.0 if first is None else torch.eye(2)[first] * self.habit
            return dist.Categorical(logits=self.taste + habit)

        return step


def test_a_memory_of_ones_own_is_trained():
    model = models.ledge(temperature=0.5)
    fitted = inference.fit(model, ReactsOnce(), steps=200, learning_rate=0.1)
    before = cai.evaluate(model, ReactsOnce())
    after = cai.evaluate(model, fitted.policy)
    assert after.elbo > before.elbo + 4 * before.elbo_stderr
    assert after.elbo < inference.belief_values(model, cai.blind).elbo + 4 * after.elbo_stderr
