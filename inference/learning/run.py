"""A learner in the loop of ``fit``: what it steps, and what its checkpoint holds."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from torch import nn

from cai import checks
from cai.evaluation.problem import as_problem
from cai.inference.fitting import checkpoint_file
from cai.inference.fitting.descent import temperature_at
from cai.inference.fitting.loop import train
from cai.inference.fitting.resumption import Resumption, settings_of
from cai.inference.learning.automatic_temperature import AutomaticTemperature
from cai.inference.learning.learned import Learned, LearningStopped
from cai.inference.learning.records import History
from cai.inference.learning.stepped import Stepped
from cai.progress.callback import CallbackFailed

_NO_SETTINGS = {"source", "temperature", "checkpoint", "every", "callback", "progress"}
_ASKED = 100  # temperatures of a run that its file keeps


class State(Protocol):
    """The state of a learner.

    Attributes:
        taken: the number of transitions so far.
        alpha: the temperature α.
    """

    taken: int
    alpha: float


class Keeps(Protocol):
    """A part of a run whose state a checkpoint holds: a network, an optimiser, the copies."""

    def state_dict(self) -> Mapping[str, Any]:
        """The state, of tensors and plain values."""

    def load_state_dict(self, state: Any) -> Any:
        """Goes on from a state."""


@dataclass(eq=False)
class Learning:
    """A learner in progress, see :class:`cai.inference.fitting.resumption.Resumable`.

    Attributes:
        verb: the name of the function.
        total: the number of transitions after which it ends.
        state: the state of the learner.
        temperature: a function (transitions so far) -> α; None for the same α throughout; or one
            that adapts.
        once: takes some transitions and learns from them.
        history: the records, part of the checkpoint.
        stepped: the problem and its copies, which are part of the checkpoint.
        parts: name -> a further part of the checkpoint.
        learned: the result so far.
        policy: the policy that is trained, or None.
        cut: where new episodes begin on resumption, ends those that the learner remembers.
        alphas: (transitions before, α) of some of the steps.
    """

    verb: str
    total: int
    state: State
    temperature: Callable[[int], float] | AutomaticTemperature | None
    once: Callable[[], None]
    history: History
    stepped: Stepped
    parts: dict[str, Keeps]
    learned: Callable[[], Learned]
    policy: nn.Module | None = None
    cut: Callable[[], None] | None = None
    alphas: list[tuple[int, float]] = field(default_factory=list)
    outcome = "the latest"

    def __post_init__(self) -> None:
        self.parts = {**self.parts, "history": self.history, "copies": self.stepped.copies}
        self.restarts = self.stepped.copies.restarts
        if isinstance(self.temperature, AutomaticTemperature):
            self.temperature.check(self.stepped.most_nats())

    def run(
        self,
        arguments: dict[str, Any],
        checkpoint: str | os.PathLike[str] | None,
        every: int,
        progress: bool,
    ) -> Learned:
        """Learns to the end, or to an interrupt, resuming from the checkpoint if it exists.

        Args:
            arguments: those of the learner, which a resumed run must have in common.
            checkpoint: the path of a file, or None.
            every: the number of transitions between checkpoints.
            progress: whether to show a progress bar on a terminal.

        Raises:
            ValueError: if the file cannot be resumed from.
            LearningStopped: if a step failed.
        """
        checks.check_count("every", every)
        kept = None
        if checkpoint is not None:
            given = {name: x for name, x in arguments.items() if name not in _NO_SETTINGS}
            settings = self.stepped.settings() | settings_of(given)
            if isinstance(self.temperature, AutomaticTemperature):
                settings["target"] = repr(self.temperature)
            problem = as_problem(self.stepped.problem, sampled=True)
            table = None if checks.can_only_be_sampled(problem.model) else problem.table
            kept = Resumption(checkpoint_file.check(checkpoint), settings, problem, table)
        train(self, kept, every, progress)
        learned = self.learned()
        return replace(learned, stopped=True) if self.stopped else learned

    @property
    def done(self) -> int:
        """The number of transitions so far."""
        return self.state.taken

    def over(self) -> bool:
        """Whether all transitions were taken, or the callback ended the run."""
        return self.done >= self.total or self.stopped

    @property
    def stopped(self) -> bool:
        """Whether the callback ended the run."""
        return self.history.stopped

    def step(self) -> None:
        """Takes some transitions and learns from them.

        Raises:
            LearningStopped: if that failed, and something was learnt before.
        """
        taken = self.done
        try:
            self.state.alpha = self._alpha(taken)
            if _ASKED * taken >= len(self.alphas) * self.total:
                self.alphas.append((taken, self.state.alpha))
            self.once()
            if isinstance(self.temperature, AutomaticTemperature):
                after = self.temperature.after(self.state.alpha, self.history.divergence)
                self.state.alpha = after
        except (ArithmeticError, ValueError, RuntimeError) as error:
            if not self.done:
                raise
            words = str(error).removeprefix(f"{self.verb}: ")
            learned = self.learned()
            raise LearningStopped(self.verb, self.done, self.total, words, learned) from error
        try:
            self.history.tell()
        except CallbackFailed as error:
            learned = self.learned()
            raise LearningStopped(self.verb, self.done, self.total, str(error), learned) from error

    def _alpha(self, taken: int) -> float:
        function = None if isinstance(self.temperature, AutomaticTemperature) else self.temperature
        return temperature_at(function, taken, self.state.alpha)

    def shown(self) -> str:
        """The latest record, for the progress bar."""
        return self.history.shown()

    def differs(self, kept: dict[str, Any]) -> str:
        """The first past step whose temperature differs now, in words; or empty.

        Raises:
            ValueError: if there is NaN where a learner has none.
        """
        if checkpoint_file.holds_nan([kept[name] for name in self.parts if name != "history"]):
            raise ValueError("NaN in it")
        if isinstance(self.temperature, AutomaticTemperature):
            return ""  # its settings are compared, and what it found goes on
        for taken, then in kept["alphas"]:
            now = self._alpha(taken)
            if not math.isclose(now, then, rel_tol=1e-9):
                return f"temperature({taken}) = {now:g} | temperature({taken}) = {then:g}"
        return ""

    def state_dict(self) -> dict[str, Any]:
        """The state from which :meth:`load_state_dict` continues."""
        parts = {name: dict(part.state_dict()) for name, part in self.parts.items()}
        run = {"taken": self.state.taken, "alpha": self.state.alpha, "alphas": self.alphas}
        return run | parts

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the run from a state."""
        self.state.taken, self.state.alpha = state["taken"], state["alpha"]
        self.alphas = state["alphas"]
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        if self.restarts:
            self.history.cut()
            if self.cut is not None:
                self.cut()
