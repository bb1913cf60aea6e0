"""Action values by a network end where those of a table do, and need no finite states."""

import dataclasses
import math

import pyro.distributions as dist
import pytest
import torch
from test_soft_q import RULES, apart, mean_error, problem

import cai
from cai import inference, models

NETWORK = {"hidden": (32,), "num_envs": 32, "batch": 128, "learning_rate": 5e-3}


@pytest.mark.parametrize("rule", RULES)
def test_it_converges_to_the_values_of_its_own_rule(rule):
    model = problem()
    exact = inference.soft_values(model, rule=rule).V
    assert mean_error(model, exact, steps=40_000, rule=rule, exploration=0.3, **NETWORK) < 0.04
    others = [inference.soft_values(model, rule=other).V for other in set(RULES) - {rule}]
    assert all(apart(other, exact) > 0.15 for other in others)


@pytest.mark.parametrize("how", [{"length": 3}, {"replay": 0}, {"lag": None}])
def test_segments_the_latest_transitions_and_no_lag_have_the_same_fixed_point(how):
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
        ({"regulariser": "KL"}, 'regulariser: expected "divergence" or "entropy"'),
    ],
)
def test_wrong_input(wrong, message):
    with pytest.raises(ValueError, match=message):
        inference.soft_q(models.ledge(), progress=False, **wrong)
