"""Ctrl-C while a command is still being imported, which takes seconds: it ends without a traceback.

Python code may take an interrupted import for one that failed and go on with half of it, so the
process ends at once. At that point no work can be lost yet.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

STATUS = 130  # 128 + SIGINT, as shells have it


@contextlib.contextmanager
def ends_the_process() -> Iterator[None]:
    """A context in which Ctrl-C ends this process at once, unless somebody else handles it.

    Afterwards Ctrl-C raises KeyboardInterrupt again, so that a command can clean up.
    """
    handler = signal.getsignal(signal.SIGINT)
    main = threading.current_thread() is threading.main_thread()
    if not main or handler is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _leave(*_: object) -> None:
    os._exit(STATUS)
