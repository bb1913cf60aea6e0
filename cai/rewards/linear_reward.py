"""Rewards that are linear in their weights, r(s,a) = offset + Σ_i ψ_i f_i(s,a)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cai import checks, one_line
from cai.program.trajectory import TrajectoryModel
from cai.rewards.places import evaluated, pairs, possible, triples, value_at
from cai.tables.table import Table
from cai.tables.tabulation import replaced


@dataclass(frozen=True, eq=False)
class LinearReward:
    """A reward with one weight for each feature.

        r(s,a) = offset(s,a) + Σ_i ψ_i f_i(s,a),    r⁺(s,a,s') = Σ_j ψ_j f_j(s,a,s')

    Args:
        features: name -> f(s, a), a function that broadcasts, or a tensor (S, A) or (S, 1).
        arrival: name -> f(s, a, s'), likewise, or a tensor (S, A, S); paid on arrival.
        offset: the part without a weight: a function of (s, a), a tensor (S, A), or a number,
            reward units.
        weights: name -> ψ, reward units per unit of the feature; None until it is fitted.

    Attributes:
        names: of all features, those of arrival last.

    Raises:
        ValueError: if there is no feature, two have one name, or one is neither a function nor a
            tensor.

    >>> import torch, cai
    >>> from cai import models
    >>> reward = cai.LinearReward({"state": lambda s, a: s, "moves": lambda s, a: a > 0})
    >>> paid = reward.weighted([0.5, -1.0])
    >>> paid(torch.tensor(4), torch.tensor(1)).item()
    1.0
    """

    features: Mapping[str, Any]
    arrival: Mapping[str, Any] = field(default_factory=dict)
    offset: Any = 0.0
    weights: Mapping[str, float] | None = None

    __repr__ = one_line.of_fields

    def __post_init__(self) -> None:
        for where, given in (("features", self.features), ("arrival", self.arrival)):
            advice = "for instance {'moves': lambda s, a: a > 0}"
            checks.check_kind(where, given, Mapping, "features by name", advice)
            for name, feature in given.items():
                _check_feature(f"{where}[{name!r}]", feature)
        twice = self.features.keys() & self.arrival.keys()
        if twice or not self.names:
            came = f"{sorted(twice)[0]!r} in both" if twice else "none"
            checks.refuse("features", "at least one, each with a name of its own", came, "")

    @property
    def names(self) -> tuple[str, ...]:
        """Of all features, those paid on arrival last."""
        return (*self.features, *self.arrival)

    def weighted(self, weights: Any) -> LinearReward:
        """The same with weights, in the order of ``names``."""
        numbers = torch.as_tensor(weights, dtype=torch.float64)
        if numbers.shape != (len(self.names),):
            came = str(list(numbers.shape))
            checks.refuse("weights", f"{len(self.names)}, one for each feature", came, "")
        found = dict(zip(self.names, numbers.tolist(), strict=True))
        return dataclasses.replace(self, weights=found)

    def __call__(self, s: Tensor, a: Tensor) -> Tensor:
        """r(s,a), reward units.

        Raises:
            ValueError: if there are no weights yet.
        """
        return self._sum(self.features, s, a) + value_at(self.offset, s, a)

    def on_arrival(self, s: Tensor, a: Tensor, s_next: Tensor) -> Tensor:
        """r⁺(s,a,s'), reward units."""
        return self._sum(self.arrival, s, a, s_next)

    def given_to(self, model: TrajectoryModel) -> TrajectoryModel:
        """A model with these rewards in place of its own; its final reward stays."""
        arrival = self.on_arrival if self.arrival else None
        return replaced(model, reward=self, arrival_reward=arrival)

    def on(self, table: Table) -> FeatureArrays:
        """The features of all states and actions of a table.

        Raises:
            ValueError: naming the feature, if one raises, has another shape, or is not finite.
        """
        s, a = pairs(table)
        k = len(self.names)
        reward = torch.zeros(k, *s.shape, dtype=torch.float64)
        for i, (name, f) in enumerate(self.features.items()):
            reward[i] = evaluated(f"features[{name!r}]", f, s, a)
        offset = evaluated("offset", self.offset, s, a)
        if not self.arrival:
            return FeatureArrays(self.names, reward, None, offset)
        at, may = triples(table), possible(table)
        arrival = torch.zeros(k, *may.shape, dtype=torch.float64)
        for i, (name, f) in enumerate(self.arrival.items(), len(self.features)):
            arrival[i] = evaluated(f"arrival[{name!r}]", f, *at, possible=may)
        return FeatureArrays(self.names, reward, arrival, offset)

    def _sum(self, features: Mapping[str, Any], *at: Tensor) -> Tensor:
        if self.weights is None:
            checks.refuse("weights", "some, to pay rewards", "none", "weighted([…]) gives them")
        total = torch.zeros((), dtype=torch.float64)
        for name, f in features.items():
            total = total + self.weights[name] * value_at(f, *at).double()
        return total


@dataclass(frozen=True, eq=False)
class FeatureArrays:
    """Features on a table.

    Attributes:
        names: k of them.
        reward: (k, S, A), of r.
        arrival: (k, S, A, K), of r⁺, zero where impossible; or None.
        offset: (S, A), reward units.
    """

    names: tuple[str, ...]
    reward: Tensor
    arrival: Tensor | None
    offset: Tensor

    def rewards(self, table: Table, weights: Tensor) -> Table:
        """A table with the rewards of some weights (k,)."""
        reward = self.offset + torch.einsum("k,ksa->sa", weights, self.reward)
        arrival = None
        if self.arrival is not None:
            arrival = torch.einsum("k,ksao->sao", weights, self.arrival)
        return table.holding(reward=reward, arrival_reward=arrival, program=None)

    def without(self, state: int) -> FeatureArrays:
        """The same, but for a state where nothing is paid."""
        reward, offset = self.reward.clone(), self.offset.clone()
        reward[:, state], offset[state] = 0.0, 0.0
        arrival = None if self.arrival is None else self.arrival.clone()
        if arrival is not None:
            arrival[:, state] = 0.0
        return FeatureArrays(self.names, reward, arrival, offset)

    def spread(self, table: Table) -> Tensor:
        """(k,), the spread of each over actions that are allowed; of constants their size."""
        allowed = table.log_prior > -torch.inf
        allowed = allowed if allowed.dim() == 2 else allowed.any(0)
        each = self.reward[:, allowed]
        if self.arrival is not None:
            each = torch.cat([each.unsqueeze(-1), self.arrival[:, allowed]], -1).flatten(1)
        return spread(each)


def spread(each: Tensor) -> Tensor:
    """(k,), the standard deviation of each of k rows; of a constant its size."""
    deviation, size = each.std(1, correction=0), each.abs().amax(1)
    found = torch.where(deviation > 1e-12 * size, deviation, size)
    return torch.where(found > 0, found, 1.0)


def _check_feature(where: str, feature: Any) -> None:
    if not callable(feature) and not isinstance(feature, Tensor):
        came, advice = type(feature).__name__, "for instance lambda s, a: a > 0"
        checks.refuse(where, "a function or a tensor", came, advice)
