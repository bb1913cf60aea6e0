"""The latest transitions, from which segments are drawn again and again (Mnih et al. 2015)."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cai import checks
from cai.inference.fitting import checkpoint_file
from cai.numerics import memory
from cai.stepping.source import Transition


class Replay:
    """A memory of fixed size, in rows of one transition for each copy; the oldest are overwritten.

    Its part of a checkpoint is a folder beside it, ``NAME.replay``, in which each file holds the
    rows since the checkpoint before, so that no row is written twice. A file is deleted once the
    checkpoint on the disk no longer needs it.

    Args:
        size: how many transitions are kept.
        num_envs: the number of copies.
        length: n, the number of steps in a segment.
        file: the checkpoint of the run, or None.

    Attributes:
        written: how many rows were added so far.

    Raises:
        ValueError: if there would be no room for them.
    """

    def __init__(self, size: int, num_envs: int, length: int, file: Path | None = None) -> None:
        self.size = max(size // num_envs, length)
        self.length, self.written = length, 0
        self._columns: tuple[Tensor, ...] = ()
        self._folder = None if file is None else file.with_name(f"{file.name}.replay")
        self._run = os.urandom(8).hex()
        self._chunks: list[tuple[int, int]] = []

    def add(self, transition: Transition) -> None:
        """Adds a transition of each copy.

        Raises:
            ValueError: if a reward is -inf, from which no network learns.
        """
        if transition.reward.isneginf().any():
            advice = "take a large penalty, or soft_q with a table (hidden=None)"
            checks.refuse("reward", "finite ones for a network", "-inf", advice)
        if not self._columns:
            self._columns = self._allocated(transition)
        row = self.written % self.size
        for column, values in zip(self._columns, transition, strict=True):
            column[row] = values
        self.written += 1

    def _allocated(self, transition: Transition) -> tuple[Tensor, ...]:
        numbers = self.size * sum(x.numel() for x in transition)
        what = f"{self.size * len(transition.reward)} transitions of {numbers} numbers in all"
        memory.check_fits("replay", what, numbers, "a smaller number")
        return tuple(x.new_zeros(self.size, *x.shape) for x in transition)

    def cut(self) -> None:
        """Ends all episodes after the latest row, since others begin."""
        if self.written:
            row, columns = (self.written - 1) % self.size, Transition(*self._columns)
            columns.cut[row] = ~columns.ended[row]

    def draw(self, batch: int) -> list[Transition] | None:
        """Segments of consecutive steps of a copy, drawn uniformly; None if there is none yet."""
        oldest = max(self.written - self.size, 0)
        starts = self.written - oldest - self.length + 1
        if starts < 1:
            return None
        n = self._columns[0].shape[1]
        return self._segments(oldest * n + torch.randint(starts * n, (batch,)))

    def latest(self) -> list[Transition] | None:
        """The segments that end with the latest step, one for each copy; None if too short."""
        first = self.written - self.length
        if first < 0:
            return None
        n = self._columns[0].shape[1]
        return self._segments(first * n + torch.arange(n))

    def _segments(self, first: Tensor) -> list[Transition]:
        """Segments by the number, row n + copy, of the first of their transitions."""
        n, all_rows = self._columns[0].shape[1], [x.flatten(0, 1) for x in self._columns]
        places = [(first + d * n) % (self.size * n) for d in range(self.length)]
        return [Transition(*(x.index_select(0, i) for x in all_rows)) for i in places]

    def state_dict(self) -> dict[str, Any]:
        """Writes the new rows beside the checkpoint, and returns the names of all that it needs."""
        self._delete_others()
        done = self._chunks[-1][1] if self._chunks else 0
        oldest = max(self.written - self.size, 0)
        first = max(done, oldest)
        if first < self.written:
            index = torch.arange(first, self.written) % self.size
            rows = {"columns": [x[index] for x in self._columns]}
            path = self._chunk(first, self.written)
            path.parent.mkdir(exist_ok=True)
            checkpoint_file.write(path, {"run": self._run}, rows, "soft_q")
            self._chunks.append((first, self.written))
        self._chunks = [chunk for chunk in self._chunks if chunk[1] > oldest]
        return {"written": self.written, "run": self._run, "chunks": list(self._chunks)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Reads the rows from the files beside the checkpoint.

        Raises:
            ValueError: if one of them is missing, damaged, or of another run.
        """
        self.written, self._run = state["written"], state["run"]
        self._chunks = [tuple(chunk) for chunk in state["chunks"]]
        for first, last in self._chunks:
            path = self._chunk(first, last)
            rows = checkpoint_file.read(path, {"run": self._run}, "soft_q")
            if rows is None:
                advice = "move the file and the folder of a run together"
                checks.refuse("checkpoint", f"a replay memory in {path.parent}", "none", advice)
            if not self._columns:
                self._columns = tuple(x.new_zeros(self.size, *x.shape[1:]) for x in rows["columns"])
            index = torch.arange(first, last) % self.size
            for column, values in zip(self._columns, rows["columns"], strict=True):
                column[index] = values

    def _chunk(self, first: int, last: int) -> Path:
        assert self._folder is not None
        return self._folder / f"{first}-{last}.pt"

    def _delete_others(self) -> None:
        """Deletes files of rows that the checkpoint on the disk does not need."""
        assert self._folder is not None
        needed = {self._chunk(*chunk).name for chunk in self._chunks}
        for path in self._folder.iterdir() if self._folder.is_dir() else ():
            if re.match(r"\.?\d+-\d+\.pt", path.name) and path.name not in needed:
                path.unlink()
