"""How often the file changes when one follows a call through this library, for five states.

Run ``python -m benchmarks.file_changes`` from the root of the repository. Each call of a function
of this library is traced, and a change is counted if its file differs from that of the call before.
``files`` is the number of files on the way. With ``--way posterior`` it prints the way.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pyro.distributions as dist
import torch

import cai
from cai import TrajectoryModel, inference, models

_FOLDERS = tuple(os.path.dirname(package.__file__ or "") for package in (cai, inference, models))


def corridor() -> TrajectoryModel:
    """Five states in a row, where a step to the right may fail, as a user would write it."""
    p_right = torch.tensor([0.0, 0.9])
    rows = torch.eye(5)

    def dynamics(s: Any, a: Any) -> dist.Categorical:
        p = p_right[a].unsqueeze(-1)
        return dist.Categorical((1 - p) * rows[s] + p * rows[(s + 1).clamp(max=4)])

    return TrajectoryModel(
        initial=dist.Categorical(torch.ones(5)),
        dynamics=dynamics,
        reward=lambda s, a: s / 4.0 - 1.0,
        action_prior=dist.Categorical(torch.ones(2)),
        horizon=6,
    )


def calls() -> dict[str, list[str]]:
    """What is traced: its name, and the file of each call of a function of this library."""
    model = corridor()
    methods = {"posterior": inference.posterior(model), "fit": _fit(model, "exact", 2)}
    return {
        "posterior": _files(lambda: inference.posterior(model)),
        "compare": _files(lambda: cai.compare(model, methods)),
        "step, exact": _step(model, "exact"),
        "step, score": _step(model, "score"),
    }


def _fit(model: TrajectoryModel, estimator: Any, steps: int) -> inference.Fit:
    policy = cai.TabularPolicy(model)
    return inference.fit(model, policy, estimator=estimator, steps=steps, progress=False)


def _step(model: TrajectoryModel, estimator: str) -> list[str]:
    """The second step of a fit: what three steps call before what two call last."""
    two, three = (_files(lambda n=n: _fit(model, estimator, n)) for n in (2, 3))
    same = [a == b for a, b in zip(two, three, strict=False)]
    start = same.index(False)
    return three[start : start + len(three) - len(two)]


def _files(call: Callable[[], object]) -> list[str]:
    found: list[str] = []

    def record(frame: FrameType, event: str, _: Any) -> None:
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(_FOLDERS):
            found.append(file)

    call()  # what is done the first time alone does not count
    sys.setprofile(record)
    try:
        call()
    finally:
        sys.setprofile(None)
    return found


def main() -> None:
    """Prints the table, or one way."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--way", help="the call whose way is printed, file after file")
    chosen = parser.parse_args().way
    found = calls()
    if chosen is not None:
        for file, times in itertools.groupby(found[chosen]):
            print(f"{len(list(times)):4} {Path(file).relative_to(Path.cwd())}")
        return
    print("call          changes  files  calls")
    for name, files in found.items():
        changes = sum(1 for _ in itertools.groupby(files))
        print(f"{name:12} {changes:8} {len(set(files)):6} {len(files):6}")


if __name__ == "__main__":
    main()
