"""Resumes a run from a checkpoint, after checking that it is the same run."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from cai import checks
from cai.evaluation.problem import Problem
from cai.files.whole_file import remove_unfinished
from cai.inference.fitting import _identity, _policies, checkpoint_file
from cai.inference.fitting._described import described
from cai.numerics.exclusive import generators, set_generators
from cai.tables.table import Table

_ODD = (LookupError, TypeError, AttributeError, RuntimeError, ValueError, NotImplementedError)


class Resumable(Protocol):
    """What the loop steps and a file keeps: a training of ``fit``, or a learner and its copies."""

    @property
    def verb(self) -> str:
        """The function that it is a call of."""

    @property
    def outcome(self) -> str:
        """What is there after an interrupt, "the best" or "the latest"."""

    @property
    def restarts(self) -> str:
        """What begins anew where a file is gone on from; empty if nothing does."""

    @property
    def policy(self) -> Any:
        """As it is now; None where its parameters alone say what it does."""

    @property
    def done(self) -> int:
        """How much of the total was done."""

    @property
    def total(self) -> int:
        """Steps of a fit, or transitions."""

    def over(self) -> bool:
        """Whether there is nothing left to do."""

    def step(self) -> None:
        """Goes on, so far as cannot be interrupted."""

    def shown(self) -> str:
        """What the progress bar says."""

    def differs(self, kept: dict[str, Any]) -> str:
        """What tells a kept state from one of this run, "now | then"; empty where nothing does."""

    def state_dict(self) -> dict[str, Any]:
        """What ``load_state_dict`` takes to go on from here: tensors and plain values."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts the run where it was when the state was taken."""


class Checkpoint(Protocol):
    """A file that keeps a run."""

    def load(self, run: Resumable) -> bool:
        """Restores a run from the file; returns whether there is one."""

    def keep(self, run: Resumable) -> None:
        """Writes the file."""


@dataclass
class Resumption:
    """The checkpoint of a run, with all that a resumed run must have in common.

    Attributes:
        file: the path of the checkpoint.
        settings: name -> plain value.
        problem: the problem that is fitted, or learnt from.
        table: its table, if it has one.
        identity: identifies the problem, see :mod:`cai.inference.fitting._identity`.
    """

    file: Path
    settings: dict[str, Any]
    problem: Problem
    table: Table | None
    identity: dict[str, Any] = field(default_factory=dict)

    def load(self, run: Resumable) -> bool:
        """Restores a run, and torch's generators, from the file; returns whether there is one.

        Raises:
            ValueError: if the file is from another run, or cannot be resumed.
        """
        state = checkpoint_file.read(self.file, self.settings, run.verb)
        remove_unfinished(self.file)
        if state is None:
            self.identity = _identity.identity(self.problem, self.table)
            return False
        try:
            self.identity = state["problem"]
            other = _identity.difference(self.identity, self.problem, self.table)
            other = other or run.differs(state["run"])
            if not other:
                run.load_state_dict(state["run"])
                set_generators(state["generators"])
                said = _identity.answers(run.policy, self.identity)
                if not _identity.same_answers(said, state["answers"]):
                    other = "policy"
        except _ODD as error:
            words = f"a state that does not fit ({type(error).__name__}: {_one_line(error)})"
            checkpoint_file.refuse_file(self.file, words, run.verb)
        if other:
            now, _, then = other.partition(" | ")
            expected = f"with {now}" if then else f"with the same {now}"
            came = f"with {then or f'another {now}'}"
            checkpoint_file.refuse_run(self.file, expected, came, run.verb)
        return True

    def keep(self, run: Resumable) -> None:
        """Writes the checkpoint.

        Raises:
            ValueError: if it cannot be written.
        """
        state = {
            "run": run.state_dict(),
            "generators": generators(),
            "problem": self.identity,
            "answers": _identity.answers(run.policy, self.identity),
        }
        try:
            checkpoint_file.write(self.file, self.settings, state, run.verb)
        except OSError as error:
            where, came = f"checkpoint {self.file}", f"{error}"
            checks.refuse(where, "room to write", came, "mend it and go on")


def copy_of(policy: nn.Module) -> nn.Module:
    """A copy whose parameters do not share memory, so that they can be restored."""
    own = copy.deepcopy(policy)
    for tensor in (*own.parameters(), *own.buffers()):
        tensor.data = tensor.data.contiguous()
    return own


def settings_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a call as plain values, by which a run is told from another.

    Functions are described by their code, and policies by the shapes of their parameters.
    """
    return {name: _plain(value) for name, value in given.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, nn.Module):
        return _policies.described(value)
    if callable(value):
        return described(value)
    return value.item() if hasattr(value, "item") else value  # of NumPy


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
