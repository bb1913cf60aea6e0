"""Names and places of the states and actions of a Gymnasium environment."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.envs.toy_text import CliffWalkingEnv, TaxiEnv

from cai.models.environments.gym_table import GymTable
from cai.program.layout import Layout


def layout_of(env: Any, table: GymTable, origin: list[int]) -> Layout | None:
    """The environment's names of its states and actions, with a map where one is known."""
    known = _map(env, table, origin)
    if known is not None:
        return known
    states, actions = table.states.names(), table.actions.names()
    if states is None and actions is None:
        return None
    named = None if states is None else tuple(states[s] for s in origin)
    return Layout(states=named, actions=actions)


def _map(env: Any, table: GymTable, origin: list[int]) -> Layout | None:
    """The map of one of Gymnasium's own environments, or of an old copy of one."""
    steps = {"left": (0, -1), "down": (1, 0), "right": (0, 1), "up": (-1, 0)}
    desc = getattr(env, "desc", None)
    if isinstance(env, CliffWalkingEnv):
        letters = np.where(env._cliff, "C", ".")
        letters[np.unravel_index(env.start_state_index, env.shape)] = "S"
        letters[-1, -1] = "G"
        rows = tuple("".join(row) for row in letters)
        cells = [divmod(s, int(env.shape[1])) for s in origin]
        actions: tuple[str, ...] = ("up", "right", "down", "left")
    elif isinstance(env, TaxiEnv):  # where the taxi is
        inner = [[c.decode() for c in row[1:-1:2]] for row in env.desc[1:-1]]
        rows = tuple("".join("." if c == " " else c for c in row) for row in inner)
        cells = [(i, j) for i, j, *_ in map(env.decode, origin)]
        actions = ("down", "up", "right", "left", "pick up", "drop off")
    elif isinstance(desc, np.ndarray) and desc.dtype == "S1" and desc.ndim == 2:
        rows = tuple("".join(c.decode() for c in row) for row in desc)  # FrozenLake
        cells = [divmod(s, desc.shape[1]) for s in origin]
        actions = ("left", "down", "right", "up")
    else:
        return None
    size = len(rows), min(map(len, rows), default=0)
    off = any(not (0 <= i < size[0] and 0 <= j < size[1]) for i, j in cells)
    if off or len(actions) != table.actions.n:  # it is another environment's map
        return None
    return Layout(
        actions=actions,
        map=rows,
        cells=tuple((int(i), int(j)) for i, j in cells),
        moves=tuple(steps.get(action, (0, 0)) for action in actions),
    )
