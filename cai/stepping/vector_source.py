"""Vector environments of Gymnasium as a source of transitions, for each way of resetting."""

from __future__ import annotations

import contextlib
import math
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from torch import Tensor

from cai import checks
from cai.stepping.source import Transition


class VectorSource:
    """The copies of a Gymnasium vector environment.

    After an episode an environment may begin the next one in the same step (``SAME_STEP``), in the
    next step, which ignores its action and is not a transition (``NEXT_STEP``), or on request
    (``DISABLED``); see ``metadata["autoreset_mode"]``.

    The state of an environment cannot be saved: a resumed source begins new episodes.

    Args:
        envs: the vector environment. Its observations are numbers 0 … S-1, or arrays. Arrays of
            floating point come as they are, those of booleans or whole numbers, such as images, as
            float32, which holds each whole number up to 2²⁴. Networks see an array flattened.
        seed: seed of its episodes.

    Raises:
        ValueError: if observations or actions are of a kind that no policy here takes, or what
            the environment returns is not finite.
    """

    restarts = "episodes begin anew, since the state of an environment cannot be saved"

    def __init__(self, envs: VectorEnv[Any, Any, Any], seed: int) -> None:
        check_space("observations", envs.single_observation_space)
        check_space("actions", envs.single_action_space)
        self.envs, self.num_envs = envs, envs.num_envs
        self._mode = _mode(envs)
        self._arrays = isinstance(envs.single_observation_space, spaces.Box)
        self._first_state = int(getattr(envs.single_observation_space, "start", 0))
        self._first_action = int(getattr(envs.single_action_space, "start", 0))
        self._wait = np.zeros(self.num_envs, bool)  # for the step that only begins anew
        self._begin(seed)

    def _begin(self, seed: int) -> None:
        with _told("reset"):
            seen, _ = self.envs.reset(seed=seed)
        self.s = self._numbers(seen)
        self.t = torch.zeros(self.num_envs, dtype=torch.long)
        self._wait[:] = False

    def step(self, a: Tensor) -> Transition:
        """Takes one action in each copy; copies whose episode is over begin another one."""
        s, t = self.s, self.t
        space = self.envs.single_action_space
        actions = a.detach().numpy().astype(space.dtype) + self._first_action
        with _told("step"):
            seen, reward, ended, cut, info = self.envs.step(actions)
        ended, cut = np.asarray(ended, bool), np.asarray(cut, bool)
        over = ended | cut
        s_next = found = self._numbers(seen)
        counts = ~self._wait
        if over.any() and self._mode == AutoresetMode.DISABLED:
            with _told("reset"):
                fresh, _ = self.envs.reset(options={"reset_mask": over})
            found = self._numbers(fresh)
        elif over.any() and self._mode == AutoresetMode.SAME_STEP:
            s_next = s_next.clone()
            for i in over.nonzero()[0]:
                s_next[i] = self._numbers(info["final_obs"][i])
        elif self._mode == AutoresetMode.NEXT_STEP:
            self._wait = over
        self.s = found
        begins = over if self._mode != AutoresetMode.NEXT_STEP else ~counts
        self.t = (t + 1).masked_fill_(torch.from_numpy(begins), 0)
        paid = torch.from_numpy(np.asarray(reward, np.float64))
        self._check(paid, s_next)
        flags = map(torch.from_numpy, (ended, cut & ~ended, counts))
        return Transition(s, t, a, paid, s_next, *flags)

    def _numbers(self, seen: Any) -> Tensor:
        """Observations as a new tensor, since an environment may write into its array."""
        found = torch.from_numpy(np.array(seen))
        if self._arrays:
            return found if found.is_floating_point() else found.float()
        return found - self._first_state if self._first_state else found

    def _check(self, reward: Tensor, s_next: Tensor) -> None:
        advice = "look for 0/0 or 0·inf in what the environment computes"
        if not reward.numpy().sum() < math.inf:  # a sum in numpy, as each step is checked
            checks.check_reward("reward of the environment", reward)
        if s_next.is_floating_point() and not math.isfinite(s_next.numpy().sum()):
            checks.check_no_nan("observations of the environment", s_next, advice)

    def state_dict(self) -> dict[str, Any]:
        """A seed for the episodes that begin on resumption."""
        return {"seed": zlib.crc32(torch.get_rng_state().numpy().tobytes()) % 2**31}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Begins new episodes, since the state of Gymnasium's cannot be restored."""
        self._begin(state["seed"])


@contextlib.contextmanager
def _told(method: str) -> Iterator[None]:
    """Raises ValueError in place of any error of an environment."""
    try:
        yield
    except Exception as error:
        words = " ".join(f"{type(error).__name__}: {error}".split())
        expected, advice = f"one whose {method} returns", "look for it in the environment's code"
        checks.refuse("environment", expected, f"one that raised {words}", advice)


def _mode(envs: VectorEnv[Any, Any, Any]) -> AutoresetMode:
    """How copies begin the next episode.

    Raises:
        ValueError: if the environment does not say.
    """
    said = envs.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
    try:
        return AutoresetMode(said)
    except ValueError:
        checks.refuse(
            'metadata["autoreset_mode"]',
            f"one of {', '.join(mode.name for mode in AutoresetMode)}",
            repr(said),
            "it must say which step begins the next episode",
        )


def check_space(name: str, space: spaces.Space[Any]) -> None:
    """Raises ValueError unless a space holds numbers 0 … n-1, or arrays of one shape."""
    if not isinstance(space, spaces.Discrete | spaces.Box):
        advice = "wrap it: gymnasium.wrappers.FlattenObservation"
        checks.refuse(name, "numbers 0 … n-1 or arrays of numbers", str(space), advice)
