"""The command ``solve``: values and policy of a finite model at an optimism."""

from __future__ import annotations

import argparse
import textwrap
from typing import Any

import cai
from cai import cli, inference, plot
from cai.cli import shared_options
from cai.cli.failure import Mistake

_FILES = ("solution.json", "policies.png", "occupancy.png")
_RULES = ("soft", "hard", "boltzmann", "planned")
_STARTS = 5  # likely initial states that are printed
_WIDTH = 80  # characters of a terminal


def add_to(commands: Any) -> None:
    """Adds the command's options."""
    solve = commands.add_parser(
        "solve",
        help="values and policy at an optimism",
        description="Solve a model with finitely many states exactly: at optimism 1 the posterior, "
        "at 0 the best policy in the true dynamics.",
    )
    shared_options.add_model(solve, shared_options.horizon)
    solve.add_argument(
        "--optimism",
        type=shared_options.number,
        default=0.0,
        metavar="ETA",
        help="eta, any number, inf or -inf (default 0)",
    )
    solve.add_argument(
        "--rule", choices=_RULES, default="soft", help="how actions are chosen (default soft)"
    )
    shared_options.add_save(solve, "the solution")
    shared_options.add_json(solve, "a table")


def run(options: argparse.Namespace) -> None:
    """Solves a model, prints what the solution imagines and gets, and writes its figures."""
    cli.check_save(options)
    with cli.output.folder(options.out):
        cli.output.announce(options, _FILES)
        table = cli.table_of(options)
        try:
            solution = inference.soft_values(table, options.optimism, options.rule)
        except ValueError as error:
            raise Mistake(error) from None
        report = cai.compare(table, {f"optimism {options.optimism:g}": solution})
        starts = _starts(solution)
        found = {"optimism": options.optimism, "rule": options.rule, "start": starts}
        found |= report.to_dict()
        figures = {"policies": plot.policies(report), "occupancy": plot.occupancy(report)}
        cli.output.write(options, figures, {"solution.json": cli.to_json(found) + "\n"})
        cli.keep(options, solution)
    lines = [cli.title(options, table), *report.to_text(width=_WIDTH).splitlines()]
    lines += [line for start in starts for line in textwrap.wrap(_words(start), _WIDTH)]
    cli.show(found, lines, options.json)


def _starts(solution: Any) -> list[dict[str, Any]]:
    """Value and most probable first action in each of the likeliest initial states."""
    table = solution.table
    p = table.log_initial.exp()
    endless = table.horizon is None
    found = []
    for s in p.argsort(descending=True, stable=True)[:_STARTS].tolist():
        if p[s] == 0:
            break
        chances = solution.policy.log_probs if endless else solution.policy.log_probs[0]
        a = int(chances[s].argmax())
        found.append(
            {
                "state": cli.state(table.layout, s),
                "probability": p[s].item(),
                "V": (solution.V if endless else solution.V[0])[s].item(),
                "action": cli.action(table.layout, a),
                "action_probability": chances[s, a].exp().item(),
            }
        )
    return found


def _words(start: dict[str, Any]) -> str:
    return (
        f"Start in state {start['state']}, p = {start['probability']:.3g}: "
        f"V = {start['V']:.6g} (reward units), first action {start['action']}, "
        f"p = {start['action_probability']:.3g}."
    )
