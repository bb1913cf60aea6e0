"""Policies that see part of the state, without and with a memory, and what that costs."""

import math

import oracles
import pyro.distributions as dist
import pytest
import torch
from examples import continuous, scramble
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, config_enumerate

import cai
from cai import inference, models
from cai.inference.gradients.exact_gradient import exact_gradient
from cai.policies.as_table import policy_log_probs
from cai.program.scoring import log_probs_along


def cue():
    """A sign is seen once, then it is dark, then the action should be the one of the sign."""
    P = torch.zeros(4, 2, 4)
    P[0, :, 2] = P[1, :, 3] = P[2, :, 2] = P[3, :, 3] = 1
    r = torch.tensor([[0.0, 0.0], [0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    return models.tabular(P, r, horizon=3, initial=[0.5, 0.5, 0.0, 0.0])


def in_the_dark(s):
    return s.clamp(max=2)


def test_states_that_look_alike_are_treated_alike():
    problem = oracles.random_problem(3, S=4, T=3, forbidden=0.0)
    model = problem.model()
    for observe in (lambda s: s % 2, lambda s: torch.stack([s % 2, s % 2 + 5], -1)):
        policy = scramble(cai.NeuralPolicy(model, hidden=(5,), observe=observe))
        assert policy.inputs == 3
        log_q = policy_log_probs(policy, cai.tabulate(model))
        torch.testing.assert_close(log_q[:, 0], log_q[:, 2], rtol=0, atol=1e-12)
        assert not torch.allclose(log_q[:, 0], log_q[:, 1])
    untrained = policy_log_probs(
        cai.NeuralPolicy(model, observe=lambda s: s % 2), cai.tabulate(model)
    )
    prior = torch.as_tensor(problem.prior).log()
    alike = (prior[::2].mean(0)).log_softmax(-1)
    torch.testing.assert_close(untrained[0, 0], alike, rtol=0, atol=1e-7)


def test_a_memory_finds_its_way_in_the_dark():
    """Blind in the dark, the sign is worth a coin toss; remembered, all; and fit finds both."""
    model = cue()
    sees, remembers = inference.soft_values(model), inference.belief_values(model, in_the_dark)
    assert remembers.elbo == pytest.approx(sees.elbo, abs=1e-12)
    assert sees.elbo == pytest.approx(2 * math.log((math.exp(2) + 1) / 2), abs=1e-12)
    blind = cai.NeuralPolicy(model, hidden=(8,), observe=in_the_dark)
    fitted = inference.fit(model, blind, steps=150, learning_rate=0.05)
    assert fitted.elbo == pytest.approx(2, abs=0.01)  # two steps at 2 half of the time
    policy = cai.RecurrentPolicy(model, in_the_dark, memory=6, hidden=())
    fitted = inference.fit(model, policy, steps=250, samples=60, learning_rate=0.05)
    assert fitted.elbo == pytest.approx(sees.elbo, abs=0.05)
    report = cai.compare(model, {"sees": sees, "remembers": remembers, "recurrent": fitted})
    assert report["remembers"].kl_actions == pytest.approx(report["sees"].kl_actions, abs=1e-9)
    assert report["recurrent"].kl_stderr > 0  # simulated, so an estimate


def test_a_recurrent_policy_by_enumeration_and_by_simulation():
    model = oracles.random_problem(2, S=4, T=3, forbidden=0.0, discount=0.9).model()
    policy = scramble(cai.RecurrentPolicy(model, lambda s: s % 2, memory=4, hidden=(5,)))
    guide = config_enumerate(cai.collapse(model).rollout(policy), "parallel")
    exact = -TraceEnum_ELBO(max_plate_nesting=0).loss(cai.collapse(model), guide)
    found = cai.evaluate(model, policy, samples=4000)
    assert abs(found.elbo - exact) < 4 * found.elbo_stderr


def test_its_memory_is_what_it_saw_and_did():
    model = cue()
    policy = scramble(cai.RecurrentPolicy(model, in_the_dark, memory=4))
    first = [policy.start(), policy.start(), policy.start()]
    sign, did = [0, 1, 0], [0, 0, 1]
    for step, s in zip(first, sign, strict=True):
        step(0, torch.tensor(s), None)
    later = [
        step(1, torch.tensor(3), torch.tensor(a)).probs for step, a in zip(first, did, strict=True)
    ]
    assert not torch.allclose(later[0], later[1])
    assert not torch.allclose(later[0], later[2])
    again = policy.start()
    again(0, torch.tensor(0), None)
    assert torch.equal(again(1, torch.tensor(2), torch.tensor(0)).probs, later[0])


@pytest.mark.parametrize("make", [cai.NeuralPolicy, cai.RecurrentPolicy])
def test_the_position_alone_of_a_particle_with_speed(make):
    model = continuous(horizon=4)
    policy = scramble(make(model, observe=lambda s: s[..., 0]))
    paths = model.simulate(policy, 6, seed=0)
    s = paths.states[:, :-1]
    other = torch.stack([s[..., 0], torch.randn(6, 4)], -1)
    scores = [log_probs_along(policy, x, paths.actions) for x in (s, other)]
    torch.testing.assert_close(*scores)
    loss = Trace_ELBO(num_particles=5, vectorize_particles=True, max_plate_nesting=0)
    assert math.isfinite(loss.loss(model, model.rollout(policy)))
    assert math.isfinite(inference.fit(model, policy, steps=2, samples=5).elbo)


def test_what_may_not_be_seen():
    model = continuous(action_prior=lambda s: dist.Normal(s[..., 0], 1.0))
    cai.NeuralPolicy(model)
    with pytest.raises(
        ValueError, match="a function of the state, which reveals what is not observed"
    ):
        cai.NeuralPolicy(model, observe=lambda s: s[..., 1])
    with pytest.raises(ValueError, match=r"observe: expected a tensor .* got shape"):
        cai.NeuralPolicy(continuous(), observe=lambda s: s.sum())
    with pytest.raises(ValueError, match=r"observe: expected a tensor .* got int"):
        inference.belief_values(models.ledge(), 3)
    with pytest.raises(ValueError, match="memory: expected a whole number"):
        cai.RecurrentPolicy(continuous(), memory=0)


@pytest.mark.parametrize("discount", [1.0, 0.8])
def test_a_table_of_observations_by_differences(discount):
    """Its exact gradient, against all paths of the brute force."""
    problem = oracles.random_problem(3, S=4, T=3, forbidden=0.0, discount=discount)
    model = problem.model()
    for stationary in (False, True):
        policy = scramble(cai.TabularPolicy(model, stationary, lambda s: s % 2))
        assert policy.logits.shape == (*(() if stationary else (3,)), 2, 2)
        table = cai.tabulate(model)

        def worth(policy, table=table):
            q = policy_log_probs(policy, table).detach().exp().numpy()
            return oracles.elbo(problem, q)[0]

        loss = exact_gradient(table, policy)()
        assert -loss == pytest.approx(worth(policy), abs=1e-10)
        direction, slope = torch.randn_like(policy.logits), policy.logits.grad
        values = []
        for h in (1e-5, -2e-5):
            with torch.no_grad():
                policy.logits.add_(h * direction)
            values.append(worth(policy))
        difference = (values[0] - values[1]) / 2e-5
        assert -(slope * direction).sum().item() == pytest.approx(difference, abs=1e-6)


def test_between_the_plan_and_the_memory():
    """Nothing seen is the factorised plan, all seen the table, and forgetting has a price."""
    model = cue()
    how = {"steps": 400, "learning_rate": 0.2, "progress": False}

    def best(observe):
        return inference.fit(model, cai.TabularPolicy(model, observe=observe), **how).elbo

    plan = inference.factorised_plan(model).elbo
    remembered = inference.belief_values(model, in_the_dark).elbo
    assert best(cai.blind) == pytest.approx(plan, abs=1e-4)
    assert best(lambda s: s) == pytest.approx(inference.soft_values(model).elbo, abs=1e-4)
    forgets = best(in_the_dark)
    assert plan - 1e-4 <= forgets < remembered - 0.1


def test_the_rollout_of_a_table_of_observations():
    model = cue()
    for stationary in (False, True):
        policy = scramble(cai.TabularPolicy(model, stationary, in_the_dark))
        exact = cai.evaluate(model, policy)
        paths = model.simulate(policy, 4000, seed=0)
        share = (paths.actions[:, 1] == 0).double().mean().item()
        expected = exact.state_actions[1, :, 0].sum().item()
        assert share == pytest.approx(expected, abs=4 * 0.5 / 4000**0.5)
