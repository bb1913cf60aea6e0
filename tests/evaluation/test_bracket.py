"""Log evidence between two numbers: importance weights below, a value function above."""

import dataclasses
import itertools
import json
import math

import numpy as np
import oracles
import pyro.distributions as dist
import pytest
import torch
from examples import Remembering, continuous, parity, random_log_policy, random_model, scramble
from hypothesis import given, settings
from hypothesis import strategies as st

import cai
from cai import inference, models
from cai.evaluation.bracket import bracket

seeds = st.integers(0, 10**6)


def weighted_paths(problem, q):
    """(probability under the policy, log p(τ,O)/q(τ)) of every path."""
    for path in oracles.paths(problem, policy=q):
        log_w = path.reward / problem.temperature - oracles.log_ratio(problem, path, q)
        yield path.probability, log_w


def together_by_paths(problem, q, K):
    """(probability, log (1/K) Σ w) of all K-tuples of paths."""
    return [
        (
            math.prod(p for p, _ in several),
            np.logaddexp.reduce([log_w for _, log_w in several]) - math.log(K),
        )
        for several in itertools.product(list(weighted_paths(problem, q)), repeat=K)
    ]


def mean(weighted):
    return math.fsum(p * x for p, x in weighted)


@settings(max_examples=10)
@given(seed=seeds, discount=st.sampled_from([1.0, 0.8]))
def test_it_is_what_all_tuples_of_paths_say(seed, discount):
    """The ELBO at K = 1, more at 2, never more than log p(O); above, log p(O) + KL(p ‖ q).

    The upper one is a ratio, Σ w log w / Σ w, of which both sums err.
    """
    problem = oracles.random_problem(seed, S=2, T=2, discount=discount)
    log_q = random_log_policy(seed, problem)
    q, policy = log_q.exp().numpy(), cai.TabularPolicy.from_log_probs(log_q)
    model = problem.latent_model()
    exact = math.log(oracles.posterior(problem)["evidence"])
    before = oracles.elbo(problem, q)[0]
    shares = [(p, math.exp(x - exact), x) for p, x in weighted_paths(problem, q)]
    above, n = mean((p * w, x) for p, w, x in shares), 4000
    error = oracles.deviation([(p, w * (x - above)) for p, w, x in shares], n)
    least = 1 - oracles.deviation([(p, w) for p, w, _ in shares], n)  # of mean w, over p(O)
    by_elbo = oracles.deviation([(p, x) for p, _, x in shares], n)
    for K in (1, 2):
        found = inference.evidence_bracket(model, policy, samples=n, group_size=K, seed=seed)
        every = together_by_paths(problem, q, K)
        tuples = mean(every)
        assert abs(found.lower - tuples) <= oracles.deviation(every, n // K) + 1e-9
        assert before - 1e-9 <= tuples <= exact + 1e-9
        before = tuples
        assert found.kind == "estimate"
        if least > 0:
            assert abs(found.upper - above) <= error / least + 1e-9
    assert abs(found.elbo - oracles.elbo(problem, q)[0]) <= by_elbo + 1e-9


@settings(max_examples=10)
@given(seed=seeds, discount=st.sampled_from([1.0, 0.8]))
def test_log_evidence_lies_between(seed, discount):
    """Below it in expectation, closer the more are together; above by a value not too low."""
    problem, n = oracles.random_problem(seed, T=3, discount=discount, temperature=0.5), 4000
    model = problem.model()
    exact = inference.posterior(model)
    value = lambda t, s: exact.V[t, s.long()] + 0.2  # noqa: E731
    policy = inference.soft_values(model).policy
    q = policy.log_probs.exp().numpy()
    shares = [(p, math.exp(x - exact.bound)) for p, x in weighted_paths(problem, q)]
    luck = math.log1p(oracles.deviation(shares, n))  # that all draws together can have
    draws = [
        inference.evidence_bracket(model, policy, samples=n, group_size=K, value=value)
        for K in (1, 10, 200)
    ]
    for found in draws:
        assert found.kind == "bound"
        assert found.lower <= exact.bound + luck + 1e-12
        assert found.upper == pytest.approx(exact.bound + 0.2 / 0.5, abs=1e-9)
    # The same trajectories, in ever larger groups: Jensen's inequality, draw by draw.
    assert draws[0].lower <= draws[1].lower + 1e-12 <= draws[2].lower + 2e-12


def test_the_exact_value_gives_the_evidence_and_less_is_refused():
    model = models.ledge()
    exact = inference.posterior(model)
    policy = inference.soft_values(model).policy

    def short(by, when):
        return lambda t, s: exact.V[t, s.long()] - by * (torch.as_tensor(t) == when)

    found = inference.evidence_bracket(model, policy, value=short(0, 0))
    assert found.upper == pytest.approx(exact.bound, abs=1e-12)
    assert found.upper_stderr == 0
    with pytest.raises(ValueError, match=r"value: expected at every step at least .* at step 0"):
        inference.evidence_bracket(model, policy, value=short(0.1, 0))
    with pytest.raises(ValueError, match="value: expected at the last step, 4, at least"):
        inference.evidence_bracket(model, policy, value=short(0.1, 4))
    with pytest.raises(ValueError, match="value: expected one number for each state"):
        inference.evidence_bracket(model, policy, value=lambda t, s: torch.zeros(3))
    for far in (200.0, 5000.0):
        with pytest.raises(ValueError, match=r"value: expected at every step .* 100 nats or more"):
            inference.evidence_bracket(model, policy, value=short(far, 0))
    nothing = inference.evidence_bracket(model, policy, value=lambda t, s: 0.0)
    assert nothing.upper == pytest.approx(0.0)  # no reward is above zero


def free_and_hindered():
    """Linear-Gaussian, but as a plain program; and the same with a hill in the way."""
    linear = models.linear_gaussian(
        [[1.0]],
        [[1.0]],
        horizon=3,
        noise=[[0.1]],
        Q=[[0.5]],
        q=[0.5],
        initial_covariance=[[0.2]],
        action_prior=dist.MultivariateNormal(torch.zeros(1), torch.eye(1)),
    )
    program = cai.TrajectoryModel(
        initial=linear.initial,
        dynamics=linear.transition,
        reward=lambda s, a: linear.rewards(s, a),
        action_prior=linear.action_prior,
        horizon=3,
    )
    hill = lambda s, a: linear.rewards(s, a) - 2 * torch.exp(-2 * s[..., 0] ** 2)  # noqa: E731
    return linear, program, dataclasses.replace(program, reward=hill)


def test_an_easier_model_bounds_a_harder_one_from_above():
    """The exact value of the free model: equality there, and a bound where there is a hill."""
    linear, program, hindered = free_and_hindered()
    exact = inference.posterior(linear)
    found = inference.evidence_bracket(program, exact.policy, value=exact.V)
    assert abs(found.upper - exact.bound) < 4 * found.upper_stderr
    assert abs(found.lower - exact.bound) < 4 * found.lower_stderr + 0.01
    report = cai.compare(hindered, {"as if free": exact.policy}, value=exact.V)
    row, between = report["as if free"], report.bracket
    assert between.lower < between.upper - 0.5
    assert row.kl_lower == pytest.approx(between.lower - row.elbo)
    assert row.kl_upper == pytest.approx(between.upper - row.elbo)
    assert "at most" in str(report).splitlines()[1]
    # On a fine grid of the line the truth is a sum.
    truth = by_quadrature(linear, 2.0)
    assert between.lower <= truth + 4 * between.lower_stderr
    assert between.upper >= truth
    assert between.lower > truth - 0.1
    with pytest.raises(ValueError, match="value: expected at every step"):
        cai.compare(
            hindered,
            {"x": exact.policy},
            value=lambda t, s: exact.V(t, s) - 3.0 * (torch.as_tensor(t) < 3),
        )


def by_quadrature(linear, height, n=401):
    """log p(O) of the line with a hill: the action integrated out by hand, states on a grid."""
    x = np.linspace(-6, 6, n)
    reward = -0.25 * x**2 + 0.5 * x - height * np.exp(-2 * x**2)
    step = np.exp(-0.5 * (x - x[:, None]) ** 2 / 1.1) * (x[1] - x[0]) / math.sqrt(2 * math.pi * 1.1)
    v = np.zeros(n)
    for _ in range(linear.horizon):
        v = reward + np.log(step @ np.exp(v))
    start = np.exp(-0.5 * x**2 / 0.2) * (x[1] - x[0]) / math.sqrt(2 * math.pi * 0.2)
    return math.log(start @ np.exp(v))


def test_a_comparison_without_a_posterior_has_a_bracket():
    model = continuous(horizon=3)
    policy = lambda t, s: dist.Normal(-0.5 * s[..., 0], 0.9)  # noqa: E731
    report = cai.compare(model, {"prior": lambda t, s: model.prior(s), "pulls": policy})
    between = report.bracket
    assert between.kind == "estimate"
    for row in report.values():
        assert row.kl is None
        assert 0 < row.kl_lower < row.kl_upper
        assert row.kl_lower_stderr > 0
    text = str(report)
    assert text.splitlines()[1].split()[-3:] == ["at", "least", "estimate"]
    assert "estimated upper value (not a bound)" in text
    assert "at most" not in text
    found = json.loads(report.to_json())
    assert found["bracket"]["kind"] == "estimate"
    assert found["rows"]["pulls"]["kl_lower"] == pytest.approx(
        between.lower - found["rows"]["pulls"]["elbo"]
    )
    with pytest.raises(ValueError, match="value: expected None where"):
        cai.compare(models.ledge(), {"x": cai.TabularPolicy(models.ledge())}, value=lambda t, s: 0)


def test_weights_of_zero_are_said():
    """A trajectory that cannot be settles a lower bound of -inf, and nothing is NaN."""
    log_w = torch.tensor([0.0, -math.inf, 0.0, 0.0], dtype=torch.float64)
    found = bracket(log_w, 2)
    assert (found.elbo, found.elbo_stderr) == (-math.inf, 0)
    assert found.lower == pytest.approx(-math.log(2) / 2)
    assert (found.upper, found.upper_stderr) == (0, 0)
    assert (found.effective, found.samples) == (pytest.approx(3), 4)
    nothing = bracket(torch.full((4,), -math.inf, dtype=torch.float64), 2)
    assert nothing.effective == 0
    assert (nothing.lower, nothing.upper, nothing.upper_stderr) == (-math.inf, -math.inf, math.inf)


def test_bad_numbers():
    model = models.ledge()
    policy = cai.TabularPolicy(model)
    with pytest.raises(ValueError, match="group_size: expected at most half of the 10 samples"):
        inference.evidence_bracket(model, policy, samples=10, group_size=6)
    with pytest.raises(ValueError, match="samples: expected a whole number"):
        inference.evidence_bracket(model, policy, samples=0)
    with pytest.raises(ValueError, match="horizon"):
        inference.evidence_bracket(models.ledge(horizon=None), policy)


# The split by simulation, against the exact one


def agree(found, exact):
    for part in ("kl_actions", "kl_dynamics", "kl"):
        error = getattr(found, f"{part}_stderr")
        assert error > 0
        assert abs(getattr(found, part) - getattr(exact, part)) < 5 * error
        assert getattr(exact, f"{part}_stderr") is None
    assert found.kl_start == pytest.approx(exact.kl_start, abs=1e-12)
    assert found.kl == pytest.approx(found.kl_start + found.kl_actions + found.kl_dynamics)


@pytest.mark.parametrize("discount", [1.0, 0.8])
def test_the_split_of_a_memory_on_a_table(discount):
    model = oracles.random_problem(5, S=4, discount=discount, zeros=0.0).model()
    policy = scramble(cai.TabularPolicy(model))
    report = cai.compare(model, {"simulated": Remembering(policy), "exact": policy})
    agree(report["simulated"], report["exact"])
    assert report["simulated"].restriction_stderr == report["simulated"].elbo_stderr


def test_the_split_of_any_policy_in_a_linear_gaussian_model():
    model = random_model(3, T=3)
    policy = inference.soft_values(model).policy
    report = cai.compare(model, {"simulated": lambda t, s: policy(t, s), "exact": policy})
    agree(report["simulated"], report["exact"])


# What a restriction costs


@given(seed=seeds, discount=st.sampled_from([1.0, 0.8]))
def test_a_restriction_costs_what_the_best_has_more(seed, discount):
    model = oracles.random_problem(seed, S=4, discount=discount, forbidden=0.0).model()
    best, seen = inference.soft_values(model), inference.belief_values(model, parity)
    report = cai.compare(
        model, {"posterior": inference.posterior(model), "best": best, "sees parity": seen}
    )
    assert report["posterior"].restriction is None
    assert report["best"].restriction == pytest.approx(0, abs=1e-11)
    assert report["sees parity"].restriction == pytest.approx(best.elbo - seen.elbo, abs=1e-10)
    assert report["sees parity"].restriction > -1e-10
    alone = cai.compare(model, {"sees parity": seen})["sees parity"]
    assert alone.restriction == pytest.approx(report["sees parity"].restriction, abs=1e-12)


def test_restrictions_of_linear_gaussian_and_endless_models():
    model = random_model(1)
    best, exact = inference.soft_values(model), inference.posterior(model)
    report = cai.compare(model, {"best": best, "its policy": exact.policy})
    assert report["best"].restriction == pytest.approx(0, abs=1e-9)
    had = cai.evaluate(model, exact.policy).elbo
    assert report["its policy"].restriction == pytest.approx(best.elbo - had, abs=1e-9)
    endless = models.ledge(horizon=None)
    best = inference.soft_values(endless)
    policy = inference.soft_values(endless, 1.0).policy
    row = cai.compare(endless, {"its policy": policy})["its policy"]
    assert row.restriction == pytest.approx(best.elbo - row.elbo, abs=1e-9)
    assert row.restriction > 0.1
