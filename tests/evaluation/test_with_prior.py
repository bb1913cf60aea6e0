"""A policy as the action prior of a model."""

import dataclasses
import math
import pickle

import numpy as np
import oracles
import pyro.distributions as dist
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import cai
from cai import inference, models

seeds = st.integers(0, 10**6)


@given(seed=seeds, discount=st.sampled_from([1.0, 0.8]), make=st.sampled_from(oracles.KINDS))
def test_a_posterior_as_prior_adds_the_rewards(seed, discount, make):
    """With π₁ as prior V = V₁₊₂ - V₁, and the policy is that of both rewards, exactly."""
    first = make(seed, S=4, A=3, T=4, discount=discount)
    second = make(seed + 1, S=4, A=3, T=4)
    both = dataclasses.replace(
        first,
        **{x: getattr(first, x) + getattr(second, x) for x in ("reward", "arrival", "final")},
    )
    rest = dataclasses.replace(
        first, **{x: getattr(second, x) for x in ("reward", "arrival", "final")}
    )
    one, sum_ = (inference.soft_values(x.model()) for x in (first, both))
    found = inference.soft_values(cai.with_prior(rest.model(), one.policy))
    torch.testing.assert_close(found.V, sum_.V - one.V, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        found.policy.log_probs.exp(), sum_.policy.log_probs.exp(), rtol=0, atol=1e-12
    )


def test_an_infinite_horizon_takes_a_stationary_policy():
    ledge = models.ledge(horizon=None, discount=0.9)
    one = inference.soft_values(ledge)
    both = dataclasses.replace(
        ledge,
        reward=lambda s, a: 2 * ledge.rewards(s, a),
        arrival_reward=lambda s, a, s_next: 2 * ledge.arrival_rewards(s, a, s_next),
    )
    found = inference.soft_values(cai.with_prior(ledge, one.policy))
    other = inference.soft_values(both)
    torch.testing.assert_close(found.V, other.V - one.V, rtol=0, atol=1e-9)
    with pytest.raises(ValueError, match=r"^(prior|action_prior): .*step"):
        inference.soft_values(
            cai.with_prior(ledge, inference.soft_values(models.ledge(horizon=4)).policy)
        )


def test_the_evidence_is_that_of_all_paths_and_of_the_program():
    problem = oracles.random_steps(3, T=3, forbidden=0)
    policy = np.random.default_rng(0).dirichlet(np.ones(2), size=(3, 3))
    model = cai.with_prior(
        problem.model(), cai.TabularPolicy.from_log_probs(torch.tensor(policy).log())
    )
    right = math.log(oracles.posterior(dataclasses.replace(problem, prior=policy))["evidence"])
    assert inference.posterior(model).log_evidence == pytest.approx(right, abs=1e-12)
    assert inference.enumeration(model).log_evidence == pytest.approx(right, abs=1e-9)
    again = pickle.loads(pickle.dumps(model))
    assert inference.posterior(again).log_evidence == pytest.approx(right, abs=1e-12)


def test_a_prior_of_a_subclass_gives_way_and_all_else_stays():
    class Kind(cai.TrajectoryModel):
        def prior(self, s, t=0):
            return dist.Categorical(torch.tensor([0.9, 0.1]))

        def rewards(self, s, a, t=0):
            return super().rewards(s, a) - torch.as_tensor(t)

    ledge = models.ledge()
    model = Kind(**{x.name: getattr(ledge, x.name) for x in dataclasses.fields(ledge)})
    found = cai.with_prior(model, cai.TabularPolicy(ledge))
    assert isinstance(found, Kind)
    right = inference.posterior(ledge).log_evidence - (0 + 1 + 2 + 3) / ledge.temperature
    assert inference.posterior(found).log_evidence == pytest.approx(right)


def test_the_policy_is_copied_and_has_no_gradient():
    model = models.ledge()
    policy = cai.TabularPolicy(model)
    fixed = cai.with_prior(model, policy)
    with torch.no_grad():
        policy.logits[..., 0] += 1
    assert inference.posterior(fixed).bound == inference.posterior(model).bound
    assert not fixed.prior(torch.tensor(0), 0).logits.requires_grad


def test_continuous_models_take_networks():
    model = models.multigoal()
    found = cai.with_prior(model, cai.NeuralPolicy(model, hidden=(4,)))
    s = model.initial.sample((5,))
    assert found.prior(s, 1).sample().shape == model.prior(s, 1).expand((5,)).sample().shape


@pytest.mark.parametrize(
    "make",
    [
        cai.HistoryPolicy,
        cai.RecurrentPolicy,
        lambda model: cai.LatentPolicy(model, dist.Categorical(torch.ones(2))),
    ],
)
def test_what_remembers_or_draws_latents_is_refused_in_one_line(make):
    model = models.ledge()
    with pytest.raises(ValueError, match=r"^policy: .* remembers or draws latents") as caught:
        cai.with_prior(model, make(model))
    assert "\n" not in str(caught.value)


def test_other_things_are_refused_in_one_line():
    ledge = models.ledge()
    gaussian = models.linear_gaussian([[1.0]], [[1.0]], horizon=3, noise=[[1.0]], R=[[1.0]])
    wrong = (
        (cai.tabulate(ledge), cai.TabularPolicy(ledge)),
        (ledge, 3),
        (ledge, lambda t, s: dist.Categorical(torch.ones(7, 2))),
        (gaussian, inference.soft_values(gaussian).policy),
    )
    for model, policy in wrong:
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            cai.with_prior(model, policy)
        assert "\n" not in str(caught.value)
