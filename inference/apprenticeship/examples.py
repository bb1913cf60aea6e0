"""What demonstrations of a table were paid, and where they began."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from cai import checks
from cai.demonstrations.demonstrations import Demonstrations
from cai.evaluation.problem import as_problem
from cai.inference.apprenticeship.hard_planning import Planner, expected_features
from cai.inference.inverse.observed import observed
from cai.inference.searches.search_file import digest, of_demonstrations, of_dynamics
from cai.numerics.logspace import mean
from cai.program.trajectory import TrajectoryModel
from cai.rewards.linear_reward import FeatureArrays, LinearReward
from cai.rewards.places import endless, lasting
from cai.tables.table import Table
from cai.tables.tabulation import enumerated


class Examples:
    """n demonstrations of a table, with the features that they were paid.

    Rewards count γ^t where nothing terminated the demonstrations, and fully where the discount did.

    Args:
        model: a model with finitely many states and actions, or its table.
        demonstrations: of it.
        reward: a linear one.
        on_impossible: "error" or "drop".

    Attributes:
        demonstrations: those that are possible.
        dropped: how many were not.
        table: the problem.
        planner: of the table.
        features: (k, 1 or T, S, A), expected after each action.
        scale: (k,), the spread of each feature.
        offset: (S, A), reward units, what is paid without a weight.
        taken: (n, k), the features of each demonstration, summed.
        known: (n,), reward units, what it was paid without a weight.

    Raises:
        ValueError: if they do not fit the model, or were cut off where the future counts in full.
    """

    def __init__(
        self,
        model: TrajectoryModel | Table,
        demonstrations: Demonstrations,
        reward: LinearReward,
        on_impossible: str,
    ) -> None:
        kind, advice = "Demonstrations", "cai.Demonstrations.from_trajectories(…) makes some"
        checks.check_kind("demonstrations", demonstrations, Demonstrations, kind, advice)
        advice = "for instance cai.LinearReward({…})"
        checks.check_kind("reward", reward, LinearReward, "a LinearReward", advice)
        checks.check_one_of("on_impossible", on_impossible, ("error", "drop"), 'try "drop"')
        self._program, self._reward = as_problem(model).program, reward
        table = self.table = enumerated(model)
        arrays = self._arrays = reward.on(table)
        _check_absorbing(table, arrays)
        self.planner = Planner(table)
        self.features, self.scale = expected_features(table, arrays), arrays.spread(table)
        self.offset = arrays.offset
        self._seen, self.dropped = observed(table, demonstrations, on_impossible)
        self.demonstrations = self._seen.demonstrations
        _check_ends(table, self.demonstrations)
        self.fade = self._faded()
        self.taken, self.known = self._paid()

    @property
    def names(self) -> tuple[str, ...]:
        """Of the k features."""
        return self._arrays.names

    @property
    def identity(self) -> dict[str, str]:
        """What tells the problem and its data from others, for a checkpoint."""
        return {
            "demonstrations": of_demonstrations(self.demonstrations),
            "features": digest(self.names, self.features, self.offset),
            "dynamics": of_dynamics(self.table),
        }

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is to be known of demonstrations that are not whole."""
        found = []
        if self.demonstrations.ending("cut").any():
            gamma, shortest = self.table.discount, int(self.demonstrations.lengths.min())
            found.append(
                "Demonstrations were cut off: what the discount left of their future, up to "
                f"{gamma**shortest:.2g} of it, is missing."
            )
        if self.dropped:
            found.append(f"{self.dropped} impossible demonstrations were left out.")
        return tuple(found)

    def __len__(self) -> int:
        return len(self.demonstrations)

    def _faded(self) -> Tensor:
        """(N,), the share of each action."""
        drawn = "terminated" in self.demonstrations.ends
        gamma = 1.0 if drawn else self.table.discount
        return gamma ** self._seen.step.double()

    def _paid(self) -> tuple[Tensor, Tensor]:
        seen, at = self._seen, (self._seen.s, self._seen.a)
        each = self._arrays.reward[(slice(None), *at)].T
        if self._arrays.arrival is not None:
            each = each + self._arrays.arrival[(slice(None), *at, seen.outcome)].T
        fade = self.fade.unsqueeze(1)
        taken = torch.zeros(len(self), len(self.names), dtype=torch.float64)
        taken.index_add_(0, seen.who, fade * each)
        known = torch.zeros(len(self), dtype=torch.float64)
        known.index_add_(0, seen.who, self.fade * self.offset[at])
        ended = ~(self.demonstrations.ending("terminated") | self.demonstrations.ending("cut"))
        drawn = "terminated" in self.demonstrations.ends
        gamma = 1.0 if drawn else self.table.discount
        share = ended.double() * gamma ** self.demonstrations.lengths.double()
        return taken, known + share * self.table.final_reward[seen.stop]

    def begin(self, which: Tensor | None = None) -> Tensor:
        """(T, S) or (1, S), how many of some demonstrations, or of all, begin where."""
        first, starts = self._seen.first, self._seen.starts
        if which is not None:
            first, starts = first[which], starts[which]
        found = torch.zeros(self.planner.steps, self.table.num_states, dtype=torch.float64)
        one = torch.ones(len(first), dtype=torch.float64)
        return found.index_put_((first, starts), one, accumulate=True)

    def groups(self, by_start: bool) -> list[Tensor]:
        """Which demonstrations are one example: those alike, or those that begin alike."""
        found: dict[Any, list[int]] = {}
        seen, first = self.demonstrations, self._seen.first.tolist()
        for i, length in enumerate(seen.lengths.tolist()):
            key: tuple[Any, ...] = (first[i], int(seen.states[i, 0]))
            if not by_start:
                path = tuple(seen.states[i, : length + 1].tolist())
                key = (*key, seen.ends[i], path, tuple(seen.actions[i, :length].tolist()))
            found.setdefault(key, []).append(i)
        return [torch.tensor(who) for who in found.values()]

    def demonstrated(self, groups: list[Tensor]) -> Iterator[Tensor]:
        """Of each example (S, A), in which share of it an action was taken in a state."""
        seen, (S, A) = self._seen, self.table.reward.shape[-2:]
        ends = torch.bincount(seen.who, minlength=len(self)).cumsum(0)
        order = seen.who.argsort(stable=True)
        pairs = (seen.s * A + seen.a)[order].tensor_split(ends[:-1])
        for who in groups:
            found = torch.zeros(S * A, dtype=torch.float64)
            for i in who.tolist():
                found[pairs[i].unique()] += 1 / len(who)
            yield found.view(S, A)

    def worth(self, weights: Tensor) -> Tensor:
        """(S, A) or (T, S, A), reward units: what each action is paid on average."""
        each = torch.einsum("k,ktsa->tsa", weights, self.features) + self.offset
        return each[0] if len(each) == 1 else each

    def features_of(self, visits: Tensor) -> Tensor:
        """(k,), the features of visits, (T, S, A) or (1, S, A)."""
        return torch.einsum("ktsa,tsa->k", self.features.expand(-1, len(visits), -1, -1), visits)

    def counted(self, loss: Tensor) -> Tensor:
        """(n,), the sum of a number (S, A) over the actions of each demonstration."""
        found = torch.zeros(len(self), dtype=torch.float64)
        return found.index_add_(0, self._seen.who, self.fade * loss[self._seen.s, self._seen.a])

    def paying(self, weights: Tensor) -> tuple[LinearReward, Any]:
        """The reward with its weights, and the model, or for a table the table, that pays it."""
        paid = self._reward.weighted(weights)
        if self._program is None:
            return paid, self._arrays.rewards(self.table, weights)
        return paid, paid.given_to(self._program)


def _check_absorbing(table: Table, features: FeatureArrays) -> None:
    """Raises ValueError if an endless stay in an absorbing state counts: sums would be infinite."""
    if not endless(table):
        return
    found = features.reward
    if features.arrival is not None:
        found = found + mean(table.log_dynamics, features.arrival)
    stays = ~lasting(table).unsqueeze(1) & (table.log_prior > -torch.inf)
    wrong = ((found != 0) & stays).nonzero()
    if len(wrong):
        k, s, a = wrong[0].tolist()
        expected = "0 in absorbing states, without a discount or a horizon"
        came = f"{float(found[k, s, a]):g} for action {a} in state {s}"
        checks.refuse(f"features[{features.names[k]!r}]", expected, came, "or take a discount")


def _check_ends(table: Table, seen: Demonstrations) -> None:
    cut = seen.ending("cut")
    if cut.any() and (table.horizon is not None or table.discount == 1):
        i = int(cut.nonzero()[0])
        advice = (
            'demonstrations.with_ends("own") compares with the best of as many steps'
            if table.horizon is not None
            else 'leave it out, or say "absorbed" where it came to its end'
        )
        expected = "one that came to its end, since what follows is worth something, too"
        checks.refuse(f"demonstration {i}", expected, "ends='cut'", advice)
