"""Actor-critic with both messages as networks ends at the exact soft values."""

import pytest
import torch
from test_sac import QUICK, regulator
from test_soft_q import apart, problem

import cai
from cai import inference, models
from cai.stepping.model_source import ModelSource


@pytest.mark.parametrize("horizon", [None, 3])
def test_few_actions_end_at_the_soft_values_of_the_model_and_not_at_its_posterior(horizon):
    ends = {} if horizon is None else {"final_reward": [0.0, 3.0, -3.0, 1.0]}
    model = problem(horizon=horizon, **ends)
    exact, luck = inference.soft_values(model), inference.soft_values(model, optimism=1.0)
    assert apart(luck.V, exact.V) > 0.4
    s, t, V = torch.arange(4), 0, exact.V
    if horizon is not None:
        t, V = torch.arange(3)[:, None].expand(3, 4), exact.V[:-1]
    values, Q = [], []
    for seed in range(2):
        learnt = inference.actor_critic(model, steps=20_000, seed=seed, **QUICK)
        values.append(learnt.values(s.expand(V.shape), t))
        Q.append(learnt.action_values(s[:, None], torch.arange(3)))
        lost = exact.elbo - cai.evaluate(model, learnt.policy).elbo
        assert -1e-9 <= lost < 0.02 * abs(exact.elbo)
    assert apart(sum(values) / 2, V) < (0.05 if horizon is None else 0.12)  # three times the values
    if horizon is None:
        assert apart(sum(Q) / 2, exact.Q) < 0.05


@pytest.mark.parametrize("gradient", ["pathwise", "score"])
def test_a_linear_gaussian_problem_in_closed_form(gradient):
    model = regulator()
    exact = inference.soft_values(model)
    s = torch.tensor([[1.0], [0.0], [-1.0]]).double()
    mean = torch.stack([exact.policy(0, x).mean[0] for x in s])
    sd = torch.stack([exact.policy(0, x).covariance_matrix[0, 0].sqrt() for x in s])
    V = torch.stack([exact.V(0, x) for x in s])
    means, sds, values = [], [], []
    for seed in range(2):
        source = ModelSource(model, 16, time_limit=10)
        learnt = inference.actor_critic(source, steps=15_000, gradient=gradient, seed=seed, **QUICK)
        drawn = learnt.policy(0, s).sample((4000,)).squeeze(-1)
        means.append(drawn.mean(0))
        sds.append(drawn.std(0))
        values.append(learnt.values(s))
    assert (torch.stack(means).mean(0) - mean).abs().max() < 0.12
    assert (torch.stack(sds).mean(0) / sd - 1).abs().max() < 0.1
    assert (torch.stack(values).mean(0) - V).abs().max() < 0.25


def test_draws_without_a_gradient_are_refused_where_it_is_asked_for():
    model = models.pendulum(horizon=5)
    policy = cai.NeuralPolicy(model, (4,), head=cai.MixtureHead(2))
    with pytest.raises(ValueError, match="policy: expected one whose draws have a gradient, got a"):
        inference.actor_critic(model, policy, gradient="pathwise", steps=2000, progress=False)
    with pytest.raises(ValueError, match="gradient: expected"):
        inference.actor_critic(model, gradient="scores", steps=2000, progress=False)
