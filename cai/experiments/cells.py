"""One cell of a sweep: a model, one method on it, one seed; and what is written of it."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyro
from pyro.util import get_rng_state, set_rng_state

from cai import installation
from cai.evaluation.comparison import compare
from cai.evaluation.spelling import without_infinities
from cai.experiments.error_words import in_words
from cai.experiments.function_identity import described
from cai.experiments.grid import Plain, canonical
from cai.numerics.exclusive import seeded

DONE, FAILED, KILLED = "done", "failed", "killed"
_DIGITS = 24  # of a key, each of four bits


@dataclass(frozen=True)
class Cell:
    """What is to be done.

    Attributes:
        key: a hash of the model, the method, the seed and the point.
        point: argument of the factory -> value.
        method: name of the method.
        seed: seed of all generators, and of the method if it takes one.
    """

    key: str
    point: dict[str, Plain]
    method: str
    seed: int


@dataclass(frozen=True)
class Study:
    """The functions of a sweep, as they are sent to other processes.

    Attributes:
        factory: makes the model of a point.
        methods: name -> function from a model to a solution, a fit or a policy.
    """

    factory: Callable[..., Any]
    methods: Mapping[str, Callable[..., Any]]

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """What the functions are, in plain values, by the names "factory" and "methods"."""
        methods = {name: described(method) for name, method in self.methods.items()}
        return {"factory": described(self.factory), "methods": methods}

    def check(self) -> None:
        """Raises ValueError unless plain values tell the functions from all others."""
        described(self.factory, "factory")
        for name, method in self.methods.items():
            described(method, f"methods[{name!r}]")

    def cell(self, point: dict[str, Plain], method: str, seed: int) -> Cell:
        """A cell with its key, which does not depend on the order of anything."""
        what = {
            "factory": self.identity["factory"],
            "method": [method, self.identity["methods"][method]],
            "seed": seed,
            "point": {name: canonical(value) for name, value in point.items()},
        }
        text = json.dumps(what, sort_keys=True, allow_nan=False)
        key = hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
        return Cell(key, point, method, seed)

    def run(self, cell: Cell) -> dict[str, Any]:
        """The line of a cell: what it was, how it ended, and its row of the comparison.

        Errors are words in the line; Ctrl-C alone is raised.
        """
        begun = time.perf_counter()
        try:
            with _fresh(cell.seed):
                model = self.factory(**cell.point)
                method = self.methods[cell.method]
                given = {"seed": cell.seed} if _takes_a_seed(method) else {}
                report = compare(model, {cell.method: method(model, **given)}).to_dict()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit is one, which a user's code may raise
            seconds = time.perf_counter() - begun
            return line(cell, FAILED, error=in_words(error), seconds=seconds)
        seconds = time.perf_counter() - begun
        row = {"log_evidence": report["log_evidence"], **report["rows"][cell.method]}
        return line(cell, DONE, row=row, seconds=seconds)


def line(
    cell: Cell,
    outcome: str,
    *,
    row: dict[str, float | None] | None = None,
    error: str | None = None,
    seconds: float | None = None,
) -> dict[str, Any]:
    """What is written of a cell, in values that JSON has: infinities are texts."""
    return {
        "key": cell.key,
        "outcome": outcome,
        "point": without_infinities(cell.point),
        "method": cell.method,
        "seed": cell.seed,
        "row": without_infinities(row),
        "error": error,
        "seconds": seconds,
        "version": installation.version(),
    }


def _takes_a_seed(method: Callable[..., Any]) -> bool:
    """Whether a method has an argument ``seed`` that is still open."""
    try:
        found = inspect.signature(method).parameters.get("seed")
    except (TypeError, ValueError):  # of a builtin
        return False
    fixed = isinstance(method, functools.partial) and "seed" in method.keywords
    return found is not None and found.kind is not found.VAR_KEYWORD and not fixed


@contextlib.contextmanager
def _fresh(seed: int) -> Iterator[None]:
    """A context in which nothing is left of earlier cells: seeded generators, no parameters."""
    with seeded(seed), pyro.get_param_store().scope():
        before = get_rng_state()
        try:
            pyro.set_rng_seed(seed)
            yield
        finally:
            set_rng_state(before)
