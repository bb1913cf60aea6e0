"""A swimmer that is paid for speed either way, with a finish line ahead (Haarnoja 2017, 5.2).

Needs ``pip install "gymnasium[mujoco]"``. Run ``python -m benchmarks.swimmer_finish`` from the
root of the repository. Swimmer-v5, with a decision every 0.2 seconds and episodes of 200, starts
around x = 0 and is paid its speed away from there, to either side (a speed itself would pay for
moving to and fro). Once it is 3 ahead, the episode ends and pays 100; actions at random come as far
as about 1, and a good stroke as far as 6, either way. The bonus is worth more than twice as much as
swimming back for ever (with discount 0.99).

The temperature of the soft learners falls from 0.1 to 0.01 over two thirds of the run; DDPG takes a
fifth of its actions at random. The table shows in how many runs the trained policy crosses the line
in more than half of its episodes; before it, for each run, the share of episodes that cross it, the
mean x at their end, and processor time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import gymnasium
import torch

import cai
from cai import inference, models

_FINISH, _BONUS = 3.0, 100.0
_SECONDS = 0.2  # of a step
_FIRST, _LAST = 0.1, 0.01  # temperatures
_EPISODES = 20
_HIDDEN = (128, 128)
_ID = "SwimmerFinish-v0"


class Finish(gymnasium.Wrapper):  # type: ignore[type-arg]
    """Pays the speed away from x = 0, and a bonus at the line, where the episode ends."""

    def step(self, action: Any) -> Any:
        """A step, whose reward is replaced."""
        seen, _, ended, truncated, info = self.env.step(action)
        x, speed = float(info["x_position"]), float(info["x_velocity"])
        over = x >= _FINISH
        reward = (abs(x) - abs(x - _SECONDS * speed)) / _SECONDS + _BONUS * over
        return seen, reward, ended or over, truncated, info


def make(**options: Any) -> gymnasium.Env:  # type: ignore[type-arg]
    """The swimmer with the line; it sees where it is."""
    return Finish(
        gymnasium.make(
            "Swimmer-v5",
            frame_skip=20,
            max_episode_steps=200,
            exclude_current_positions_from_observation=False,
            **options,
        )
    )


def problem() -> Any:
    """The swimmer as a model that can be sampled."""
    if _ID not in gymnasium.registry:
        gymnasium.register(_ID, entry_point=make, max_episode_steps=200)
    return models.environment(_ID, temperature=_LAST, discount=0.99)


def falling(steps: int) -> Callable[[int], float]:
    """A temperature that falls over two thirds of the run."""
    return lambda taken: float(max(_LAST, _FIRST * (_LAST / _FIRST) ** (1.5 * taken / steps)))


def settings(steps: int, seed: int) -> dict[str, Any]:
    """What all learners share."""
    return {
        "steps": steps,
        "num_envs": 8,
        "hidden": _HIDDEN,
        "batch": 128,
        "updates": 4,
        "warm_up": 2_000,
        "lag": 0.01,
        "learning_rate": 1e-3,
        "seed": seed,
        "progress": False,
    }


def by_stein(steps: int, seed: int) -> inference.Learned:
    """Soft Q-learning with a sampler."""
    return inference.stein_soft_q(problem(), **settings(steps, seed), temperature=falling(steps))


def by_sac(steps: int, seed: int) -> inference.Learned:
    """Soft actor-critic with a mixture of two Gaussians."""
    source = problem()
    torch.manual_seed(seed)
    policy = cai.NeuralPolicy(source, _HIDDEN, head=cai.MixtureHead(2), stationary=True)
    return inference.sac(source, policy, **settings(steps, seed), temperature=falling(steps))


def by_gradients(steps: int, seed: int) -> inference.Learned:
    """DDPG."""
    return inference.stein_soft_q(
        problem(), **settings(steps, seed), rule="hard", gradient="plain", exploration=0.2
    )


LEARNERS: dict[str, Callable[[int, int], inference.Learned]] = {
    "stein_soft_q": by_stein,
    "sac, a mixture": by_sac,
    "DDPG": by_gradients,
}


def shares(policy: Any, seed: int) -> tuple[float, float]:
    """The share of episodes that cross the line, and the mean x at the end of all."""
    env, crossed, ends = make(), 0, []
    torch.manual_seed(seed)
    for episode in range(_EPISODES):
        seen, _ = env.reset(seed=1000 * seed + episode)
        over = False
        while not over:
            with torch.no_grad():
                action = policy(0, torch.as_tensor(seen)).sample()
            seen, _, ended, truncated, _ = env.step(action.numpy())
            over = ended or truncated
        crossed += ended
        ends.append(float(seen[0]))
    return crossed / _EPISODES, statistics.fmean(ends)


def main() -> None:
    """Prints a line for each run, and the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--only", choices=LEARNERS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for learner in [given.only] if given.only else LEARNERS:
        found = []
        for seed in range(given.seeds):
            start = time.process_time()
            learnt = LEARNERS[learner](given.steps, seed)
            seconds = time.process_time() - start
            found.append(shares(learnt.policy, seed))
            crossed, x = found[-1]
            print(f"{learner}, seed {seed}: {crossed:.2f} x {x:.2f} {seconds:.0f} s", flush=True)
        settled = sum(crossed > 0.5 for crossed, _ in found)
        print(f"{learner:16} {settled} of {len(found)} runs cross the line", flush=True)


if __name__ == "__main__":
    main()
