"""Grid worlds from a text map: walls, goals, pits, slip and wind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Literal

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from cai import checks
from cai.numerics import arrays
from cai.numerics.exclusive import cached_property
from cai.program.layout import Layout
from cai.program.trajectory import TrajectoryModel

MAPS = {
    "cliff": (
        "............",
        "............",
        "............",
        "SPPPPPPPPPPG",
    ),
    "bridge": (
        "#.....#",
        ".......",
        ".#PPP#.",
        "S.....G",
        ".#PPP#.",
    ),
    "rooms": (
        "S..#...",
        "...#...",
        "......G",
        "...#...",
        "##.##.#",
        "...#...",
        ".......",
    ),
}
_MOVES = {"up": (-1, 0), "right": (0, 1), "down": (1, 0), "left": (0, -1)}
_LETTERS = "S free, . free, # wall, G goal, P pit"


def gridworld(
    map: str | Sequence[str] = "cliff",
    *,
    horizon: int | None = 30,
    temperature: float = 0.5,
    slip: float = 0.1,
    wind: float = 0.0,
    wind_direction: Literal["up", "right", "down", "left"] = "down",
    step_reward: float = -1.0,
    goal_reward: float = 0.0,
    pit_reward: float = -100.0,
    discount: float = 1.0,
) -> TrajectoryModel:
    """A walk on a text map: up, right, down or left; walls and the edge of the map block a move.

    The letters: ``S`` start (equally likely if several), ``.`` free, ``#`` wall, ``G`` goal,
    ``P`` pit. Goals and pits absorb. A step slips sideways with probability ``slip`` (latent site
    ``slip``), and a gust then carries one cell further with probability ``wind`` (latent site
    ``gust``).

    Args:
        map: the rows of a map, one string with line breaks, a table of letters, or the name of a
            built-in map: "cliff" (Sutton and Barto's cliff walk), "bridge" or "rooms".
        horizon: T.
        temperature: α.
        slip: the probability of moving at a right angle to the action, half to each side.
        wind: the probability of a gust.
        wind_direction: where a gust blows to.
        step_reward: r(s,a) for a step outside goals and pits.
        goal_reward: r⁺ on arrival at a goal.
        pit_reward: r⁺ on arrival in a pit.
        discount: γ.

    Returns:
        The model, a :class:`cai.TrajectoryModel`.

    Raises:
        ValueError: for rows of different lengths, unknown letters, a map without a start, or a
            probability outside [0, 1].

    >>> import cai
    >>> from cai import models
    >>> model = models.gridworld(["S.G", "..."], slip=0.0)
    >>> cai.tabulate(model).num_states
    6
    """
    rows = _rows(map)
    step_reward = checks.check_payment("step_reward", step_reward)
    goal_reward = checks.check_payment("goal_reward", goal_reward)
    pit_reward = checks.check_payment("pit_reward", pit_reward)
    slip, wind = checks.check_probability("slip", slip), checks.check_probability("wind", wind)
    checks.check_one_of("wind_direction", wind_direction, list(_MOVES), "it blows there")
    cells = [(i, j) for i, row in enumerate(rows) for j, c in enumerate(row) if c != "#"]
    letters = [rows[i][j] for i, j in cells]
    index = {cell: k for k, cell in enumerate(cells)}
    goal, pit = (torch.tensor([c == letter for c in letters]) for letter in "GP")
    neighbour = torch.tensor(
        [
            [index.get((i + di, j + dj), k) for di, dj in _MOVES.values()]
            for k, (i, j) in enumerate(cells)
        ]
    )
    blown = neighbour[:, list(_MOVES).index(wind_direction)]
    walk = _Walk(neighbour, blown, goal, pit, slip, wind, step_reward, goal_reward, pit_reward)
    return TrajectoryModel(
        initial=dist.Categorical(torch.tensor([float(c == "S") for c in letters])),
        dynamics=walk.dynamics,
        reward=walk.reward,
        arrival_reward=walk.arrival_reward,
        action_prior=dist.Categorical(torch.ones(4)),
        horizon=horizon,
        temperature=temperature,
        discount=discount,
        layout=Layout(
            actions=tuple(_MOVES), map=rows, cells=tuple(cells), moves=tuple(_MOVES.values())
        ),
    )


@dataclass(frozen=True, eq=False)
class _Walk:
    """The dynamics and the rewards.

    Attributes:
        neighbour: (S, 4), the cell in each direction.
        blown: (S,), the cell that a gust carries to.
        goal: (S,), boolean.
        pit: (S,), boolean.
    """

    neighbour: Tensor
    blown: Tensor
    goal: Tensor
    pit: Tensor
    slip: float
    wind: float
    step_reward: float
    goal_reward: float
    pit_reward: float

    @cached_property
    def done(self) -> Tensor:
        return self.goal | self.pit

    @cached_property
    def turns(self) -> Tensor:
        """p(straight on, right, left)."""
        return torch.tensor([1 - self.slip, self.slip / 2, self.slip / 2], dtype=torch.float64)

    def dynamics(self, s: Tensor, a: Tensor) -> dist.Delta:
        direction, done = a, self.done
        if self.slip > 0:
            turn = pyro.sample("slip", dist.Categorical(self.turns))
            direction = (a + turn + (turn == 2)) % 4
        target = self.neighbour[s, direction]
        if self.wind > 0:
            gust = pyro.sample("gust", dist.Bernoulli(self.wind)).bool()
            target = torch.where(gust & ~done[target], self.blown[target], target)
        return dist.Delta(torch.where(done[s], s, target))

    def reward(self, s: Tensor, a: Tensor) -> Tensor:
        return torch.where(self.done[s], 0.0, self.step_reward)

    def arrival_reward(self, s: Tensor, a: Tensor, s_next: Tensor) -> Tensor:
        in_pit = torch.where(self.pit[s_next], self.pit_reward, 0.0)
        paid = torch.where(self.goal[s_next], self.goal_reward, in_pit)
        return torch.where(self.done[s], 0.0, paid)


def _rows(map: str | Sequence[str]) -> tuple[str, ...]:
    if isinstance(map, str):
        rows = MAPS[map] if map in MAPS else tuple(map.strip().splitlines())
    else:
        framed = hasattr(map, "to_numpy") or hasattr(map, "__array__")
        table = arrays.read("map", map, "rows of text") if framed else map
        try:
            if isinstance(table, Set | Mapping):  # rows without an order
                raise TypeError
            rows = tuple(_row(row) for row in table)
        except (TypeError, ValueError):
            checks.refuse("map", "rows of text", repr(map), f"built-in: {', '.join(MAPS)}")
    rows = tuple(row.strip() for row in rows)
    if len({len(row) for row in rows}) != 1 or not rows[0]:
        came = f"lengths {[len(row) for row in rows]}"
        advice = f"or name a built-in map: {', '.join(MAPS)}"
        checks.refuse("map", "rows of one length", came, advice)
    unknown = sorted(set("".join(rows)) - set("S.#GP"))
    if unknown or not any("S" in row for row in rows):
        problem = f"the letters {unknown}" if unknown else "no start S"
        checks.refuse("map", _LETTERS, problem, f"built-in: {', '.join(MAPS)}")
    return rows


def _row(row: Any) -> str:
    """A text, or a sequence of letters, which may be bytes as in Gymnasium's maps."""
    if isinstance(row, str | bytes):
        return row.decode() if isinstance(row, bytes) else row
    return "".join(letter.decode() if isinstance(letter, bytes) else letter for letter in row)
