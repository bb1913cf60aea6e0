"""The optimism of a demonstrator: where the profile is highest, and how far it is known."""

import math

import oracles
import pytest
import torch
from test_fit_reward import features_of

import cai
from cai import inference, models


def demonstrator(optimism, n):
    problem = oracles.random_problem(9, S=4, A=3, T=4, zeros=0.0, forbidden=0.0, temperature=0.3)
    model, reward = problem.model(), features_of(9, 4, 3)
    weights = torch.tensor([1.0, -1.0, 1.5], dtype=torch.float64)
    own = reward.on(cai.tabulate(model)).rewards(cai.tabulate(model), weights)
    expert = inference.soft_values(own, optimism).policy
    paths = model.simulate(expert, n, seed=3)
    return model, reward, cai.Demonstrations.from_trajectories(paths)


@pytest.mark.parametrize("optimism", [0.0, 1.0])
def test_the_interval_covers_the_truth_and_is_a_likelihood_interval(optimism):
    model, reward, seen = demonstrator(optimism, 3000)
    found = inference.fit_optimism(model, seen, reward, level=0.999)
    low, high = found.interval
    assert low < optimism < high
    assert math.isfinite(low) or math.isfinite(high)
    best = found.fit.log_likelihood
    assert float(found.log_likelihoods.max()) == pytest.approx(best)
    for end in (x for x in found.interval if math.isfinite(x)):
        fit = inference.fit_reward(model, seen, reward, optimism=end)
        assert best - fit.log_likelihood == pytest.approx(10.8276 / 2, abs=0.05)
    # No other optimism explains the actions better.
    for other in torch.linspace(-1, 2, 16).tolist():
        fit = inference.fit_reward(model, seen, reward, optimism=other)
        assert fit.log_likelihood <= best + 1e-3
    assert found.optimisms.tolist() == sorted(found.optimisms.tolist())
    assert found.level == 0.999


def test_without_noise_every_optimism_is_as_good():
    goes = torch.eye(3, dtype=torch.float64)[torch.tensor([[1, 2], [2, 0], [0, 1]])]
    model = models.tabular(goes, torch.zeros(3, 2), horizon=4)
    seen = cai.Demonstrations.from_trajectories(model.simulate(model.prior, 50, seed=0))
    reward = cai.LinearReward({"s": lambda s, a: s == 1})
    found = inference.fit_optimism(model, seen, reward)
    assert found.interval == (-math.inf, math.inf)


def test_what_does_not_fit_is_refused():
    model, reward, seen = demonstrator(0.0, 5)
    with pytest.raises(ValueError, match="between: expected two finite optimisms in ascending"):
        inference.fit_optimism(model, seen, reward, between=(1.0, 0.0))
    with pytest.raises(ValueError, match="between: expected two optimisms"):
        inference.fit_optimism(model, seen, reward, between=1.0)
    with pytest.raises(ValueError, match="level: expected between 0 and 1"):
        inference.fit_optimism(model, seen, reward, level=95)
    with pytest.raises(ValueError, match="likelihood: expected not to be given here"):
        inference.fit_optimism(model, seen, reward, likelihood="paths")
