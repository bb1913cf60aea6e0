"""The file that a fit is resumed from: written whole or not at all, and read with suspicion."""

from __future__ import annotations

import contextlib
import os
import pickle
import tempfile
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from cai import checks

_FORMAT = "cai.inference.fit, 1"


def write(path: Path, settings: dict[str, Any], state: dict[str, Any]) -> None:
    """Puts the state of a training into a file, in place of what was there before.

    It is finished beside it and then renamed, so that a crash leaves the old file or the new one.

    Args:
        path: of the file.
        settings: what a run that goes on from here must have in common, plain values.
        state: tensors and plain values.

    Raises:
        ValueError: where something else is among them, which could not be read again.
    """
    content = {"format": _FORMAT, "settings": settings, "state": _plain(state)}
    handle, unfinished = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        if not path.exists():  # once a run, rather than when it is too late
            _check_readable(path, unfinished)
        os.replace(unfinished, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(unfinished)
        raise


def _plain(value: Any) -> Any:
    """The same with Python's numbers for NumPy's, which would not be read again."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_plain, value))
    return value.item() if isinstance(value, np.generic) else value


def _check_readable(path: Path, unfinished: str) -> None:
    try:
        torch.load(unfinished, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"checkpoint {path}: expected a state of plain values and tensors, got something else "
            "in the optimizer's, the schedule's or the estimator's: "
            + " ".join(str(error).split())[:200]
            + "; take another, or go without a checkpoint"
        ) from None


def read(path: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The state in a file; None where there is no file yet.

    Only tensors and plain values are read, so that a file from elsewhere cannot run anything.

    Raises:
        ValueError: where the file is truncated or no checkpoint of a fit, or is that of a run with
            other settings.
    """
    if not path.exists():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle, end of file: torch raises whatever it met
        refuse_file(path, f"a file that cannot be read ({type(error).__name__}), or only half")
    known = isinstance(content, dict) and content.get("format") == _FORMAT
    if not known or not all(isinstance(content.get(x), dict) for x in ("settings", "state")):
        refuse_file(path, "a file of something else")
    for name, value in settings.items():
        came = content["settings"].get(name)
        if came != value:
            checks.refuse(
                f"checkpoint {path}",
                f"a run with {name} = {value}",
                f"one with {name} = {came}",
                "go on with what it was begun with, or give another file; Fit.policy can be "
                "trained further with any settings",
            )
    state: dict[str, Any] = content["state"]
    return state


def check(path: Any) -> Path:
    """The path of a checkpoint.

    Raises:
        ValueError: where it is no path, or its folder does not exist or cannot be written into.
    """
    if not isinstance(path, str | os.PathLike):
        checks.refuse("checkpoint", "the path of a file", repr(path), 'for instance "fit.pt"')
    if "\0" in os.fspath(path):
        checks.refuse("checkpoint", "the path of a file", repr(path), "a name holds no zeros")
    file = Path(path)
    folder = file.absolute().parent
    if file.is_dir() or not folder.is_dir():
        came = "a folder" if file.is_dir() else f"one in {folder}, which does not exist"
        checks.refuse("checkpoint", "the path of a file", f"{path}: {came}", "make it first")
    if not os.access(folder, os.W_OK):
        checks.refuse("checkpoint", "a folder to write into", str(folder), "choose another one")
    return file


def refuse_file(path: Path, came: str) -> NoReturn:
    """Raises ValueError for a file that fit did not write, or that another version did."""
    checks.refuse(
        f"checkpoint {path}",
        "a file that fit wrote",
        came,
        "delete it to begin anew, or give another name",
    )
