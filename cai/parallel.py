"""Work in several processes at once, by joblib; no other module knows it.

Its own processes are used unless ``joblib.parallel_config`` says otherwise, or an engine is named:
clusters of Ray and Dask run the same code where they are installed.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NoReturn, TypeVar

import torch

from cai import checks
from cai.numerics.optional_package import optional

_ADVICE = 'pip install "control-as-inference[sweep]", or take jobs=1, which needs no package'
_RAY = "ray"
_BETWEEN_LOOKS = 1.0  # seconds
_watching: list[int] = []  # the process that this one works for

Task = TypeVar("Task")
Result = TypeVar("Result")


class WorkerDied(Exception):
    """A process that was at work has ended, because it was killed or has crashed.

    Args:
        suspects: at most how many tasks were being worked on, the first of those not yet done.
    """

    def __init__(self, suspects: int) -> None:
        super().__init__("a worker process has ended before its work was done")
        self.suspects = suspects


def each(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    jobs: int | None = 1,
    engine: str | None = None,
) -> Iterator[Result]:
    """The results of a function of each task, as they are done, with one thread of torch each.

    Args:
        function: called with a task; both are sent to other processes by cloudpickle.
        tasks: any; they are begun in this order.
        jobs: how many at once; 1 is this process itself, unless an engine is named. None is as many
            as there are processor cores, or as the engine has.
        engine: the name of a backend of joblib; None for processes of its own, or for what
            ``joblib.parallel_config`` has set.

    Raises:
        WorkerDied: if a process of joblib's own was killed.
        ValueError: if joblib or the engine is not installed, or if a process cannot read what it
            is sent.
    """
    todo = list(tasks)
    if jobs == 1 and engine is None:
        return (_with_one_thread(function, task) for task in todo)
    return _by_joblib(function, todo, -1 if jobs is None else jobs, engine)


def check_engine(jobs: int | None, engine: str | None) -> None:
    """Raises ValueError unless there is such an engine, and what it needs is installed."""
    if engine is not None and not isinstance(engine, str):
        checks.refuse("engine", "the name of a backend of joblib, or None", repr(engine), "")
    if jobs is not None:
        checks.check_count("jobs", jobs, advice="1 is this process, None as many as there are")
    if jobs != 1 or engine is not None:
        _pool(1, engine)


def check_sendable(where: str, what: Any, jobs: int | None, engine: str | None) -> None:
    """Raises ValueError if functions have to be sent to other processes, but cannot be."""
    if jobs == 1 and engine is None:
        return
    pool, _ = _pool(1, engine)
    if getattr(pool._backend, "supports_sharedmem", False):  # of threads
        return
    pickler = optional("joblib.externals.loky.backend.reduction", "jobs", _ADVICE)
    if type(pool._backend).__name__ == "MultiprocessingBackend":  # which has no cloudpickle
        pickler = pickle
    try:
        pickler.dumps(what)
    except Exception as error:  # of any kind: they are those of the objects
        _refuse_unsendable(where, error)


def _refuse_unsendable(where: str, error: BaseException) -> NoReturn:
    expected = "functions that can be sent to other processes"
    came = f"{type(error).__name__}: {' '.join(str(error).split())}"
    if error.__cause__ is not None:  # in the words of the other process, a traceback
        lines = str(error.__cause__).strip('"\n ').splitlines() or [""]
        came = f"{came.rstrip('.')}: {lines[-1]}"
    checks.refuse(where, expected, came, "jobs=1 sends nothing")


def _by_joblib(
    function: Callable[[Task], Result], todo: Sequence[Task], jobs: int, engine: str | None
) -> Iterator[Result]:
    pool, workers = _pool(jobs, engine)
    calls: list[Any] = [(_alone, (function, task, os.getpid()), {}) for task in todo]
    try:
        if pool.return_generator:
            with contextlib.closing(pool(calls)) as found:
                yield from found
        else:  # a backend whose results come all at once is given a few at a time
            with pool:  # which keeps its processes from one call to the next
                for first in range(0, len(calls), workers):
                    yield from pool(calls[first : first + workers])
    except BrokenProcessPool as error:
        # All others are those of joblib's own kind whose work could not be read in the process.
        if type(error).__name__ != "TerminatedWorkerError":
            _refuse_unsendable("function or tasks", error)
        raise WorkerDied(workers) from None


def _pool(jobs: int, engine: str | None) -> tuple[Any, int]:
    """joblib's object for parallel work, and how many tasks it works on at once."""
    joblib = optional("joblib", "jobs", _ADVICE)
    if engine == _RAY:
        advice = "pip install ray, or leave the engine out for processes of joblib's own"
        optional("ray.util.joblib", "engine", advice).register_ray()
    chosen = {} if engine is None else {"backend": engine}
    try:
        with joblib.parallel_config(**chosen):
            backend, _ = joblib.parallel.get_active_backend()
            how = "generator_unordered" if backend.supports_return_generator else "list"
            pool = joblib.Parallel(n_jobs=jobs, batch_size=1, return_as=how)
            return pool, joblib.effective_n_jobs(jobs)
    except (ValueError, ImportError, KeyError) as error:
        words = " ".join(str(error).split()) or type(error).__name__
        checks.refuse("engine", "a backend of joblib that is installed", repr(engine), words)


def _alone(function: Callable[[Task], Result], task: Task, parent: int) -> Result:
    """The same in another process, which ends with the one that it works for."""
    if os.getppid() == parent and not _watching:
        _watching.append(parent)
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    return _with_one_thread(function, task)


def _watch(parent: int) -> None:
    """Ends this process once its parent has been killed; it would wait for work for minutes."""
    while os.getppid() == parent:
        time.sleep(_BETWEEN_LOOKS)
    os._exit(1)


def _with_one_thread(function: Callable[[Task], Result], task: Task) -> Result:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return function(task)
    finally:
        torch.set_num_threads(before)
