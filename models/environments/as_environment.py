"""A model as a Gymnasium environment, so that other libraries can train on it."""

from __future__ import annotations

import contextlib
import functools
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv

from cai import checks, one_line
from cai.models.continuous.cartpole import cartpole
from cai.models.continuous.double_integrator import double_integrator
from cai.models.continuous.multigoal import multigoal
from cai.models.continuous.pendulum import pendulum
from cai.models.discrete.ledge import ledge
from cai.models.discrete.lottery import lottery
from cai.models.environments.spaces import Observations, action_space, checked_actions
from cai.numerics.exclusive import exclusive
from cai.program.trajectory import TrajectoryModel
from cai.stepping.model_source import ModelSource


def as_environment(
    model: TrajectoryModel,
    num_envs: int,
    *,
    time: bool = True,
    time_limit: int | None = None,
    terminates: bool = False,
) -> ModelVectorEnv:
    """A model as a Gymnasium vector environment, which steps all copies in one call of torch.

    The reward is r(s,a) + r⁺(s,a,s'), plus r_T(s') at the end of a finite horizon. Temperature,
    action prior and discount are left to the learner. An episode *terminates* at the horizon, which
    is part of the problem, in terminal states of the model, and, with an infinite horizon, in
    states after which no reward can follow, if the model can be enumerated. It is *truncated* at
    ``time_limit``, which is not part of the problem. As in Gymnasium's own vector environments, the
    step after the end of an episode ignores the action and begins the next one
    (``AutoresetMode.NEXT_STEP``).

    Args:
        model: any model; its actions are those of the action prior, numbers 0 … A-1 or vectors.
        num_envs: how many copies are stepped together.
        time: whether observations include the time if there is a horizon: t/T after the numbers of
            a continuous state, t beside a state 0 … S-1. Without it the problem is no longer
            Markov.
        time_limit: after how many steps an episode is truncated if the horizon is infinite.
        terminates: whether episodes terminate with probability 1 - γ after each step. If not, γ
            is left to the learner.

    Returns:
        The environment, a ``gymnasium.vector.VectorEnv``.

    Raises:
        ValueError: if a number is out of range, or both a time limit and a horizon are given.

    >>> import numpy as np
    >>> from cai import models
    >>> envs = models.as_environment(models.pendulum(horizon=10), num_envs=3)
    >>> observations, _ = envs.reset(seed=0)
    >>> observations.shape  # angle, speed and t/T
    (3, 3)
    >>> envs.step(np.zeros((3, 1), np.float32))[1].shape
    (3,)
    """
    checks.check_flag("time", time)
    return ModelVectorEnv(model, num_envs, time, time_limit, terminates)


class ModelVectorEnv(VectorEnv[Any, Any, Any]):
    """A model as a vector environment; see ``as_environment``.

    Args:
        model: any model.
        num_envs: how many copies are stepped together.
        time: see :func:`as_environment`.
        time_limit: see :func:`as_environment`.
        terminates: see :func:`as_environment`.

    >>> from cai import models
    >>> envs = models.ModelVectorEnv(models.ledge(), num_envs=3)
    >>> envs.single_action_space.n.item()
    2
    """

    def __init__(
        self,
        model: TrajectoryModel,
        num_envs: int,
        time: bool = True,
        time_limit: int | None = None,
        terminates: bool = False,
    ) -> None:
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self.num_envs = num_envs
        make = functools.partial(
            ModelSource, model, num_envs, time_limit=time_limit, terminates=terminates
        )
        self._random = _OwnGenerator()
        with self._random:
            self._source = make()
            self.single_action_space = action_space(model)
        self._make, self._over = make, torch.zeros(num_envs, dtype=torch.bool)
        seen = Observations(model, time)
        self._seen = seen
        self.single_observation_space = seen.space
        self.observation_space = gymnasium.vector.utils.batch_space(seen.space, num_envs)
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, num_envs)

    def __repr__(self) -> str:
        return one_line.named("ModelVectorEnv", f"{self.num_envs} copies", *_spaces(self))

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """The first observations of new episodes in all copies.

        Args:
            seed: seed of all draws from now on; None continues.
            options: not used.
        """
        self._random.seed(seed[0] if isinstance(seed, list | tuple) else seed)
        with self._random:
            self._source = self._make()
        self._over.fill_(False)
        return self._seen(self._source.s, self._source.t), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """One step of each copy; after the end of an episode the next one begins.

        Raises:
            ValueError: if there is not one action for each copy, or one that does not exist, that
                the action prior forbids, or that is not finite.
        """
        source, space = self._source, self.single_action_space
        a = checked_actions(actions, space, self.num_envs)
        over = self._over.numpy()
        begins = over.any()
        with self._random if source.draws_from_torch else _nothing:
            taken = source.advance(a)
            if begins:
                source.restart(self._over)
        reward, ended, cut = (x.numpy() for x in (taken.reward, taken.ended, taken.cut))
        if begins:
            reward, ended, cut = np.where(over, 0.0, reward), ended & ~over, cut & ~over
        self._over = torch.from_numpy(ended | cut)
        return self._seen(source.s, source.t), reward, ended, cut, {}


class ModelEnv(gymnasium.Env[Any, Any]):
    """One copy of a model as an environment; what ``gymnasium.make("cai/Ledge-v0")`` makes.

    Args:
        make: a function that makes the model from the options of ``gymnasium.make``.
        time: see :func:`as_environment`.
        time_limit: see :func:`as_environment`.
        terminates: see :func:`as_environment`.
        **options: the model's own.

    >>> from cai import models
    >>> env = models.ModelEnv(models.ledge, horizon=5)
    >>> env.reset(seed=0)[0]  # the state and the time
    array([0, 0])
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 (as Gymnasium declares it)

    def __init__(
        self,
        make: Any,
        time: bool = True,
        time_limit: int | None = None,
        terminates: bool = False,
        **options: Any,
    ) -> None:
        self._envs = ModelVectorEnv(make(**options), 1, time, time_limit, terminates)
        self.observation_space = self._envs.single_observation_space
        self.action_space = self._envs.single_action_space

    def __repr__(self) -> str:
        return one_line.named("ModelEnv", *_spaces(self))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begins an episode."""
        super().reset(seed=seed)
        seen, _ = self._envs.reset(seed=seed)
        return seen[0], {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step; after the end of an episode it must be reset."""
        seen, reward, ended, cut, _ = self._envs.step(np.asarray(action)[None])
        return seen[0], float(reward[0]), bool(ended[0]), bool(cut[0]), {}


_nothing = contextlib.nullcontext()


class _OwnGenerator:
    """A context that gives torch's generator a state of its own, and restores the previous one."""

    def __init__(self) -> None:
        self.seed(None)

    def seed(self, seed: int | None) -> None:
        """Starts from a seed, drawn if not given."""
        if seed is not None or not hasattr(self, "_state"):
            own = torch.Generator()
            if seed is None:
                own.seed()
            else:
                checks.check_seed(seed)
                own.manual_seed(int(seed))
            self._state = own.get_state()

    def __enter__(self) -> None:
        self._turn = exclusive()
        self._turn.__enter__()
        self._before = torch.get_rng_state()
        torch.set_rng_state(self._state)

    def __exit__(self, *error: Any) -> None:
        self._state = torch.get_rng_state()
        torch.set_rng_state(self._before)
        self._turn.__exit__(*error)


def register(names: dict[str, Any] | None = None) -> list[str]:
    """Registers models with Gymnasium, for ``gymnasium.make``; returns their ids.

    Args:
        names: name -> a function that makes the model; if not given, those of ``cai.models`` that
            need no argument: ``cai/Ledge-v0``, ``cai/Pendulum-v0``, ….

    Returns:
        The ids that ``gymnasium.make`` takes. Options of the model are given to it as well.

    Raises:
        ValueError: if there is anything but functions.

    >>> import gymnasium
    >>> from cai import models
    >>> ids = models.register()
    >>> gymnasium.make("cai/Ledge-v0", horizon=5).reset(seed=0)[0]
    array([0, 0])
    """
    made = _argument_free() if names is None else names
    ids = []
    for name, make in made.items():
        if not callable(make):
            came = f"{name!r}: {type(make).__name__}"
            checks.refuse("names", "functions that make a model, by name", came, "lambda: model")
        ids.append(f"cai/{name.title().replace('_', '')}-v0")
        gymnasium.registry.pop(ids[-1], None)  # Gymnasium would warn of registering it again
        gymnasium.register(ids[-1], functools.partial(ModelEnv, make), disable_env_checker=True)
    return ids


def _argument_free() -> dict[str, Any]:
    makers = cartpole, double_integrator, ledge, lottery, multigoal, pendulum
    return {make.__name__: make for make in makers}


def _spaces(env: Any) -> tuple[str, str]:
    seen, acted = env.observation_space, env.action_space
    return f"observations={type(seen).__name__}", f"actions={type(acted).__name__}"
