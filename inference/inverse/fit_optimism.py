"""The optimism of a demonstrator, by the profile of the likelihood of its actions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import chi2
from torch import Tensor

from cai import checks, one_line
from cai.demonstrations.demonstrations import Demonstrations
from cai.inference.inverse.fit_reward import fit_reward
from cai.inference.inverse.reward_fit import RewardFit
from cai.program.trajectory import TrajectoryModel
from cai.rewards.linear_reward import LinearReward
from cai.tables.table import Table

_POINTS = 9  # of the profile at first
_PRECISE = 1e-3  # of the maximum and of the ends of the interval, in units of η


@dataclass(frozen=True, eq=False)
class OptimismFit:
    """The optimism under which demonstrations are most probable.

    Attributes:
        optimism: η̂.
        interval: the ends of its likelihood interval; ±inf where the range that was searched ends
            before the likelihood has fallen far enough.
        level: how often the interval covers the truth in large samples.
        optimisms: (m,), ascending: where the profile was computed.
        log_likelihoods: (m,), nats: the largest at each of them, over the weights.
        fit: the weights at η̂.

    >>> import cai
    >>> from cai import inference, models
    >>> model = models.ledge()
    >>> expert = inference.soft_values(model, optimism=1.0).policy
    >>> seen = cai.Demonstrations.from_trajectories(model.simulate(expert, 300, seed=0))
    >>> reward = cai.LinearReward({"own": model.reward})
    >>> found = inference.fit_optimism(model, seen, reward)
    >>> found.interval[0] <= found.optimism <= found.interval[1]
    True
    """

    optimism: float
    interval: tuple[float, float]
    level: float
    optimisms: Tensor
    log_likelihoods: Tensor
    fit: RewardFit

    __repr__ = one_line.of_fields


def fit_optimism(
    model: TrajectoryModel | Table,
    demonstrations: Demonstrations,
    reward: LinearReward,
    *,
    between: tuple[float, float] = (-1.0, 2.0),
    level: float = 0.95,
    **options: Any,
) -> OptimismFit:
    """The optimism of a demonstrator, with an interval: from 0, a causal agent, to 1, a lucky one.

    For each η the weights are fitted to the actions; the interval holds all η whose likelihood is
    within χ²/2 of the largest (Wilks 1938). It is consistent, and weak: from thousands of
    demonstrations it may still be as wide as one. Report the interval, not the point. On
    deterministic dynamics without a discount every optimism explains the data as well.

    Args:
        model: as for :func:`fit_reward`.
        demonstrations: the same.
        reward: the same.
        between: the range of η that is searched.
        level: of the interval.
        **options: others of :func:`fit_reward`, but for ``likelihood``, ``optimism`` and
            ``checkpoint``.

    Returns:
        An :class:`OptimismFit`.

    Raises:
        ValueError: as :func:`fit_reward`; and if the range is empty or the level is not between 0
            and 1.

    >>> import cai
    >>> from cai import inference, models
    >>> model = models.ledge()
    >>> paths = model.simulate(lambda t, s: model.prior(s), 50, seed=0)
    >>> seen = cai.Demonstrations.from_trajectories(paths)
    >>> inference.fit_optimism(model, seen, cai.LinearReward({"own": model.reward})).level
    0.95
    """
    if not isinstance(between, tuple | list) or len(between) != 2:
        checks.refuse("between", "two optimisms", repr(between), "for instance (-1, 2)")
    low, high = (checks.check_optimism(x, "between") for x in between)
    if not -np.inf < low < high < np.inf:
        checks.refuse("between", "two finite optimisms in ascending order", repr(between), "")
    checks.check_kind("reward", reward, LinearReward, "a LinearReward", "cai.LinearReward({…})")
    checks.check_real("level", level, lambda x: 0 < x < 1, "between 0 and 1", "such as 0.95")
    for name in ("likelihood", "optimism", "checkpoint"):
        if name in options:
            checks.refuse(name, "not to be given here", repr(options[name]), "leave it out")
    fits: dict[float, RewardFit] = {}

    def profile(eta: float) -> float:
        if eta not in fits:
            near = min(fits, key=lambda other: abs(other - eta), default=None)
            starts = [None] if near is None else [None, [*fits[near].weights.values()]]
            found = [
                fit_reward(
                    model, demonstrations, reward, optimism=eta, **{"start": start} | options
                )
                for start in starts
            ]
            fits[eta] = max(found, key=lambda fit: fit.log_likelihood)
        return fits[eta].log_likelihood

    best = _highest(profile, np.linspace(low, high, _POINTS).tolist())
    fall = profile(best) - 0.5 * float(chi2.ppf(level, 1))
    ends = _end(profile, best, low, fall), _end(profile, best, high, fall)
    tried = sorted(fits)
    found = torch.tensor([fits[eta].log_likelihood for eta in tried], dtype=torch.float64)
    etas = torch.tensor(tried, dtype=torch.float64)
    return OptimismFit(best, ends, level, etas, found, fits[best])


def _highest(profile: Callable[[float], float], points: list[float]) -> float:
    """Where the profile is highest, near the best of some points."""
    i = max(range(len(points)), key=lambda j: profile(points[j]))
    around = points[max(i - 1, 0)], points[min(i + 1, len(points) - 1)]
    options = {"xatol": _PRECISE}
    found = minimize_scalar(
        lambda x: -profile(float(x)), bounds=around, method="bounded", options=options
    )
    return max((points[i], float(found.x)), key=profile)


def _end(profile: Callable[[float], float], best: float, edge: float, fall: float) -> float:
    """Where the profile falls to a level on the way to an edge; ±inf if it does not."""
    if best == edge or profile(edge) > fall:
        return np.inf if edge > best or (edge == best and edge > 0) else -np.inf
    return float(brentq(lambda x: profile(float(x)) - fall, best, edge, xtol=_PRECISE))
