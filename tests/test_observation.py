"""Policies that see part of the state, without and with a memory, and what that costs."""

import math

import oracles
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, config_enumerate
from test_policy import scramble
from test_trajectory import continuous

import cai
from cai import inference, models
from cai.evaluate import policy_log_probs


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
    fitted = inference.fit(model, policy, steps=250, particles=60, learning_rate=0.05)
    assert fitted.elbo == pytest.approx(sees.elbo, abs=0.05)
    report = cai.compare(model, {"sees": sees, "remembers": remembers, "recurrent": fitted})
    assert report["remembers"].kl_actions == pytest.approx(report["sees"].kl_actions, abs=1e-9)
    assert report["recurrent"].kl is None


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
    scores = [cai.episode.log_probs_along(policy, x, paths.actions) for x in (s, other)]
    torch.testing.assert_close(*scores)
    loss = Trace_ELBO(num_particles=5, vectorize_particles=True, max_plate_nesting=0)
    assert math.isfinite(loss.loss(model, model.rollout(policy)))
    assert math.isfinite(inference.fit(model, policy, steps=2, particles=5).elbo)


def test_what_may_not_be_seen():
    model = continuous(action_prior=lambda s: dist.Normal(s[..., 0], 1.0))
    cai.NeuralPolicy(model)
    with pytest.raises(ValueError, match="a function of the state, which tells what is not seen"):
        cai.NeuralPolicy(model, observe=lambda s: s[..., 1])
    with pytest.raises(ValueError, match=r"observe: expected a tensor .* got shape"):
        cai.NeuralPolicy(continuous(), observe=lambda s: s.sum())
    with pytest.raises(ValueError, match=r"observe: expected a tensor .* got int"):
        inference.belief_values(models.ledge(), 3)
    with pytest.raises(ValueError, match="memory: expected a whole number"):
        cai.RecurrentPolicy(continuous(), memory=0)
