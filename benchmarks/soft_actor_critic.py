"""``sac`` against the SAC of Stable-Baselines3 on the pendulum, and against the best policy.

Needs ``pip install stable-baselines3``. Run ``python -m benchmarks.soft_actor_critic`` from the
root of the repository. Both train networks of two layers of 256 rectified linear units on one copy
of Pendulum-v1, one thread, with the same numbers: batches of 256, one step for each transition
after 100, learning rate 0.001, lag 0.005, discount 0.99, α = 0.2; ours lowers the rate over the
second half. A third row is ours with products of float32 split into bfloat16 parts, which is faster
where the matrix library has no kernels for the processor, set for the training only. The return is
that of 20 episodes of the trained policy, which draws its actions, with the 95% interval of the
mean over seeds. Speed is transitions per second of processor time.

With ``--hanging`` instead: our own model from hanging at rest, α = 0.1, where the policy that is
read off a grid of 361 × 301 × 61 cells gets -303.6.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator

import pyro.distributions as dist
import torch
from torch import nn

import cai
from benchmarks.learning_race import Side, race, stable_baselines
from cai import inference, models
from cai.stepping.model_source import ModelSource

_HIDDEN = (256, 256)
_TEMPERATURE, _DISCOUNT = 0.2, 0.99
_RATE, _WARM_UP = 1e-3, 100
_EPISODES = 20


@contextlib.contextmanager
def products_in_parts() -> Iterator[None]:
    """Products of float32 as sums of products of bfloat16, with errors like those of float32."""
    setting = torch.backends.mkldnn.matmul
    before = setting.fp32_precision
    setting.fp32_precision = "bf16"
    try:
        yield
    finally:
        setting.fp32_precision = before


def seen(s: torch.Tensor) -> torch.Tensor:
    """Cosine, sine and speed, as Gymnasium shows them; the model counts the turns."""
    angle, speed = s[..., 0], s[..., 1]
    return torch.stack([angle.cos(), angle.sin(), speed], -1)


def policy_of(
    problem: object, seed: int, observe: Callable[[torch.Tensor], torch.Tensor] | None = None
) -> cai.NeuralPolicy:
    """Two layers of 256 rectified linear units, as Stable-Baselines3 has."""
    torch.manual_seed(seed)
    how = {"observe": observe, "stationary": True}
    sizes = cai.NeuralPolicy(problem, (1,), **how)  # type: ignore[arg-type]
    network = nn.Sequential(
        *(nn.Linear(sizes.inputs, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU()),
        nn.Linear(256, sizes.outputs),
    )
    return cai.NeuralPolicy(problem, network=network, **how)  # type: ignore[arg-type]


def ours(steps: int, seed: int) -> tuple[float, float]:
    """Seconds of training and the return."""
    pendulum = models.environment("Pendulum-v1", temperature=_TEMPERATURE, discount=_DISCOUNT)
    policy = policy_of(pendulum, seed)
    start = time.process_time()
    learnt = inference.sac(
        pendulum,
        policy,
        steps=steps,
        hidden=_HIDDEN,
        learning_rate=_RATE,
        warm_up=_WARM_UP,
        seed=seed,
        progress=False,
    )
    seconds = time.process_time() - start
    plain = models.environment("Pendulum-v1", temperature=_TEMPERATURE)
    found = cai.evaluate(plain, learnt.policy, samples=_EPISODES, seed=seed)
    return seconds, float(found.episode_return)


def in_parts(steps: int, seed: int) -> tuple[float, float]:
    """The same with faster products."""
    with products_in_parts():
        return ours(steps, seed)


def hanging(steps: int, seed: int) -> tuple[float, float]:
    """Seconds of training and the return from hanging at rest, in our own model."""
    pendulum = models.pendulum(temperature=0.1)
    rest = dist.Delta(torch.tensor([torch.pi, 0.0], dtype=torch.float64), event_dim=1)
    endless = dataclasses.replace(pendulum, horizon=None, discount=_DISCOUNT)
    source = ModelSource(endless, 1, time_limit=200)
    start = time.process_time()
    with products_in_parts():
        learnt = inference.sac(
            source,
            policy_of(endless, seed, seen),
            steps=steps,
            hidden=_HIDDEN,
            observe=seen,
            learning_rate=_RATE,
            seed=seed,
            progress=False,
        )
    seconds = time.process_time() - start
    found = cai.evaluate(
        dataclasses.replace(pendulum, initial=rest), learnt.policy, samples=1000, seed=seed
    )
    return seconds, float(found.expected_return)


_SIDES: dict[str, Side] = {
    "SAC of Stable-Baselines3": stable_baselines(
        *("SAC", "Pendulum-v1", 1, _EPISODES), learning_rate=_RATE, ent_coef=_TEMPERATURE
    ),
    "sac": ours,
    "sac, products in parts": in_parts,
}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5_000)
    parser.add_argument("--hanging", action="store_true")
    given = parser.parse_args()
    race({"sac, from hanging": hanging} if given.hanging else _SIDES, given.seeds, given.steps)


if __name__ == "__main__":
    main()
