"""``policy_gradient`` against the A2C of Stable-Baselines3 on the cart-pole, speed and return.

Needs ``pip install stable-baselines3``. Run ``python -m benchmarks.actor_critic`` from the root of
the repository. Both train networks of two layers of 64 tanh units on 8 copies of CartPole-v1, one
thread, each with its own settings; a third row steps ``models.cartpole`` in one call instead. The
return is that of 20 episodes of the trained policy, which draws its actions, after all transitions,
with the 95% interval of the mean over seeds. Speed is transitions per second of processor time.
"""

from __future__ import annotations

import argparse
import time

import torch

import cai
from benchmarks.learning_race import Side, race, stable_baselines
from cai import inference, models

_HIDDEN = (64, 64)
_COPIES = 8
_TEMPERATURE = 0.01
_EPISODES = 20


def ours(steps: int, seed: int) -> tuple[float, float]:
    """Seconds of training and the return, on Gymnasium's environment."""
    cartpole = models.environment("CartPole-v1", temperature=_TEMPERATURE, discount=0.99)
    return _trained(cartpole, steps, seed)


def on_the_model(steps: int, seed: int) -> tuple[float, float]:
    """The same on the model of the same dynamics, where a fallen pole lies until the horizon."""
    return _trained(models.cartpole(temperature=_TEMPERATURE, discount=0.99), steps, seed)


def _trained(source: object, steps: int, seed: int) -> tuple[float, float]:
    torch.manual_seed(seed)
    policy = cai.NeuralPolicy(source, _HIDDEN, stationary=True)  # type: ignore[arg-type]
    start = time.process_time()
    learnt = inference.policy_gradient(
        source,
        policy,
        steps=steps,
        num_envs=_COPIES,
        hidden=_HIDDEN,
        learning_rate=3e-3,
        seed=seed,
        progress=False,
    )
    seconds = time.process_time() - start
    environment = models.environment("CartPole-v1", temperature=_TEMPERATURE)
    found = cai.evaluate(environment, learnt.policy, samples=_EPISODES, seed=seed)
    return seconds, float(found.episode_return)


_SIDES: dict[str, Side] = {
    "A2C of Stable-Baselines3": stable_baselines("A2C", "CartPole-v1", _COPIES, _EPISODES),
    "policy_gradient": ours,
    "the same on models.cartpole": on_the_model,
}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=100_000)
    given = parser.parse_args()
    race(_SIDES, given.seeds, given.steps)


if __name__ == "__main__":
    main()
