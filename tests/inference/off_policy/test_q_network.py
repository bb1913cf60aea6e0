"""Action values by a network end where those of a table do, and need no finite states."""

import dataclasses
import math

import pyro.distributions as dist
import pytest
import torch
from test_soft_q import RULES, apart, apart_from, mean_error, problem

import cai
from cai import inference, models
from cai.inference.learning.q_network import QNetwork
from cai.stepping.model_source import ModelSource

NETWORK = {"hidden": (32,), "num_envs": 32, "batch": 128, "learning_rate": 5e-3}


@pytest.mark.parametrize("rule", RULES)
def test_it_converges_to_the_values_of_its_own_rule(rule):
    model = problem()
    exact = inference.soft_values(model, rule=rule).V
    assert mean_error(model, exact, steps=40_000, rule=rule, exploration=0.3, **NETWORK) < 0.04
    others = [inference.soft_values(model, rule=other).V for other in apart_from(rule)]
    assert all(apart(other, exact) > 0.15 for other in others)


@pytest.mark.parametrize(
    "how", [{"length": 3}, {"replay": 0}, {"lag": None}, {"value_weight": 1.0}]
)
def test_segments_the_latest_transitions_no_lag_and_streams_have_the_same_fixed_point(how):
    model = problem()
    exact = inference.soft_values(model).V
    assert mean_error(model, exact, steps=40_000, **NETWORK, **how) < 0.05


def test_the_time_is_part_of_its_input_where_the_horizon_is_finite():
    model = problem(horizon=3, discount=0.9, final_reward=[0.0, 3.0, -3.0, 1.0])
    exact = inference.soft_values(model)
    t = torch.arange(3)[:, None].expand(3, 4)
    for seed in range(2):
        how = {**NETWORK, "updates": 2}
        learnt = inference.soft_q(model, steps=60_000, seed=seed, progress=False, **how)
        assert apart(learnt.values(torch.arange(4).expand(3, 4), t), exact.V[:-1]) < 0.08
        assert 0 <= exact.elbo - cai.evaluate(model, learnt.policy).elbo < 0.02 * abs(exact.elbo)


def random_streams(model, weight):
    """Two streams with random weights, as the last layer is zero at the start."""
    network = QNetwork(model, (8,), False, 3, "soft", entropy=False, value_weight=weight).double()
    network.alpha = model.temperature
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    return network


def segments(model, network, n):
    """n steps from each state, once for each first action; the later ones are of the policy."""
    source = ModelSource(model, 12)
    source.s, a = torch.arange(4).repeat_interleave(3), torch.arange(3).repeat(4)
    steps = [source.step(a)]
    for _ in range(n - 1):
        with torch.no_grad():
            a = network(source.t, source.s).sample()
        steps.append(source.step(a))
    return steps


@pytest.mark.parametrize("weight", [None, 0.5])
@pytest.mark.parametrize("n", [1, 5])
def test_the_step_of_two_streams_is_that_of_an_actor_critic(n, weight):
    """Schulman 65: E[∇Q (Q - y)] = -α E[∇log π V̂] + α² ∇KL + α c ∇½ (V - V̂)², V̂ = y - α KL."""
    torch.manual_seed(n)
    model = problem()
    alpha, s = model.temperature, torch.arange(4)
    network = random_streams(model, 1 / alpha if weight is None else weight)
    with torch.no_grad():
        y = network.target(segments(model, network, n), model.discount).view(4, 3)
    rows, log_pi, log_p = network.rows(s, 0), network.log_policy(s, 0), network.log_prior(s, 0)
    pi, kl = log_pi.exp().detach(), (log_pi.exp() * (log_pi - log_p)).sum(-1)
    estimate = y - alpha * kl.detach().unsqueeze(-1)
    value = network.network(torch.eye(4).double())[:, 0]
    assert torch.allclose(network.V(s, 0), value, rtol=0, atol=1e-13)
    loss = (pi * (rows - y) ** 2).sum() / 2
    error = (value - (pi * estimate).sum(-1)) ** 2
    actor = (-alpha * pi * log_pi * estimate).sum() + alpha**2 * kl.sum()
    critic = error.sum() / 2 * (1.0 if weight is None else alpha * weight)
    left = torch.autograd.grad(loss, network.parameters(), retain_graph=True)
    right = torch.autograd.grad(actor + critic, network.parameters())
    for one, other in zip(left, right, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-12)
        assert one.abs().max() > 1e-3


def test_two_streams_are_relative_to_the_allowed_actions_where_entropies_are_paid():
    model = problem(action_prior=[[0.5, 0.5, 0.0]] * 4)
    network = QNetwork(model, (8,), False, 3, "soft", entropy=True, value_weight=1.0)
    rows, pi = network.rows(torch.arange(4), 0), network(0, torch.arange(4)).probs
    assert torch.allclose(pi, torch.tensor([0.5, 0.5, 0.0]).double())
    assert torch.allclose(rows[:, :2], torch.tensor(0.5).double().log())  # V = 0 and α = 1


def contextual_bandit(alpha=0.5):
    """Two actions, of which the second pays s, uniform in [-1, 1]."""
    return cai.TrajectoryModel(
        initial=dist.Uniform(-1.0, 1.0),
        dynamics=lambda s, a: dist.Delta(s),
        reward=lambda s, a: a * s,
        action_prior=dist.Categorical(torch.tensor([0.8, 0.2])),
        horizon=1,
        temperature=alpha,
    )


def test_states_on_a_continuum_in_closed_form():
    """Q(s,a) = a s, V(s) = α log(.8 + .2 exp(s/α)), π(1|s) = .2 exp((s - V)/α)."""
    model, s = contextual_bandit(), torch.linspace(-0.9, 0.9, 7).double()
    alpha = model.temperature
    V = alpha * (0.8 + 0.2 * (s / alpha).exp()).log()
    how = {"steps": 20_000, "num_envs": 32, "learning_rate": 3e-3, "exploration": 0.5}
    for seed in range(3):
        learnt = inference.soft_q(model, seed=seed, progress=False, **how)
        assert (learnt.values(s) - V).abs().max() < 0.03
        Q = torch.stack([learnt.action_values(s, a) for a in torch.arange(2)], 1)
        assert (Q - torch.stack([0 * s, s], 1)).abs().max() < 0.05
        chosen = learnt.policy(0, s).probs[:, 1]
        assert (chosen - 0.2 * ((s - V) / alpha).exp()).abs().max() < 0.03


def test_actions_that_the_prior_forbids_are_never_taken():
    allowed = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.3, 0.7], [0.2, 0.0, 0.8], [0.4, 0.6, 0.0]])
    model = problem(action_prior=allowed.numpy())
    learnt = inference.soft_q(model, steps=2000, progress=False, **NETWORK)
    assert (learnt.policy(0, torch.arange(4)).probs[allowed == 0] == 0).all()


@pytest.mark.parametrize("network", [False, True])
def test_entropies_are_paid_by_the_number_of_actions_more(network):
    """V = α log Σ exp(Q/α) is that of a uniform prior whose steps pay α log A(s) more."""
    allowed = torch.tensor([[0.5, 0.5, 0.0], [0.1, 0.3, 0.6], [0.2, 0.0, 0.8], [0.4, 0.6, 0.0]])
    model = problem(action_prior=allowed.numpy())
    alpha, actions = model.temperature, (allowed > 0).double().sum(1, keepdim=True)
    table = cai.tabulate(model)
    uniform = torch.where(allowed > 0, -actions.log(), -torch.inf)
    reward = table.reward + alpha * actions.log()
    paid = dataclasses.replace(table, log_prior=uniform, reward=reward)
    exact = inference.soft_values(paid)
    assert apart(exact.V, inference.soft_values(model).V) > 0.3
    how = {"steps": 40_000, "regulariser": "entropy"} | (NETWORK if network else {})
    assert mean_error(model, exact.V, **how) < 0.04
    learnt = inference.soft_q(model, progress=False, **how)
    apart_from = (learnt.policy(0, torch.arange(4)).probs - exact.policy.log_probs.exp()).abs()
    assert apart_from.max() < 0.05


@pytest.mark.parametrize("behaviour", ["greedy", "boltzmann"])
@pytest.mark.parametrize("rule", ["soft", "hard"])
def test_what_acts_does_not_matter(rule, behaviour):
    model = problem()
    exact = inference.soft_values(model, rule=rule).V
    how = {"rule": rule, "behaviour": behaviour, "exploration": 0.3, "steps": 40_000}
    assert mean_error(model, exact, **how) < 0.02


def test_the_greedy_behaviour_explores_with_the_prior_alone():
    """Two actions at one place; without exploration it takes the better one, or the same one."""
    model = models.tabular([[[1.0], [1.0]]], [[0.0, 1.0]], horizon=1, action_prior=[0.9, 0.1])
    history = [
        inference.soft_q(model, behaviour=acts, exploration=x, steps=20_000, progress=False).history
        for acts, x in (("greedy", 0.0), ("greedy", 0.5), ("own", 0.0))
    ]
    greedy, half, own = (x["returns"][-50:].mean().item() for x in history)
    assert greedy == 1.0
    assert half == pytest.approx(0.55, abs=0.02)
    pi = 0.1 * math.e / (0.9 + 0.1 * math.e)
    assert own == pytest.approx(pi, abs=0.02)


def test_what_a_network_cannot_learn_is_said():
    model = problem(reward=[[-1.0, -torch.inf, -2.0]] * 4)
    with pytest.raises(ValueError, match="expected finite ones for a network, got -inf"):
        inference.soft_q(model, steps=2000, progress=False, **NETWORK)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"hidden": 3}, "hidden: expected"),
        ({"replay": -1}, "replay: expected"),
        ({"batch": 0}, "batch: expected"),
        ({"updates": 0.5}, "updates: expected"),
        ({"lag": 1.0}, "lag: expected"),
        ({"learning_rate": 0}, "learning_rate: expected"),
        ({"value_weight": 0}, "value_weight: expected"),
        ({"value_weight": 1.0, "rule": "hard"}, "value_weight: expected None for rule='hard'"),
        ({"value_weight": 1.0}, "value_weight: expected None for a table"),
        ({"regulariser": "KL"}, 'regulariser: expected "divergence" or "entropy"'),
    ],
)
def test_wrong_input(wrong, message):
    with pytest.raises(ValueError, match=message):
        inference.soft_q(models.ledge(), progress=False, **wrong)
