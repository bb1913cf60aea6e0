"""The command ``irl``: the reward that demonstrations of a model were paid."""

from __future__ import annotations

import argparse
import inspect
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Normal

from cai import inference, plot
from cai.cli import loading, output, terminal
from cai.cli.failure import Mistake, naming
from cai.cli.learners import METHODS
from cai.demonstrations.demonstrations import Demonstrations
from cai.evaluation.spelling import PrintedTable
from cai.program.layout import Layout
from cai.program.trajectory import TrajectoryModel
from cai.rewards.linear_reward import LinearReward
from cai.tables.absorbing import absorbing
from cai.tables.table import Table
from cai.tables.tabulation import tabulate

_KINDS = {"G": "goal", "P": "pit", "H": "hole", "C": "cliff"}
_FREE = ".SF#"
_CELLS = "cells"
_MOST = 100  # states with a feature each
_OF_LIKELIHOOD = {  # with what they are if they are not given
    "likelihood": "actions",
    "optimism": 0.0,
    "rule": "soft",
    "prior": None,
    "cluster": None,
}
_UNSET = {"checkpoint", "training", "start"}  # no plain values, or files of their own
_FILES = ("fit.json", "fit.md", "estimates.png", "reward_map.png")


def fit(options: argparse.Namespace) -> None:
    """Fits a reward to demonstrations, prints its table, and writes it with its figures.

    Raises:
        Mistake: if the model, the features or the reward cannot be had.
    """
    with output.folder(options.out), loading.quietly(options.quiet):
        output.announce(options, _FILES)
        model = loading.load(options)
        table = tabulate(model)
        reward = _reward(options, table)
        with naming(options.demonstrations):
            seen = Demonstrations.from_csv(
                options.demonstrations, ends=options.ends, group=options.cluster
            )
        found = _found(options, model, seen, reward)
        figures = {"estimates": plot.estimates(found)}
        if table.layout is not None and table.layout.map is not None:
            figures["reward_map"] = plot.reward_map(found, table)
        texts = {"fit.json": found.to_json() + "\n", "fit.md": found.to_markdown()}
        output.write(options, figures, texts)
    show(found, options.json)


def _found(
    options: argparse.Namespace, model: TrajectoryModel, seen: Demonstrations, reward: LinearReward
) -> Any:
    """What the method that was chosen finds.

    Raises:
        Mistake: if it has no such argument.
    """
    function: Any = getattr(inference, METHODS[options.method].function)
    known = inspect.signature(function).parameters
    settable = {name for name, x in known.items() if x.kind is x.KEYWORD_ONLY}
    given = {name: getattr(options, name) for name in _OF_LIKELIHOOD}
    if options.method == "likelihood":
        arguments = {"optimism": options.optimism, "likelihood": options.likelihood}
        arguments |= {"rule": options.rule, "prior": normal_prior(options)}
        arguments["cluster"] = options.cluster and "group"
    else:
        arguments = {}
        for name, value in given.items():
            if value != _OF_LIKELIHOOD[name]:
                raise Mistake(f"--{name}: {options.method} has no such argument; leave it out")
    arguments["progress"] = not options.quiet
    own = settable - arguments.keys() - _UNSET
    for name, value in options.set:
        if name not in own:
            words = f"{options.method} has no {name}; it has {', '.join(sorted(own))}"
            raise Mistake(f"--set: {words}")
        arguments[name] = value
    return function(model, seen, reward, **arguments)


def show(found: PrintedTable, as_json: bool) -> None:
    """Prints a fit, as a table or as JSON."""
    terminal.show(found.to_json() if as_json else found.to_text(terminal.encoding()))


def normal_prior(options: argparse.Namespace) -> Normal | None:
    """The prior of each weight that the arguments ask for.

    Raises:
        Mistake: if its scale is not above 0.
    """
    if options.prior is None:
        return None
    if not 0 < options.prior < torch.inf:
        raise Mistake(f"--prior: expected a finite number above 0, got {options.prior}")
    return Normal(torch.zeros((), dtype=torch.float64), options.prior)


def _reward(options: argparse.Namespace, table: Table) -> LinearReward:
    if options.reward is not None:
        if options.features is not None:
            raise Mistake("--features: a reward from a file has its own; leave one of the two out")
        return loading.load_reward(options.reward)
    known = _on_map(table) if table.layout is not None and table.layout.map else _by_name(table)
    if not known:
        raise Mistake(
            "--features: the model has no map and no names of states to make features of; "
            "give a cai.LinearReward, --reward FILE.py:NAME"
        )
    chosen = [name for name in known if not name.startswith("cell ")]
    if options.features is not None:
        chosen = list(options.features)
    if _CELLS in chosen:
        i = chosen.index(_CELLS)
        chosen[i : i + 1] = [name for name in known if name.startswith("cell ")]
    unknown = [name for name in chosen if name not in known]
    if unknown:
        there = [name for name in known if not name.startswith("cell ")]
        cells = [f"{_CELLS}, one for each cell"] if len(there) < len(known) else []
        words = f"there is no {', '.join(unknown)}; there are {', '.join(there + cells)}"
        raise Mistake(f"--features: {words}; or --reward FILE.py:NAME")
    paid = {name: known[name] for name in chosen}
    return LinearReward(
        {name: f for name, (f, arrival) in paid.items() if not arrival},
        {name: f for name, (f, arrival) in paid.items() if arrival},
    )


def _on_map(table: Table) -> dict[str, tuple[Any, bool]]:
    """Name -> a feature, and whether it is paid on arrival: a step, kinds of cells, and cells.

    A step is one action in a state that is not absorbing; a kind is paid when a cell of it is
    entered from one of another kind.
    """
    layout, over = table.layout, absorbing(table)
    assert layout is not None
    letters = _letters(layout)
    found: dict[str, tuple[Any, bool]] = {"step": (partial(_at, ~over), False)}
    for letter in sorted(set(letters) - set(_FREE)):
        inside = torch.tensor([x == letter for x in letters])
        found[_KINDS.get(letter, letter)] = (partial(_entered, inside), True)
    cells = layout.cells or ()
    for cell in sorted(set(cells)):
        inside = torch.tensor([x == cell for x in cells]) & ~over
        if inside.any():
            found[f"cell {cell[0]} {cell[1]}"] = (partial(_at, inside), False)
    return found


def _by_name(table: Table) -> dict[str, tuple[Any, bool]]:
    """Name of a state -> one for each action in it; only for models of a few named states."""
    layout, S = table.layout, table.num_states
    if layout is None or layout.states is None or S > _MOST:
        return {}
    each = zip(layout.states, torch.eye(S, dtype=torch.bool), strict=True)
    return {name: (partial(_at, one), False) for name, one in each}


def _letters(layout: Layout) -> list[str]:
    """The letter of the cell of each state."""
    assert layout.map is not None
    return [layout.map[i][j] for i, j in layout.cells or ()]


def _at(inside: Tensor, s: Tensor, a: Tensor) -> Tensor:
    return inside[s]


def _entered(inside: Tensor, s: Tensor, a: Tensor, s_next: Tensor) -> Tensor:
    return inside[s_next] & ~inside[s]
