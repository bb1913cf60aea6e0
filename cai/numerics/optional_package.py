"""Packages that the library can do without."""

from __future__ import annotations

import importlib
from typing import Any

from cai import checks


def optional(package: str, where: str, advice: str) -> Any:
    """A package that is imported only where it is needed.

    Args:
        package: its name.
        where: what needs it, for the message.
        advice: what to do without it.

    Raises:
        ValueError: if it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError:
        checks.refuse(where, f"{package} to be installed", "no such package", advice)
