"""The training loop: when it ends, its progress bar, and its handling of interrupts."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from tqdm import tqdm

from cai import checks
from cai.inference.fitting.resumption import Resumption
from cai.inference.fitting.training import WINDOW, Training, generators, set_generators
from cai.inference.gradients.guarded import raising
from cai.numerics.exclusive import exclusive
from cai.tables.table import Table


@dataclass(frozen=True)
class Budget:
    """The length of a training, its temperatures, and its interval between checkpoints.

    Attributes:
        steps: the maximum number of steps.
        tolerance: by how much the mean loss has to fall, see :meth:`plateau`.
        temperature: step -> α; None for the same at every step.
        every: steps from one checkpoint to the next.
    """

    steps: int
    tolerance: float
    temperature: Callable[[int], float] | None
    every: int

    def at(self, step: int, otherwise: float) -> float:
        """α at a step.

        Raises:
            ValueError: if it is not a number above zero.
        """
        if self.temperature is None:
            return otherwise
        if not callable(self.temperature):
            checks.refuse(
                "temperature",
                "a function step -> α",
                repr(self.temperature),
                "for one α give it to the model: dataclasses.replace(model, temperature=0.5)",
            )
        example = "for instance lambda step: max(0.1, 0.99**step)"
        with raising("temperature", "a function step -> α", example):
            alpha = self.temperature(step)
        checks.check_positive(f"temperature({step})", alpha)
        return float(alpha)

    def converged(self, run: Training) -> bool:
        """Whether the losses no longer fall, at the final temperature."""
        if self.at(self.steps - 1, run.temperature) != run.temperature:
            return False
        return run.resting if run.natural else self.plateau(run)

    def plateau(self, run: Training) -> bool:
        """Whether the mean loss of the last fifth of the steps is no lower than of the one before.

        By how much it has to be lower is relative to its size above one.
        """
        window = max(WINDOW, self.steps // 5)
        losses = run.losses[run.settled :]
        n = len(losses)
        if n < 2 * window or n % WINDOW:
            return False
        last = sum(losses[-window:]) / window
        before = sum(losses[-2 * window : -window]) / window
        return before - last < self.tolerance * max(1.0, abs(last))


def train(run: Training, budget: Budget, kept: Resumption | None, progress: bool) -> bool:
    """Trains until convergence, the end of the budget, or Ctrl-C; returns whether it converged.

    Raises:
        FloatingPointError, ValueError: from a step; torch's generator is restored to before it.
    """
    if kept is not None:
        kept.load(run)
    before = generators()
    with _ProgressBar(budget.steps, len(run.losses), progress) as bar, _interruptible() as asked:
        try:
            while len(run.losses) < budget.steps and not budget.converged(run):
                if asked.is_set():
                    bar.say("fit: interrupted, returning the best so far")
                    break
                run.anneal(budget.at(len(run.losses), run.temperature))
                before = generators()
                run.step()
                bar.update(run.losses)
                if kept is not None and len(run.losses) % budget.every == 0:
                    kept.keep(run)
        except KeyboardInterrupt:
            bar.say("fit: interrupted within a step, returning the best so far")
            return False
        except (FloatingPointError, ValueError):
            set_generators(before)
            raise
    if kept is not None:
        kept.keep(run)
    run.remember()
    return budget.converged(run)


def check_device(device: Any) -> torch.device:
    """The device to train on.

    Raises:
        ValueError: if there is no such device.
    """
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, TypeError, AssertionError, ValueError) as error:
        words = str(error).split("\n")[0]
        _refuse_device(device, words)
    if place.type not in ("cpu", "cuda"):
        _refuse_device(device, "other devices lack float64, which this needs")
    return place


def _refuse_device(device: Any, words: str) -> NoReturn:
    checks.refuse("device", '"cpu", or "cuda" where there is one', repr(device), words)


@contextlib.contextmanager
def seeded(seed: int, place: torch.device, table: Table | None) -> Iterator[None]:
    """A context for training: seeded generators, a suitable number of threads, the device.

    Other threads that sample wait until it ends.
    """
    devices = [place] if place.type == "cuda" else []
    with contextlib.ExitStack() as stack:
        stack.enter_context(exclusive())
        stack.enter_context(torch.random.fork_rng(devices=devices))
        torch.manual_seed(seed)
        if table is not None:
            stack.enter_context(table.threads())
        if place.type != "cpu":  # setting a default device slows every call of torch
            stack.enter_context(place)
        yield


class _ProgressBar:
    """The ELBO of the last step and its moving average, on a terminal."""

    def __init__(self, steps: int, done: int, shown: bool) -> None:
        disable = None if shown else True
        self._bar = tqdm(total=steps, initial=done, desc="fit", unit="step", disable=disable)

    def __enter__(self) -> _ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def update(self, losses: list[float]) -> None:
        """Shows one more step."""
        if not self._bar.disable and len(losses) % 10 == 0:
            recent = losses[-WINDOW:]
            mean = -sum(recent) / len(recent)
            text = f"ELBO {-losses[-1]:.4f} nats, mean of {len(recent)}: {mean:.4f}"
            self._bar.set_postfix_str(text, refresh=False)
        self._bar.update()

    def say(self, text: str) -> None:
        """Prints a separate line to standard error."""
        self._bar.write(text, file=sys.stderr)


@contextlib.contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets, so that the current step is completed; a second one interrupts it.

    In another thread, or under a handler that is not Python's, the event is never set.
    """
    asked, before = threading.Event(), signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield asked
        return

    def ask(*_: object) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
