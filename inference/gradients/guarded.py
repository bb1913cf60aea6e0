"""Functions that a user passes for training: what they raise, or return, is said in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cai import checks

_FAULTS = (ArithmeticError, AttributeError, LookupError, NameError, RuntimeError, TypeError)


@contextmanager
def raising(name: str, expected: str, advice: str) -> Iterator[None]:
    """Raises ValueError in place of what a faulty function raises; other exceptions go through.

    Args:
        name: of the argument.
        expected: what it should have been.
        advice: what to try.
    """
    try:
        yield
    except FloatingPointError:
        raise  # a matter of numbers, which has words of its own
    except _FAULTS as error:
        words = " ".join(str(error).split())[:200]
        came = f"one that raised {type(error).__name__}: {words}"
        try:
            checks.refuse(name, expected, came, advice)
        except ValueError as refused:
            raise refused from error


class Guarded:
    """An estimator of the user's, whose errors are told and whose answers are numbers.

    Attributes of the estimator, such as a ``module`` that it trains, are found here, too.
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
