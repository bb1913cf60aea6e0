"""A solution of 50 000 states over 100 steps, saved and loaded, against writing its bytes.

The reference writes the memory of the same arrays into one file and asks the system to put it on
the disk, as saving does. Loading checks the checksums and the numbers of the table besides.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import cai
from benchmarks.timing import Race
from cai import inference, models

_S, _A, _K, _T = 50_000, 2, 3, 100
_FOLDER = tempfile.TemporaryDirectory()


def saved() -> Race:
    solution, path = _solution(), Path(_FOLDER.name, "saved.pt")
    cai.save(solution, path)
    if not cai.load(path).V.equal(solution.V):
        raise ArithmeticError("files: what was loaded is not what was saved")
    return _race("files, save", solution, lambda: cai.save(solution, path))


def loaded() -> Race:
    solution, path = _solution(), Path(_FOLDER.name, "loaded.pt")
    cai.save(solution, path)
    return _race("files, load", solution, lambda: cai.load(path))


def _race(name: str, solution: cai.Solution, ours: Callable[[], object]) -> Race:
    held = [*vars(solution.table).values(), solution.log_values]
    arrays = [x.numpy() for x in held if isinstance(x, torch.Tensor)]

    def theirs() -> None:
        with Path(_FOLDER.name, "bytes").open("wb") as file:
            for x in arrays:
                file.write(np.ascontiguousarray(x).data)
            file.flush()
            os.fsync(file.fileno())

    sizes = f"S={_S} T={_T}, {sum(x.nbytes for x in arrays) / 1e6:.0f} MB"
    return Race(
        name=name,
        sizes=sizes,
        reference="writing the bytes",
        ours=ours,
        theirs=theirs,
        target=0.5,
    )


def _solution() -> cai.Solution:
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(_K), size=(_S, _A))
    to = (
        np.arange(_S)[:, None, None] + rng.integers(1, _S // _K, size=(_S, _A, _K)).cumsum(-1)
    ) % _S
    model = models.tabular(p, rng.normal(size=(_S, _A)), horizon=_T, successors=to)
    found = inference.soft_values(model)
    assert isinstance(found, cai.Solution)
    return found
