"""One-line messages for errors and wrong results of a user's functions during training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cai import checks

_FAULTS = (ArithmeticError, AttributeError, LookupError, NameError, RuntimeError, TypeError)


@contextmanager
def raising(name: str, expected: str, advice: str) -> Iterator[None]:
    """A context that raises ValueError in place of a faulty function's error; others pass.

    Args:
        name: the name of the argument.
        expected: what it should be.
        advice: what to try.
    """
    try:
        yield
    except FloatingPointError:
        raise  # a numerical error, which has its own message
    except _FAULTS as error:
        words = " ".join(str(error).split())[:200]
        came = f"one that raised {type(error).__name__}: {words}"
        try:
            checks.refuse(name, expected, came, advice)
        except ValueError as refused:
            raise refused from error


class Guarded:
    """A user's estimator, with checks of its errors and results.

    It has the attributes of the estimator, such as a ``module`` that it trains.
    """

    def __init__(self, estimate: Any) -> None:
        self._estimate = estimate

    def __call__(self) -> float:
        """-ELBO in nats."""
        expected, advice = "one that returns -ELBO in nats", "see inference.critic_gradient"
        with raising("estimator", expected, advice):
            loss = self._estimate()
        if not checks.within(loss, lambda _: True):
            checks.refuse("estimator", expected, type(loss).__name__, advice)
        return float(loss)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._estimate, name)
