"""Whether this package is the installed one, and which version that is."""

from __future__ import annotations

import importlib.metadata
import importlib.util


def check(folder: str) -> None:
    """Sees that the packages that an installation puts into this one are there.

    In a checkout they lie beside it, so that Python takes its folder ``cai`` for the whole package
    if it starts there and another copy is installed, or none.

    Args:
        folder: that the package was imported from.

    Raises:
        ImportError: where they are not, with what to do.
    """
    if importlib.util.find_spec(".models", __package__) is None:
        raise ImportError(
            f"cai: {folder} is a folder of a checkout, to which models and inference do not belong "
            "before it is installed; run `pip install -e .` in the checkout, or start Python in "
            "another folder to use an installed copy"
        )


def version() -> str:
    """The version in the metadata of the installed distribution."""
    return importlib.metadata.version("control-as-inference")
