"""One thread at a time, where Pyro's handlers or torch's generator are in use.

Both are global to the process: a handler that one thread has entered catches the samples of all
others, and a seed that one thread sets is spent by all of them. Work on tables needs neither, and
runs beside this.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from pyro.poutine.runtime import _PYRO_STACK

_lock = threading.RLock()


@contextmanager
def exclusive() -> Iterator[None]:
    """Waits until no other thread is in here, and leaves no handler behind where it is left early.

    A thread may enter again. What is called meanwhile must not wait for another thread that does.
    Also a decorator, ``@exclusive()``.
    """
    with _lock:
        handlers = len(_PYRO_STACK)
        try:
            yield
        except BaseException:
            # An interrupt may come after a handler was entered and before it would be left.
            del _PYRO_STACK[handlers:]
            raise


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """The same, with torch's generator started from a seed and put back where it was at the end.

    Args:
        seed: of the processor's generator; None draws from it as it stands, and moves it on.
    """
    with exclusive():
        if seed is None:
            yield
            return
        before = torch.get_rng_state()
        try:
            torch.default_generator.manual_seed(int(seed))
            yield
        finally:
            torch.set_rng_state(before)


def _renew() -> None:
    """A process that was forked has one thread, and must not wait for those of its parent."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):  # where processes fork
    os.register_at_fork(after_in_child=_renew)
