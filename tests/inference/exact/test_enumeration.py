"""Pyro's own enumeration of whole programs agrees with the messages."""

import math

import oracles
import pytest
import torch

import cai
from cai import inference, models


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("discount", [1.0, 0.8])
def test_elbo_by_enumeration_in_the_guide(seed, discount):
    problem = oracles.random_problem(seed, T=3, discount=discount)
    policy = inference.soft_values(problem.model(), 0.5).policy
    found = inference.enumeration(problem.latent_model(), policy)
    truth, _ = oracles.elbo(problem, policy.log_probs.exp().numpy())
    assert found.elbo == pytest.approx(truth, abs=1e-11)
    assert found.elbo == pytest.approx(cai.evaluate(problem.model(), policy).elbo, abs=1e-11)


@pytest.mark.parametrize("horizon", [3, 33, 70])
def test_horizons_beyond_64_tensor_dimensions(horizon):
    model = models.ledge(horizon=horizon, discount=0.95)
    found = inference.enumeration(model, inference.posterior(model).policy)
    assert found.log_evidence == pytest.approx(inference.posterior(model).bound, abs=1e-10)
    acting = cai.evaluate(model, inference.posterior(model).policy)
    assert found.elbo == pytest.approx(acting.elbo, abs=1e-10)


def test_marginals_on_successor_lists():
    model = models.gym("FrozenLake-v1", horizon=6, temperature=0.2)
    found, exact = inference.enumeration(model), inference.posterior(model)
    for t in range(7):
        torch.testing.assert_close(found.marginals[f"s_{t}"], exact.states[t])


def test_bernoulli_and_factor_agree():
    bounds = []
    for optimality in ("factor", "bernoulli"):
        r = torch.tensor([[-1.0, -2.0], [-0.5, -3.0]])
        P = torch.tensor([[[0.3, 0.7], [1.0, 0.0]], [[0.5, 0.5], [0.0, 1.0]]])
        model = models.tabular(P, r, horizon=4, optimality=optimality, temperature=0.6)
        bounds += [inference.enumeration(model).log_evidence, inference.posterior(model).bound]
    assert max(bounds) - min(bounds) < 1e-12
    assert all(map(math.isfinite, bounds))
