"""Ctrl-C while a command is still being imported, which takes seconds: it ends without a traceback.

Only where this process is the command: whoever imports the library keeps the handler they have.
"""

from __future__ import annotations

import os
import signal
import sys
from os import path  # pathlib takes time to import

_COMMANDS = ("cai", "control-as-inference")
STATUS = 130  # 128 + SIGINT, as shells have it


def end_quietly() -> None:
    """Lets Ctrl-C end this process at once, if it is the command and nobody handles it yet."""
    if _is_the_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def raise_again() -> None:
    """Lets Ctrl-C raise KeyboardInterrupt again, from which a command can return in good order."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(*_: object) -> None:
    os._exit(STATUS)


def _is_the_command() -> bool:
    """Whether it was started as ``python -m cai``, or by one of the installed scripts."""
    if sys.argv[:1] == ["-m"]:  # so it is while the package of the module is being imported
        return sys.orig_argv[-len(sys.argv)] in ("cai", "-mcai")
    script = path.realpath(sys.argv[0] if sys.argv else "")
    home = path.realpath(path.dirname(sys.executable))
    return path.splitext(path.basename(script))[0] in _COMMANDS and path.dirname(script) == home
