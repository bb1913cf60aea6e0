"""A learner that starts from an earlier result: its critics and its policy are handed on."""

import functools

import pyro.distributions as dist
import pytest
import torch
from test_soft_q import problem

import cai
from cai import inference
from cai.inference.off_policy.q_critics import Critics
from cai.stepping.model_source import ModelSource

QUICK = {"hidden": (16,), "num_envs": 4, "batch": 16, "progress": False}
LEARNERS = {
    "sac": inference.sac,
    "actor_critic": inference.actor_critic,
    "stein_soft_q": inference.stein_soft_q,
    "DDPG": functools.partial(inference.stein_soft_q, rule="hard", gradient="plain"),
}


def boxed(low=-1.0, high=1.0, pay=1.0):
    """A state and an action that only decide what is paid."""
    edges = torch.tensor([low, -1.0]), torch.tensor([high, 2.0])
    return cai.TrajectoryModel(
        initial=dist.Normal(torch.zeros(2), 1.0).to_event(1),
        dynamics=lambda s, a: dist.Normal(s, 1.0).to_event(1),
        reward=lambda s, a: -pay * (a - s).square().sum(-1),
        action_prior=dist.Uniform(*edges).to_event(1),
        horizon=None,
        discount=0.9,
    )


@pytest.mark.parametrize("learner", LEARNERS)
def test_what_is_handed_on_is_where_the_run_starts(learner):
    """A run whose rate is as good as zero returns the networks that it was given."""
    learn = functools.partial(LEARNERS[learner], **QUICK)
    first = learn(boxed(), steps=400, warm_up=100, learning_rate=1e-2)
    still = {"steps": 40, "warm_up": 20, "learning_rate": 1e-9}
    kept = learn(boxed(pay=3.0), start=first, **still)
    new = learn(boxed(pay=3.0), **still)
    s, a = torch.randn(20, 2), torch.rand(20, 2)
    found, before, fresh = (each.action_values(s, a) for each in (kept, first, new))
    torch.testing.assert_close(found, before, rtol=1e-5, atol=1e-5)
    assert (fresh - before).abs().max() > 0.05
    for name, network in first.networks.items():
        for x, y in zip(network.parameters(), kept.networks[name].parameters(), strict=True):
            torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-6)
            assert x is not y
    for x, y in zip(first.policy.parameters(), kept.policy.parameters(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-6)


def test_a_policy_that_is_given_comes_before_that_of_the_start():
    model = problem()
    first = inference.sac(model, steps=400, warm_up=100, **QUICK)
    own = cai.NeuralPolicy(model, (5,), stationary=True)
    kept = inference.sac(model, own, start=first, steps=40, warm_up=20, **QUICK)
    shapes = [tuple(x.shape) for x in kept.policy.parameters()]
    assert shapes == [tuple(x.shape) for x in own.parameters()]


@pytest.mark.parametrize("unit", [1.0, 7.0])
def test_critics_stay_the_same_function_where_the_box_of_actions_and_the_unit_differ(unit):
    torch.manual_seed(0)
    old = Critics(boxed(-1.0, 1.0), (8, 8), False, unit=3.0)
    new = Critics(boxed(-5.0, 2.0), (8, 8), False, unit=unit)
    s, a = torch.randn(50, 2), torch.rand(50, 2) * 2 - 1
    assert (new(s, 0, a) - old(s, 0, a)).abs().max() > 0.1
    new.begin_at(old)
    torch.testing.assert_close(new(s, 0, a), old(s, 0, a), rtol=1e-5, atol=1e-5)


def test_with_a_start_its_policy_acts_from_the_first_transition_on():
    class Watched(ModelSource):
        def step(self, a):
            taken.append(a.clone())
            return super().step(a)

    taken = []
    model = problem()
    first = inference.sac(model, steps=400, warm_up=100, **QUICK)
    with torch.no_grad():
        for x in first.policy.parameters():
            x.zero_()
        x[:] = torch.tensor([-40.0, -40.0, 40.0])  # the last bias: the policy takes action 2
    quick = QUICK | {"steps": 60, "warm_up": 50}
    inference.sac(Watched(model, 4), start=first, **quick)
    assert torch.stack(taken[:12]).unique().tolist() == [2]
    taken.clear()
    inference.sac(Watched(model, 4), first.policy, **quick)
    assert torch.stack(taken[:12]).unique().tolist() == [0, 1, 2]


def test_a_start_that_does_not_fit_is_refused():
    model = problem()
    first = inference.sac(model, steps=200, warm_up=100, **QUICK)
    again = functools.partial(inference.sac, model, steps=200, warm_up=100)
    with pytest.raises(ValueError, match=r"start: expected networks of the shapes .*32.*hidden="):
        again(start=first, **QUICK | {"hidden": (32,)})
    other = inference.actor_critic(model, steps=200, warm_up=100, **QUICK)
    with pytest.raises(ValueError, match=r"start: expected networks .* by the same learner"):
        again(start=other, **QUICK)
    with pytest.raises(ValueError, match="start: expected a Learned or None, got NeuralPolicy"):
        again(start=first.policy, **QUICK)


def test_a_start_that_saw_states_or_times_otherwise_is_refused():
    model = boxed()
    tenfold = functools.partial(inference.sac, observe=lambda s: 10 * s)
    first = tenfold(model, steps=200, warm_up=100, **QUICK)
    assert tenfold(model, start=first, steps=40, warm_up=20, **QUICK).networks
    with pytest.raises(ValueError, match=r"start: expected .* same observe= and the same horizon"):
        inference.sac(model, start=first, steps=200, warm_up=100, **QUICK)
    short, long = problem(horizon=3), problem(horizon=6)
    first = inference.sac(short, steps=200, warm_up=100, **QUICK)
    with pytest.raises(ValueError, match=r"start: expected .* same observe= and the same horizon"):
        inference.sac(long, start=first, steps=200, warm_up=100, **QUICK)


def test_a_file_remembers_whether_there_was_a_start(tmp_path):
    model = problem()
    first = inference.sac(model, steps=200, warm_up=100, **QUICK)
    run = functools.partial(
        inference.sac, model, steps=200, warm_up=100, checkpoint=tmp_path / "run.pt", **QUICK
    )
    found, again = run(start=first), run(start=first)
    for x, y in zip(found.policy.parameters(), again.policy.parameters(), strict=True):
        assert torch.equal(x, y)
    with pytest.raises(ValueError, match="start"):
        run()
