"""What a name of a model stands for outside this library.

That is FILE.py:NAME, MODULE:NAME, or an entry point of an installed package.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from types import ModuleType
from typing import Any

from cai.cli.failure import Mistake, file_of, named, place

GROUP = "cai.models"
CHANGES = ("horizon", "temperature", "discount")  # options that any model takes
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


def held_by(name: str) -> tuple[dict[str, Any], str, str]:
    """What a file or a module holds; where that is, and the name in it that is meant.

    Raises:
        Mistake: if it cannot be imported.
    """
    if file_of(name) is not None:
        file = re.fullmatch(r"(.+\.py)(?::(\w+))?", name)
        if file is None:
            raise Mistake(f"{name}: expected FILE.py:NAME, with the name of a model in it")
        return vars(from_file(Path(file[1]))), file[1], file[2] or "model"
    return from_module(name)


def from_file(file: Path) -> ModuleType:
    """The user's file as a module.

    Raises:
        Mistake: if there is none, or it raises anything.
    """
    if not file.is_file():
        raise Mistake(f"{file}: there is no such file; look at its name and its folder")
    spec = importlib.util.spec_from_file_location(f"_model_in_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there for the types of their fields
    sys.path.insert(0, str(file.parent.resolve()))  # so that it can import its neighbours
    try:
        spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise Mistake(f"{place(error, file) or file}: {named(error)}") from None
    finally:
        sys.path.pop(0)
    return module


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
        file = source_of(name)
        line = place(error, file) if file is not None else None
        raise Mistake(f"{where}: {line + ': ' if line else ''}{named(error)}") from None
    finally:
        sys.path.pop(0)


def source_of(name: str) -> Path | None:
    """The file of FILE.py:NAME, or of the module that another name stands for; None if unknown."""
    found = in_a_module(name)
    if found is None:
        return file_of(name)
    try:
        spec = importlib.util.find_spec(found[0])
    except (ImportError, ValueError, AttributeError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin else None


def instead(held: dict[str, Any], name: str, names: Collection[str]) -> str:
    """What to take in place of a finished model: functions beside it that have such arguments."""
    module = in_a_module(name)
    home = module[0] if module else name.rpartition(":")[0] or name
    found = []
    for key, function in functions_of(held).items():
        known = inspect.signature(function).parameters
        needed = {x.name for x in known.values() if x.default is x.empty}
        if {*names} <= known.keys() and needed <= {*names, *CHANGES}:
            found.append(f"{home}:{key}")
    if found:
        return f"take {' or '.join(found)}, a function that makes one"
    return f"write a function of {', '.join(names)} that makes one, and take {home}:FUNCTION"


def functions_of(held: dict[str, Any]) -> dict[str, Callable[..., Any]]:
    """The functions that a module itself defines, by name."""
    home = held.get("__name__")
    return {
        name: x
        for name, x in held.items()
        if inspect.isfunction(x) and x.__module__ == home and name[0] != "_"
    }
