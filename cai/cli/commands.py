"""What each command runs; here ``compare``, ``draw`` and ``models``."""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import Any

import torch

from cai import inference, models, plot
from cai.cli import irl_command, loading, output, terminal, train_command
from cai.cli.failure import Mistake
from cai.cli.roads import routes_command
from cai.evaluation.comparison import compare
from cai.evaluation.report import Comparison
from cai.plot.trajectory_figure import in_a_plane
from cai.policies.neural import NeuralPolicy
from cai.policies.tabular import TabularPolicy
from cai.program.trajectory import TrajectoryModel
from cai.tables.finite import ChangesWithTime, NotEnumerable
from cai.tables.table import Table
from cai.tables.tabulation import tabulate

_ALWAYS = ("comparison.png", "training.png", "comparison.md", "comparison.json")
_OF_A_PLANE = ("trajectories.png",)
_OF_A_TABLE = ("policies.png", "occupancy.png", "optimism.png")


def run(options: argparse.Namespace) -> None:
    """Runs the command that was parsed.

    Raises:
        Mistake: if its arguments are wrong.
    """
    commands = {
        "compare": _compare,
        "draw": _draw,
        "models": _list_models,
        "train": train_command.train,
        "evaluate": train_command.evaluate_runs,
        "plot": train_command.plot_runs,
        "irl": irl_command.fit,
        "routes": routes_command.run,
    }
    commands[options.command](options)


def _compare(options: argparse.Namespace) -> None:
    # What a user's file prints must not mix with JSON.
    elsewhere = contextlib.redirect_stdout(sys.stderr if options.json else sys.stdout)
    with output.folder(options.out), elsewhere:
        report = _run_comparison(options)
    terminal.show(report.to_json() if options.json else report.to_text(terminal.encoding()))


def _run_comparison(options: argparse.Namespace) -> Comparison:
    torch.manual_seed(options.seed)  # a network starts at random
    model = loading.load(options)
    if model.horizon is None:
        raise Mistake("--horizon: the model's horizon is infinite; give a number of steps")
    table = _table(model, options)
    drawn = table is None and in_a_plane(model)
    others = _OF_A_PLANE if drawn else () if table is None else _OF_A_TABLE
    output.check_names(options.out, _ALWAYS + others)
    problem = model if table is None else table
    methods: dict[str, Any] = {}
    if table is None:
        policy: Any = NeuralPolicy(model)
        methods["prior"] = lambda t, s: model.prior(s, t)
    else:
        policy = TabularPolicy(model)
        methods["exact posterior"] = inference.posterior(table)
        methods["fixed dynamics"] = inference.soft_values(table)
    fitted = inference.fit(
        problem, policy, steps=options.steps, seed=options.seed, progress=not options.quiet
    )
    methods["SVI"] = fitted
    if options.learner is not None:
        learner, arguments = train_command.learner_of(options.learner, model, options.seed)
        arguments |= {"steps": options.transitions, "seed": options.seed}
        learned = learner(model, **arguments, progress=not options.quiet)
        methods[options.learner] = learned.policy
    report = compare(problem, methods)
    figures = {"comparison": plot.comparison(report)}
    bound = None
    if table is not None:
        figures |= {
            "policies": plot.policies(report),
            "occupancy": plot.occupancy(report),
            "optimism": plot.optimism(table),
        }
        bound = methods["fixed dynamics"].elbo
    if drawn:
        figures["trajectories"] = plot.trajectories(model, methods, seed=options.seed)
    figures["training"] = plot.losses(fitted, bound)
    texts = {"comparison.md": report.to_markdown(), "comparison.json": report.to_json() + "\n"}
    output.write(options, figures, texts)
    return report


def _table(model: TrajectoryModel, options: argparse.Namespace) -> Table | None:
    """The table of a model; None, with a note to the user, if only sampling is possible."""
    try:
        return tabulate(model)
    except NotEnumerable as error:
        numbered = not model.initial.sample().dtype.is_floating_point
        if numbered and not isinstance(error, ChangesWithTime):
            raise  # states are numbered but their number is unknown: the message says what to do
        if not options.quiet:
            terminal.note(f"no exact posterior: {error}")
        return None


def _draw(options: argparse.Namespace) -> None:
    with output.folder(options.out):
        output.check_names(options.out, ["graphical_model.png"])
        model = loading.load(options)
        try:
            figure = plot.graphical_model(model, options.steps)
        except ValueError as error:
            raise Mistake(error) from None
        output.write(options, {"graphical_model": figure}, {})


def _list_models(options: argparse.Namespace) -> None:
    made = loading.built_in().items()
    lines = [f"{name:19}{(make.__doc__ or '').splitlines()[0]}" for name, make in made]
    lines += [f"{'FILE.py:NAME':19}A TrajectoryModel of your own, by its name in a Python file."]
    lines += ["Gymnasium environments with a published table:"]
    terminal.show("\n".join([*lines, *(f"  {name}" for name in models.published())]))
