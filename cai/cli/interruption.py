"""Ctrl-C while a command is still being imported, which takes seconds: it ends without a traceback.

Python code may take an interrupted import for one that failed and go on with half of it, so the
process ends at once. Nothing has been done yet that would be lost.
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
    """Within it Ctrl-C ends this process at once, if nobody else handles it.

    After it Ctrl-C raises KeyboardInterrupt again, from which a command can return in good order.
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
