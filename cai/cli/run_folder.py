"""The folder of a run: its settings and its history as JSON, and its checkpoint."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from cai.cli.failure import Mistake
from cai.files.whole_file import write_whole

_FORMAT = "cai train, 1"
_SETTINGS, _HISTORY = "settings.json", "history.json"
CHECKPOINT = "checkpoint.pt"


def begin(folder: Path, settings: dict[str, Any], resume: bool) -> None:
    """Writes the settings of a run into its folder, or compares them with those of a resumed run.

    Raises:
        Mistake: if the folder holds a run that is not to be resumed, or one with other settings.
    """
    if not (folder / _SETTINGS).exists():
        if any((folder / name).exists() for name in (CHECKPOINT, _HISTORY)):
            raise Mistake(f"--out: {folder} holds parts of something else; choose another folder")
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / _SETTINGS, {"format": _FORMAT, **settings})
        return
    if not resume:
        raise Mistake(f"--out: {folder} holds a run; add --resume, or choose another folder")
    kept = settings_in(folder)
    for name, value in settings.items():
        if kept.get(name) != value:
            words = f"expected {name} = {kept.get(name)}, as in {folder}, got {value}"
            raise Mistake(f"--resume: {words}; resume with the same arguments")


def settings_in(folder: Path) -> dict[str, Any]:
    """The settings of the run in a folder.

    Raises:
        Mistake: if there is none.
    """
    try:
        found = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = "" if isinstance(error, FileNotFoundError) else f" ({type(error).__name__})"
        raise _no_run(folder, f"{folder / _SETTINGS} cannot be read{reason}") from None
    if not isinstance(found, dict) or found.pop("format", None) != _FORMAT:
        raise _no_run(folder, f"{folder / _SETTINGS} was not written by this version")
    return found


def _no_run(folder: Path, reason: str) -> Mistake:
    return Mistake(f"{folder}: expected the folder of a run of cai train; {reason}")


def runs_in(folder: Path) -> list[Path]:
    """The folders of the runs in a folder: itself, or one for each seed.

    Raises:
        Mistake: if there is none.
    """
    runs = [path.parent for path in folder.glob(f"seed-*/{_SETTINGS}")]
    if (folder / _SETTINGS).exists() or not runs:
        settings_in(folder)
        return [folder]
    return sorted(runs, key=lambda path: settings_in(path)["seed"])


def write_history(folder: Path, history: dict[str, Tensor]) -> None:
    """Writes the records of a run, with null for what is not a number."""
    columns = {
        name: [x if math.isfinite(x) else None for x in column.tolist()]
        for name, column in history.items()
    }
    _write(folder / _HISTORY, columns)


def tensorboard() -> Callable[[Path], Callable[[dict[str, float]], None]]:
    """Of the folder of a run, what writes its records there as event files.

    Raises:
        Mistake: if TensorBoard is not installed.
    """
    try:
        make = importlib.import_module("torch.utils.tensorboard").SummaryWriter
    except ImportError:
        raise Mistake("--tensorboard: not installed; pip install tensorboard") from None

    def into(folder: Path) -> Callable[[dict[str, float]], None]:
        writer = make(str(folder))

        def write(record: dict[str, float]) -> None:
            step = int(record["step"])
            for name, number in record.items():
                if name != "step" and not math.isnan(number):
                    writer.add_scalar(name, number, step)
            writer.flush()

        return write

    return into


def _write(path: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=1).encode() + b"\n"
    write_whole(path, lambda file: file.write(text))
