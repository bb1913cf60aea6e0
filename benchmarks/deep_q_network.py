"""``soft_q`` with a network against the DQN of Stable-Baselines3 on the cart-pole.

Needs ``pip install stable-baselines3``. Run ``python -m benchmarks.deep_q_network`` from the root
of the repository. Both train networks of two layers of 64 tanh units on 8 copies of CartPole-v1,
one thread, with the same numbers: batches of 64, two steps of Adam after each step of all copies, a
memory of 50 000 transitions, learning rate 0.001 that falls to zero, lag 0.02 (theirs after each
step of all copies, ours after each step of Adam), discount 0.99. That of Stable-Baselines3 explores
by a share of actions that falls from 1 to 0.05 over a tenth of the run, its default; ours by 0.05
throughout, beside what its policy draws at α = 0.01. The third row is ours with ``rule="hard"``,
which is DQN, too. The return is that of 20 episodes of the trained policy, greedy for DQN, with the
95% interval of the mean over seeds. Speed is transitions per second of processor time.
"""

from __future__ import annotations

import argparse
import functools
import time

from torch import nn

import cai
from benchmarks.learning_race import Side, race, stable_baselines
from cai import inference, models
from cai.tables.bellman import Rule

_HIDDEN = (64, 64)
_COPIES, _EPISODES = 8, 20
_TEMPERATURE, _DISCOUNT = 0.01, 0.99
_RATE, _BATCH, _UPDATES, _LAG, _MEMORY = 1e-3, 64, 2, 0.02, 50_000


def ours(steps: int, seed: int, rule: Rule = "soft") -> tuple[float, float]:
    """Seconds of training and the return."""
    cartpole = models.environment("CartPole-v1", temperature=_TEMPERATURE, discount=_DISCOUNT)
    start = time.process_time()
    learnt = inference.soft_q(
        cartpole,
        steps=steps,
        num_envs=_COPIES,
        rule=rule,
        exploration=0.05,
        hidden=_HIDDEN,
        replay=_MEMORY,
        batch=_BATCH,
        updates=_UPDATES,
        lag=_LAG,
        learning_rate=_RATE,
        seed=seed,
        progress=False,
    )
    seconds = time.process_time() - start
    plain = models.environment("CartPole-v1", temperature=_TEMPERATURE)
    found = cai.evaluate(plain, learnt.policy, samples=_EPISODES, seed=seed)
    return seconds, float(found.episode_return)


_SIDES: dict[str, Side] = {
    "DQN of Stable-Baselines3": stable_baselines(
        *("DQN", "CartPole-v1", _COPIES, _EPISODES),
        greedy=True,
        learning_rate=lambda remaining: _RATE * remaining,
        batch_size=_BATCH,
        buffer_size=_MEMORY,
        train_freq=1,
        gradient_steps=_UPDATES,
        tau=_LAG,
        target_update_interval=1,
        policy_kwargs={"net_arch": list(_HIDDEN), "activation_fn": nn.Tanh},
    ),
    "soft_q": ours,
    'soft_q, rule="hard"': functools.partial(ours, rule="hard"),
}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=50_000)
    given = parser.parse_args()
    race(_SIDES, given.seeds, given.steps)


if __name__ == "__main__":
    main()
