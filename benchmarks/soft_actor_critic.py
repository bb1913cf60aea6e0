"""``sac`` against the SAC of Stable-Baselines3 on the pendulum, and against the best policy.

Needs ``pip install stable-baselines3``. Run ``python -m benchmarks.soft_actor_critic`` from the
root of the repository. Both train networks of two layers of 256 rectified linear units on one copy
of Pendulum-v1, one thread, with the same numbers: batches of 256, one step for each transition
after 100, learning rate 0.001, lag 0.005, discount 0.99, α = 0.2; ours lowers the rate over the
second half. A third row is ours with products of float32 split into bfloat16 parts, which is faster
where the matrix library has no kernels for the processor, set for the training only. The return is
that of 20 episodes of the trained policy, which draws its actions, with the 95% interval of the
mean over seeds. Speed is transitions per second of processor time.

With ``--hanging`` instead: our own model from hanging at rest, 200 steps, α = 0.1, where the policy
that is read off a grid of 361 × 301 × 61 cells gets -303.6. The discount 0.99 of the training is
not what costs: on a grid of 241 × 201 × 41, the policy that is planned with it gets -309.0, without
it -308.0. The best policy turns its torque around for the first time after 5 steps. Networks that
see cosine, sine and speed, or a few products of these, turn it after 9 to 16 (single runs, returns
of -338 to -367), since their critics take one action to be much worse than the other where both are
nearly equally good. Here they see bumps over angle and speed, which makes the critics more exact.
Seeds 0 to 4 got -315.0, -328.9, -321.2, -319.4 and -316.7 after 40,000 transitions, 220 to 250
seconds each. Two steps of Adam for each transition take twice as long and bring next to nothing:
seeds 11 to 15 got -323.6, -315.4, -314.7, -319.1 and -320.5.
Beside it ``fit``, whose pathwise gradients got -1173 on the program itself in 58 seconds, and -383
in 21 with the windows of ``benchmarks.control``, from one seed each.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import pyro.distributions as dist
import torch
from torch import nn

import cai
from benchmarks.control import fit_swing_up
from benchmarks.learning_race import Side, race, stable_baselines
from cai import inference, models
from cai.stepping.model_source import ModelSource

_HIDDEN = (256, 256)
_TEMPERATURE, _DISCOUNT = 0.2, 0.99
_RATE, _WARM_UP = 1e-3, 100
_EPISODES = 20
_NARROW = 128  # units in each layer, for the pendulum from hanging
_ANGLES = torch.arange(16) * (torch.pi / 8)
_SPEEDS = torch.linspace(-7.5, 7.5, 13)


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
    problem: object,
    seed: int,
    observe: Callable[[torch.Tensor], torch.Tensor] | None = None,
    width: int = 256,
) -> cai.NeuralPolicy:
    """Two layers of rectified linear units, by default 256 as Stable-Baselines3 has."""
    torch.manual_seed(seed)
    how = {"observe": observe, "stationary": True}
    sizes = cai.NeuralPolicy(problem, (1,), **how)  # type: ignore[arg-type]
    network = nn.Sequential(
        *(nn.Linear(sizes.inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()),
        nn.Linear(width, sizes.outputs),
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


def bumps(s: torch.Tensor) -> torch.Tensor:
    """What ``seen`` shows, and 16 × 13 bumps over angle and speed, each about a cell wide.

    With them a network can bend V along the lines at which the best torque changes its sign, and
    leave it as it is elsewhere.
    """
    s = s.float()
    angle, speed = s[..., :1], s[..., 1:]
    around = (8 * ((angle - _ANGLES).cos() - 1)).exp()
    along = (-(speed - _SPEEDS).square() / 2).exp()
    cells = (around.unsqueeze(-1) * along.unsqueeze(-2)).flatten(-2)
    return torch.cat([cells, angle.cos(), angle.sin(), speed / 4], -1)


def by_sac(steps: int, seed: int) -> Any:
    """A policy for swinging up, learnt from starts around hanging at rest."""
    low = torch.tensor([torch.pi, 0.0], dtype=torch.float64)
    problem = dataclasses.replace(
        models.pendulum(temperature=0.1, discount=_DISCOUNT),
        horizon=None,
        initial=dist.Normal(low, torch.tensor([0.5, 1.0], dtype=torch.float64)).to_event(1),
    )
    torch.manual_seed(seed)  # the copies draw their first states here
    return inference.sac(
        ModelSource(problem, 8, time_limit=100),
        policy_of(problem, seed, bumps, _NARROW),
        steps=steps,
        hidden=(_NARROW, _NARROW),
        observe=bumps,
        batch=128,
        lag=0.02,
        learning_rate=2 * _RATE,
        seed=seed,
        progress=False,
    ).policy


def by_fit(steps: int, seed: int) -> Any:
    """Pathwise gradients on the program itself, of 200 steps."""
    problem = at_rest()
    torch.manual_seed(seed)
    policy = cai.NeuralPolicy(problem, observe=seen, stationary=True)
    return inference.fit(
        problem, policy, estimator="pathwise", steps=300, clip=1.0, seed=seed, progress=False
    ).policy


def by_fit_in_windows(steps: int, seed: int) -> Any:
    """The same in windows of 20 and then 40 steps that begin anywhere."""
    return fit_swing_up(models.pendulum(temperature=0.1))


def at_rest() -> cai.TrajectoryModel:
    """Our own pendulum from hanging at rest, α = 0.1, without a discount."""
    rest = dist.Delta(torch.tensor([torch.pi, 0.0], dtype=torch.float64), event_dim=1)
    return dataclasses.replace(models.pendulum(temperature=0.1), initial=rest)


def hanging(seeds: int, steps: int) -> None:
    """Prints each return from hanging at rest, with the seconds of processor time, and medians."""
    torch.set_num_threads(1)
    sides: dict[str, tuple[Callable[[int, int], Any], int]] = {
        f"sac, {steps} transitions": (by_sac, seeds),
        "fit, 200 steps from hanging": (by_fit, 1),
        "fit, windows from anywhere": (by_fit_in_windows, 1),
    }
    for name, (train, runs) in sides.items():
        returns = []
        for seed in range(runs):
            start = time.process_time()
            policy = train(steps, seed)
            seconds = time.process_time() - start
            found = cai.evaluate(at_rest(), policy, samples=1000, seed=seed)
            returns.append(float(found.expected_return))
            print(f"{name}, seed {seed}: {returns[-1]:.1f} after {seconds:.0f} s", flush=True)
        print(f"{name}: median {statistics.median(returns):.1f}", flush=True)


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
    parser.add_argument("--steps", type=int, help="5000, or 40000 from hanging")
    parser.add_argument("--hanging", action="store_true")
    given = parser.parse_args()
    if given.hanging:
        hanging(given.seeds, given.steps or 40_000)
    else:
        race(_SIDES, given.seeds, given.steps or 5_000)


if __name__ == "__main__":
    main()
