"""Resumes a training from a checkpoint, after checking that it is the same training."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from cai import checks
from cai.evaluation.problem import Problem
from cai.inference.fitting import _identity, checkpoint_file
from cai.inference.fitting.training import Training, generators, rates_of, set_generators
from cai.tables.table import Table

_ODD = (LookupError, TypeError, AttributeError, RuntimeError, ValueError, NotImplementedError)


@dataclass
class Resumption:
    """The checkpoint of a training, with all that a resumed run must have in common.

    Attributes:
        file: the path of the checkpoint.
        settings: name -> plain value.
        problem: the problem that is fitted.
        table: its table, if it has one.
        temperature: (step, previous α) -> α of the resumed run.
        identity: identifies the problem, see :mod:`cai.inference.fitting._identity`.
    """

    file: Path
    settings: dict[str, Any]
    problem: Problem
    table: Table | None
    temperature: Callable[[int, float], float]
    identity: dict[str, Any] = field(default_factory=dict)

    def load(self, run: Training) -> None:
        """Restores a run, and torch's generators, from the file, if there is one.

        Raises:
            ValueError: if the file is from another training, or cannot be resumed.
        """
        state = checkpoint_file.read(self.file, self.settings)
        checkpoint_file.remove_unfinished(self.file)
        if state is None:
            self.identity = _identity.identity(self.problem, self.table)
            return
        try:
            self.identity = state["problem"]
            other = _identity.difference(self.identity, self.problem, self.table)
            other = other or self._other_schedule(run, state["run"])
            if not other:
                _check_whole(state["run"])
                run.load_state_dict(state["run"])
                set_generators(state["generators"])
                said = _identity.answers(run.policy, self.identity)
                if not _identity.same_answers(said, state["answers"]):
                    other = "policy"
        except _ODD as error:
            words = f"a state that does not fit ({type(error).__name__}: {_one_line(error)})"
            checkpoint_file.refuse_file(self.file, words)
        if other:
            now, _, then = other.partition(" | ")
            expected = f"with {now}" if then else f"with the same {now}"
            checkpoint_file.refuse_run(self.file, expected, f"with {then or f'another {now}'}")

    def keep(self, run: Training) -> None:
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
            checkpoint_file.write(self.file, self.settings, state)
        except OSError as error:
            where, came = f"checkpoint {self.file}", f"{error}"
            checks.refuse(where, "room to write", came, "mend it and go on")

    def _other_schedule(self, run: Training, kept: dict[str, Any]) -> str:
        """The first past step whose temperature or rate differs now, in words; or empty."""
        alpha = run.temperature
        for step, then in enumerate(kept["alphas"].tolist()):
            try:
                alpha = self.temperature(step, alpha)
            except Exception:  # a schedule that cannot be called for past steps is not compared
                continue
            if not math.isclose(alpha, then, rel_tol=1e-9):
                return f"temperature({step}) = {alpha:g} | temperature({step}) = {then:g}"
        return _other_rates(run, kept)


def _check_whole(kept: dict[str, Any]) -> None:
    """Raises ValueError if there is NaN, or the counts are not numbers of steps."""
    n = len(kept["losses"])
    counted = isinstance(kept["settled"], int) and 0 <= kept["settled"] <= n
    if not counted or not isinstance(kept["resting"], bool):
        raise ValueError("wrong counts of steps")
    if any(len(kept[name]) != n for name in ("alphas", "rates")) or _holds_nan(kept):
        raise ValueError("NaN in it, or missing steps")


def _holds_nan(x: Any) -> bool:
    if isinstance(x, Tensor):
        return bool(x.isnan().any())
    if isinstance(x, dict | list | tuple):
        return any(map(_holds_nan, x.values() if isinstance(x, dict) else x))
    return isinstance(x, float) and math.isnan(x)


def _other_rates(run: Training, kept: dict[str, Any]) -> str:
    """The first step at which the schedule now gives other rates, or how its state differs.

    A copy of it runs through all past steps, with their losses.
    """
    try:
        optimizer, schedule = copy.deepcopy((run.optimizer, run.schedule))
    except Exception:  # a generator, for instance, cannot be copied
        return ""
    losses, rates = kept["losses"].tolist(), kept["rates"].tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the optimiser itself takes no steps here
        for step, (loss, then) in enumerate(zip(losses, rates, strict=True)):
            now = rates_of(optimizer)
            if not _same_values(now, then):
                return f"rate({step}) = {_short(now)} | rate({step}) = {_short(then)}"
            if isinstance(schedule, ReduceLROnPlateau):
                schedule.step(loss)
            else:
                schedule.step()
    groups = optimizer.state_dict()["param_groups"]
    if not _same_values(groups, kept["optimizer"]["param_groups"]):
        return "optimizer"
    return "" if _same_values(schedule.state_dict(), kept["schedule"]) else "schedule"


def _same_values(one: Any, other: Any) -> bool:
    """Whether two states hold the same values under the names that both have."""
    if isinstance(one, dict) and isinstance(other, dict):
        return all(_same_values(one[name], other[name]) for name in one.keys() & other.keys())
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same_values, one, other))
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        one, other = (torch.as_tensor(x, dtype=torch.float64) for x in (one, other))
        return one.shape == other.shape and torch.allclose(one, other, 1e-9, 0.0, equal_nan=True)
    numbers = isinstance(one, int | float) and isinstance(other, int | float)
    return math.isclose(one, other, rel_tol=1e-9) if numbers else bool(one == other)


def _short(rates: list[float]) -> str:
    return ", ".join(f"{rate:g}" for rate in rates)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
