"""Fits at the edges: nothing identified, certain choices, priors, groups, and odd modules."""

import math

import pytest
import torch
from demonstrated import features_of
from oracles import random_problem
from torch import nn
from torch.distributions import HalfNormal, Independent, MultivariateNormal, Normal
from towns import NAMES, simulated, town, trips_of

import cai
from cai import inference, models
from cai.inference.inverse._objective import Objective
from cai.inference.inverse._scores import Likelihoods

QUIET = {"progress": False}


def case(n=40, T=4, features=None):
    model = random_problem(2, S=3, T=T).model()
    reward = features_of(2, 3, 2) if features is None else cai.LinearReward(features)
    policy = inference.soft_values(model).policy
    return model, cai.Demonstrations.from_trajectories(model.simulate(policy, n, seed=0)), reward


@pytest.mark.parametrize("method", ["scoring", "lbfgs"])
@pytest.mark.parametrize("T", [4, 40])
def test_rounding_errors_are_no_information(method, T):
    """A constant is paid T times whatever is done, so that no choice tells what it is worth."""
    model, seen, reward = case(60, T, {"one": lambda s, a: torch.ones(()), "far": lambda s, a: 1e6})
    found = inference.fit_reward(model, seen, reward, method=method, **QUIET)
    assert len(found.unidentified) == 2
    assert all(math.isnan(x) for x in found.std_errors.values())
    assert all(abs(x) < 1e-6 for x in found.weights.values())


def test_small_information_is_information():
    model, seen, _ = case(200)
    choice = {"choice": lambda s, a: 1e-9 * (a == 1)}
    found = inference.fit_reward(model, seen, cai.LinearReward(choice), **QUIET)
    whole = {"choice": lambda s, a: a == 1}
    expected = inference.fit_reward(model, seen, cai.LinearReward(whole), **QUIET)
    assert found.std_errors["choice"] == pytest.approx(1e9 * expected.std_errors["choice"])


def test_a_start_where_choices_are_certain_is_no_maximum():
    model, seen, _ = case()
    choice = cai.LinearReward({"choice": lambda s, a: a == 1})
    found = inference.fit_reward(model, seen, choice, start=[1e4], **QUIET)
    assert not found.converged
    assert "still rises where choices are certain" in found.reason
    assert inference.fit_reward(model, seen, choice, start=[3.0], **QUIET).converged


def test_what_never_occurs_is_said_where_a_second_search_begins_on_the_plateau():
    """One walk that took the path: the maximum of "matching" is far out, where nothing bends."""
    model, reward = models.ledge(), cai.LinearReward({"state": lambda s, a: s})
    seen = cai.Demonstrations.from_paths([[0, 1, 2, 3, 3]], [[1, 0, 0, 1]])
    found = inference.fit_reward(model, seen, reward, **QUIET)
    assert found.separated == ({"state": 1.0},)
    assert math.isnan(found.std_errors["state"])
    with pytest.raises(ValueError, match="state, whose likelihood grows for ever"):
        inference.reward_posterior(model, seen, reward, **QUIET)


def test_a_second_start_that_the_prior_forbids_is_left_out():
    """The maximum of "matching" has weights of both signs, the prior only those above zero."""
    model, seen, reward = case(200)
    options = {"likelihood": "matching", **QUIET}
    assert min(inference.fit_reward(model, seen, reward, **options).weights.values()) < 0
    found = inference.fit_reward(model, seen, reward, prior=HalfNormal(1.0), **QUIET)
    assert min(found.weights.values()) >= 0


@pytest.mark.parametrize(
    "prior",
    [
        Normal(torch.zeros(5), 1.0),
        Normal(torch.zeros(2, 3), 1.0),
        Independent(Normal(torch.zeros(2, 3), 1.0), 1),
        MultivariateNormal(torch.zeros(1), torch.eye(1)),
    ],
)
def test_a_prior_of_other_numbers_is_refused(prior):
    model, seen, reward = case(5)
    for one in (reward, cai.TabularReward("state")):
        with pytest.raises(ValueError, match="prior: expected a distribution of 3 numbers"):
            inference.fit_reward(model, seen, one, prior=prior, **QUIET)


def test_a_prior_is_no_class():
    model, seen, reward = case(5)
    with pytest.raises(ValueError, match="prior: expected a distribution of weights"):
        inference.fit_reward(model, seen, reward, prior=Normal, **QUIET)


@pytest.mark.parametrize("kind", ["linear", "free"])
def test_a_file_of_another_prior_is_refused(kind, tmp_path):
    model, seen, reward = case(20)
    reward = reward if kind == "linear" else cai.TabularReward("state")
    file = tmp_path / "search.pt"

    def fitted(mean):
        prior = Independent(Normal(torch.full((3,), mean), 1.0), 1)
        return inference.fit_reward(model, seen, reward, prior=prior, checkpoint=file, **QUIET)

    first = fitted(0.0)
    assert fitted(0.0).log_likelihood == pytest.approx(first.log_likelihood, abs=1e-9)
    with pytest.raises(ValueError, match="expected a run with prior = Independent"):
        fitted(1.0)


def test_one_group_or_demonstration_has_no_spread():
    """The scores of all sum to zero at the maximum, so that one has the score zero."""
    streets = town()
    paths = simulated(streets, torch.tensor([-1.5, -0.5, -2.0]).double(), 20, seed=0)
    alike = trips_of(streets, paths, groups=["one driver"] * 20)
    with pytest.raises(ValueError, match="cluster: expected several groups, got one"):
        inference.fit_reward(streets, alike, NAMES, cluster="group")
    model, seen, reward = case(1, T=30)
    found = inference.fit_reward(model, seen, reward, likelihood="matching", **QUIET)
    assert all(math.isnan(x) for x in found.std_errors.values())


def test_names_twice_are_said():
    streets = town()
    trips = trips_of(streets, simulated(streets, torch.tensor([-1.5, 0.0, 0.0]).double(), 3, 0))
    with pytest.raises(ValueError, match="reward: expected different names, got 'left' twice"):
        inference.fit_reward(streets, trips, ["minutes", "left", "left"])


@pytest.mark.parametrize("start", ["abc", ["a", "b", "c"], [None] * 3, 3.0, [[0.0] * 3]])
def test_a_start_that_is_no_weights_is_said(start):
    model, seen, reward = case(5)
    with pytest.raises(ValueError, match="start: expected 3 finite weights"):
        inference.fit_reward(model, seen, reward, start=start, **QUIET)


@pytest.mark.parametrize(
    ("method", "when"), [("scoring", "first"), ("scoring", "between"), ("lbfgs", "first")]
)
def test_no_search_begins_after_an_interrupt(method, when, monkeypatch):
    """Actions on dynamics that are not certain have two starts, the second by "matching"."""
    model, seen, reward = case()
    place = Objective if method == "lbfgs" else Likelihoods
    asked, objectives = place.__call__, []

    def interrupted(self, x):
        objectives.append(self.likelihood)
        wanted = ["actions"] * 4 if when == "first" else ["matching"] * 3
        if "interrupted" not in objectives and objectives[-len(wanted) :] == wanted:
            objectives.append("interrupted")
            raise KeyboardInterrupt
        return asked(self, x)

    with monkeypatch.context() as patched:
        patched.setattr(place, "__call__", interrupted)
        found = inference.fit_reward(model, seen, reward, method=method, **QUIET)
    assert not found.converged
    assert "interrupted" in found.reason
    assert found.log_likelihood > found.log_likelihood_without
    assert objectives.count("interrupted") == 1
    assert "matching" not in objectives[objectives.index("interrupted") :]


class Weights(nn.Module):
    """A number for each state and action, of some type, after some change."""

    def __init__(self, dtype=torch.float32, change=lambda x: x):
        super().__init__()
        self.numbers = nn.Parameter(torch.zeros(3, 2, dtype=dtype))
        self.change = change

    def forward(self, s, a):
        return self.change(self.numbers[s, a])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.detach(), "a reward that depends on parameters, got a constant one"),
        (lambda x: x.to(torch.complex64), "one real number for each .*complex64"),
        (lambda x: x - torch.inf, "module: expected finite numbers"),
    ],
)
def test_a_module_that_cannot_be_trained_is_refused(change, message):
    model, seen, _ = case(5)
    with pytest.raises(ValueError, match=message):
        inference.fit_reward(model, seen, Weights(change=change), **QUIET)


def test_a_step_to_minus_infinity_is_refused():
    """With -inf for all actions the policy would be the prior, which may be the best so far."""
    model, _, _ = case()
    table = cai.tabulate(model)
    arrays = cai.NeuralReward(Weights()).on(table)
    with torch.no_grad():
        arrays.module.numbers.fill_(-torch.inf)
    with pytest.raises(ValueError, match="module: expected finite numbers"):
        arrays.rewards(table)
