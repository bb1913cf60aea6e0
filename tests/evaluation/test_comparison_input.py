"""A comparison takes what belongs to its model, and says -inf where it is so."""

import dataclasses
import math

import oracles
import pytest
import torch
from examples import Remembering, continuous, random_model

import cai
from cai import inference, models

TABLE, GAUSSIAN = oracles.random_problem(3, forbidden=0.0).model(), random_model(1)


def warmer(model):
    return dataclasses.replace(model, temperature=2.0 * model.temperature)


@pytest.mark.parametrize(
    ("model", "method"),
    [
        (GAUSSIAN, inference.posterior(warmer(GAUSSIAN))),
        (GAUSSIAN, inference.posterior(dataclasses.replace(GAUSSIAN, q=GAUSSIAN.q + 1.0))),
        (GAUSSIAN, inference.soft_values(TABLE)),
        (TABLE, inference.soft_values(GAUSSIAN)),
        (continuous(), inference.soft_values(GAUSSIAN)),
        (TABLE, inference.soft_values(warmer(TABLE))),
        (TABLE, cai.DynamicsGuide(warmer(TABLE))),
        (TABLE, inference.fit(warmer(TABLE), cai.DynamicsGuide(warmer(TABLE)), steps=1)),
        (GAUSSIAN, cai.DynamicsGuide(TABLE)),
    ],
)
def test_what_imagines_another_problem_is_refused(model, method):
    with pytest.raises(ValueError, match=r"methods.*another problem; solve this one, or pass its"):
        cai.compare(model, {"other": method})


def test_the_same_problem_made_twice_is_one():
    again = dataclasses.replace(GAUSSIAN)
    row = cai.compare(again, {"best": inference.soft_values(GAUSSIAN)})["best"]
    assert row.restriction == pytest.approx(0, abs=1e-12)
    again = dataclasses.replace(TABLE)
    rows = cai.compare(
        again, {"tilted": cai.DynamicsGuide(TABLE), "best": inference.posterior(TABLE)}
    )
    assert rows["tilted"].optimism_gap is not None


def test_methods_are_named():
    with pytest.raises(ValueError, match=r"methods: expected .* got a list"):
        cai.compare(TABLE, [inference.posterior(TABLE)])


def test_a_function_that_solves_is_not_a_policy():
    words = r"methods\['x'\]: .* got the function posterior of a model; .* posterior\(model\)"
    with pytest.raises(ValueError, match=words):
        cai.compare(TABLE, {"x": inference.posterior})
    with pytest.raises(ValueError, match=r"got the function soft_q of a model"):
        cai.compare(TABLE, {"x": inference.soft_q})
    with pytest.raises(ValueError, match=r"methods\['x'\]: .* got TrajectoryModel"):
        cai.compare(models.ledge(), {"x": models.ledge()})


@pytest.mark.parametrize("initial", [[1.0, 0.0], [1 - 1e-6, 1e-6]])
def test_what_is_too_rare_to_be_seen_counts_all_the_same(initial):
    """One in a million is lost: ten thousand trajectories know nothing of it."""
    model = models.tabular(
        torch.tensor([[[1 - 1e-6, 1e-6]], [[0.0, 1.0]]]).double(),
        torch.tensor([[0.0], [-math.inf]]),
        horizon=2,
        initial=torch.tensor(initial).double(),
    )
    policy = cai.TabularPolicy(model)
    report = cai.compare(model, {"exact": policy, "simulated": Remembering(policy)})
    for row in report.values():
        assert (row.elbo, row.expected_return, row.kl) == (-math.inf, -math.inf, math.inf)
        assert row.kl_start == report["exact"].kl_start
        assert row.kl_dynamics == math.inf


def test_there_is_no_bracket_where_nothing_weighs_anything():
    model = continuous()
    lost = dataclasses.replace(model, final_reward=-math.inf)
    methods = {"prior": lambda t, s: model.prior(s, t)}
    report = cai.compare(lost, methods)
    assert report.bracket is None
    assert report["prior"].kl_upper is None
    assert report["prior"].elbo == -math.inf


def test_a_value_is_of_no_use_to_an_endless_model():
    endless = dataclasses.replace(TABLE, horizon=None, final_reward=None, discount=0.9)
    methods = {"best": inference.soft_values(endless).policy}
    report = cai.compare(endless, methods)
    assert report.log_evidence is None  # it is infinite
    assert report.bracket is None
    with pytest.raises(ValueError, match="value: expected None where no trajectory"):
        cai.compare(endless, methods, value=lambda t, s: 100.0)


def test_a_flat_prior_with_a_discount_has_no_bracket():
    model = dataclasses.replace(GAUSSIAN, action_prior=cai.FlatPrior(GAUSSIAN.action_size))
    model = dataclasses.replace(model, discount=0.9)
    report = cai.compare(model, {"best": inference.soft_values(model)})
    assert report.bracket is None
    assert report["best"].restriction == pytest.approx(0, abs=1e-9)


def test_a_policy_in_closed_form_brackets_the_evidence_too():
    """With a discount the posterior of a linear-Gaussian model is not Gaussian."""
    model = dataclasses.replace(random_model(1), discount=0.9, temperature=20.0)
    best = inference.soft_values(model)
    report = cai.compare(model, {"best": best})
    exact = inference.smc(
        model, 4000, inference.posterior(dataclasses.replace(model, discount=1.0))
    )
    assert report.bracket is not None
    assert report["best"].elbo_stderr is None
    assert best.elbo < report.bracket.lower < exact.log_evidence + 0.1
    assert report["best"].kl_lower == pytest.approx(report.bracket.lower - best.elbo)
