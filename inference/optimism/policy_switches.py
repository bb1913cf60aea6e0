"""Finds where the most probable action changes between two optimisms, by bisection."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class PolicySwitch:
    """An optimism at which the most probable action of a state changes.

    Attributes:
        optimism: η of the change.
        t: the step.
        s: the state.
        before: the most probable action below η.
        after: the most probable action above.

    >>> from cai import inference, models
    >>> curve = inference.optimism_curve(models.ledge(), [0.0, 1.0])
    >>> switch = curve.changes[0]
    >>> 0 < switch.optimism < 1, (switch.before, switch.after)
    (True, (1, 0))
    """

    optimism: float
    t: int
    s: int
    before: int
    after: int


class Sight(NamedTuple):
    """The policy at one η: its favourite actions, and its visits."""

    eta: float
    favourites: Tensor  # (steps, S, A), booleans: the most probable action, or several in a tie
    visits: Tensor  # (steps, S): q(s_t=s, alive) in the true dynamics


def find_switches(
    sights: Sequence[Sight],
    look: Callable[[float], Sight],
    steps: list[int],
    least_visit: float,
    tolerance: float,
) -> tuple[PolicySwitch, ...]:
    """The switches of favourites between neighbouring optimisms, each found by bisection."""
    found: list[PolicySwitch] = []
    open_ends: dict[tuple[int, int], int] = {}  # (step, state) -> the change without ``after`` yet

    def settle(mind: Tensor, flips: Tensor) -> None:
        """Sets the new favourite, once actions that only tied with it are out."""
        for (i, s), k in list(open_ends.items()):
            if flips[i, s]:
                found[k] = replace(found[k], after=_lowest(mind[i, s]))
                del open_ends[i, s]

    def walk(low: Sight, high: Sight, mind: Tensor) -> Tensor:
        """The actions (steps, S, A) that were favourites at all η so far, up to ``high``."""
        still = mind & high.favourites
        stays = still.any(-1)
        seen = ~stays & (torch.maximum(low.visits, high.visits) >= least_visit)
        ends = scaled(low.eta), scaled(high.eta)
        middle = sum(ends) / 2
        if seen.any() and ends[1] - ends[0] > tolerance and ends[0] < middle < ends[1]:
            between = look(unscaled(middle))
            return walk(between, high, walk(low, between, mind))
        settle(mind, ~stays)
        eta = unscaled(middle if 1 - abs(middle) > 10 * tolerance else math.copysign(1, middle))
        for i, s in seen.nonzero().tolist():
            open_ends[i, s] = len(found)
            found.append(PolicySwitch(eta, steps[i], s, _lowest(mind[i, s]), -1))
        return torch.where(stays.unsqueeze(-1), still, high.favourites)

    mind = sights[0].favourites
    for low, high in itertools.pairwise(sights):
        mind = walk(low, high, mind)
    settle(mind, torch.ones_like(mind[..., 0]))
    return tuple(found)


def scaled(eta: float) -> float:
    """η/(1 + |η|), from -1 at -∞ to 1 at +∞."""
    return math.copysign(1.0, eta) if math.isinf(eta) else eta / (1 + abs(eta))


def unscaled(u: float) -> float:
    """η from η/(1 + |η|)."""
    return math.copysign(math.inf, u) if abs(u) == 1 else u / (1 - abs(u))


def _lowest(actions: Tensor) -> int:
    """The lowest index of a mask (A,)."""
    return int(actions.int().argmax())
