"""What a user passes is checked here: a message says where, what was expected, what came, why."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.distributions import Distribution

_ROW_TOLERANCE = 1e-5  # float32 rows of probabilities sum to one within this


def check_arguments(model: Any) -> None:
    """Raises ValueError where a number is out of range or a function is none."""
    if not isinstance(getattr(model, "initial", None), Distribution):
        refuse(
            "initial", "a Pyro distribution", repr(model.initial), "for instance dist.Categorical"
        )
    if not callable(model.dynamics) or isinstance(model.dynamics, Distribution):
        refuse(
            "dynamics",
            "a function (s, a) -> distribution",
            repr(model.dynamics),
            "write it as a def",
        )
    if not callable(model.action_prior):
        refuse(
            "action_prior",
            "a Pyro distribution or a function of s",
            repr(model.action_prior),
            "for a uniform prior take dist.Categorical(torch.ones(num_actions))",
        )
    if model.horizon is not None:
        check_count("horizon", model.horizon)
    check_positive("temperature", model.temperature)
    if not _within(model.discount, lambda gamma: 0 < gamma <= 1):
        refuse(
            "discount",
            "a number in (0, 1]",
            repr(model.discount),
            "1 is no discount; 0 has no future",
        )
    if model.optimality not in ("factor", "bernoulli"):
        refuse("optimality", '"factor" or "bernoulli"', repr(model.optimality), 'try "factor"')


def check_count(name: str, value: Any) -> None:
    """Raises ValueError unless value is an int ≥ 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        refuse(name, "a whole number of at least 1", repr(value), "count in steps or trajectories")


def check_positive(name: str, value: float) -> None:
    """Raises ValueError unless value is a finite number > 0."""
    if not _within(value, lambda x: 0 < x < math.inf):
        refuse(name, "a finite number above 0", repr(value), "zero and infinity are limits")


def check_probability(name: str, value: float) -> None:
    """Raises ValueError unless value is a number in [0, 1]."""
    if not _within(value, lambda p: 0 <= p <= 1):
        refuse(name, "a probability in [0, 1]", repr(value), "0 is never, 1 is always")


def _within(value: Any, allowed: Callable[[float], bool]) -> bool:
    try:
        return allowed(float(value))
    except (TypeError, ValueError):
        return False


def finite_horizon(model: Any, what: str) -> int:
    """The horizon T.

    Raises:
        ValueError: where it is infinite, naming what needs it.
    """
    if model.horizon is None:
        raise ValueError(
            f"horizon: {what} needs a finite number of steps, but the horizon is None (infinite); "
            "try dataclasses.replace(model, horizon=100)"
        )
    return int(model.horizon)


def check_reward(name: str, reward: Tensor) -> None:
    """Raises ValueError where a reward is NaN or +inf; -inf is allowed, it forbids."""
    bad = reward.isnan() | (reward == math.inf)
    if bad.any():
        where = tuple(bad.nonzero()[0].tolist())
        at = f" at index {list(where)}" if where else ""
        refuse(
            name,
            "numbers below +inf (-inf forbids)",
            f"{reward[where].item()}{at}",
            "look for 0/0 or 0·inf, or take torch.where",
        )


def check_bernoulli(name: str, reward: Tensor, discount: float) -> None:
    """Raises ValueError where a reward is positive, so that exp(r/α) is no probability."""
    highest = reward.max().item()
    if highest > 0:
        caution = (
            "which changes nothing else, as the discount is 1"
            if discount == 1
            else f"but with a discount of {discount:g} that changes the problem, since only the "
            "living pay; change the rewards themselves"
        )
        raise ValueError(
            f'{name}: optimality="bernoulli" needs rewards ≤ 0, so that p(O_t=1) = '
            f"exp(reward/temperature) is a probability; the largest is {highest:g}. "
            f"Subtract at least {highest:g} from every reward, {caution}; or take "
            'optimality="factor"'
        )


def check_rows(name: str, log_p: Tensor) -> None:
    """Raises ValueError where rows of log-probabilities do not sum to one over the last axis."""
    total = log_p.exp().sum(-1)
    bad = ~((total - 1).abs() <= _ROW_TOLERANCE)
    if bad.any():
        where = bad.nonzero()[0].tolist()
        labels = dict(zip(("state", "action"), where, strict=False))
        place = ", ".join(f"{label} {index}" for label, index in labels.items())
        refuse(
            f"{name} at {place}",
            "probabilities ≥ 0 that sum to one",
            f"a sum of {total[tuple(where)].item():.6g}",
            "divide each row by its sum",
        )


def refuse(where: str, expected: str, came: str, advice: str) -> None:
    """Raises ValueError in the form that all messages have."""
    raise ValueError(f"{where}: expected {expected}, got {came}; {advice}")
