"""The published table of a Gymnasium environment, in whichever containers it is published."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cai import checks
from cai.numerics import arrays

_STARTS = ("initial_state_distrib", "isd")
_MOST = 10**8  # pairs of a state and an action


class Outcome(NamedTuple):
    """One outcome of a step: probability, next state, reward, and whether the episode ends."""

    probability: float
    state: int
    reward: float
    over: bool


@dataclass(frozen=True)
class Numbering:
    """The elements of a space as the numbers 0 … n-1, in C order where they have several parts.

    Attributes:
        sizes: how many values each part has.
        start: the least value of each part.
        single: whether an element is a number, not an array of its parts.
    """

    sizes: tuple[int, ...]
    start: tuple[int, ...]
    single: bool

    @property
    def n(self) -> int:
        """How many elements there are."""
        return math.prod(self.sizes)

    def number(self, where: str, element: Any) -> int:
        """The number of an element, given as it is in the space or, of several parts, numbered.

        Raises:
            ValueError: if it is not an element.
        """
        parts: Any = _whole(element)
        if parts is not None and parts.ndim == 0 and not self.single:
            if 0 <= parts < self.n:
                return int(parts)
        elif parts is not None and parts.size == len(self.sizes):
            values = [int(x) - low for x, low in zip(parts.flat, self.start, strict=True)]
            if all(0 <= value < size for value, size in zip(values, self.sizes, strict=True)):
                return int(np.ravel_multi_index(values, self.sizes))
        checks.refuse(where, str(self), repr(element), "see the spaces of the environment")

    def names(self) -> tuple[str, ...] | None:
        """The environment's name of each element; None where that is its number."""
        if self.single:
            first = self.start[0]
            return None if first == 0 else tuple(str(first + k) for k in range(self.n))
        parts = np.stack(np.unravel_index(np.arange(self.n), self.sizes), -1) + self.start
        return tuple(str(tuple(element)) for element in parts.tolist())

    def __str__(self) -> str:
        if self.single:
            return f"one of {self.start[0]} … {self.start[0] + self.n - 1}"
        return f"{len(self.sizes)} parts of sizes {list(self.sizes)}, or a number below {self.n}"


@dataclass(frozen=True)
class GymTable:
    """A published table, with states and actions numbered from 0.

    Attributes:
        states: how the states are numbered.
        actions: how the actions are numbered.
        outcomes: of each state and action; actions that are missing are not available.
        start: (S,), p(s_0).
    """

    states: Numbering
    actions: Numbering
    outcomes: dict[int, dict[int, list[Outcome]]]
    start: NDArray[np.float64]


def read_table(env: Any, name: str, initial: Any) -> GymTable:
    """The table of an environment that publishes one, ``env.P[state][action]``.

    Args:
        env: the environment without its wrappers.
        name: the name of the environment, for messages.
        initial: p(s_0), weights of its states or one state; None for what it publishes.

    Raises:
        ValueError: if a space is not finite, an entry is not a list of outcomes, probabilities do
            not sum to one, or no initial state is given.
    """
    states = _numbering(f"{name}: observation_space", getattr(env, "observation_space", None))
    actions = _numbering(f"{name}: action_space", getattr(env, "action_space", None))
    if states.n * actions.n > _MOST:
        came = f"{states.n} states and {actions.n} actions"
        checks.refuse(name, f"at most {_MOST} pairs", came, "write its dynamics in Pyro")
    outcomes: dict[int, dict[int, list[Outcome]]] = {s: {} for s in range(states.n)}
    for state, row in _entries("P", env.P, "actions by state"):
        s, where = states.number(f"a state in P of {name}", state), f"P[{state}]"
        for action, listed in _entries(where, row, "outcomes by action"):
            a = actions.number(f"an action in {where}", action)
            if a in outcomes[s]:
                checks.refuse(where, "each action once", f"{action!r} again", "leave one out")
            outcomes[s][a] = _outcomes(f"{where}[{action}]", listed, states)
    return GymTable(states, actions, outcomes, _start(env, name, initial, states))


def _numbering(where: str, space: Any) -> Numbering:
    """The numbering of a Discrete, MultiDiscrete or MultiBinary space, by its attributes."""
    if hasattr(space, "nvec"):
        sizes = np.asarray(space.nvec)
        low = np.asarray(getattr(space, "start", np.zeros_like(sizes)))
        return Numbering(tuple(map(int, sizes.flat)), tuple(map(int, low.flat)), False)
    if hasattr(space, "n"):
        if getattr(space, "shape", ()):
            size = math.prod(space.shape)
            return Numbering((2,) * size, (0,) * size, False)
        return Numbering((int(space.n),), (int(getattr(space, "start", 0)),), True)
    expected = "Discrete or MultiDiscrete"
    checks.refuse(where, expected, type(space).__name__, "write its dynamics in Pyro")


def _entries(where: str, table: Any, what: str) -> Iterator[tuple[Any, Any]]:
    """The entries of a mapping, or of a list or an array by their index; without empty ones."""
    if isinstance(table, Mapping):
        return ((key, entry) for key, entry in table.items() if not _is_empty(entry))
    array = isinstance(table, np.ndarray) and table.ndim
    if not array and (not isinstance(table, Sequence) or isinstance(table, str | bytes)):
        advice = "a dict of dicts, P[state][action] = [(probability, state, reward, terminated)]"
        checks.refuse(where, f"a table of {what}", type(table).__name__, advice)
    return ((k, entry) for k, entry in enumerate(table) if not _is_empty(entry))


def _is_empty(entry: Any) -> bool:
    if isinstance(entry, np.ndarray):
        return not entry.size
    return entry is None or (isinstance(entry, Mapping | Sequence) and not entry)


def _outcomes(where: str, listed: Any, states: Numbering) -> list[Outcome]:
    found = []
    for k, outcome in enumerate(_listed(where, listed)):
        fields = _listed(f"{where}[{k}]", outcome)
        if len(fields) != 4:
            expected = "(probability, next state, reward, terminated)"
            advice = "an outcome says whether the episode ends, too"
            checks.refuse(f"{where}[{k}]", expected, f"{len(fields)} fields", advice)
        checks.check_probability(f"{where}[{k}]: probability", fields[0])
        if fields[0] > 0:  # the padding of a short list in an array need not be an outcome
            found.append(_outcome(f"{where}[{k}]", fields, states))
    total = sum(outcome.probability for outcome in found)
    if not abs(total - 1) <= 1e-5:
        checks.refuse(where, "probabilities that sum to one", f"{total:g}", "divide by the sum")
    return found


def _listed(where: str, entry: Any) -> list[Any]:
    if isinstance(entry, np.ndarray) and entry.ndim:
        return list(entry)
    if not isinstance(entry, Sequence) or isinstance(entry, str | bytes):
        advice = "P[state][action] = [(probability, state, reward, terminated), …]"
        checks.refuse(where, "a list of outcomes", repr(entry), advice)
    return list(entry)


def _outcome(where: str, fields: list[Any], states: Numbering) -> Outcome:
    p, state, reward, over = fields
    checks.check_payment(f"{where}: reward", reward)
    if isinstance(over, str | bytes) or np.shape(over) != () or over not in (0, 1):
        checks.refuse(f"{where}: terminated", "True or False", repr(over), "is the episode over?")
    number = states.number(f"{where}: next state", state)
    return Outcome(float(p), number, float(reward), bool(over))


def _start(env: Any, name: str, initial: Any, states: Numbering) -> NDArray[np.float64]:
    argument = "initial"
    if initial is None:
        argument = next((attribute for attribute in _STARTS if hasattr(env, attribute)), "")
        if not argument:
            came, advice = "neither", "pass initial=, the state, or a weight for each of the states"
            checks.refuse(name, f"where an episode starts, as {' or '.join(_STARTS)}", came, advice)
        initial = getattr(env, argument)
    shape, parts = arrays.read(argument, initial, "a state, or weights").shape, len(states.sizes)
    if not shape or (states.n != parts and shape == (parts,)):
        start = np.zeros(states.n)
        start[states.number(argument, initial)] = 1
        return start
    weights = arrays.numbers(argument, initial)
    weights = weights.flatten() if shape == states.sizes else weights  # C order, as states
    return arrays.weights(argument, weights, (states.n,)).numpy(force=True)


def _whole(element: Any) -> NDArray[Any] | None:
    """Whole numbers as an array; None if they are something else."""
    try:
        numbers = arrays.numbers("", element).numpy(force=True)
    except ValueError:
        return None
    return numbers if np.isfinite(numbers).all() and (numbers == numbers.round()).all() else None
