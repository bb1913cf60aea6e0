"""Rewards that are linear in their weights, r(s,a) = offset + Σ_i ψ_i f_i(s,a)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cai import checks
from cai.program.calling import call
from cai.program.trajectory import TrajectoryModel
from cai.tables.finite import all_pairs
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
        return self._sum(self.features, s, a) + _of(self.offset, s, a)

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
        S, A, K = table.num_states, table.num_actions, table.log_dynamics.shape[-1]
        if table.program is not None:
            s, a = all_pairs(table.program)
        else:
            s, a = torch.meshgrid(torch.arange(S), torch.arange(A), indexing="ij")
        k = len(self.names)
        reward = torch.zeros(k, S, A, dtype=torch.float64)
        for i, (name, f) in enumerate(self.features.items()):
            reward[i] = _evaluated(f"features[{name!r}]", f, s, a)
        offset = _evaluated("offset", self.offset, s, a)
        if not self.arrival:
            return FeatureArrays(self.names, reward, None, offset)
        s_next = torch.arange(K) if table.successors is None else table.successors
        s_next = s_next.expand(S, A, K).to(s.dtype)
        s, a = (x.unsqueeze(-1).expand(S, A, K) for x in (s, a))
        arrival = torch.zeros(k, S, A, K, dtype=torch.float64)
        possible = table.log_dynamics > -torch.inf
        possible = possible if possible.dim() == 3 else possible.any(0)
        for i, (name, f) in enumerate(self.arrival.items(), len(self.features)):
            arrival[i] = _evaluated(f"arrival[{name!r}]", f, s, a, s_next, possible=possible)
        return FeatureArrays(self.names, reward, arrival, offset)

    def _sum(self, features: Mapping[str, Any], *at: Tensor) -> Tensor:
        if self.weights is None:
            checks.refuse("weights", "some, to pay rewards", "none", "weighted([…]) gives them")
        total = torch.zeros((), dtype=torch.float64)
        for name, f in features.items():
            total = total + self.weights[name] * _of(f, *at).double()
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


def _check_feature(where: str, feature: Any) -> None:
    if not callable(feature) and not isinstance(feature, Tensor):
        came, advice = type(feature).__name__, "for instance lambda s, a: a > 0"
        checks.refuse(where, "a function or a tensor", came, advice)


def _of(feature: Any, *at: Tensor) -> Tensor:
    """A feature of states and actions of any batch shape."""
    if callable(feature):
        return torch.as_tensor(feature(*at))
    if not isinstance(feature, Tensor) or not feature.dim():
        return torch.as_tensor(feature, dtype=torch.float64)
    last = torch.zeros_like(at[1]) if feature.shape[1] == 1 else at[1]
    return feature[(at[0].long(), last.long(), *(x.long() for x in at[2:]))]


def _evaluated(where: str, feature: Any, *at: Tensor, possible: Tensor | None = None) -> Tensor:
    found: Any = call(where, partial(_of, feature), *at)
    try:
        numbers = torch.as_tensor(found, dtype=torch.float64).expand(at[0].shape)
    except (RuntimeError, TypeError, ValueError):
        expected = f"one number for each of shape {list(at[0].shape)}"
        checks.refuse(where, expected, checks.described(found), "it must broadcast")
    if possible is not None:  # what cannot happen may be anything
        numbers = torch.where(possible, numbers, 0.0)
    if not numbers.isfinite().all():
        place = [x[~numbers.isfinite()][0].item() for x in at]
        checks.refuse(where, "finite numbers", f"another one at {place}", "see there")
    return numbers
