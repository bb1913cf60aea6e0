"""Stein soft Q-learning against closed forms, with a sampler of each kind and by each rule."""

import dataclasses
import math

import pyro.distributions as dist
import pytest
import torch
from test_sac import QUICK, regulator

import cai
from cai import inference, models
from cai.stepping.model_source import ModelSource

OPTIONS = QUICK | {"hidden": (32, 32), "learning_rate": 3e-3}
S = torch.tensor([[1.0], [0.0], [-1.0]]).double()


def closed_form(model):
    exact = inference.soft_values(model)
    mean = torch.stack([exact.policy(0, x).mean[0] for x in S])
    sd = torch.stack([exact.policy(0, x).covariance_matrix[0, 0].sqrt() for x in S])
    return mean, sd, torch.stack([exact.V(0, x) for x in S])


@pytest.mark.parametrize("proposal", ["prior", "policy"])
def test_a_linear_gaussian_problem_in_closed_form(proposal):
    """By a network of noise, and by a Gaussian that proposes for the values, too."""
    model = regulator()
    mean, sd, V = closed_form(model)
    means, sds, values = [], [], []
    for seed in range(2):
        torch.manual_seed(seed)
        head = None if proposal == "prior" else cai.GaussianHead()
        policy = head and cai.NeuralPolicy(model, (32,), stationary=True, head=head)
        learnt = inference.stein_soft_q(
            ModelSource(model, 16, time_limit=10),
            policy,
            steps=12_000,
            proposal=proposal,
            seed=seed,
            **OPTIONS,
        )
        drawn = learnt.policy(0, S).sample((4000,)).squeeze(-1)
        means.append(drawn.mean(0))
        sds.append(drawn.std(0))
        values.append(learnt.values(S))
    assert (torch.stack(means).mean(0) - mean).abs().max() < 0.15
    assert (torch.stack(sds).mean(0) / sd - 1).abs().max() < 0.15
    assert (torch.stack(values).mean(0) - V).abs().max() < 0.3


def test_plain_gradients_and_hard_targets_are_deterministic_policy_gradients():
    """The gain of the linear-quadratic regulator without a temperature; no spread is left."""
    model = regulator()
    wide = dist.MultivariateNormal(torch.zeros(1).double(), 2.0 * torch.eye(1).double())
    cold = dataclasses.replace(model, temperature=1e-6, action_prior=wide)
    gain, soft = (
        inference.soft_values(x).policy(0, S).mean.squeeze(-1)[2].item() for x in (cold, model)
    )
    assert gain - soft > 0.4
    found = []
    for seed in range(3):
        learnt = inference.stein_soft_q(
            ModelSource(cold, 16, time_limit=10),
            steps=12_000,
            rule="hard",
            gradient="plain",
            exploration=0.5,
            seed=seed,
            **OPTIONS,
        )
        drawn = learnt.policy(0, S).sample((500,)).squeeze(-1)
        assert drawn.std(0).max() < 0.1
        assert learnt.history["divergence"].isnan().all()
        right, _, left = drawn.mean(0).tolist()  # in s = 1, 0, -1
        found.append((left - right) / 2)
    assert sum(found) / 3 == pytest.approx(gain, abs=0.25)


def bandit(alpha=0.3):
    """One step and two equally good actions, r = -4 (|a| - 0.5)²."""
    return cai.TrajectoryModel(
        initial=dist.Normal(0.0, 1.0),
        dynamics=lambda s, a: dist.Delta(s + 0 * a[..., 0]),
        reward=lambda s, a: -4 * (a[..., 0].abs() - 0.5) ** 2,
        action_prior=dist.Uniform(-torch.ones(1), torch.ones(1)).to_event(1),
        horizon=1,
        temperature=alpha,
    )


@pytest.mark.parametrize("gradient", ["stein", "plain"])
def test_both_of_two_best_actions_are_kept_by_the_kernel_alone(gradient):
    model, s = bandit(), torch.zeros(4000)
    a = torch.linspace(-1, 1, 2001).double()
    nats = -4 * (a.abs() - 0.5) ** 2 / 0.3
    V = 0.3 * (nats.logsumexp(0) - math.log(2001)).item()
    spread = (nats.softmax(0) * a**2).sum().item()
    both, values, squares = [], [], []
    for seed in range(3):
        learnt = inference.stein_soft_q(model, steps=8000, gradient=gradient, seed=seed, **OPTIONS)
        drawn = learnt.policy(0, s).sample().squeeze(-1)
        both.append((drawn > 0).double().mean().item())
        squares.append(drawn.square().mean().item())
        values.append(learnt.values(s[0]).item())
    assert sum(values) / 3 == pytest.approx(V, abs=0.05)
    if gradient == "stein":
        assert sorted(both)[1] == pytest.approx(0.5, abs=0.15)
        assert sum(squares) / 3 == pytest.approx(spread, abs=0.06)
    else:  # all draws on one side or the other climb to its best action
        assert all(abs(x - 0.25) < 0.1 for x in squares)
        assert drawn.abs().std() < 0.05


def test_values_of_actions_are_those_of_the_critic_and_values_their_soft_maximum():
    model = bandit()
    learnt = inference.stein_soft_q(model, steps=2000, **OPTIONS)
    s, a = torch.zeros(2001), torch.linspace(-1, 1, 2001).unsqueeze(-1)
    Q = learnt.action_values(s, a)
    V = 0.3 * ((Q / 0.3).logsumexp(0) - math.log(2001))
    assert learnt.values(s[:100]).mean().item() == pytest.approx(V.item(), abs=0.01)
    weights = (Q / 0.3).softmax(0)
    nats = ((weights * Q).sum() - V).item() / 0.3
    assert learnt.history["divergence"][-1].item() == pytest.approx(nats, abs=0.1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"rule": "boltzmann"}, "rule: expected"),
        ({"gradient": "none"}, "gradient: expected"),
        ({"proposal": "uniform"}, "proposal: expected"),
        ({"particles": (0, 4)}, "particles: expected"),
        ({"particles": 16}, r"particles: expected two numbers \(n, m\), got 16"),
        (
            {"rule": "hard", "temperature": inference.AutomaticTemperature(0.5)},
            'temperature: expected none to adapt with rule="hard"',
        ),
        (
            {"draws": 4, "temperature": inference.AutomaticTemperature(1.5)},
            "nats: expected less than log draws = 1.386",
        ),
        ({"draws": 0}, "draws: expected"),
        ({"exploration": 2.0}, "exploration: expected"),
        (
            {"proposal": "policy", "warm_up": 50},
            "policy: expected one with a density, got a network",
        ),
    ],
)
def test_wrong_arguments(arguments, words):
    with pytest.raises(ValueError, match=words):
        inference.stein_soft_q(bandit(), steps=2000, progress=False, **arguments)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="source: expected continuous actions, got finitely many"):
        inference.stein_soft_q(models.ledge(), steps=2000, progress=False)
    mixture = cai.NeuralPolicy(bandit(), (4,), head=cai.MixtureHead(2))
    with pytest.raises(ValueError, match="policy: expected one whose draws have a gradient"):
        inference.stein_soft_q(bandit(), mixture, steps=2000, progress=False)


def test_a_critic_and_a_sampler_without_hidden_layers():
    learnt = inference.stein_soft_q(bandit(), steps=300, **OPTIONS | {"hidden": (), "warm_up": 100})
    assert learnt.policy(0, torch.zeros(3)).sample().shape == (3, 1)


@pytest.mark.parametrize("learner", [inference.sac, inference.actor_critic])
def test_learners_that_score_refuse_it_before_they_begin(learner):
    sampler = cai.NeuralPolicy(bandit(), (4,), head=cai.NoiseHead(4, (4,)))
    with pytest.raises(ValueError, match=r"^policy: expected one with a density"):
        learner(bandit(), sampler, steps=2000, progress=False)


def test_a_policy_without_a_density_has_a_return_and_no_elbo():
    sampler = cai.NeuralPolicy(bandit(), (4,), head=cai.NoiseHead(4, (4,)))
    found = cai.evaluate(bandit(), sampler)
    assert math.isnan(found.elbo)
    assert math.isnan(found.entropy)
    assert found.log_weights is None
    mean = found.trajectories.rewards.sum(1).mean().item()
    assert found.expected_return == pytest.approx(mean, abs=1e-9)
    with pytest.raises(ValueError, match="policy: expected one with a density"):
        cai.compare(bandit(), {"a sampler": sampler})
