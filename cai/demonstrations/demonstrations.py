"""Observed trajectories, padded to one length, with how each one ends."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cai import checks
from cai.demonstrations import reading
from cai.demonstrations.padding import check_shapes, joined, padded, words
from cai.demonstrations.parts import first_part
from cai.numerics import arrays
from cai.numerics.exclusive import cached_property
from cai.program.trajectories import Trajectories

ENDS = ("horizon", "own", "absorbed", "terminated", "cut")


@dataclass(frozen=True, eq=False)
class Demonstrations:
    """n observed trajectories of states 0 … S-1 and actions 0 … A-1.

    How a trajectory of L actions ends decides which values its likelihood contains:

    ==============  =============================================================================
    ``ends``        what it means
    ==============  =============================================================================
    "horizon"       L is the horizon T of the model, at which r_T is paid
    "own"           L is a horizon of its own: values are those with L steps to go
    "absorbed"      it reached a state after which nothing is paid, whose value is zero
    "terminated"    it was terminated by the discount, with probability 1 - γ after each step
    "cut"           observation stopped; it went on, unseen
    ==============  =============================================================================

    Attributes:
        states: (n, L+1), integers; the last state of a trajectory is repeated after its end.
        actions: (n, L), integers; 0 after the end.
        lengths: (n,), the number of actions of each one.
        ends: n words, how each one ends.
        groups: n labels, who produced each one; or None.
        goals: (n,), the state that each one went to; or None. On a model they are a note only.

    Raises:
        ValueError: if shapes, lengths or words do not fit.

    >>> import cai.models
    >>> model = cai.models.ledge()
    >>> paths = model.simulate(lambda t, s: model.prior(s), 3, seed=0)
    >>> seen = cai.Demonstrations.from_trajectories(paths)
    >>> len(seen), seen.actions.shape, seen.ends[0]
    (3, torch.Size([3, 4]), 'horizon')
    """

    states: Tensor
    actions: Tensor
    lengths: Tensor
    ends: tuple[str, ...]
    groups: tuple[Hashable, ...] | None = None
    goals: Tensor | None = None

    def __post_init__(self) -> None:
        n, L = check_shapes(self.states, self.actions)
        if self.lengths.shape != (n,) or ((self.lengths < 1) | (self.lengths > L)).any():
            expected = f"{n} numbers of actions from 1 to {L}"
            checks.refuse("lengths", expected, str(self.lengths.tolist()[:5]), "one for each")
        for name, given in (("ends", self.ends), ("groups", self.groups), ("goals", self.goals)):
            if given is not None and len(given) != n:
                checks.refuse(name, f"{n}, one for each demonstration", str(len(given)), "")
        for word in set(self.ends):
            checks.check_one_of("ends", word, ENDS, 'for instance "horizon"')

    @classmethod
    def from_trajectories(
        cls, trajectories: Trajectories, groups: Any = None, goals: Any = None
    ) -> Demonstrations:
        """Those of ``model.simulate``, up to the horizon or to termination by the discount.

        Args:
            trajectories: simulated trajectories of integer states and actions.
            groups: n labels, or None.
            goals: n states, or None.

        Raises:
            ValueError: if states or actions are not integers.
        """
        advice = "model.simulate(policy, n) returns some"
        checks.check_kind("trajectories", trajectories, Trajectories, "Trajectories", advice)
        states = arrays.integers("trajectories, states", trajectories.states)
        actions = arrays.integers("trajectories, actions", trajectories.actions)
        check_shapes(states, actions)
        lengths = trajectories.alive[:, :-1].sum(1)
        whole = trajectories.alive.all(1)
        ends = tuple("horizon" if x else "terminated" for x in whole.tolist())
        return cls(*padded(states, actions, lengths, ends, groups, goals))

    @classmethod
    def from_paths(
        cls, states: Any, actions: Any, ends: Any = "horizon", groups: Any = None, goals: Any = None
    ) -> Demonstrations:
        """Sequences, one for each trajectory, of any lengths.

        Args:
            states: n sequences of integers, each one longer than its actions: the state after the
                last action is part of a trajectory.
            actions: n sequences of integers.
            ends: how they end, one word for all or n words.
            groups: n labels, or None.
            goals: n states, or None.

        Raises:
            ValueError: naming the trajectory, if lengths do not fit or numbers are not integers.

        >>> import cai
        >>> seen = cai.Demonstrations.from_paths([[0, 1, 2], [0, 1]], [[1, 1], [1]], ends="own")
        >>> seen.lengths.tolist(), seen.states.tolist()
        ([2, 1], [[0, 1, 2], [0, 1, 1]])
        """
        s, a = reading.sequences(states, actions)
        return cls(*joined(s, a, ends, groups, goals))

    @classmethod
    def from_columns(
        cls,
        columns: Mapping[str, Any],
        *,
        trajectory: str = "trajectory",
        state: str = "state",
        action: str = "action",
        group: str | None = None,
        goal: str | None = None,
        ends: Any = "horizon",
    ) -> Demonstrations:
        """Rows of a table: a dict of columns, or a data frame.

        Rows of one trajectory follow each other, in the order of time. Its last row holds the last
        state, with an action that is missing (NaN, None, an empty text or -1).

        Args:
            columns: name -> column.
            trajectory: the column that tells trajectories apart.
            state: the column of states.
            action: the column of actions.
            group: the column of who produced it, or None.
            goal: the column of goals, or None.
            ends: how they end, one word for all or one for each trajectory.

        Raises:
            ValueError: naming the column and the row, if one is missing or not an integer, if a
                trajectory has no action or is interrupted by another, or if an action is missing
                before the last row of a trajectory.

        >>> import cai
        >>> columns = {"trajectory": [7, 7, 8, 8], "state": [0, 1, 0, 2], "action": [1, -1, 0, -1]}
        >>> cai.Demonstrations.from_columns(columns).states.tolist()
        [[0, 1], [0, 2]]
        """
        names = {"trajectory": trajectory, "state": state, "action": action}
        rows = reading.rows(columns, names, {"group": group, "goal": goal})
        return cls(*joined(rows.states, rows.actions, ends, rows.groups, rows.goals))

    @classmethod
    def from_csv(cls, path: Any, **names: Any) -> Demonstrations:
        """A file of comma-separated values with a heading, read as :meth:`from_columns` does.

        Args:
            path: of the file.
            **names: of the columns, and ``ends``.

        Raises:
            ValueError: as :meth:`from_columns`; and if the file cannot be read or is empty.
        """
        return cls.from_columns(reading.csv_columns(path), **names)

    @classmethod
    def from_episodes(cls, episodes: Any, groups: Any = None) -> Demonstrations:
        """Episodes of Gymnasium or Minari, by their attributes.

        Args:
            episodes: objects with ``observations`` (L+1 states), ``actions`` (L) and
                ``terminations`` (L flags): an episode whose last flag says that it terminated was
                absorbed, any other was cut.
            groups: n labels, or None.

        Raises:
            ValueError: naming the episode, if an attribute is missing or not of integers.
        """
        return cls.from_paths(*reading.episodes(episodes), groups)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, which: Any) -> Demonstrations:
        """Some of them, by an index, a slice, or indices or flags as a tensor or a list."""
        try:
            of = torch.tensor(which or [False] * len(self)) if isinstance(which, list) else which
            index = torch.arange(len(self))[of].reshape(-1)
        except (TypeError, ValueError, RuntimeError):
            expected = "a number, a slice, or numbers or flags"
            checks.refuse("demonstrations[…]", expected, repr(which), "for instance [:10]")
        if not len(index):
            checks.refuse("demonstrations[…]", "at least one of them", "none", "see len()")
        chosen = index.tolist()
        ends = tuple(self.ends[i] for i in chosen)
        groups = None if self.groups is None else tuple(self.groups[i] for i in chosen)
        goals = None if self.goals is None else self.goals[index]
        states, actions, lengths = (x[index] for x in (self.states, self.actions, self.lengths))
        return Demonstrations(*padded(states, actions, lengths, ends, groups, goals))

    def __repr__(self) -> str:
        words = ", ".join(f"{self.ends.count(x)} {x}" for x in ENDS if x in self.ends)
        who = "" if self.groups is None else f", {len(set(self.groups))} groups"
        steps = int(self.lengths.sum())
        return f"Demonstrations({len(self)} of {steps} actions in all: {words}{who})"

    def split(
        self, fraction: float, seed: int = 0, by: str | None = None
    ) -> tuple[Demonstrations, Demonstrations]:
        """Two random parts, one to fit and one to test.

        Args:
            fraction: of the demonstrations, or of the groups, in the first part.
            seed: of the random order.
            by: "group" keeps those of one group together; None splits them one by one.

        Returns:
            The two parts, each in the order in which they were.

        Raises:
            ValueError: if a part would be empty, or there are no groups to split by.
        """
        inside = first_part(self, fraction, seed, by)
        return self[inside], self[~inside]

    def prefix(self, share: float) -> Demonstrations:
        """The beginning of each, cut off after a share of its actions, at least one.

        Args:
            share: between 0 and 1.

        Raises:
            ValueError: if the share is out of range.
        """
        checks.check_share("share", share, "1 for all of it")
        # n/L of L actions are n of them, whatever n/L was rounded to.
        lengths = (self.lengths.double() * float(share) + 1e-9).long().clamp(min=1)
        return dataclasses.replace(self, lengths=lengths).with_ends("cut")[:]

    @property
    def origin(self) -> int:
        """The first state of the only one."""
        return int(self.states[self._only, 0])

    @property
    def destinations(self) -> Tensor:
        """(n,), where each one went: its goal, else its last state."""
        last = self.states.gather(1, self.lengths.unsqueeze(1)).squeeze(1)
        return last if self.goals is None else self.goals

    @property
    def goal(self) -> int:
        """Where the only one went."""
        return int(self.destinations[self._only])

    @property
    def goal_counts(self) -> dict[int, int]:
        """How many went to each goal."""
        if self.goals is None:
            checks.refuse("goals", "some to count", "none", "give them goals=")
        return {g: n for g, n in enumerate(self.goals.bincount().tolist()) if n}

    @property
    def _only(self) -> int:
        if len(self) != 1:
            checks.refuse("demonstrations", "one of them", str(len(self)), "for instance trips[0]")
        return 0

    @cached_property
    def group_index(self) -> Tensor:
        """(n,), the number of the group of each one, in the order in which they appear."""
        labels = range(len(self)) if self.groups is None else self.groups
        numbers: dict[Hashable, int] = {}
        return torch.tensor([numbers.setdefault(x, len(numbers)) for x in labels])

    @cached_property
    def taken(self) -> Tensor:
        """(n, L), boolean: which steps belong to a trajectory."""
        return torch.arange(self.actions.shape[1]) < self.lengths.unsqueeze(1)

    def ending(self, word: str) -> Tensor:
        """(n,), boolean: those that end in a certain way."""
        return torch.tensor([x == word for x in self.ends])

    def with_ends(self, ends: Any) -> Demonstrations:
        """The same, which end otherwise: one word for all, or n words."""
        return dataclasses.replace(self, ends=words(ends, len(self)))
