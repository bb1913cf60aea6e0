"""``sac`` against the SAC of Stable-Baselines3 on a lander and on a swimmer, 50,000 transitions.

Needs ``pip install stable-baselines3 "gymnasium[box2d,mujoco]"``. Run ``python -m
benchmarks.landing_and_swimming lander`` or ``swimmer`` from the root of the repository. Both train
networks of two layers of 256 rectified linear units, one thread, with the same numbers: batches of
256, one step for each transition after 1,000, learning rate 3e-4 (ours lowers it over the second
half), lag 0.005. The lander, LunarLander-v3 with continuous engines, has α = 0.2 and discount 0.99;
Swimmer-v5 α = 0.02 and 0.9999, since it is paid a little for each step forward. Our α is paid for
nats from the uniform action prior, which differs from the entropy by 1.39 nats a step: with a
lander whose flight may end, that is not quite the same problem. The return is that of 20 episodes
of the trained policy, which draws its actions. Each run takes about ten minutes. One seed of the
lander, on a busy machine: -6.9 for -59.9.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from benchmarks.learning_race import Side, race, stable_baselines
from benchmarks.soft_actor_critic import policy_of
from cai import evaluate, inference, models

_EPISODES = 20
_HIDDEN = (256, 256)
_TASKS: dict[str, tuple[str, dict[str, Any], float, float]] = {  # α and discount
    "lander": ("LunarLander-v3", {"continuous": True}, 0.2, 0.99),
    "swimmer": ("Swimmer-v5", {}, 0.02, 0.9999),
}


def ours(name: str, options: dict[str, Any], temperature: float, discount: float) -> Side:
    """Our learner as a side."""

    def side(steps: int, seed: int) -> tuple[float, float]:
        problem = models.environment(name, temperature=temperature, discount=discount, **options)
        start = time.process_time()
        learnt = inference.sac(
            problem,
            policy_of(problem, seed),
            steps=steps,
            hidden=_HIDDEN,
            seed=seed,
            progress=False,
        )
        seconds = time.process_time() - start
        plain = models.environment(name, temperature=temperature, **options)
        found = evaluate(plain, learnt.policy, samples=_EPISODES, seed=seed)
        return seconds, float(found.episode_return)

    return side


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=list(_TASKS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=50_000)
    given = parser.parse_args()
    name, options, temperature, discount = _TASKS[given.task]
    theirs = stable_baselines(
        *("SAC", name, 1, _EPISODES),
        env_kwargs=options,
        ent_coef=temperature,
        gamma=discount,
        learning_starts=1_000,
        batch_size=256,
    )
    sides = {"SAC of Stable-Baselines3": theirs, "sac": ours(name, options, temperature, discount)}
    race(sides, given.seeds, given.steps)


if __name__ == "__main__":
    main()
