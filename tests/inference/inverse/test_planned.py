"""A demonstrator that is Boltzmann in the optimal Q*: weights are found again, kinks and all."""

import dataclasses

import oracles
import pytest
import torch
from differences import numerically
from examples import endless

import cai
from cai import inference
from cai.inference.inverse._scores import Likelihoods
from cai.inference.inverse.observed import observed


def planned_case(seed):
    """A problem, its features and the true weights."""
    problem = oracles.random_problem(seed, S=4, A=3, T=4, zeros=0.0, forbidden=0.0)
    rng = torch.Generator().manual_seed(seed)
    features = {f"f{i}": torch.randn(4, 3, generator=rng, dtype=torch.float64) for i in range(2)}
    arrival = {"g": torch.randn(4, 3, 4, generator=rng, dtype=torch.float64)}
    reward = cai.LinearReward(features, arrival=arrival)
    return problem, reward, torch.tensor([0.8, -0.6, 0.5], dtype=torch.float64)


@pytest.mark.parametrize("seed", range(3))
def test_weights_are_found_again_and_the_soft_rule_finds_others(seed):
    problem, reward, truth = planned_case(seed)
    model = problem.model()
    expert = inference.soft_values(reward.weighted(truth).given_to(model), rule="planned").policy
    seen = cai.Demonstrations.from_trajectories(model.simulate(expert, 4000, seed=seed))
    found = inference.fit_reward(model, seen, reward, rule="planned")
    soft = inference.fit_reward(model, seen, reward)
    assert found.converged
    assert found.log_likelihood > soft.log_likelihood
    for name, value in zip(reward.names, truth.tolist(), strict=True):
        assert abs(found.weights[name] - value) < 4 * found.std_errors[name]
    assert "rule planned" in str(found)


@pytest.mark.parametrize("eta", [0.0, 0.5])
def test_an_infinite_horizon_has_the_values_of_the_hard_rule_and_their_slopes(eta):
    table = endless(3, A=3, discount=0.8, zeros=0.0)
    _, reward, truth = planned_case(3)
    reward, truth = dataclasses.replace(reward, offset=-2.0), truth / 3  # values are finite
    paid = reward.on(table).rewards(table, truth)
    own, hard = (inference.soft_values(paid, eta, rule) for rule in ("planned", "hard"))
    torch.testing.assert_close(own.V, hard.V, rtol=0, atol=0)
    assert own.error == hard.error
    weight = paid.log_prior + own.Q / paid.temperature
    torch.testing.assert_close(own.policy.log_probs, weight.log_softmax(-1))
    seen = cai.Demonstrations.from_paths([[0, 1, 2, 3, 0]], [[0, 1, 2, 0]], ends="cut")
    found, _ = observed(table, seen, "error")
    score = Likelihoods(table, reward.on(table), found, eta, "planned", "actions")
    slopes, _ = numerically(score, truth)
    torch.testing.assert_close(score(truth).scores, slopes, rtol=1e-6, atol=1e-7)
