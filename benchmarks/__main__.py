"""Speed of this library compared with hand-written references and Pyro, in one process.

Run ``python -m benchmarks`` from the root of the repository, or ``make bench``. Each row is a race
between this library and a reference that gives the same answer, which is checked first. They
alternate on one thread, ours, theirs, ours, theirs, …, so that a drifting speed of the machine
affects both alike. How to read the table:

* ``ours/ms`` and ``theirs/ms`` are medians over the rounds, in milliseconds per call;
* ``ratio`` is the median over rounds of theirs/ours: by which factor this library is faster than
  the reference. Below one it is slower. ``quartiles`` are those of the ratio;
* ``target`` is the ratio that the library should reach. 0.5 means: at most twice as slow. Rows
  without a target show the limits of the machine.

A second table shows the noise of the sampled gradients of ``fit``, since a faster step is no gain
if it needs more particles:

* ``variance`` is the trace of the covariance of the gradient of the ELBO in the policy's logits, in
  nats², with its standard error, for 100 particles per gradient (on the lake 8x8 in the weights of
  a network, for 256); ``of ours`` divides it by that of this library, so that below one the
  reference is less noisy;
* ``z`` is how far the mean gradient lies from the exact one, along the exact one, in standard
  errors; ``error`` is its distance from the exact one in all directions, over the distance that an
  unbiased estimator of this variance has on average. A bias would show as |z| or error far above 1.

Last, ``control`` compares the returns of fitted policies in two continuous problems with the best
of classical controllers.

Pyro's validation is off on both sides. Nothing here is a test. The whole run takes about eight
minutes on an idle machine.

    python -m benchmarks --only program --rounds 50

The noise of all gradient estimators, by horizon, is a separate table; so are the errors of
learners, races with the A2C, the DQN and the SAC of Stable-Baselines3, the experiments of Haarnoja
et al. (2017) and of Schulman et al. (2017), what policies are robust to, and whether the intervals
of fitted rewards cover the truth, and posteriors over rewards:

    python -m benchmarks.variances
    python -m benchmarks.learners
    python -m benchmarks.actor_critic
    python -m benchmarks.deep_q_network
    python -m benchmarks.soft_actor_critic
    python -m benchmarks.four_goals
    python -m benchmarks.two_directions
    python -m benchmarks.pretraining
    python -m benchmarks.equivalence
    python -m benchmarks.robustness
    python -m benchmarks.reward_errors
    python -m benchmarks.reward_posterior
    python -m benchmarks.pendulum_changed

and so is the explorer in a browser: python -m benchmarks.explorer.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterable

import pyro
import torch

from benchmarks import (
    arrows,
    control,
    environments,
    evidence,
    files,
    fit,
    gradients,
    lake,
    long,
    neural,
    pathwise,
    posterior,
    programs,
    roads,
    single,
    stationary,
    stein,
    sweeps,
    trips,
)
from benchmarks.timing import Missing, Race, Result, run
from cai.cli import terminal

RACES: dict[str, Callable[[], Race]] = {
    "evidence, program": evidence.from_program,
    "evidence, table kept": evidence.from_table,
    "posterior, every field": posterior.with_dynamics,
    "posterior, every field / fewer": posterior.with_dynamics_against_without,
    "posterior, without dynamics(t)": posterior.without_dynamics,
    "files, save": files.saved,
    "files, load": files.loaded,
    "map, long": long.most_probable,
    "sample, long": long.drawn,
    "sweep, dense, optimism 0": sweeps.dense_fixed,
    "sweep, dense, optimism 1": sweeps.dense_exact,
    "sweep, dense, optimism 1, summed": sweeps.dense_exact_summed,
    "sweep, dense, optimism 0.5": sweeps.dense_half,
    "sweep, float32, optimism 0": single.fixed,
    "sweep, float32, optimism 0.5": single.half,
    "sweep, float32, optimism 1": single.exact,
    "sweep, float32, optimism 1, torch": single.exact_against_torch,
    "sweep, float32, products alone": single.products_alone,
    "sweep, sparse, optimism 0": sweeps.sparse_fixed,
    "sweep, sparse, optimism 1": sweeps.sparse_exact,
    "sweep, sparse, optimism 1, summed": sweeps.sparse_exact_summed,
    "sweep, sparse, optimism 0.5": sweeps.sparse_half,
    "sweep, rewards of ±1e6": sweeps.underflows,
    "lake / numpy": lake.against_numpy,
    "lake / imitation": lake.against_imitation,
    "fit, sampled / Trace_ELBO": fit.against_trace,
    "fit, sampled / TraceGraph_ELBO": fit.against_trace_graph,
    "fit, exact / sampled": fit.exact_against_sampled,
    "gradient, lake": gradients.on_the_lake,
    "gradient, dense": gradients.dense,
    "gradient, dense, no optimism": gradients.fixed_dynamics,
    "gradient, dense, in dynamics": gradients.of_dynamics,
    "gradient, lists": gradients.lists,
    "road, one goal": roads.one_goal,
    "road, ties": roads.ties,
    "road, ties, doubled": roads.more_ties,
    **stationary.RACES,
    "program, integrator": programs.integrator,
    "program, gusts": programs.gusts,
    "fit, pathwise / torch": pathwise.pendulum,
    "fit, neural / torch": neural.against_torch,
    "fit, neural, timed / torch": neural.timed_against_torch,
    "fit, neural / Trace_ELBO": neural.against_trace,
    "fit, neural / TraceGraph_ELBO": neural.against_trace_graph,
    "stein, one step / torch": stein.against_torch,
    "trips, gradient / SuperLU": trips.gradient,
    "trips, Hessian / gradient": trips.hessian,
    "trips, whole fit / gradient": trips.fit,
    "fit, exact, 8x8 / 100 sampled": neural.exact_against_sampled,
    "arrows, made": arrows.made,
    "arrows, made and saved": arrows.saved,
    **environments.races(),
}
_RACE = (
    *("race", "sizes", "reference", "ours/ms", "theirs/ms"),
    *("ratio", "quartiles", "target", "reached"),
)
_RACE_WIDTHS = (-33, -26, -35, 7, 9, 7, -16, 6, 7)
_NOISE_NAME = "fit, noise of the gradient"
_NOISE = ("gradient at", "estimator", "draws", "variance", "", "of ours", "z", "error")
_NOISE_WIDTHS = (-14, -16, 6, 9, -9, 7, 5, 6)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=(__doc__ or "").partition("\n\n    python")[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=20, help="maximum number per race (20)")
    parser.add_argument("--only", default="", help="only rows whose name contains this")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    pyro.enable_validation(False)  # also in torch's distributions

    chosen = [race for name, race in RACES.items() if arguments.only in name]
    if chosen:
        _print(_RACE, _RACE_WIDTHS)
    for make in chosen:
        try:
            race = make()
        except Missing as missing:
            print(missing, flush=True)
            continue
        _print(_race_cells(race, run(race, arguments.rounds)), _RACE_WIDTHS)
    if arguments.only in "road, peak memory":
        print(f"\nroad, peak memory: {roads.peak_memory():.2f} GiB, target below 2", flush=True)
    if arguments.only in "control":
        print()
        for line in control.outcomes():
            print(line, flush=True)
    if arguments.only in _NOISE_NAME:
        print()
        _print(_NOISE, _NOISE_WIDTHS)
        for group in itertools.chain(fit.noises(), neural.noises()):
            for noise in group:
                _print(_noise_cells(noise, group[0]), _NOISE_WIDTHS)


def _print(cells: Iterable[str], widths: Iterable[int]) -> None:
    """One row of a table; a negative width aligns to the left."""
    row = (f"{c:<{-w}}" if w < 0 else f"{c:>{w}}" for c, w in zip(cells, widths, strict=True))
    print("  ".join(row).rstrip(), flush=True)


def _race_cells(race: Race, result: Result) -> tuple[str, ...]:
    lower, upper = result.quartiles
    return (
        race.name,
        race.sizes,
        race.reference,
        f"{result.ours:.2f}",
        f"{result.theirs:.2f}",
        f"{result.ratio:.2f}",
        f"[{lower:.2f}, {upper:.2f}]",
        "none" if race.target is None else f"≥ {race.target:.3g}",
        "" if race.target is None else "yes" if result.ratio >= race.target else "NO",
    )


def _noise_cells(noise: fit.Noise, ours: fit.Noise) -> tuple[str, ...]:
    return (
        noise.at,
        noise.estimator,
        f"{noise.draws}",
        f"{noise.variance:.4g}",
        f"± {noise.stderr:.2g}",
        f"{noise.variance / ours.variance:.2f}",
        f"{noise.z:+.1f}",
        f"{noise.error:.2f}",
    )


if __name__ == "__main__":
    with terminal.prepared():  # prints symbols in any encoding
        main()
