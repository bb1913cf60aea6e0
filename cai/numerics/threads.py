"""How many threads to use."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

_MANY = 2**18  # numbers from which on a second thread can help

_lock = threading.Lock()
_counts: list[int] = []  # one per thread at work on few numbers: the first one's own setting
_here = threading.local()  # .few: whether this thread works on few numbers


def suited_to(numbers: int) -> AbstractContextManager[None]:
    """A context with one thread for few numbers and the caller's own setting for many.

    torch splits some operations however small they are, log_softmax for one, and waiting for a
    second thread on a busy machine then takes a thousand times as long as the work.
    """
    if numbers >= _MANY or getattr(_here, "few", False):
        return nullcontext()
    alone = not _counts and torch.get_num_threads() == 1  # nothing to set or to restore
    return nullcontext() if alone else _one()


@contextmanager
def _one() -> Iterator[None]:
    with _lock:
        # A Python thread that starts meanwhile finds one thread, and must not leave it at that.
        before = _counts[0] if _counts else torch.get_num_threads()
        _counts.append(before)
    torch.set_num_threads(1)
    _here.few = True
    try:
        yield
    finally:
        _here.few = False
        with _lock:
            _counts.pop()
            torch.set_num_threads(before)
