"""Vector environments of Gymnasium, in each of the three ways in which they begin anew."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from cai.stepping.vector_source import VectorSource


class Counting(gymnasium.Env):
    """An episode of so many steps, whose observation is the number of steps before."""

    observation_space = spaces.Box(0, 100, (1,), np.float32)
    action_space = spaces.Discrete(2, start=1)

    def __init__(self, length, truncates=False, reward=1.0):
        self.length, self.truncates, self.reward = length, truncates, reward
        self.actions = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        self.actions.append(int(action))
        over = self.t == self.length
        seen = np.full(1, self.t, np.float32)
        return seen, self.reward, over and not self.truncates, over and self.truncates, {}


def copies(mode, *envs):
    makers = [lambda env=env: env for env in envs]
    return VectorSource(SyncVectorEnv(makers, autoreset_mode=mode), seed=0)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_transitions_are_those_of_the_episodes_whichever_way_they_begin_anew(mode):
    source = copies(mode, Counting(3), Counting(4, truncates=True))
    seen = [[], []]
    for _ in range(12):
        taken = source.step(torch.zeros(2, dtype=torch.long))
        for i in range(2):
            if taken.counts[i]:
                parts = taken.s, taken.t, taken.s_next, taken.ended, taken.cut
                seen[i].append(tuple(x[i].item() for x in parts))
    for i, (length, truncates) in enumerate([(3, False), (4, True)]):
        # In the step after the end an environment in NEXT_STEP only begins the next episode.
        steps = 12 - 12 // (length + 1) if mode == AutoresetMode.NEXT_STEP else 12
        assert len(seen[i]) == steps
        for k, (s, t, s_next, ended, cut) in enumerate(seen[i]):
            place = k % length
            last = place == length - 1
            assert (s, t, s_next) == (place, place, place + 1)
            assert (ended, cut) == (last and not truncates, last and truncates)


def test_actions_are_numbered_as_the_environment_numbers_them():
    env = Counting(10)
    source = copies(AutoresetMode.DISABLED, env)
    source.step(torch.tensor([1]))
    source.step(torch.tensor([0]))
    assert env.actions == [2, 1]


class Image(Counting):
    """Its observation is an image of booleans with the number of steps before in its corner."""

    observation_space = spaces.Box(0, 1, (2, 3), np.bool_)

    def reset(self, *, seed=None, options=None):
        return self.seen(super().reset(seed=seed)[0]), {}

    def step(self, action):
        seen, *others = super().step(action)
        return self.seen(seen), *others

    def seen(self, numbers):
        image = np.zeros((2, 3), bool)
        image.flat[int(numbers[0]) % 6] = True
        return image


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_images_of_booleans_come_as_numbers(mode):
    source = copies(mode, Image(2))
    taken = [source.step(torch.tensor([0])) for _ in range(2)]
    found = torch.stack([x.s[0] for x in taken] + [taken[1].s_next[0]])
    assert found.dtype == torch.float32
    assert torch.equal(found.flatten(1), torch.eye(6)[:3])


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Dict({"x": spaces.Discrete(2)}), "observations: expected numbers 0 … n-1"),
        (spaces.MultiDiscrete([2, 3]), "observations: expected numbers 0 … n-1"),
    ],
)
def test_observations_that_no_policy_takes(space, message):
    env = Counting(3)
    env.observation_space = space
    with pytest.raises(ValueError, match=message):
        copies(AutoresetMode.DISABLED, env)


def test_a_reward_of_nan_is_refused():
    source = copies(AutoresetMode.DISABLED, Counting(3, reward=np.nan))
    with pytest.raises(ValueError, match="reward of the environment: expected"):
        source.step(torch.zeros(1, dtype=torch.long))
