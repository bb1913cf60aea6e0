"""The command line, run in this process."""

from cai import __main__ as command


def run(capsys, *arguments):
    """The exit status, and what was printed to both streams."""
    try:
        status = command.main([str(argument) for argument in arguments])
    except SystemExit as left:
        status = left.code
    return status, *capsys.readouterr()
