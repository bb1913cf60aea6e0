"""Steps a second: models of this library as vector environments, against Gymnasium's own.

Both sides take the same number of copies one step, with random actions; ours in one call of torch,
or of numpy for a model with a table, Gymnasium's sync vector environment copy by copy. The dynamics
of both are compared first, from the same states under the same actions.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch

import cai
from benchmarks.timing import Race, check_close
from cai import models

_ACTIONS = 50  # batches, drawn beforehand

_MODELS: dict[str, tuple[str, Callable[[], Any], tuple[float, float]]] = {
    "pendulum": ("Pendulum-v1", models.pendulum, (10.0, 120.0)),
    "cartpole": ("CartPole-v1", models.cartpole, (4.0, 45.0)),
    "frozen lake": (
        "FrozenLake-v1",
        functools.partial(models.gym, "FrozenLake-v1", horizon=None),
        (40.0, 150.0),
    ),
}


def races() -> dict[str, Callable[[], Race]]:
    """A row for each environment and number of copies."""
    return {
        f"step, {name}, {n}": functools.partial(_race, name, n, index)
        for name in _MODELS
        for index, n in enumerate((64, 1024))
    }


def _race(name: str, n: int, index: int) -> Race:
    environment, make, targets = _MODELS[name]
    model = make()
    _check_same(name, model)
    theirs = gymnasium.make_vec(environment, num_envs=n, vectorization_mode="sync")
    return Race(
        name=f"step, {name}, {n}",
        sizes=f"{n} copies",
        reference="gymnasium.make_vec, sync",
        ours=_stepping(models.as_environment(model, n)),
        theirs=_stepping(theirs),
        target=targets[index],
    )


def _stepping(envs: Any) -> Callable[[], Any]:
    envs.reset(seed=0)
    envs.action_space.seed(0)
    actions = itertools.cycle([envs.action_space.sample() for _ in range(_ACTIONS)])
    return lambda: envs.step(next(actions))


def _check_same(name: str, model: Any) -> None:
    """One step from the same states under the same actions; of the lake its table."""
    env: Any = gymnasium.make(_MODELS[name][0]).unwrapped
    env.reset(seed=0)
    if name == "frozen lake":
        table = cai.tabulate(model)
        dense = table.dense(table.log_dynamics)
        for s, row in env.P.items():
            for a, outcomes in row.items():
                p = np.zeros(table.num_states)
                for share, s_next, _, _ in outcomes:
                    p[s_next] += share
                check_close("dynamics", dense[s, a].numpy()[:16], p[:16], 1e-12)
        return
    torch.manual_seed(0)
    for s in model.initial.sample((20,)):
        prior = model.prior(s, 0)
        a = prior.sample()
        env.state = s.numpy().copy()
        _, reward, *_ = env.step(a.numpy())
        check_close("next state", model.transition(s, a).sample().numpy(), env.state, 1e-5)
        check_close("reward", model.rewards(s, a).item(), reward, 1e-5)
