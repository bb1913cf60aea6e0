"""How many threads are worth their while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_MANY = 2**18  # numbers from which on a second thread can pay for its keep


@contextmanager
def suited_to(numbers: int) -> Iterator[None]:
    """One thread for work on few numbers, the caller's own setting for many; restored at the end.

    torch splits some operations however small they are, log_softmax for one, and waiting for a
    second thread on a busy machine then takes a thousand times as long as the work.
    """
    before = torch.get_num_threads()
    if numbers < _MANY:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
