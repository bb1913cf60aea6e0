"""The commands of learners: ``train``, ``evaluate`` and ``plot``."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from scipy import stats
from torch import nn

from cai import checks, inference, plot
from cai.cli import loading, output, run_folder, shared_options, terminal
from cai.cli.failure import Mistake
from cai.cli.learners import LEARNERS
from cai.distributions.exact_scores import support_size
from cai.evaluation.evaluate import Evaluation, evaluate
from cai.inference.fitting import checkpoint_file
from cai.inference.fitting.loop import reading
from cai.inference.learning.learned import Learned, LearningStopped
from cai.infinite.endings import never_paid
from cai.policies.neural import NeuralPolicy
from cai.policies.tabular import TabularPolicy

_RATE_OF_TABLES = 0.03  # of Adam, which suits logits better than the rate of networks
_CHECKPOINTS = 50  # of a run
_SETTINGS = ("learner", "model", "horizon", "temperature", "discount", "steps")


class Finished(NamedTuple):
    """A run as it was left.

    Attributes:
        folder: its folder.
        settings: its settings.
        model: its model or environment.
        learned: its result.
        taken: the number of its transitions.
    """

    folder: Path
    settings: dict[str, Any]
    model: Any
    learned: Learned
    taken: int

    def title(self) -> str:
        """What it is, in words."""
        of, seed = self.settings["steps"], self.settings["seed"]
        taken = f"{self.taken} of {of}" if self.taken < of else f"{self.taken}"
        return (
            f"{self.folder}: {self.settings['learner']} on {self.settings['model']}, "
            f"{taken} transitions, seed {seed}"
        )


def train(given: argparse.Namespace) -> None:
    """Trains a learner, once for each seed, and says what came of it.

    Raises:
        Mistake: if the arguments are wrong.
        ValueError: if a step failed; the folder holds what was learnt before.
    """
    out: Path = given.out or Path("runs") / given.learner
    seeds = range(given.seed, given.seed + given.seeds)
    folders = [out if given.seeds == 1 else out / f"seed-{seed}" for seed in seeds]
    runs = []
    events = run_folder.tensorboard() if given.tensorboard else None
    with output.folder(out):
        for seed, folder in zip(seeds, folders, strict=True):
            settings = {name: getattr(given, name) for name in _SETTINGS} | {"seed": seed}
            settings["model"] = loading.absolute(given.model)
            for name in ("option", "set"):
                settings[name] = {key: repr(value) for key, value in getattr(given, name)}
            if given.resume and len(folders) == 1:
                run_folder.settings_in(folder)
            with loading.quietly(given.quiet):
                call = _prepared(settings, folder)  # what is wrong is said before a folder is made
            run_folder.begin(folder, settings, given.resume)
            call.arguments["progress"] = not given.quiet
            call.arguments["callback"] = None if events is None else events(folder)
            runs.append(_train_one(call, settings, folder))
            if runs[-1].taken < given.steps:
                break  # interrupted
    _report([(run, _evaluated(run, None)) for run in runs], given.json)
    if runs[-1].taken < given.steps:
        terminal.note(f"{runs[-1].folder}: interrupted; the same command with --resume goes on")


class _Call(NamedTuple):
    """A call of a learner, but for what it shows on its way."""

    function: Any
    model: Any
    arguments: dict[str, Any]


def _prepared(settings: dict[str, Any], folder: Path) -> _Call:
    """The model of a run, and the arguments of its learner.

    Raises:
        Mistake: if the learner does not take such a model, or such an argument.
    """
    chosen = dict(settings)
    for name in ("option", "set"):
        chosen[name] = [shared_options.key_and_value(f"{k}={v}") for k, v in settings[name].items()]
    model = loading.load_any(argparse.Namespace(**chosen, quiet=True))
    function, arguments = learner_of(settings["learner"], model, settings["seed"])
    more = dict(chosen["set"])
    unknown = sorted(more.keys() - inference_arguments(function))
    if unknown:
        known = ", ".join(sorted(inference_arguments(function)))
        words = f"{settings['learner']} has no {', '.join(unknown)}; it has {known}"
        raise Mistake(f"--set: {words}")
    steps = settings["steps"]
    arguments |= {
        "steps": steps,
        "seed": settings["seed"],
        "checkpoint": folder / run_folder.CHECKPOINT,
        "every": max(1, steps // _CHECKPOINTS),
    }
    return _Call(function, model, arguments | more)


def learner_of(name: str, model: Any, seed: int) -> tuple[Any, dict[str, Any]]:
    """A learner and the arguments that suit a model, with an untrained policy if it takes one.

    Raises:
        Mistake: if it does not take such a model.
    """
    kind = LEARNERS[name]
    start = model.initial.sample()
    finite = support_size(model.initial) is not None
    discrete = support_size(model.prior(start, 0)) is not None
    if not (kind.discrete if discrete else kind.continuous):
        came = "finitely many" if discrete else "continuous"
        others = [n for n, x in LEARNERS.items() if (x.discrete if discrete else x.continuous)]
        raise Mistake(
            f"{name} takes {kind.actions()} actions, got {came} ones; take {' or '.join(others)}"
        )
    function = getattr(inference, kind.function)
    if not kind.policy:
        return function, {}
    torch.manual_seed(seed)  # a network starts at random
    stationary = model.horizon is None or checks.can_only_be_sampled(model)
    if finite and discrete:
        table: nn.Module = TabularPolicy(model, stationary=stationary)
        return function, {"policy": table, "learning_rate": _RATE_OF_TABLES}
    return function, {"policy": NeuralPolicy(model, stationary=stationary)}


def inference_arguments(function: Any) -> set[str]:
    """The arguments of a learner that the command line may set."""
    code = function.__code__
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    own = {"source", "policy", "steps", "seed", "checkpoint", "every", "callback", "progress"}
    return set(names) - own - {"behaviour", "observe", "temperature"}


def _train_one(call: _Call, settings: dict[str, Any], folder: Path) -> Finished:
    try:
        learned = call.function(call.model, **call.arguments)
    except LearningStopped as stopped:
        run_folder.write_history(folder, stopped.learned.history)
        words = f"stopped after {stopped.taken} of {settings['steps']} transitions"
        advice = "once mended, the same command with --resume goes on from the last checkpoint"
        raise ValueError(f"{folder}: {words}: {stopped.reason}; {advice}") from stopped
    run_folder.write_history(folder, learned.history)
    return Finished(folder, settings, call.model, learned, _taken(settings, folder))


def _taken(settings: dict[str, Any], folder: Path) -> int:
    verb = LEARNERS[settings["learner"]].function
    state = checkpoint_file.read(folder / run_folder.CHECKPOINT, {}, verb)
    if state is None:
        raise Mistake(f"{folder}: nothing was learnt yet; cai train with --resume goes on")
    taken: int = state["run"]["taken"]
    return taken


def _finished(folder: Path) -> Iterator[Finished]:
    """The runs in a folder, read from their checkpoints.

    Raises:
        Mistake: if it is not the folder of a run, or nothing was learnt yet.
    """
    for each in run_folder.runs_in(folder):
        settings = run_folder.settings_in(each)
        taken = _taken(settings, each)
        try:
            call = _prepared(settings, each)
            with reading():
                learned = call.function(call.model, **call.arguments, progress=False)
        except (KeyError, TypeError) as error:
            raise Mistake(f"{each}: its settings are damaged: {error}") from None
        yield Finished(each, settings, call.model, learned, taken)


def evaluate_runs(given: argparse.Namespace) -> None:
    """Says what the policies of runs get, by simulated episodes."""
    runs = [(run, _evaluated(run, given.episodes, given.seed)) for run in _finished(given.run)]
    _report(runs, given.json, given.episodes)


def _evaluated(run: Finished, episodes: int | None, seed: int = 0) -> Evaluation | None:
    """What a policy gets: exactly if that is asked for and can be had; None if nothing can say."""
    endless = run.model.horizon is None
    try:
        samples = None if endless and not checks.can_only_be_sampled(run.model) else episodes
        return evaluate(run.model, run.learned.policy, samples=samples, seed=seed)
    except ValueError as error:
        if not endless:
            raise
        terminal.note(f"{run.folder}: no evaluation: {error}")
        return None


def _report(
    runs: list[tuple[Finished, Evaluation | None]], as_json: bool, episodes: int | None = None
) -> None:
    rows = [_row(run, found) for run, found in runs]
    summary = {name: _interval([row[name] for row in rows]) for name in ("return", "elbo")}
    if as_json:
        found: dict[str, Any] = {"runs": rows, "episodes": episodes}
        if len(rows) > 1:
            found |= {"mean": {name: x[0] for name, x in summary.items()}}
            found |= {"half_width_95": {name: x[1] for name, x in summary.items()}}
        terminal.show(json.dumps(found, indent=1))
        return
    lines = []
    for (run, _), row in zip(runs, rows, strict=True):
        lines.append(run.title())
        if row["return"] is not None:
            how = "exact" if row["return_stderr"] is None else "± standard error"
            bound = "unknown" if row["elbo"] is None else f"{_number(row, 'elbo')} nats"
            lines.append(f"  return {_number(row, 'return')}, ELBO {bound}, {how}")
    words = [f"{name} {x:.4g} ± {w:.2g}" for name, (x, w) in summary.items() if not math.isnan(x)]
    if words:
        lines.append(f"mean of {len(rows)} seeds ± 95% interval: {', '.join(words)}")
    terminal.show("\n".join(lines))


def _row(run: Finished, found: Evaluation | None) -> dict[str, Any]:
    fields = {"return": "expected_return", "elbo": "elbo"}
    numbers = fields | {f"{name}_stderr": f"{field}_stderr" for name, field in fields.items()}
    known = {name: getattr(found, field, None) for name, field in numbers.items()}
    row = {name: x if x is None or not math.isnan(x) else None for name, x in known.items()}
    settings = {name: run.settings[name] for name in ("learner", "model", "seed")}
    return {"folder": str(run.folder), **settings, "transitions": run.taken, **row}


def _number(row: dict[str, Any], name: str) -> str:
    error = row[f"{name}_stderr"]
    return f"{row[name]:.4g}" + ("" if error is None else f" ± {error:.2g}")


def _interval(numbers: list[float | None]) -> tuple[float, float]:
    """The mean of several seeds, and half the width of its 95% interval by Student's t."""
    known = [x for x in numbers if x is not None]
    n = len(known)
    if n < 2:
        return math.nan, math.nan
    half = stats.t.ppf(0.975, n - 1) * statistics.stdev(known) / math.sqrt(n)
    return statistics.fmean(known), float(half)


def plot_runs(given: argparse.Namespace) -> None:
    """Draws the learning curves of runs, and their values against the exact ones."""
    runs = list(_finished(given.run))
    out: Path = given.out or given.run
    exact, visits = None, None
    with contextlib.suppress(ValueError):  # there are none, or not at this size
        solution = _exact(runs[0])
        visits = evaluate(runs[0].model, runs[0].learned.policy).states
        if visits is not None and solution.table.horizon is None:
            visits[never_paid(solution.table)] = 0.0  # where episodes are over nothing is learnt
        exact = solution.V
    with output.folder(out):
        figure = plot.learning_curve([run.learned for run in runs], exact, visits)
        to = argparse.Namespace(out=out, quiet=given.quiet)
        output.write(to, {"learning_curve": figure}, {})


def _exact(run: Finished) -> Any:
    """The solution whose values a run should end at.

    Raises:
        ValueError: if it is not known.
    """
    given = dict(shared_options.key_and_value(f"{k}={v}") for k, v in run.settings["set"].items())
    if given.get("regulariser") == "entropy":
        raise ValueError("that of another problem, in which every step alive is paid")
    naive = "boltzmann" if given.get("entropy") == "naive" else "soft"
    return inference.soft_values(run.model, rule=given.get("rule", naive))
