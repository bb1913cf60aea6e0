"""What each command runs; here ``compare``, ``draw`` and ``models``."""

from __future__ import annotations

import argparse
import contextlib
import sys
import textwrap
from collections.abc import Callable
from typing import Any

import torch
from matplotlib.figure import Figure

from cai import cli, inference, models, plot
from cai.cli import loading, output, terminal
from cai.cli.failure import Mistake
from cai.cli.options import TRANSITIONS
from cai.cli.verbs import (
    dial_command,
    fit_command,
    info_command,
    model_names,
    new_command,
    plan_command,
    solve_command,
    sweep_command,
)
from cai.evaluation.comparison import compare
from cai.evaluation.report import Comparison
from cai.inference.fitting.loop import in_lines
from cai.plot.trajectory_figure import in_a_plane
from cai.policies.neural import NeuralPolicy
from cai.policies.tabular import TabularPolicy
from cai.program.trajectory import TrajectoryModel
from cai.tables.finite import ChangesWithTime, NotEnumerable
from cai.tables.table import Table
from cai.tables.tabulation import tabulate

_ALWAYS = ("comparison.png", "training.png", "comparison.md", "comparison.json")
_WIDTH = 80  # columns of a terminal, as everybody has them
_OF_A_PLANE = ("trajectories.png",)
_OF_A_TABLE = ("policies.png", "occupancy.png", "optimism.png")
_STEPS, _MOST_STEPS = 1000, 2000  # of a training whose gradient is exact, or sampled
_WIDTH = 80  # characters of a terminal
_NEAR_PRIOR = 0.1  # nats of a whole trajectory


def chosen(name: str) -> Callable[[argparse.Namespace], None]:
    """What runs the command of a name; it is loaded first, which may take seconds.

    Raises:
        KeyError: if there is none.
    """
    commands = {
        "compare": lambda: _compare,
        "draw": lambda: _draw,
        "models": lambda: _list_models,
        "train": lambda: cli.train_command.train,
        "evaluate": lambda: cli.train_command.evaluate_runs,
        "plot": lambda: cli.train_command.plot_runs,
        "irl": lambda: cli.irl_command.fit,
        "routes": lambda: cli.run_routes,
        "info": lambda: info_command.run,
        "solve": lambda: solve_command.run,
        "dial": lambda: dial_command.run,
        "plan": lambda: plan_command.run,
        "fit": lambda: fit_command.run,
        "new": lambda: new_command.run,
        "sweep": lambda: sweep_command.run,
        "explore": lambda: cli.write_explorer,
    }
    command = commands[name]()
    return in_lines()(command)  # training says how far it is in lines, where there is no terminal


def _compare(options: argparse.Namespace) -> None:
    # What a user's file prints must not mix with JSON.
    elsewhere = contextlib.redirect_stdout(sys.stderr if options.json else sys.stdout)
    with output.folder(options.out), elsewhere:
        report = _run_comparison(options)
    width = None if options.wide else _WIDTH
    text = report.to_text(terminal.encoding(), width)
    terminal.show(report.to_json() if options.json else text)
    if options.quiet:
        return
    if not options.json and text != report.to_text(terminal.encoding()):
        terminal.note("--wide shows all columns")
    for line in _near_prior(report):
        terminal.note(line)


def _run_comparison(options: argparse.Namespace) -> Comparison:
    torch.manual_seed(options.seed)  # a network starts at random
    model = loading.load(options)
    if model.horizon is None:
        raise Mistake("--horizon: the model's horizon is infinite; give a number of steps")
    table = _table(model, options)
    drawn = table is None and in_a_plane(model)
    more = _OF_A_TABLE if table is not None else _OF_A_PLANE if drawn else ()
    output.announce(options, _ALWAYS + more)
    problem = model if table is None else table
    methods: dict[str, Any] = {}
    if table is None:
        policy: Any = NeuralPolicy(model)
        methods["prior"] = lambda t, s: model.prior(s, t)
    else:
        policy = TabularPolicy(model)
        methods["exact posterior"] = inference.posterior(table)
        methods["fixed dynamics"] = inference.soft_values(table)
    steps = options.steps or _budget(model, table, options)
    fitted = inference.fit(
        problem, policy, steps=steps, seed=options.seed, progress=not options.quiet
    )
    methods["SVI"] = fitted
    if options.learner is not None:
        learner, arguments = cli.train_command.learner_of(options.learner, model, options.seed)
        arguments |= {"steps": options.transitions, "seed": options.seed}
        learned = learner(model, **arguments, progress=not options.quiet)
        methods[options.learner] = learned.policy
    report = compare(problem, methods)
    figures: dict[str, Figure] = {"comparison": plot.comparison(report)}
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


def _budget(model: TrajectoryModel, table: Table | None, options: argparse.Namespace) -> int:
    """How many steps a training has at most if nobody says; those that sample are dear."""
    if table is not None:
        return _STEPS
    assert model.horizon is not None
    steps = max(1, min(_MOST_STEPS, TRANSITIONS // model.horizon))
    if not options.quiet:
        terminal.note(f"training: at most {steps} steps of sampled trajectories (--steps)")
    return steps


def _near_prior(report: Comparison) -> list[str]:
    """A line if the policy that was sought hardly differs from the action prior."""
    row = report.get("fixed dynamics", report["SVI"])
    temperature = float(report.model.temperature)
    divergence = row.expected_return / temperature - row.elbo  # Σ_t E_q[KL(q(a|s) ‖ p(a|s))]
    if not divergence < _NEAR_PRIOR:
        return []
    return [
        f"the {'trained' if report.table is None else 'best'} policy is near the action prior, "
        f"{max(divergence, 0.0):.2g} nats from it in a whole trajectory: differences of reward "
        f"are small beside the temperature {temperature:g}; lower --temperature?"
    ]


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
        output.announce(options, ["graphical_model.png"])
        model = loading.load(options)
        try:
            figure = plot.graphical_model(model, options.steps)
        except ValueError as error:
            raise Mistake(error) from None
        output.write(options, {"graphical_model": figure}, {})


def _list_models(options: argparse.Namespace) -> None:
    made = loading.built_in().items()
    words = {name: (make.__doc__ or "").splitlines()[0] for name, make in made}
    words["FILE.py:NAME"] = "A TrajectoryModel of your own, by its name in a Python file."
    words["MODULE:NAME"] = "The same in a module that Python can import."
    lines = _described(words)
    published = {f"  {name}": loading.described(name) for name in model_names.entry_points()}
    if published:
        lines += ["Models that installed packages publish:", *_described(published)]
    lines += ["Gymnasium environments with a published table:"]
    terminal.show("\n".join([*lines, *(f"  {name}" for name in models.published())]))


def _described(words: dict[str, str]) -> list[str]:
    """Names with a description beside each, which goes on below itself."""
    return [
        textwrap.fill(
            text,
            _WIDTH,
            initial_indent=f"{name:19}",
            subsequent_indent=" " * 19,
            break_long_words=False,  # a path stays whole
            break_on_hyphens=False,
        )
        for name, text in words.items()
    ]
