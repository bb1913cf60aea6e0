"""Matched features: against the nearest point of the hull of all deterministic policies."""

import dataclasses
import itertools
import json

import numpy as np
import oracles
import pyro.distributions as dist
import pytest
import torch
from demonstrated import features_of
from scipy.optimize import minimize
from towns import town, walks

import cai
from cai import inference, models
from cai.inference.apprenticeship.hard_planning import Planner


def case(seed, n=3, T=2):
    """A random model with one start, its features without an offset, and n demonstrations."""
    problem = oracles.random_problem(seed, T=T, forbidden=0.0)
    problem = dataclasses.replace(problem, initial=np.array([1.0, 0.0, 0.0]))
    model = problem.model(final_reward=None)
    reward = dataclasses.replace(features_of(seed, 3, 2), offset=0.0)
    expert = reward.weighted([2.0, -1.0, 1.0]).given_to(model)
    paths = expert.simulate(inference.soft_values(expert).policy, n, seed=seed)
    return model, reward, cai.Demonstrations.from_trajectories(paths)


def all_corners(model, reward):
    """(64, k), the features of all deterministic policies of two steps, one by one."""
    table, arrays = cai.tabulate(model), reward.on(cai.tabulate(model))
    p = table.dense(table.log_dynamics)
    f = arrays.reward + (p * arrays.arrival).sum(-1)
    return torch.stack(
        [
            f[:, 0, first] + sum(p[0, first, x] * f[:, x, second[x]] for x in range(3))
            for first, *second in itertools.product(range(2), repeat=4)
        ]
    ), arrays.spread(table)


def nearest(corners, sought):
    """The distance of a point from a hull, by SLSQP over the weights of its corners."""
    n = len(corners)
    found = minimize(
        lambda x: 0.5 * ((x @ corners - sought) ** 2).sum(),
        np.full(n, 1 / n),
        jac=lambda x: corners @ (x @ corners - sought),
        bounds=[(0, 1)] * n,
        constraints={"type": "eq", "fun": lambda x: x.sum() - 1, "jac": lambda x: np.ones(n)},
        method="SLSQP",
        options={"ftol": 1e-16, "maxiter": 500},
    )
    return found.x @ corners, np.sqrt(2 * found.fun)


@pytest.mark.parametrize("seed", range(6))
def test_the_nearest_point_of_the_hull_of_all_policies(seed):
    model, reward, seen = case(seed)
    found = inference.feature_matching(
        model, seen, reward, method="margin", tolerance=1e-9, progress=False
    )
    assert found.converged
    corners, scale = all_corners(model, reward)
    at, distance = nearest((corners / scale).numpy(), (found.observed / scale).numpy())
    assert found.distance == pytest.approx(distance, abs=1e-7)
    np.testing.assert_allclose((found.expected / scale).numpy(), at, atol=1e-6)
    assert found.bound <= found.distance + 1e-9
    slow = inference.feature_matching(model, seen, reward, progress=False)
    assert distance - 1e-7 <= slow.distance <= distance + 0.01
    assert slow.bound <= distance + 1e-7


@pytest.mark.parametrize("seed", range(4))
def test_distances_fall_as_they_must(seed):
    """The squared distance of step n is above the least by at most 4 D²/(n + 2)."""
    model, reward, seen = case(seed)
    found = inference.feature_matching(
        model, seen, reward, tolerance=1e-6, steps=60, progress=False
    )
    corners, scale = all_corners(model, reward)
    corners = corners / scale
    _, least = nearest(corners.numpy(), (found.observed / scale).numpy())
    widest = torch.cdist(corners, corners).max()
    above = found.history.square() - least**2
    assert (above >= -1e-9).all()
    n = torch.arange(len(above)).double()
    assert (above[1:] <= (4 * widest**2 / (n + 2))[1:]).all()
    assert (found.history.diff() <= 1e-12).all()


def test_a_step_goes_to_the_nearest_point_of_the_line():
    """Of a thousand points on the way from the prior to the first policy none is nearer."""
    shares = torch.linspace(0, 1, 1001).double().unsqueeze(1)
    went = []
    for seed in range(6):
        model, reward, seen = case(seed)
        found = inference.feature_matching(
            model, seen, reward, tolerance=1e-9, steps=1, progress=False
        )
        scale = reward.on(cai.tabulate(model)).spread(cai.tabulate(model))
        first, second = found.features / scale
        line = (1 - shares) * first + shares * second
        away = (line - found.observed / scale).norm(dim=1)
        assert found.distance <= away.min() + 1e-12
        assert found.distance == pytest.approx(float(away.min()), abs=1e-4)
        went.append(float(found.mixture[1]))
    assert max(went) > 0.6
    assert min(went) < 0.9


def test_many_demonstrations_are_matched_and_any_reward_is_worth_the_same():
    model, reward, seen = case(1, n=4000, T=4)
    for method in ("projection", "margin"):
        found = inference.feature_matching(model, seen, reward, method=method, progress=False)
        assert found.distance <= 0.01 + found.bound
        scale = reward.on(cai.tabulate(model)).spread(cai.tabulate(model))
        missing = (found.observed - found.expected) / scale
        assert float(missing.norm()) == pytest.approx(found.distance)
        assert found.distance < 0.05
        torch.testing.assert_close(found.mixture @ found.features, found.expected)
        assert float(found.mixture.sum()) == pytest.approx(1.0)
        assert (found.mixture >= 0).all()
        rng = torch.Generator().manual_seed(0)
        w = torch.randn(50, 3, generator=rng, dtype=torch.float64)
        w = w / w.norm(dim=1, keepdim=True)
        assert ((w @ missing).abs() <= found.distance + 1e-12).all()
        counted = len(seen), int(seen.lengths.sum())
        assert (found.demonstrations, found.actions) == counted


@pytest.mark.parametrize("horizon", [4, None])
def test_the_markov_policy_has_the_features_of_the_mixture(horizon):
    """By the exact moments of that policy, for a finite horizon and with a discount."""
    problem = oracles.random_problem(3, T=4, discount=0.8)
    model = problem.model(final_reward=None)
    reward = dataclasses.replace(features_of(3, 3, 2), offset=0.0)
    seen = cai.Demonstrations.from_trajectories(
        model.simulate(lambda t, s: model.prior(s), 40, seed=0)
    )
    if horizon is None:
        model = dataclasses.replace(model, horizon=None)
        seen = seen[[i for i, end in enumerate(seen.ends) if end == "terminated"]]
    found = inference.feature_matching(model, seen, reward, method="margin", progress=False)
    first = seen.states[:, 0].bincount(minlength=3).double()
    started = dataclasses.replace(model, initial=dist.Categorical(first / first.sum()))
    for i, name in enumerate(reward.names):
        alone = reward.weighted(torch.eye(3)[i])
        worth = cai.evaluate(alone.given_to(started), found.policy).expected_return
        assert worth == pytest.approx(float(found.expected[i]), abs=1e-8), name
    assert found.visits.shape == ((4, 3, 2) if horizon else (3, 2))


def test_it_is_no_maximum_likelihood():
    """Features that two policies share are matched by either; likelihood tells them apart."""
    model, reward, seen = case(0, n=500, T=3)
    found = inference.feature_matching(model, seen, reward, tolerance=1e-4, progress=False)
    fitted = inference.fit_reward(model, seen, reward)
    learnt = reward.weighted([*found.weights.values()]).given_to(model)
    mine = inference.soft_values(learnt).policy.log_probs
    best = fitted.policy.log_probs
    t = torch.arange(3).expand(len(seen), 3)
    at = (t, seen.states[:, :-1], seen.actions)
    assert best[at].sum() > mine[at].sum() + 1
    assert "not a maximum of a likelihood" in str(found)


def test_what_is_told_of_it():
    model, reward, seen = case(2, n=50)
    found = inference.feature_matching(model, seen, reward, progress=False)
    data = json.loads(found.to_json())
    assert data["distance"] == found.distance
    assert data["mixture"] == found.mixture.tolist()
    assert len(found.history) == found.steps
    assert str(found).startswith("Reward by matched features, projection: 50 demonstrations")
    size = found.reward.on(cai.tabulate(model)).spread(cai.tabulate(model))
    weights = torch.tensor([*found.weights.values()])
    assert float((weights * size).norm()) == pytest.approx(1.0)
    few = inference.feature_matching(model, seen, reward, tolerance=1e-9, steps=2, progress=False)
    assert "2 steps were not enough" in few.reason
    assert not few.converged


def test_an_interrupt_returns_the_mixture_so_far(monkeypatch):
    model, reward, seen = case(2, n=50)
    calls, best = [], Planner.best

    def interrupted(self, *arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return best(self, *arguments)

    monkeypatch.setattr(Planner, "best", interrupted)
    found = inference.feature_matching(model, seen, reward, tolerance=1e-9, progress=False)
    assert "interrupted" in found.reason
    assert len(found.mixture) == 3
    torch.testing.assert_close(found.mixture @ found.features, found.expected)


def test_what_does_not_fit_is_refused():
    model, reward, seen = case(0)

    def refused(match, *arguments, **options):
        with pytest.raises(ValueError, match=match):
            inference.feature_matching(*arguments, progress=False, **options)

    refused("method", model, seen, reward, method="margins")
    refused("tolerance", model, seen, reward, tolerance=0.0)
    refused("reward: expected no known part", model, seen, dataclasses.replace(reward, offset=1.0))
    paid = dataclasses.replace(model, final_reward=lambda s: s.double())
    refused("final_reward: expected none", paid, seen, reward)
    refused("demonstration 0", model, seen.with_ends("cut"), reward)
    streets = town()
    refused("model: expected a model or a table", streets, walks(streets, 2), ["minutes"])
    endless = models.tabular([[[0.0, 1.0]], [[0.0, 1.0]]], [[0.0], [0.0]], horizon=None)
    one = cai.Demonstrations.from_paths([[0, 1]], [[0]], ends="absorbed")
    length = cai.LinearReward({"length": lambda s, a: s == 0})
    refused("model: expected a finite horizon or a discount", endless, one, length)


@pytest.mark.parametrize("method", ["projection", "margin"])
def test_a_search_goes_on_from_its_file(method, tmp_path):
    (model, reward, seen), file = case(2), tmp_path / "mixture.pt"
    options = {"method": method, "tolerance": 1e-3, "progress": False}
    whole = inference.feature_matching(model, seen, reward, **options)
    assert whole.steps > 2
    part = inference.feature_matching(model, seen, reward, steps=2, checkpoint=file, **options)
    assert (part.steps, part.converged) == (2, False)
    rest = inference.feature_matching(model, seen, reward, checkpoint=file, **options)
    assert rest.steps == whole.steps
    assert torch.equal(rest.history, whole.history)
    assert torch.equal(rest.mixture, whole.mixture)
    assert torch.equal(rest.visits, whole.visits)
    with pytest.raises(ValueError, match="checkpoint"):
        inference.feature_matching(model, seen[:2], reward, checkpoint=file, **options)
