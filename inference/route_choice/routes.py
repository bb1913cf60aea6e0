"""Predictions on a road network: routes, how segments are used, and where somebody is going."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from cai import checks, one_line
from cai.demonstrations.demonstrations import Demonstrations
from cai.inference.inverse.reward_fit import RewardFit
from cai.inference.route_choice._goal_log_values import log_beginnings
from cai.inference.route_choice._route_checks import checked_goals, checked_weights
from cai.inference.trips.best_routes import BestRoutes, route
from cai.inference.trips.factorised import LOST, Factorised, factorised
from cai.inference.trips.goal_solver import GoalSolver
from cai.inference.trips.trip_likelihoods import TripLikelihoods
from cai.numerics import arrays
from cai.numerics.exclusive import cached_property
from cai.roads.network import Streets

_BLOCK = 64  # segments whose returns are found together


def routes(fitted: RewardFit, goals: Any) -> Routes:
    """What a reward that was fitted to trips says about other trips.

    The probability of a route from o to d is exp(Σ utility)/z_d(o), z_d(o) the sum over all routes
    that end when they first enter d (Ziebart et al. 2008).

    Args:
        fitted: by :func:`fit_reward` on a road network.
        goals: (D,), the segments where trips may end, each once or more often.

    Returns:
        A :class:`Routes`.

    Raises:
        ValueError: if it was fitted to another kind of model, goals are not segments, or the sum
            over routes to one of them is infinite.

    >>> import torch, cai
    >>> from cai import inference, models
    >>> town = models.streets_from_columns(
    ...     {"tail": list("oaabc"), "head": list("abccd"), "minutes": [1.0, 1.0, 2.5, 1.0, 1.0]}
    ... )
    >>> way = [("o", "a"), ("a", "b"), ("b", "c"), ("c", "d")]
    >>> rows = {"trip": [0] * 4 + [1] * 3, "u": list("oabcoac"), "v": list("abcdacd")}
    >>> trips = town.demonstrations(rows, segment=("u", "v"))
    >>> found = inference.routes(inference.fit_reward(town, trips, ["minutes"]), trips.goals)
    >>> found.log_probability(trips).exp()  # each was driven once
    tensor([0.5000, 0.5000], dtype=torch.float64)
    """
    checks.check_kind("fitted", fitted, RewardFit, "a RewardFit", "inference.fit_reward makes one")
    if not isinstance(fitted.model, Streets):
        came = type(fitted.model).__name__
        checks.refuse("fitted", "a fit on a road network", f"one on a {came}", "see cai.Streets")
    weights = torch.tensor([*fitted.weights.values()], dtype=torch.float64)
    chosen = arrays.integers("goals", goals).unique()
    return Routes(fitted.model, tuple(fitted.weights), weights, chosen)


@dataclass(frozen=True, eq=False)
class Routes:
    """Routes of a fitted reward on a road network.

    Attributes:
        streets: the network of E segments.
        names: of k features.
        weights: (k,), nats per unit of each.
        goals: (D,), the segments where trips may end.

    Raises:
        ValueError: if a feature is unknown, a weight is missing, or goals are not segments.

    >>> import torch
    >>> from cai import inference, models
    >>> weight, goals = torch.tensor([-9.0]), torch.tensor([7])
    >>> routes = inference.Routes(models.city(), ("minutes",), weight, goals)
    >>> int(routes.use(0, 7)[7].round())
    1
    """

    streets: Streets
    names: tuple[str, ...]
    weights: Tensor
    goals: Tensor

    __repr__ = one_line.of_fields

    def __post_init__(self) -> None:
        vars(self)["weights"] = checked_weights(self.streets, self.names, self.weights)
        vars(self)["goals"] = checked_goals(self.streets, self.goals)

    def log_probability(self, trips: Demonstrations) -> Tensor:
        """(n,), nats: log P of each route, given where it begins and ends.

        Raises:
            ValueError: naming the trip, if it does not follow turns, or passes its goal.
        """
        return TripLikelihoods(self.streets, self._features, trips).values(self.weights)

    def likely(self, origin: int, goal: int) -> Tensor:
        """The most probable route, as segments from the origin to the goal.

        Raises:
            ValueError: if there is none, or a cycle has a positive utility.
        """
        o, d = self._ends(origin, goal)
        after = self._best.after(d)
        if after[o] < 0:
            self._refuse_unreached(o, d)
        return torch.tensor(route(after, o, d))

    def sample(self, origin: int, goal: int, samples: int, seed: int | None = None) -> list[Tensor]:
        """Routes drawn at random, each as its segments.

        Args:
            origin: a segment.
            goal: another segment.
            samples: how many.
            seed: of the draws; None continues torch's generator.

        Raises:
            ValueError: if the goal cannot be reached, or a number is out of range.
        """
        checks.check_count("samples", samples)
        checks.check_seed(0 if seed is None else seed)
        o, d = self._ends(origin, goal)
        chance, first = self._chances(o, d), self.streets.offsets.tolist()
        following = self.streets.turns[:, 1].tolist()
        rng = np.random.default_rng(int(torch.randint(2**62, ())) if seed is None else seed)
        found = []
        for _ in range(samples):
            path = [o]
            while path[-1] != d:
                inside = slice(first[path[-1]], first[path[-1] + 1])
                rising = chance[inside].cumsum()
                # What rounding errors leave of one goes to the last turn that is possible.
                place = np.searchsorted(rising, rng.random() * rising[-1], side="right")
                path.append(following[inside][min(int(place), int(rising.argmax()))])
            found.append(torch.tensor(path))
        return found

    def traversals(self, origin: int, goal: int) -> Tensor:
        """(E,), how often each segment is expected to be driven; as :meth:`use`."""
        return self._visits(*self._ends(origin, goal))[0]

    def use(self, origin: int, goal: int) -> Tensor:
        """(E,), the probability that each segment is used at all.

        Where cycles are possible it is less than :meth:`traversals`, by the expected number of
        visits G(s,s) of a trip that is in s already, G = (I - M)⁻¹ without the goal.

        Raises:
            ValueError: if the goal cannot be reached.
        """
        o, d = self._ends(origin, goal)
        visits, returns = self._visits(o, d)
        found = visits.clone()
        seen = ((visits > 0) & (torch.arange(self._size) != d)).nonzero().squeeze(1)
        for some in seen.split(_BLOCK):
            found[some] = visits[some] / returns(some)
        return found.clamp(max=1.0)  # by rounding errors

    def goal_posterior(self, prefix: Demonstrations, prior: Any = None) -> Tensor:
        """(D,), where a trip is going, given its beginning: the probability of each goal.

        p(g) exp((V_g(s_t) - V_g(s_0))/α), in which utilities cancel; a goal that was passed on the
        way is out. ``inference.intent(routes, prefix)`` has it after each turn.

        Args:
            prefix: one trip, of which the last segment is where it is now.
            prior: D weights, or a mapping from segments to weights; None for equal ones.

        Raises:
            ValueError: if it is not one trip along turns, weights do not fit, or no goal is
                possible.
        """
        if not isinstance(prefix, Demonstrations) or len(prefix) != 1:
            advice = "for instance trips[0].prefix(0.5)"
            checks.refuse("prefix", "the beginning of one trip", checks.described(prefix), advice)
        found = self.goal_prior(prior).log() + self.log_beginnings(prefix)[0, -1]
        if not (found > -torch.inf).any():
            checks.refuse("prefix", "one from which a goal can be reached", "none", "see goals")
        return found.softmax(0)

    def goal_prior(self, prior: Any = None) -> Tensor:
        """(D,), the prior probabilities of the goals, from weights as in :meth:`goal_posterior`."""
        D = len(self.goals)
        if prior is None:
            return torch.full((D,), 1 / D, dtype=torch.float64)
        if isinstance(prior, Mapping):
            if unknown := [g for g in prior if g not in self.goals.tolist()]:
                came, advice = f"{unknown[0]!r}, too", f"goals are rows, such as {self.goals[0]}"
                checks.refuse("prior", "weights of goals of these routes", came, advice)
            prior = [float(prior.get(g, 0.0)) for g in self.goals.tolist()]
        weights = arrays.weights("prior", prior, (D,))
        return weights / weights.sum()

    def log_beginnings(self, prefixes: Demonstrations) -> Tensor:
        """How probable the beginnings of trips are on the way to each goal.

        After t turns that is Σ utility + (V_g(s_t) - V_g(s_0))/α. A goal that was passed, or that
        cannot be reached, has -inf.

        Args:
            prefixes: n trips of up to L turns, of which the last segment is where one is now.

        Returns:
            (n, L+1, D), nats: log P of the first 0 … L turns, given where a trip began and each
            goal; after its end as at its end.

        Raises:
            ValueError: naming the trip, if it does not follow turns.
        """
        checks.check_kind("prefixes", prefixes, Demonstrations, "trips", "see Streets")
        here, utility = self._shared, self._utility
        return log_beginnings(self.streets, here, utility, prefixes, self.goals)

    @cached_property
    def _features(self) -> Tensor:
        return self.streets.features(self.names)

    @cached_property
    def _utility(self) -> Any:
        return (self._features @ self.weights).numpy()

    @cached_property
    def _best(self) -> BestRoutes:
        return BestRoutes(self.streets, self._utility)

    @cached_property
    def _size(self) -> int:
        return len(self.streets.segments)

    @cached_property
    def _shared(self) -> Factorised:
        """For the potential of all goals."""
        solver = GoalSolver(self.streets.turns, self._size)
        return self._towards(solver, solver.place[self.goals.numpy()])

    def _towards(self, solver: GoalSolver, goals: Any) -> Factorised:
        with np.errstate(all="ignore"):
            return factorised(solver, self._utility, np.ones_like(solver.tails, bool), goals)

    def _way(self, o: int, d: int) -> tuple[Factorised, Any]:
        """A factorisation that is in range, and x = G e_d, by places."""
        here = self._shared
        start, goal = here.solver.place[[o, d]]
        x = here.columns([goal])[:, 0]
        if x[start] < LOST * x[goal]:
            here = self._towards(here.solver, [goal])
            x = here.columns([goal])[:, 0]
        if x[start] == 0:
            self._refuse_unreached(o, d)
        return here, x

    def _chances(self, o: int, d: int) -> Any:
        """(N,), the probability of each turn on the way to a goal."""
        (solver, _, moves, _), x = self._way(o, d)
        with np.errstate(all="ignore"):
            chance = moves * x[solver.heads] / x[solver.tails]
        return np.where(np.isfinite(chance), chance, 0.0)

    def _visits(self, o: int, d: int) -> tuple[Tensor, Any]:
        """Expected visits (E,), and a function that gives G(s,s) without the goal."""
        here, x = self._way(o, d)
        place, start = here.solver.place, np.zeros((self._size, 2), order="F")
        start[place[o], 0] = start[place[d], 1] = 1.0
        from_start, from_goal = here.lu.solve(start, "T").T  # G(o,·) and G(d,·)
        there = x[place[d]]
        without = from_start - (x[place[o]] / there) * from_goal
        visits = np.maximum(without, 0.0) * x / x[place[o]]
        visits[place[d]] = 1.0

        def returns(some: Tensor) -> Tensor:
            places = place[some.numpy()]
            diagonal = here.unit_columns(places)[places, np.arange(len(places))]
            return torch.from_numpy(diagonal - x[places] * from_goal[places] / there)

        return torch.from_numpy(visits[place]), returns

    def _ends(self, origin: Any, goal: Any) -> tuple[int, int]:
        for name, x in (("origin", origin), ("goal", goal)):
            if not checks.within(x, lambda y: y in range(self._size)):
                expected, advice = f"a segment 0 … {self._size - 1}", "streets.segment finds one"
                checks.refuse(name, expected, repr(x), advice)
        if int(origin) == int(goal):
            advice = "such a trip has no turn, or drives round"
            checks.refuse("goal", "another segment than the origin", str(goal), advice)
        return int(origin), int(goal)

    def _refuse_unreached(self, o: int, d: int) -> NoReturn:
        one, other = (self.streets.segment_names[e] for e in (o, d))
        checks.refuse("goal", f"one that {one} reaches", str(other), "look for dead ends")
