"""Terminal states: where learners and simulations end an episode."""

import dataclasses

import pyro.distributions as dist
import pytest
import torch

import cai
from cai import inference, models
from cai.stepping.model_source import ModelSource


def walk(**changes):
    """Steps to the right until x > 2.5, each of which costs one, and an arrival that pays 5."""

    def over(s):
        return s > 2.5

    arguments = {
        "initial": dist.Delta(torch.tensor(0.0, dtype=torch.float64)),
        "dynamics": lambda s, a: dist.Delta(torch.where(over(s), s, s + a)),
        "reward": lambda s, a: torch.where(over(s), 0.0, -1.0),
        "arrival_reward": lambda s, a, s_next: 5.0 * (over(s_next) & ~over(s)),
        "action_prior": dist.Uniform(
            torch.tensor(0.0, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
        ),
        "horizon": 12,
        "terminal": over,
    }
    return cai.TrajectoryModel(**(arguments | changes))


def test_an_episode_of_a_source_ends_there():
    source = ModelSource(walk(horizon=None, discount=0.9), 3)
    a = torch.full((3,), 0.9).double()
    for step in range(6):
        taken = source.step(a)
        assert taken.ended.tolist() == [step % 3 == 2] * 3  # 0.9, 1.8, 2.7
        assert taken.reward[0] == (4.0 if step % 3 == 2 else -1.0)
    assert (source.s == 0).all()
    assert (source.t == 0).all()


def test_trajectories_are_not_alive_afterwards_and_actions_cost_nothing():
    """What a policy would do in a terminal state does not count."""
    model = walk()

    def policy(t, s):
        low = torch.where(s > 2.5, 0.9, 0.0)  # far from the prior where nothing depends on it
        return dist.Uniform(low, torch.ones_like(s))

    paths = model.simulate(policy, 200, seed=0)
    ends = (paths.states > 2.5).double().argmax(1)
    assert ((paths.states > 2.5).any(1)).all()
    torch.testing.assert_close(paths.alive.sum(1), ends)
    torch.testing.assert_close(paths.returns, 5.0 - ends.double())
    found = cai.evaluate(model, policy, samples=200)
    assert found.elbo == pytest.approx(found.expected_return, abs=1e-9)
    counted = cai.evaluate(dataclasses.replace(model, terminal=None), policy, samples=200)
    assert counted.expected_return == pytest.approx(found.expected_return, abs=1e-9)
    assert counted.elbo < found.elbo - 5


def test_what_a_learner_finds_there_does_not_matter():
    """The value of a terminal state is zero from the start, without any transition from it."""
    learnt = inference.sac(
        ModelSource(walk(horizon=None, discount=0.9), 8),
        steps=3000,
        hidden=(32,),
        warm_up=200,
        batch=64,
        updates=2,
        learning_rate=3e-3,
        progress=False,
    )
    near = torch.tensor([2.4]).double()
    assert learnt.values(near).item() == pytest.approx(4.0, abs=1.0)


@pytest.mark.parametrize("model", [models.cartpole(), models.multigoal(noise=0.05)])
def test_models_that_end_mark_their_terminal_states(model):
    paths = model.simulate(lambda t, s: model.prior(s), 300, seed=1)
    over = model.terminal(paths.states)
    assert over.any()
    assert (paths.rewards[over[:, :-1]] == 0).all()
    assert torch.equal(paths.alive, ~over)


def test_environments_of_models_terminate_there():
    envs = models.as_environment(dataclasses.replace(models.cartpole(), horizon=None), 4)
    envs.reset(seed=0)
    for _ in range(60):
        observations, _, terminated, truncated, _ = envs.step([1] * 4)
        fallen = (abs(observations[:, 2]) > 0.2095) | (abs(observations[:, 0]) > 2.4)
        assert not truncated.any()
        assert (terminated == fallen).all()
        if terminated.any():
            return
    raise AssertionError("no pole has fallen")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"terminal": True}, "terminal: expected a function s -> boolean, got True"),
        (
            {"terminal": lambda s: s},
            "terminal: expected booleans .* torch.float64",
        ),
        ({"terminal": lambda s: torch.tensor(True)}, r"terminal: expected booleans of shape \[3\]"),
        ({"terminal": lambda s: s.nothing}, "terminal: .*AttributeError"),
        (
            {
                "terminal": lambda s: s > s.mean(),
                "initial": dist.Normal(torch.tensor(0.0).double(), 1.0),
            },
            "terminal: expected the same of a state alone and in a batch",
        ),
    ],
)
def test_functions_that_do_not_fit(changes, words):
    with pytest.raises(ValueError, match=words):
        walk(**changes)


def test_finitely_many_states_have_a_table_instead():
    with pytest.raises(ValueError, match="terminal: expected none for states 0 … S-1"):
        dataclasses.replace(models.ledge(), terminal=lambda s: s == 3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reward": -1.0}, "terminal: expected states after which nothing is paid, got -1"),
        ({"final_reward": lambda s: 0 * s + 7}, "terminal: expected states after .* got 7"),
        (
            {"dynamics": lambda s, a: dist.Delta(torch.where(s > 2.5, 0.0, s + a))},
            "terminal: expected states from which no other follows",
        ),
    ],
)
def test_promises_that_are_broken_are_told(changes, words):
    model = walk(**changes)
    with pytest.raises(ValueError, match=words):
        model.simulate(lambda t, s: dist.Uniform(0 * s + 0.8, 0 * s + 1), 10, seed=0)
    source = ModelSource(model, 2)
    a = torch.full((2,), 0.9).double()
    source.step(a)
    source.step(a)
    with pytest.raises(ValueError, match=words):
        source.step(a)
