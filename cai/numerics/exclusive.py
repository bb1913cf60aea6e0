"""One thread at a time, where Pyro's handlers or torch's generator are in use.

Both are global to the process: a handler that one thread has entered catches the samples of all
others, and a seed that one thread sets is used up by all of them. Work on tables needs neither and
runs in parallel.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, Self, TypeVar, overload

import torch
from pyro.poutine.runtime import _PYRO_STACK

T = TypeVar("T")

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


class cached_property(Generic[T]):  # noqa: N801 (named as that of functools)
    """A property that is computed when it is first asked for, and kept in the instance, lock-free.

    That of functools holds a lock while it computes, before Python 3.12 one for all instances of a
    class. Where a program is run on the way, two threads could each hold what the other waits for.
    Two that ask at once here may both compute the value, which is the same.

    Args:
        function: computes the value from the instance.
    """

    def __init__(self, function: Callable[[Any], T]) -> None:
        self.function = function
        self.__doc__ = function.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> T: ...
    def __get__(self, instance: object | None, owner: type | None = None) -> Self | T:
        if instance is None:
            return self
        value = vars(instance)[self.name] = self.function(instance)
        return value
