"""A bar on a terminal or in a notebook, and none where it would fill a file."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from typing import Any

from tqdm import tqdm


def progress_bar(*arguments: Any, shown: bool = True, **options: Any) -> tqdm:
    """A bar of tqdm, shown where somebody sees it.

    In a notebook it is a widget where ipywidgets is there, else a line of text: tqdm itself would
    warn. Elsewhere it is shown on a terminal alone.

    Args:
        arguments: those of tqdm.
        shown: False for no bar at all.
        options: further arguments of tqdm.
    """
    if not shown:
        return tqdm(*arguments, disable=True, **options)
    if not in_notebook():
        return tqdm(*arguments, disable=None, **options)
    widgets = importlib.util.find_spec("ipywidgets") is not None
    made = _notebook_bar() if widgets else tqdm
    off = bool(os.environ.get("TQDM_DISABLE"))  # which the bar of notebooks does not ask for
    return made(*arguments, disable=off, **options)


def _notebook_bar() -> Any:
    """The class of tqdm for where it is asked, loaded then: without widgets loading it warns."""
    return importlib.import_module("tqdm.auto").tqdm


def in_notebook() -> bool:
    """Whether this is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and "IPKernelApp" in shell.config
