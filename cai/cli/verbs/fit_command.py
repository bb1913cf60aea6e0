"""The command ``fit``: variational inference of a policy, which goes on after an interrupt."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import cai
from cai import cli, inference, plot
from cai.cli import shared_options
from cai.cli.failure import Mistake

_FILES = ("fit.json", "training.png", "comparison.png")
_ESTIMATORS = ("auto", "exact", "mirror", "enumerated", "pathwise", "score", "critic", "natural")
_WIDTH = 80  # characters of a terminal


def add_to(commands: Any) -> None:
    """Adds the command's options."""
    fit = commands.add_parser(
        "fit",
        help="train a policy by variational inference",
        description="Train a policy by the ELBO, with the true dynamics. The same command with the "
        "same --checkpoint goes on where it was.",
    )
    shared_options.add_model(fit)
    shared_options.add_seed(fit, "training")
    fit.add_argument(
        "-n",
        "--steps",
        type=shared_options.count,
        default=1000,
        help="maximum number of training steps (default 1000)",
    )
    fit.add_argument(
        "--policy",
        choices=("table", "network"),
        help="what is trained (default: a table for finitely many states, else a network)",
    )
    fit.add_argument(
        "--estimator",
        choices=_ESTIMATORS,
        default="auto",
        metavar="NAME",
        help=f"gradient estimator: {', '.join(_ESTIMATORS)} (default auto)",
    )
    fit.add_argument("--learning-rate", type=shared_options.number, metavar="RATE", help="of Adam")
    fit.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="kept while training, and resumed from"
    )
    shared_options.add_save(fit, "the policy")
    shared_options.add_json(fit, "a table")


def run(options: argparse.Namespace) -> None:
    """Trains, prints what the policy gets beside its prior, and writes figures."""
    cli.check_save(options)
    checkpoint: Path | None = options.checkpoint
    if checkpoint is not None and not checkpoint.resolve().parent.is_dir():
        expected = "a file in a folder that exists"
        raise Mistake(f"--checkpoint: {checkpoint}: expected {expected}; make it first")
    with cli.output.folder(options.out):
        cli.output.announce(options, _FILES)
        model = cli.loading.load(options)
        fitted = _fitted(options, model)
        report = cai.compare(model, {"SVI": fitted, "prior": lambda t, s: model.prior(s, t)})
        found = {
            "elbo": fitted.elbo,
            "estimator": fitted.estimator,
            "converged": fitted.converged,
            "steps": len(fitted.losses),
            **report.to_dict(),
        }
        figures = {"training": plot.losses(fitted), "comparison": plot.comparison(report)}
        cli.output.write(options, figures, {"fit.json": cli.to_json(found) + "\n"})
        cli.keep(options, fitted.policy)
    ended = "converged" if fitted.converged else "not converged"
    steps = f"{len(fitted.losses)} steps of the gradient {fitted.estimator!r}, {ended}"
    lines = [f"{options.model}: {steps}", *report.to_text(width=_WIDTH).splitlines()]
    cli.show(found, lines, options.json)


def _fitted(options: argparse.Namespace, model: Any) -> Any:
    """The fit of the policy that was chosen.

    Raises:
        Mistake: if it cannot be trained so.
    """
    kind = options.policy or ("table" if cli.has_table(model) else "network")
    if kind == "table" and not cli.has_table(model):
        expected = "finitely many states and actions for a table, got a continuous model"
        raise Mistake(f"--policy: expected {expected}; take --policy network")
    try:
        policy = cli.untrained(model, kind, options.seed)
        return inference.fit(
            model,
            policy,
            steps=options.steps,
            seed=options.seed,
            estimator=options.estimator,
            learning_rate=options.learning_rate,
            checkpoint=options.checkpoint,
            progress=not options.quiet,
        )
    except ValueError as error:
        raise Mistake(error) from None
