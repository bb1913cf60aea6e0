"""The command line: ``cai compare``, ``solve``, ``sweep``, ``train``, ``irl``, ``routes``, etc."""

from __future__ import annotations

import contextlib
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence

from cai import cli
from cai.cli import failure, interruption, options, terminal
from cai.cli.verbs import model_names


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: the command line; ``sys.argv[1:]`` if not given.

    Returns:
        The exit status: 0 for success, 1 if the run failed, 2 if the arguments are wrong, 130 if it
        was interrupted, 141 if the reader of a pipe has gone.
    """
    with terminal.prepared():
        try:
            given = options.parser().parse_args(arguments)
        except SystemExit as left:  # after --help, --version, or what argparse says of a mistake
            sys.exit(_status(terminal.finish, "") or left.code)
        return _status(lambda: _run(given, arguments is None), getattr(given, "model", ""))


def _run(given: Namespace, alone: bool) -> None:
    """Loads the commands, which takes seconds, and runs the one that was given."""
    with interruption.ends_the_process() if alone else contextlib.nullcontext():
        command = cli.commands.chosen(given.command)
    command(given)


def _status(run: Callable[[], None], model: str) -> int:
    """The exit status of a run; prints what went wrong."""
    try:
        run()
    except failure.Mistake as mistake:
        return failure.fail(mistake, 2)
    except terminal.NobodyReads:
        return 141  # without a word, as a program that ends by SIGPIPE
    except KeyboardInterrupt as left:
        return failure.fail(str(left) or "interrupted; nothing was written", interruption.STATUS)
    except BaseException as error:  # SystemExit is one, which a user's file may raise
        return failure.fail(failure.explain(error, model_names.source_of(model)), 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
