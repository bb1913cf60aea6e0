"""Policies: broadcasting, the prior as the starting point, and what is forbidden."""

import doctest
import math

import oracles
import pyro
import pyro.distributions as dist
import pytest
import torch
from examples import scramble
from torch import nn

import cai
from cai import inference, models
from cai.networks import flow
from cai.policies import neural
from cai.policies.as_table import policy_log_probs


def policies(model):
    return [
        cai.TabularPolicy(model),
        cai.TabularPolicy(model, stationary=True),
        cai.NeuralPolicy(model),
        cai.NeuralPolicy(model, hidden=(8,)),
        cai.NeuralPolicy(model, hidden=(8,), stationary=True),
    ]


@pytest.mark.parametrize("which", range(5))
def test_untrained_policies_are_the_prior(which):
    problem = oracles.random_problem(4, forbidden=0.5)
    policy = policies(problem.model())[which]
    found = policy_log_probs(policy, cai.tabulate(problem.model())).exp()
    expected = torch.as_tensor(problem.prior).expand_as(found)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("which", range(5))
def test_steps_and_states_broadcast(which):
    """One call for all steps and states is the same as one for each."""
    problem = oracles.random_problem(5, forbidden=0.5, T=4)
    policy = scramble(policies(problem.model())[which])
    together = policy(torch.arange(4).unsqueeze(1), torch.arange(3)).logits.expand(4, 3, 2)
    near = {"rtol": 1e-5, "atol": 1e-5}  # networks compute in float32
    unrolled = policy.unroll() if hasattr(policy, "unroll") else policy
    for t in range(4):
        torch.testing.assert_close(policy(t, torch.arange(3)).logits, together[t], **near)
        torch.testing.assert_close(unrolled(t, torch.arange(3)).logits, together[t], **near)
        for s in range(3):
            torch.testing.assert_close(policy(t, torch.tensor(s)).logits, together[t, s], **near)
    forbidden = torch.as_tensor(problem.prior) == 0
    assert (together[:, forbidden] == -math.inf).all()
    varies = not torch.allclose(together[0], together[3])
    assert varies == (which not in (1, 4))


@pytest.mark.parametrize("module", [neural, flow])
def test_the_examples_in_docstrings(module):
    failed, tried = doctest.testmod(module)
    assert tried > 0
    assert failed == 0


def test_a_network_of_ones_own():
    model = models.ledge()
    network = nn.Sequential(nn.Linear(6, 2))
    policy = cai.NeuralPolicy(model, network=network)
    assert (policy.inputs, policy.outputs) == (6, 2)
    assert policy.network is network
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[1.0, 0, 0, 0, 0, 0], [0, 0, 2.0, 0, 0, 0]]))
        network[0].bias.zero_()
    # The inputs are t/T, then the state as one-hot.
    logits = policy(2, torch.tensor(1)).logits
    assert (logits[0] - logits[1]).item() == pytest.approx(2 / 4 - 2.0)


def test_the_wrong_number_of_actions_is_an_error():
    table = cai.tabulate(models.ledge())
    other = models.gridworld(horizon=4)
    with pytest.raises(ValueError, match=r"policy: a table of shape \[4, 48, 4\] does not fit"):
        policy_log_probs(cai.TabularPolicy(other), table)
    with pytest.raises(ValueError, match="over 2 actions, got one over 4"):
        policy_log_probs(lambda t, s: other.action_prior, table)


def test_a_policy_that_does_not_broadcast_is_an_error():
    prior = models.ledge().action_prior

    def policy(t, s):
        return prior if t > 2 else prior.expand(s.shape)

    with pytest.raises(ValueError, match=r"policy: called with steps of shape .* torch.where"):
        policy_log_probs(policy, cai.tabulate(models.ledge()))


def test_time_dependent_tables_need_a_horizon():
    model = models.ledge(horizon=None)
    assert cai.TabularPolicy(model, stationary=True).logits.shape == (5, 2)
    with pytest.raises(
        ValueError,
        match=r"time-dependent policy .*stationary=True\) needs",
    ):
        cai.TabularPolicy(model)


class Drawing(torch.nn.Module):
    """A policy that does something of its own before it answers."""

    def __init__(self, deed):
        super().__init__()
        self.logits, self.deed = torch.nn.Parameter(torch.zeros(2)), deed

    def forward(self, t, s):
        answer = dist.Categorical(logits=self.logits + 0 * s.unsqueeze(-1))
        instead = self.deed(t, answer)
        return answer if instead is None else instead


def draws_dynamics(t, answer):
    if torch.as_tensor(t).min() == 0:
        pyro.sample("s_1", dist.Categorical(torch.ones(5)))


def draws_dynamics_late(t, answer):
    if (torch.as_tensor(t) == 2).any():
        pyro.sample("s_2", dist.Categorical(torch.ones(5)))


def draws_latents(t, answer):
    pyro.sample("luck", dist.Normal(0.0, 1.0))


def draws_actions(t, answer):
    return pyro.sample("a_0", answer)


def returns_draws(t, answer):
    return answer.sample()


@pytest.mark.parametrize(
    ("deed", "message"),
    [
        (draws_dynamics, "policy, site s_1: expected the model alone to draw it"),
        (draws_dynamics_late, "policy, site s_2: expected the model alone"),
        (draws_latents, "got one that draws the site luck; a policy with latents"),
        (draws_actions, "policy, site a_0: .* leave the drawing to model.rollout"),
        (returns_draws, r"policy: expected a distribution over actions|it raised .* 'Tensor'"),
    ],
)
def test_a_policy_draws_nothing_itself(deed, message):
    model, policy = models.ledge(), Drawing(deed)
    for estimator in ("exact", "enumerated", "score"):
        with pytest.raises(ValueError, match=message):
            inference.fit(model, policy, steps=2, estimator=estimator)
    with pytest.raises(ValueError, match=message):
        model.simulate(policy, 5)
