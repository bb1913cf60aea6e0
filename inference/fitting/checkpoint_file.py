"""The checkpoint file of a run: written atomically, and checked when it is read."""

from __future__ import annotations

import hashlib
import math
import pickle
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from cai import checks
from cai.files.whole_file import check_path, write_whole

_VERSION = 2


def write(path: Path, settings: dict[str, Any], state: dict[str, Any], verb: str = "fit") -> None:
    """Writes the state of a run into a file, replacing its previous content.

    It is written beside it and then renamed, so that a crash leaves the old file or the new one.

    Args:
        path: the path of the file.
        settings: plain values that a resumed run must have in common.
        state: tensors and plain values.
        verb: the name of the function that writes the file; no other reads it.

    Raises:
        ValueError: if there is anything else among them, which could not be read again.
    """
    content = {
        "format": f"cai.inference.{verb}, {_VERSION}",
        "settings": settings,
        "state": _plain(state),
    }
    content["digest"] = _digest(content)
    # Whether it can be read again is checked once per run, at its beginning.
    check = None if path.exists() else partial(_check_readable, path)
    write_whole(path, partial(torch.save, content), check)


def _digest(value: Any) -> str:
    """SHA-256 of plain values and tensors, to detect damage, which torch does not check."""
    found = hashlib.sha256()

    def add(x: Any) -> None:
        if isinstance(x, Mapping):
            found.update(f"{{{len(x)}".encode())
            for key, inner in x.items():
                add(key)
                add(inner)
        elif isinstance(x, list | tuple):
            found.update(f"[{len(x)}".encode())
            for inner in x:
                add(inner)
        elif isinstance(x, Tensor):
            found.update(f"{x.dtype}{list(x.shape)}".encode())
            flat = x.detach().cpu().contiguous().flatten()
            if len(flat):  # an empty one may have no strides
                found.update(flat.view(torch.uint8).numpy().tobytes())
        else:
            found.update(repr(x).encode())

    add(value)
    return found.hexdigest()


def _plain(value: Any) -> Any:
    """The same with Python numbers in place of NumPy's, which could not be read again."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_plain, value))
    return value.item() if isinstance(value, np.generic) else value


def _check_readable(path: Path, unfinished: Path) -> None:
    try:
        torch.load(unfinished, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"checkpoint {path}: expected a state of plain values and tensors, got something else "
            "in the optimizer's, the schedule's or the estimator's: "
            + " ".join(str(error).split())[:200]
            + "; take another, or fit without a checkpoint"
        ) from None


def read(path: Path, settings: dict[str, Any], verb: str = "fit") -> dict[str, Any] | None:
    """The state in a file; None if there is no file yet.

    Only tensors and plain values are read, so that a foreign file cannot run code.

    Raises:
        ValueError: if the file is truncated, is not a checkpoint of this function, or is from a
            run with other settings.
    """
    if not path.exists():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle, end of file: torch raises errors of many types
        refuse_file(
            path, f"a file that cannot be read ({type(error).__name__}), or only half", verb
        )
    written = isinstance(content, dict) and str(content.get("format"))
    name, _, version = (written or "").partition(", ")
    if name != f"cai.inference.{verb}":
        other = name.removeprefix("cai.inference.")
        refuse_file(path, f"one of {other}" if other != name else "a file of something else", verb)
    if version != str(_VERSION):
        refuse_file(path, f"one of another version of {verb}", verb)
    if not all(isinstance(content.get(x), dict) for x in ("settings", "state")):
        refuse_file(path, "one that lacks something", verb)
    if content.pop("digest", None) != _digest(content):
        refuse_file(path, "one that was changed or damaged after it was written", verb)
    for name, value in settings.items():
        came = content["settings"].get(name)
        if came != value:
            refuse_run(path, f"with {name} = {value}", f"with {name} = {came}", verb)
    state: dict[str, Any] = content["state"]
    return state


def check(path: Any) -> Path:
    """The path of a checkpoint.

    Raises:
        ValueError: if it is not a path, or its folder does not exist or cannot be written into.
    """
    return check_path("checkpoint", path, "run.pt")


def refuse_run(path: Path, expected: str, came: str, verb: str = "fit") -> NoReturn:
    """Raises ValueError for the file of another run."""
    further = "; Fit.policy can be trained further with any settings" if verb == "fit" else ""
    checks.refuse(
        f"checkpoint {path}",
        f"a run {expected}",
        f"one {came}",
        f"resume with the same arguments, or give another file{further}",
    )


def refuse_file(path: Path, came: str, verb: str = "fit") -> NoReturn:
    """Raises ValueError for a file that was not written by this version of a function."""
    checks.refuse(
        f"checkpoint {path}",
        f"a file that {verb} wrote",
        came,
        "delete it to start again, or give another name",
    )


def holds_nan(x: Any) -> bool:
    """Whether there is NaN among tensors and plain values, however deep."""
    if isinstance(x, Tensor):
        return bool(x.isnan().any())
    if isinstance(x, dict | list | tuple):
        return any(map(holds_nan, x.values() if isinstance(x, dict) else x))
    return isinstance(x, float) and math.isnan(x)
