"""What a name of a model stands for outside this library: MODULE:NAME, or an entry point."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

from cai.cli.failure import Mistake, named, place

GROUP = "cai.models"
_IN_A_MODULE = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)")


def entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    """The models that installed packages publish, by name; of two of one name the first."""
    found: dict[str, importlib.metadata.EntryPoint] = {}
    for entry in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda x: x.name):
        found.setdefault(entry.name, entry)
    return found


def in_a_module(name: str) -> tuple[str, str] | None:
    """The module and the name in it that MODULE:NAME or an entry point stands for, or None."""
    entry = entry_points().get(name)
    spelt = _IN_A_MODULE.fullmatch(name if entry is None else entry.value)
    return None if spelt is None else (spelt[1], spelt[2])


def from_module(name: str) -> tuple[dict[str, Any], str, str]:
    """What a module holds, how a message names it, and the name in it that is meant.

    Raises:
        Mistake: if the module cannot be imported.
    """
    found = in_a_module(name)
    assert found is not None
    module, attribute = found
    where = module if name == f"{module}:{attribute}" else f"{name} ({module}:{attribute})"
    sys.path.insert(0, str(Path.cwd()))  # as python -m has it
    try:
        return vars(importlib.import_module(module)), where, attribute
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        file = source(name)
        line = place(error, file) if file is not None else None
        raise Mistake(f"{where}: {line + ': ' if line else ''}{named(error)}") from None
    finally:
        sys.path.pop(0)


def source(name: str) -> Path | None:
    """The file of the module that a name of a model stands for; None if it is not known."""
    found = in_a_module(name)
    if found is None:
        return None
    try:
        spec = importlib.util.find_spec(found[0])
    except (ImportError, ValueError, AttributeError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin else None
