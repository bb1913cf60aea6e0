"""Learners side by side: their speed, and the returns of what they learnt."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from scipy import stats

Side: TypeAlias = Callable[[int, int], tuple[float, float]]
"""(transitions, seed) -> seconds of training, and the return of the trained policy."""


def race(sides: Mapping[str, Side], seeds: int, steps: int) -> None:
    """Prints each run and a table; the sides alternate, so that a drifting speed affects all alike.

    Args:
        sides: name -> a side; speeds are relative to the first.
        seeds: how many seeds.
        steps: how many transitions.
    """
    torch.set_num_threads(1)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for seed in range(seeds):
        for name, side in sides.items():
            found[name].append(side(steps, seed))
            seconds, got = found[name][-1]
            print(f"seed {seed}, {name}: {got:.1f} after {seconds:.0f} s", flush=True)
    first = found[next(iter(sides))]
    print(f"{steps} transitions, {seeds} seeds   transitions/s  faster  return, its median")
    for name, runs in found.items():
        speed = statistics.median(steps / seconds for seconds, _ in runs)
        ratio = statistics.median(a[0] / b[0] for a, b in zip(first, runs, strict=True))
        returns = [x for _, x in runs]
        spread = statistics.stdev(returns) if len(returns) > 1 else float("nan")
        half = stats.t.ppf(0.975, len(returns) - 1) * spread / len(returns) ** 0.5
        mean, middle = statistics.fmean(returns), statistics.median(returns)
        print(f"{name:32} {speed:15.0f} {ratio:7.2f}  {mean:.1f} ± {half:.1f}, {middle:.1f}")


def stable_baselines(
    name: str,
    environment: str,
    copies: int,
    episodes: int,
    *,
    greedy: bool = False,
    env_kwargs: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Side:
    """A learner of Stable-Baselines3 as a side.

    Args:
        name: of the class, for instance "SAC".
        environment: the id of the environment.
        copies: how many are stepped side by side.
        episodes: how many the trained policy is judged by.
        greedy: whether that takes its best actions, instead of drawing them.
        env_kwargs: of the environment.
        settings: further arguments of the class.
    """

    def side(steps: int, seed: int) -> tuple[float, float]:
        try:
            import stable_baselines3
            from stable_baselines3.common.env_util import make_vec_env
            from stable_baselines3.common.evaluation import evaluate_policy
        except ImportError:
            advice = "install stable-baselines3 first: pip install stable-baselines3"
            raise SystemExit(advice) from None
        envs = make_vec_env(environment, copies, seed, env_kwargs=dict(env_kwargs or {}))
        learner = getattr(stable_baselines3, name)(
            "MlpPolicy", envs, seed=seed, device="cpu", **settings
        )
        start = time.process_time()
        learner.learn(steps)
        seconds = time.process_time() - start
        found, _ = evaluate_policy(learner, envs, n_eval_episodes=episodes, deterministic=greedy)
        return seconds, float(found)

    return side
