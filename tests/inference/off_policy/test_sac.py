"""Soft actor-critic ends at the exact soft values, with few actions or on a continuum."""

import functools

import pyro.distributions as dist
import pytest
import torch
from test_q_network import contextual_bandit
from test_soft_q import apart, problem

import cai
from cai import inference, models
from cai.inference.off_policy._expectations import expectations
from cai.inference.off_policy._from_replay import FromReplay
from cai.inference.off_policy.q_critics import Critics
from cai.stepping.model_source import ModelSource

SMALL = {"hidden": (32,), "num_envs": 16, "batch": 128, "updates": 2, "lag": 0.02}
QUICK = SMALL | {"learning_rate": 3e-3, "warm_up": 500, "progress": False}


def test_few_actions_end_at_the_soft_values_of_the_model_and_not_at_its_posterior():
    model = problem()
    exact, luck = inference.soft_values(model), inference.soft_values(model, optimism=1.0)
    assert apart(luck.V, exact.V) > 0.1
    s, errors, policies = torch.arange(4), [], []
    for seed in range(3):
        learnt = inference.sac(model, steps=12_000, seed=seed, **QUICK)
        errors.append(apart(learnt.values(s), exact.V))
        Q = learnt.action_values(s[:, None], torch.arange(3))
        assert apart(Q, exact.Q) < 0.1
        policies.append(learnt.policy(0, s).probs.detach())
    assert sum(errors) / 3 < 0.05
    assert (sum(policies) / 3 - exact.policy.log_probs.exp()).abs().max() < 0.05


def test_the_time_is_part_of_the_state_where_the_horizon_is_finite():
    model = problem(horizon=3, discount=0.9, final_reward=[0.0, 3.0, -3.0, 1.0])
    exact = inference.soft_values(model)
    t = torch.arange(3)[:, None].expand(3, 4)
    learnt = inference.sac(model, steps=20_000, **QUICK)
    assert apart(learnt.values(torch.arange(4).expand(3, 4), t), exact.V[:-1]) < 0.1
    assert 0 <= exact.elbo - cai.evaluate(model, learnt.policy).elbo < 0.02 * abs(exact.elbo)


def test_actions_that_the_prior_forbids_are_never_taken():
    allowed = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.3, 0.7], [0.2, 0.0, 0.8], [0.4, 0.6, 0.0]])
    learnt = inference.sac(
        problem(action_prior=allowed.numpy()), steps=2000, **QUICK | {"updates": 1}
    )
    s = torch.arange(4)
    assert (learnt.policy(0, s).probs[allowed == 0] == 0).all()
    assert learnt.values(s).isfinite().all()


def test_the_divergence_is_that_of_the_policy_in_the_states_of_the_copies(monkeypatch):
    """Not in those that are drawn from the memory, whose policy was another."""
    model, asked = problem(), []
    learn = FromReplay.learn

    def watched(self, taken, share):
        if self.taken >= self.warm_up:
            q, p = self.policy(0, taken.s).probs.detach(), model.prior(taken.s, 0).probs
            asked.append((q * (q / p).log()).sum(-1).mean().item())
        return learn(self, taken, share)

    monkeypatch.setattr(FromReplay, "learn", watched)
    learnt = inference.sac(model, steps=1000, **QUICK)
    assert asked
    found = learnt.history["divergence"][-1].item()
    assert found == pytest.approx(asked[-1], rel=0.5)


def regulator(alpha=0.5):
    """A point that is pulled back to zero, for ever: the soft policy is linear-Gaussian."""
    return models.linear_gaussian(
        [[0.9]],
        [[0.5]],
        noise=[[0.04]],
        Q=[[1.0]],
        R=[[0.2]],
        horizon=None,
        discount=0.8,
        initial_mean=[0.0],
        initial_covariance=[[1.0]],
        temperature=alpha,
        action_prior=dist.MultivariateNormal(torch.zeros(1).double(), torch.eye(1).double()),
    )


@pytest.mark.parametrize("head", [None, cai.MixtureHead(2)], ids=["pathwise", "scores"])
def test_a_linear_gaussian_problem_in_closed_form(head):
    """Episodes are truncated after ten steps, which the value does not see."""
    model = regulator()
    exact = inference.soft_values(model)
    s = torch.tensor([[1.0], [0.0], [-1.0]]).double()
    best = [exact.policy(0, x) for x in s]
    mean = torch.stack([q.mean[0] for q in best])
    sd = torch.stack([q.covariance_matrix[0, 0].sqrt() for q in best])
    V = torch.stack([exact.V(0, x) for x in s])
    means, sds, values = [], [], []
    for seed in range(2):
        torch.manual_seed(seed)
        policy = cai.NeuralPolicy(model, (32,), stationary=True, head=head)
        source = ModelSource(model, 16, time_limit=10)
        learnt = inference.sac(source, policy, steps=15_000, seed=seed, **QUICK)
        drawn = learnt.policy(0, s).sample((4000,)).squeeze(-1)
        means.append(drawn.mean(0))
        sds.append(drawn.std(0))
        values.append(learnt.values(s))
    assert (torch.stack(means).mean(0) - mean).abs().max() < 0.12
    assert (torch.stack(sds).mean(0) / sd - 1).abs().max() < 0.1
    assert (torch.stack(values).mean(0) - V).abs().max() < 0.25


def test_scores_and_draws_have_the_gradient_of_the_same_expectation():
    """For a Gaussian policy, whose draws have a gradient, by both; and by a grid of actions."""
    torch.manual_seed(0)
    model, n, alpha = regulator(), 4000, 0.5
    critics = Critics(model, (16,), timed=False)
    location = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    s, t = torch.full((n, 1), 0.7).double(), torch.zeros(n, dtype=torch.long)

    def policy(t, s, pathwise):
        base = dist.Normal(location.expand(len(s), 1), 0.8).to_event(1)
        if pathwise:
            return base
        one = dist.Categorical(torch.ones(len(s), 1))
        parts = dist.Normal(location.expand(len(s), 1, 1), 0.8).to_event(1)
        return dist.MixtureSameFamily(one, parts)

    found = {}
    for pathwise in (True, False):
        acts = functools.partial(policy, pathwise=pathwise)
        here = expectations(acts, critics.prior, s, t, None)
        assert (type(here).__name__ == "_OfOne") is pathwise
        each = here.loss(critics.smaller, alpha)
        found[pathwise] = torch.autograd.grad(each.mean(), location)[0].item()
    a = torch.linspace(-7, 7, 4001).double().unsqueeze(-1)
    q = dist.Normal(location, 0.8).to_event(0)
    with torch.no_grad():
        Q = critics.smaller(s[:1].expand(4001, 1), t[:1].expand(4001), a)
    log_p = model.prior(s[0], 0).log_prob(a)
    density = q.log_prob(a.squeeze(-1))
    value = (density.exp() * (Q - alpha * (density - log_p))).sum() * (a[1] - a[0]).item()
    exact = -torch.autograd.grad(value, location)[0].item()
    for estimate in found.values():
        assert estimate == pytest.approx(exact, abs=0.03)


def test_two_critics_are_two_networks():
    model = models.pendulum(horizon=None, discount=0.9)
    critics = Critics(model, (8, 8), timed=False)
    s, a = model.initial.sample((3, 5)), model.prior(model.initial.sample(), 0).sample((4, 3, 5))
    both = critics(s, 0, a)
    assert both.shape == (2, 4, 3, 5)
    x = torch.cat([s.expand(4, 3, 5, 2), a / 2], -1).float()  # torques of ±2 N m
    for i in range(2):
        y = x
        for weight, bias in zip(critics.weights, critics.biases, strict=True):
            y = y @ weight[i] + bias[i]
            y = y.relu() if weight is not critics.weights[-1] else y
        torch.testing.assert_close(both[i], y.squeeze(-1))


def test_what_is_not_observed_changes_nothing():
    """The critics and a policy of their own see an angle without its turns."""
    model = models.pendulum(horizon=None, discount=0.9)

    def seen(s):
        return torch.stack([s[..., 0].cos(), s[..., 0].sin(), s[..., 1]], -1)

    learnt = inference.sac(
        model, steps=300, observe=seen, hidden=(8,), warm_up=50, batch=16, progress=False
    )
    s = torch.tensor([[0.5, 1.0], [0.5 + 6 * torch.pi, 1.0]]).double()
    a = torch.tensor([[0.3], [0.3]])
    for found in (learnt.policy(0, s).log_prob(a.double()), learnt.action_values(s, a)):
        assert found[0].item() == pytest.approx(found[1].item(), abs=1e-4)


def test_an_automatic_temperature_on_a_continuum_of_states():
    """One step, so that the temperature is that of the budget, found by a fine grid of states."""
    model, target = contextual_bandit(), 0.2
    alphas = []
    for seed in range(2):
        learnt = inference.sac(
            model,
            steps=12_000,
            temperature=inference.AutomaticTemperature(target),
            seed=seed,
            **QUICK,
        )
        alphas.append(learnt.temperature)
    s = torch.linspace(-1, 1, 2001).double()

    def nats(alpha):
        log_pi = torch.stack([torch.full_like(s, 0.8).log(), (s / alpha) + torch.tensor(0.2).log()])
        log_pi = log_pi.log_softmax(0)
        log_p = torch.tensor([0.8, 0.2]).log().unsqueeze(1)
        return (log_pi.exp() * (log_pi - log_p)).sum(0).mean().item()

    low, high = 0.01, 10.0
    for _ in range(60):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if nats(middle) > target else (low, middle)
    assert sum(alphas) / 2 == pytest.approx(low, rel=0.1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"lag": 1.0}, "lag: expected between 0 and 1"),
        ({"batch": 0}, "batch: expected"),
        ({"warm_up": 0}, "warm_up: expected"),
        ({"updates": 0}, "updates: expected"),
        ({"warm_up": 2000}, "warm_up: expected fewer transitions than steps, 2000, got 2000"),
        ({"hidden": (-3,)}, r"hidden: .*\(64, 64\) is two layers"),
        ({"policy": lambda t, s: None}, "policy: expected a torch module with parameters"),
        ({"policy": cai.RecurrentPolicy(models.ledge())}, "policy: expected one without a memory"),
    ],
)
def test_wrong_arguments(arguments, words):
    with pytest.raises(ValueError, match=words):
        inference.sac(models.ledge(), steps=2000, progress=False, **arguments)


def test_rewards_of_minus_infinity_are_refused():
    model = models.tabular([[[1.0], [1.0]]], [[0.0, -torch.inf]], horizon=None, discount=0.9)
    with pytest.raises(ValueError, match="reward: expected finite ones for a network"):
        inference.sac(model, steps=100, warm_up=50, progress=False)
