"""Models of routes side by side on trips that they were not fitted to (Ziebart et al. 2008)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cai import checks
from cai.demonstrations.demonstrations import Demonstrations
from cai.inference.inverse.fit_reward import fit_reward
from cai.inference.inverse.reward_fit import RewardFit
from cai.inference.margins.max_margin import MaxMargin
from cai.inference.route_choice._turn_choices import (
    PlannedChoices,
    log_shares,
    maximised,
    planned_log_shares,
)
from cai.inference.route_choice.route_comparison import RouteTable
from cai.inference.trips.best_routes import LEFT, BestRoutes, route
from cai.inference.trips.trip_likelihoods import TripLikelihoods
from cai.roads.network import Streets


def route_table(
    streets: Streets,
    train: Demonstrations,
    test: Demonstrations,
    features: Sequence[str] | None = None,
    *,
    cost: str | None = None,
    smoothing: float = 1.0,
    fitted: RewardFit | None = None,
    margin: MaxMargin | None = None,
) -> RouteTable:
    """How well models of routes predict trips that they have not seen.

    After Table 1 of Ziebart et al. (2008). Each model is told where a trip begins and where it
    ends, and predicts its most probable route between the two:

    ================  ============================================================================
    row               model
    ================  ============================================================================
    "shortest"        the route of the least cost; it has no probabilities
    "max margin"      the route of the largest utility, with the weights of ``margin`` (Ratliff,
                      Bagnell and Zinkevich 2006); it has no probabilities
    "action"          turns as a Markov chain: P(turn | segment) by counting those of ``train``; it
                      does not know the goal, and ends when it first enters it
    "action's costs"  P(turn | segment, goal) ∝ exp Q*, Q* the utility of the turn and of the best
                      way from there on (Ramachandran and Amir 2007; Neu and Szepesvári 2007), with
                      the weights under which the turns of ``train`` are most probable; a local
                      maximum, found from the weights of MaxEnt
    "MaxEnt"          P(route | origin, goal) ∝ exp(Σ utility), by :func:`fit_reward`
    ================  ============================================================================

    The probabilities of all routes from an origin to a goal, each ending when it first enters the
    goal, sum to one in each model; in "action" to the probability of ever getting there, which is
    one where no dead end can be reached. That is why their logarithms can be compared. Which of the
    last two predicts better is a matter of the data: neither is always the better one.

    Args:
        streets: the network.
        train: trips to fit to.
        test: other trips on the same network.
        features: names of features, of both models with weights; all of the network if not given.
        cost: what "shortest" minimises, a feature that is never negative; if not given the first
            of ``features`` that is never negative and not constant.
        smoothing: added to each count of "action", so that turns that nobody took are possible.
        fitted: a fit of MaxEnt to ``train``, if there is one; its features are taken.
        margin: the weights of :func:`max_margin` on ``train``; without them there is no such row.

    Returns:
        A :class:`RouteTable`.

    Raises:
        ValueError: naming the trip, if it does not follow turns, passes its goal or has not
            arrived; if there is no such cost; or as of :func:`fit_reward` and :func:`routes`.

    >>> from cai import inference, models
    >>> town = models.streets_from_columns(
    ...     {"tail": list("oaabc"), "head": list("abccd"), "minutes": [1.0, 1.0, 2.5, 1.0, 1.0]}
    ... )
    >>> rows = {"trip": [0] * 4 + [1] * 3, "u": list("oabcoac"), "v": list("abcdacd")}
    >>> trips = town.demonstrations(rows, segment=("u", "v"))
    >>> table = inference.route_table(town, trips, trips)
    >>> round(table.matched["shortest"], 3)
    0.833
    """
    checks.check_kind("streets", streets, Streets, "a cai.Streets", "models.streets makes one")
    checks.check_positive("smoothing", smoothing)
    names = _names(streets, features, fitted)
    named_cost, costs = _cost(streets, names, cost)
    f = streets.features(names)
    for where, trips in (("train", train), ("test", test)):
        _check_trips(where, trips, streets, f)
    widest = _widest(streets, margin)
    found = fit_reward(streets, train, names) if fitted is None else fitted
    maxent = np.array([*found.weights.values()])
    scale = f.std(0, correction=0).numpy()
    planned = maximised(PlannedChoices(streets, f, train), maxent, np.where(scale > 0, scale, 1.0))
    counted = log_shares(streets, train, smoothing)
    models = _Models(streets, f, costs, widest, counted, planned, maxent)
    measured, lengths = _lengths(streets)
    best = models.best_routes().items()
    return RouteTable(
        shares={name: _shared(by_goal, test, lengths) for name, by_goal in best},
        log_probabilities=models.log_probabilities(test),
        weights={
            **({} if margin is None else {"max margin": margin.weights}),
            "action's costs": dict(zip(names, planned.tolist(), strict=True)),
            "MaxEnt": dict(found.weights),
        },
        cost=named_cost,
        measured=measured,
        train=len(train),
        fitted=found,
    )


class _Models(NamedTuple):
    """What is compared.

    Attributes:
        streets: the network of N turns.
        features: (N, k).
        costs: (N,), of "shortest".
        widest: (N,), utilities of "max margin"; None without that row.
        counted: (N,), log-probabilities of "action".
        planned: (k,), weights of "action's costs".
        maxent: (k,), weights of "MaxEnt".
    """

    streets: Streets
    features: Tensor
    costs: Any
    widest: Any
    counted: Any
    planned: Any
    maxent: Any

    def log_probabilities(self, trips: Demonstrations) -> dict[str, Tensor | None]:
        """Name of the row -> (n,), nats."""
        planned = PlannedChoices(self.streets, self.features, trips)(self.planned).values
        maxent = TripLikelihoods(self.streets, self.features, trips)
        return {
            "shortest": None,
            **({} if self.widest is None else {"max margin": None}),
            "action": (torch.from_numpy(self.counted)[trips.actions] * trips.taken).sum(1),
            "action's costs": torch.from_numpy(planned),
            "MaxEnt": maxent.values(torch.from_numpy(self.maxent)),
        }

    def best_routes(self) -> dict[str, Callable[[int], BestRoutes]]:
        """Name of the row -> of a goal, the most probable routes there."""
        streets, f = self.streets, self.features.numpy()
        ahead = BestRoutes(streets, f @ self.planned)

        def planned(goal: int) -> BestRoutes:
            log_p = planned_log_shares(streets, f, ahead, self.planned, goal)
            return BestRoutes(streets, log_p)

        by_margin = {}
        if self.widest is not None:
            by_margin["max margin"] = _always(BestRoutes(streets, self.widest, LEFT))
        return {
            "shortest": _always(BestRoutes(streets, -self.costs)),
            **by_margin,
            "action": _always(BestRoutes(streets, self.counted)),
            "action's costs": planned,
            "MaxEnt": _always(BestRoutes(streets, f @ self.maxent)),
        }


def _names(streets: Streets, features: Any, fitted: RewardFit | None) -> list[str]:
    if fitted is None:
        every = [*streets.segment_features, *streets.turn_features]
        chosen = every if features is None else features
        return checks.several("features", chosen, 'such as ["minutes"]', "a list of names")
    checks.check_kind("fitted", fitted, RewardFit, "a RewardFit", "inference.fit_reward makes one")
    if fitted.model is not streets:
        checks.refuse("fitted", "a fit on the same network", "one of another model", "")
    if features is not None:
        checks.refuse("features", "none, as those of fitted are taken", repr(features), "")
    return list(fitted.weights)


def _widest(streets: Streets, margin: Any) -> Any:
    """(N,), the utilities of turns by the largest margin; None if it is not asked for."""
    if margin is None:
        return None
    advice = "inference.max_margin makes one"
    checks.check_kind("margin", margin, MaxMargin, "a MaxMargin", advice)
    if margin.model is not streets:
        checks.refuse("margin", "one on the same network", "one of another model", advice)
    weights = np.array([*margin.weights.values()])
    return streets.features([*margin.weights]).numpy() @ weights


def _cost(streets: Streets, names: list[str], cost: str | None) -> tuple[str, Any]:
    """The name of the cost of the shortest way, and the cost (N,) of each turn."""
    if cost is not None:
        costs = streets.feature(cost)
        if (costs < 0).any():
            came = f"{cost!r}, which is negative somewhere"
            checks.refuse("cost", "a feature that is never negative", came, "a time or a length")
        return cost, costs.numpy()
    for name in names:
        costs = streets.feature(name)
        if len(costs) and costs.min() >= 0 and costs.max() > costs.min():
            return name, costs.numpy()
    advice = "name one of the network, cost=…"
    came = f"none among {', '.join(names)}"
    checks.refuse("cost", "a feature that is never negative and not constant", came, advice)


def _check_trips(where: str, trips: Any, streets: Streets, features: Tensor) -> None:
    """Raises ValueError unless trips follow turns to a goal that they enter last."""
    advice = "streets.demonstrations reads some"
    checks.check_kind(where, trips, Demonstrations, "cai.Demonstrations", advice)
    try:
        TripLikelihoods(streets, features, trips)
    except ValueError as error:
        raise ValueError(f"{where}, {error}") from None


def _always(best: BestRoutes) -> Callable[[int], BestRoutes]:
    return lambda goal: best


def _shared(by_goal: Callable[[int], BestRoutes], trips: Demonstrations, lengths: Any) -> Tensor:
    """(n,), the share of the length of each trip that is on the most probable route."""
    found = torch.zeros(len(trips), dtype=torch.float64)
    ends = trips.states.gather(1, trips.lengths.unsqueeze(1)).squeeze(1)
    for goal in ends.unique().tolist():
        after = by_goal(goal).after(goal)
        for i in (ends == goal).nonzero().squeeze(1).tolist():
            driven = trips.states[i, : int(trips.lengths[i]) + 1].numpy()
            on = np.isin(driven, route(after, int(driven[0]), goal))
            first = np.zeros(len(driven), dtype=bool)
            first[np.unique(driven, return_index=True)[1]] = True  # what is driven twice is shared
            found[i] = lengths[driven][on & first].sum() / lengths[driven].sum()  # once
    return found


def _lengths(streets: Streets) -> tuple[str, Any]:
    """What lengths are, in words, and the length (E,) of each segment."""
    if "length" in streets.segment_features:
        lengths = streets.segment_features["length"].numpy()
        if (lengths > 0).all():
            return "length", lengths
    courses = streets.lines
    if courses is None:
        return "number of segments", np.ones(len(streets.segments))
    wide = 1.0
    if streets.degrees and streets.points is not None:
        wide = float(np.cos(np.radians(streets.points[:, 1].mean())))
    steps = [np.diff(line.numpy(), axis=0) for line in courses]
    found = np.array([np.hypot(wide * x[:, 0], x[:, 1]).sum() for x in steps])
    if (found > 0).all():
        return "length on the map", found
    return "number of segments", np.ones(len(streets.segments))
