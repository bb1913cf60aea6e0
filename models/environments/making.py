"""The options of a Gymnasium environment, checked before it is made."""

from __future__ import annotations

import inspect
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec, load_env_creator

from cai import checks


def check_options(name: str | EnvSpec, options: dict[str, Any]) -> None:
    """Raises ValueError if an environment has no such options; it says which it has.

    An environment that Gymnasium does not know, or whose code takes any option, is left alone.
    """
    try:
        spec = gymnasium.spec(name) if isinstance(name, str) else name
        creator: Any = spec.entry_point
        creator = load_env_creator(creator) if isinstance(creator, str) else creator
        known = inspect.signature(creator).parameters
    except Exception:  # gymnasium.make says what is wrong with it
        return
    if any(x.kind is inspect.Parameter.VAR_KEYWORD for x in known.values()):
        return
    of_make = set(inspect.signature(gymnasium.make).parameters)
    unknown = [option for option in options if option not in known and option not in of_make]
    if unknown:
        expected = f"options that {spec.id} has, {', '.join(known)}"
        checks.refuse("options", expected, ", ".join(unknown), "see the environment's page")
