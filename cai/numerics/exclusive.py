"""One thread at a time, where Pyro's handlers or torch's generator are in use.

Both are global to the process: a handler that one thread has entered catches the samples of all
others, and a seed that one thread sets is used up by all of them. Work on tables needs neither and
runs in parallel.
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
    """A context for one thread at a time, which removes handlers left behind by an interruption.

    It is reentrant, and also a decorator, ``@exclusive()``. Code inside must not wait for another
    thread that enters it.
    """
    with _lock:
        handlers = len(_PYRO_STACK)
        try:
            yield
        except BaseException:
            # An interrupt may come between entering a handler and the code that leaves it.
            del _PYRO_STACK[handlers:]
            raise


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """The same with torch's generator seeded, and its state restored at the end.

    Args:
        seed: the seed of the CPU generator; None continues from its present state.
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


def generators() -> list[torch.Tensor]:
    """The states of torch's generators."""
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if _on_cuda() else [])]


def set_generators(states: list[torch.Tensor]) -> None:
    """Restores the states of torch's generators."""
    torch.set_rng_state(states[0])
    if _on_cuda():
        torch.cuda.set_rng_state_all(states[1:])


def _on_cuda() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_initialized()


def _renew() -> None:
    """A forked process has one thread, which must not wait for those of its parent."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):  # where processes fork
    os.register_at_fork(after_in_child=_renew)
