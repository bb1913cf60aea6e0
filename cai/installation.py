"""Whether the installed package is the one that was imported, and its version."""

from __future__ import annotations

import importlib.metadata
import importlib.util


def check(folder: str) -> None:
    """Checks that the subpackages that an installation adds are there.

    In a checkout they lie beside the folder ``cai``, which Python takes for the whole package if it
    is started there without an editable installation.

    Args:
        folder: the folder from which the package was imported.

    Raises:
        ImportError: if they are missing, with what to do.
    """
    if importlib.util.find_spec(".models", __package__) is None:
        raise ImportError(
            f"cai: {folder} is a folder of a checkout, which lacks cai.models and cai.inference "
            "until it is installed; run `pip install -e .` in the checkout, or start Python in "
            "another folder to use an installed copy"
        )


def version() -> str:
    """The version in the metadata of the installed distribution."""
    return importlib.metadata.version("control-as-inference")
