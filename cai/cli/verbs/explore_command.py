"""The command ``explore``: a page for a browser in which optimism is a slider."""

from __future__ import annotations

import argparse
import webbrowser
from typing import Any

from cai.cli import loading, output, terminal
from cai.cli.failure import Mistake
from cai.cli.verbs.model_names import CHANGES
from cai.explorer.explorer_page import page_of
from cai.tables.tabulation import tabulate


def write_explorer(options: argparse.Namespace) -> None:
    """Writes the page of a model, or of the maps to paint on, and opens it if asked to.

    Args:
        options: of the command line; ``out`` is the file.

    Raises:
        Mistake: if the model cannot be explored, or the file not be written.
    """
    file = options.out
    if not file.name or file.is_dir():
        raise Mistake(f"--out: expected a file, got the folder {file}; try {file / 'explore.html'}")
    place = argparse.Namespace(out=file.parent, quiet=options.quiet)
    with output.folder(file.parent):
        try:
            page = page_of(*_explored(options))
        except ValueError as error:
            raise Mistake(error) from None
        output.announce(place, [file.name])
        output.write(place, {}, {file.name: page.html})
    if options.open and not webbrowser.open(file.resolve().as_uri()):
        terminal.note(f"no browser could be started; open {file} in one")


def _explored(options: argparse.Namespace) -> tuple[Any, str, str]:
    """The table, the name and the lines of Python of the model that was named; or no table."""
    if options.model is None:
        given = [f"--{name}" for name in CHANGES if getattr(options, name) is not None] + [
            "--option"
        ] * bool(options.option)
        if given:
            raise Mistake(f"{given[0]}: expected a model as well; without one they are on the page")
        return None, "", ""
    return tabulate(loading.load(options)), options.model, _recipe(options)


def _recipe(options: argparse.Namespace) -> str:
    """Lines of Python that make the model of the command line.

    The page itself adds horizon, temperature and discount, which its sliders change.
    """
    if loading.is_own(options.model):
        return loading.recipe(options)
    given: dict[str, Any] = dict(options.option)
    if options.model in loading.built_in():
        return _call(f"models.{options.model}", given)
    if options.horizon is not None:
        given["horizon"] = options.horizon
    return _call("models.gym", given, repr(loading.published_name(options.model)))


def _call(function: str, keywords: dict[str, Any], *positional: str) -> str:
    arguments = [*positional, *(f"{name}={x!r}" for name, x in keywords.items())]
    return f"model = {function}({', '.join(arguments)})"
