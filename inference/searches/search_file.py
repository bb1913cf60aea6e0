"""The checkpoint file of a search."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cai import checks
from cai.demonstrations.demonstrations import Demonstrations
from cai.files.whole_file import remove_unfinished
from cai.inference.fitting import checkpoint_file
from cai.inference.fitting.resumption import Resumable
from cai.numerics.exclusive import generators, set_generators
from cai.tables.table import Table

_ODD = (LookupError, TypeError, AttributeError, RuntimeError, ValueError)


@dataclass
class SearchFile:
    """The file of a search, with all that a resumed search must have in common.

    Attributes:
        file: its path.
        settings: name -> plain value; of arrays their :func:`digest`.
        verb: the function that the search is a call of.
    """

    file: Path
    settings: dict[str, Any]
    verb: str

    def load(self, run: Resumable) -> bool:
        """Restores a search, and torch's generators; returns whether there is a file.

        Raises:
            ValueError: if the file is of another search, or cannot be read.
        """
        state = self.read()
        if state is None:
            return False
        try:
            run.load_state_dict(state["run"])
            set_generators(state["generators"])
        except _ODD as error:
            came = f"a state that does not fit ({type(error).__name__})"
            checkpoint_file.refuse_file(self.file, came, self.verb)
        return True

    def keep(self, run: Resumable) -> None:
        """Writes the file, in place of the one before.

        Raises:
            ValueError: if it cannot be written.
        """
        self.write({"run": run.state_dict(), "generators": generators()})

    def read(self) -> dict[str, Any] | None:
        """The state in the file, or None if there is no file.

        Raises:
            ValueError: if the file is of another search, or cannot be read.
        """
        state = checkpoint_file.read(self.file, self.settings, self.verb)
        remove_unfinished(self.file)
        return state

    def write(self, state: dict[str, Any]) -> None:
        """Writes tensors and plain values.

        Raises:
            ValueError: if it cannot be written.
        """
        try:
            checkpoint_file.write(self.file, self.settings, state, self.verb)
        except OSError as error:
            where = f"checkpoint {self.file}"
            checks.refuse(where, "room to write", f"{error}", "mend it and go on")


def digest(*held: Any) -> str:
    """A few letters that tell tensors, numbers and words apart from others."""
    found = hashlib.sha256()
    for x in held:
        if isinstance(x, Tensor):
            found.update(f"{list(x.shape)}".encode())
            flat = x.detach().cpu().double().contiguous()
            # Whether they are numbers or -inf is told, and the rest up to rounding.
            rounded = torch.where(flat.isfinite(), flat.round(decimals=9) + 0.0, flat)
            found.update(rounded.numpy().tobytes())
        else:
            found.update(repr(x).encode())
    return found.hexdigest()[:8]


def of_demonstrations(seen: Demonstrations) -> str:
    """What tells demonstrations from others."""
    found = digest(seen.states, seen.actions, seen.lengths, seen.ends, seen.groups)
    return f"{len(seen)} of {int(seen.lengths.sum())} actions, {found}"


def of_dynamics(table: Table) -> str:
    """What tells a problem from others, but for the rewards that are fitted."""
    held = (table.log_dynamics, table.log_prior, table.final_reward, table.successors)
    return digest(*held, table.horizon, float(table.temperature), float(table.discount))


def of_prior(prior: Any, k: int) -> str:
    """What tells priors apart: their densities at a few places, whatever they are made of."""
    if prior is None:
        return "none"
    found = []
    for scale in (0.0, 0.1, 1.0, 3.0):
        for sign in (1.0, -1.0):
            x = sign * scale * torch.linspace(0.5, 1.0, k, dtype=torch.float64)
            try:
                found.append(prior.log_prob(x).detach())
            except ValueError:  # outside its support
                found.append("none")
    return f"{type(prior).__name__} {digest(*found)}"
