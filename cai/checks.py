"""Checks of arguments: each message says where, what was expected, what came and what to try."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from torch import Tensor

_ROW_TOLERANCE = 1e-5  # float32 rows of probabilities sum to one within this
_LONGEST = 400  # characters of the value that a message quotes


def check_real(
    name: str, value: Any, allowed: Callable[[float], bool], expected: str, advice: str
) -> float:
    """Value as a plain number; raises ValueError unless it is a number that is allowed."""
    if not within(value, allowed):
        refuse(name, expected, repr(value), advice)
    return plain(value)


def check_discount(discount: Any) -> None:
    """Raises ValueError unless it is a number in (0, 1]."""
    advice = "use 1 for no discounting"
    check_real("discount", discount, lambda gamma: 0 < gamma <= 1, "a number in (0, 1]", advice)


def check_one_of(name: str, value: Any, options: Sequence[str], advice: str) -> None:
    """Raises ValueError unless value is one of several strings."""
    if not isinstance(value, str) or value not in options:
        *others, last = (f'"{option}"' for option in options)
        refuse(name, f"{', '.join(others)} or {last}" if others else last, repr(value), advice)


def several(name: str, values: Any, advice: str, expected: str = "several numbers") -> list[Any]:
    """The elements of what can be iterated over.

    Raises:
        ValueError: for anything else.
    """
    if isinstance(values, str | bytes):
        refuse(name, expected, repr(values), advice)
    try:
        return list(values)
    except (TypeError, RuntimeError, AttributeError, NotImplementedError):
        refuse(name, expected, type(values).__name__, advice)


def check_count(name: str, value: Any, least: int = 1, advice: str = "") -> None:
    """Raises ValueError unless value is an int with least ≤ value < 2**63."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        other = hasattr(value, "__index__") and not isinstance(value, int)
        advice = "convert it with int(…)" if other else advice or "for instance 10"
        refuse(name, "a whole number of at least 1", repr(value), advice)
    if value < least:
        refuse(name, f"at least {least}", str(value), advice)
    if value >= 2**63:
        came = f"one of {value.bit_length()} bits"  # Python may refuse to write it out
        refuse(name, "a whole number below 2**63", came, "no computer counts so far")


def check_flag(name: str, value: Any) -> None:
    """Raises ValueError unless value is True or False."""
    if not isinstance(value, bool):
        refuse(name, "True or False", repr(value), "convert it with bool(…)")


def check_seed(seed: Any) -> None:
    """Raises ValueError unless it is a seed that torch's generators accept."""
    whole = "a whole number", "the same seed gives the same draws"
    check_real("seed", seed, lambda x: x.is_integer() and -(2**63) <= x < 2**63, *whole)


def check_model(model: Any, table: bool = False, sampled: bool = False) -> None:
    """Raises ValueError unless it is a program.

    Args:
        model: what was passed.
        table: whether a table will do.
        sampled: whether an environment will do, whose steps can be drawn but not scored.
    """
    if table:
        known = hasattr(model, "log_dynamics") or hasattr(model, "simulate")
        if not known or isinstance(model, type):
            advice = "for instance cai.models.ledge()"
            refuse("model", "a cai.TrajectoryModel or its table", type(model).__name__, advice)
    elif not callable(getattr(model, "simulate", None)):
        advice = "a table runs no program: take table.program, or if that is None build the model"
        refuse("model", "a cai.TrajectoryModel", type(model).__name__, advice)
    if not sampled and can_only_be_sampled(model):
        refuse(
            "model",
            "a program, whose steps can be scored",
            f"an {type(model).__name__}, which can only be sampled",
            "a learner takes it: inference.soft_q for finitely many states and actions, "
            "policy_gradient or path_consistency; cai.evaluate and cai.compare simulate it",
        )


def can_only_be_sampled(model: Any) -> bool:
    """Whether it is an environment, not a program or a table."""
    return not hasattr(model, "transition") and not hasattr(model, "log_dynamics")


def check_is_table(name: str, table: Any) -> None:
    """Raises ValueError unless it is a table."""
    if not hasattr(table, "log_dynamics"):
        refuse(name, "a cai.Table", type(table).__name__, "take cai.tabulate(model)")


def check_kind(name: str, value: Any, kind: type, expected: str, advice: str) -> None:
    """Raises ValueError unless a value is an instance of a class."""
    if not isinstance(value, kind):
        refuse(name, expected, type(value).__name__, advice)


def check_step(t: int, T: int) -> None:
    """Raises ValueError unless t is a whole number, 0 ≤ t < T."""
    advice = "the last transition leads from step T-1 to step T"
    whole = f"a step in 0 … {T - 1}"
    check_real("t", t, lambda step: 0 <= step < T and step.is_integer(), whole, advice)


def check_widths(name: str, widths: Any) -> None:
    """Raises ValueError unless widths of layers are a tuple or a list of whole numbers ≥ 1."""
    if not isinstance(widths, tuple | list):
        refuse(name, "a tuple of widths of layers", repr(widths), "(64, 64) is two layers")
    for width in widths:
        check_count(name, width, advice="(64, 64) is two layers")


def check_positive(name: str, value: Any) -> float:
    """Value as a plain number; raises ValueError unless it is a finite one > 0."""
    advice = "a number, and not text" if isinstance(value, str) else "for instance 0.1"
    return check_real(name, value, lambda x: 0 < x < math.inf, "a finite number above 0", advice)


def check_number(name: str, value: Any) -> None:
    """Raises ValueError unless value is a number, infinities among them."""
    check_real(name, value, lambda x: not math.isnan(x), "a number", "infinities are allowed")


def check_share(name: str, value: Any, advice: str) -> None:
    """Raises ValueError unless value is a number in [0, 1], with what the ends mean."""
    check_real(name, value, lambda share: 0 <= share <= 1, "a number in [0, 1]", advice)


def check_probability(name: str, value: Any) -> float:
    """Value as a plain number; raises ValueError unless it is one in [0, 1]."""
    expected, advice = "a probability in [0, 1]", "0 is never, 1 is always"
    return check_real(name, value, lambda p: 0 <= p <= 1, expected, advice)


def within(value: Any, allowed: Callable[[float], bool]) -> bool:
    """Whether value is one real number that is allowed; text, flags and arrays are not numbers."""
    if type(value) not in (int, float):  # most are
        if isinstance(value, str | bytes | bytearray | bool):
            return False
        if any(kind in str(getattr(value, "dtype", "")) for kind in ("bool", "complex")):
            return False
    try:
        return getattr(value, "shape", ()) == () and allowed(float(value))
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return False


def check_payment(name: str, value: Any) -> float:
    """Value as a plain number; raises ValueError unless it is below +inf; -inf forbids."""
    expected = "a number below +inf, in reward units"
    return check_real(name, value, lambda x: x < math.inf, expected, "-inf forbids")


def plain(value: Any) -> float:
    """A number as an immutable float; a tensor that requires grad is returned as it is."""
    return value if getattr(value, "requires_grad", False) else float(value)


def finite_horizon(model: Any, what: str) -> int:
    """The horizon T.

    Raises:
        ValueError: if it is infinite, naming what needs it.
    """
    check_model(model, table=True, sampled=True)
    if model.horizon is None:
        raise ValueError(
            f"horizon: {what} needs a finite number of steps, but the horizon is None (infinite); "
            "try dataclasses.replace(model, horizon=100)"
        )
    return int(model.horizon)


def check_reward(
    name: str, reward: Tensor, place: Callable[[tuple[int, ...]], str] | None = None
) -> None:
    """Raises ValueError if a reward is NaN or +inf; -inf is allowed, it forbids.

    Args:
        name: the name of the argument, for the message.
        reward: the rewards.
        place: index -> where that is, in words; the index itself if not given.
    """
    fine = reward < math.inf  # which NaN is not
    if not fine.all():
        where = tuple((~fine).nonzero()[0].tolist())
        at = place(where) if place else f"at index {list(where)}" if where else ""
        came, advice = f"{reward[where].item()} {at}", "look for 0/0 or 0·inf, or take torch.where"
        refuse(name, "numbers below +inf (-inf forbids)", came.rstrip(), advice)


def holds_nan(x: Tensor) -> bool:
    """Whether there is NaN among numbers, at the cost of one sum."""
    if not x.is_floating_point():
        return False
    # inf - inf is NaN, too
    return math.isnan(_total(x)) and bool(x.isnan().any())


def _total(x: Tensor) -> float:
    return (x.detach() if x.requires_grad else x).sum().item()


def check_no_nan(name: str, x: Tensor, advice: str) -> None:
    """Raises ValueError if there is NaN among numbers, with its place."""
    if holds_nan(x):
        place = x.isnan().nonzero()[0].tolist()
        refuse(name, "numbers", f"NaN at index {place}" if place else "NaN", advice)


def below_infinity(x: Tensor) -> bool:
    """Whether the sum of numbers is neither NaN nor +inf; rewards of -inf are allowed."""
    try:
        return _total(x) < math.inf
    except RuntimeError:  # under torch.func.vmap numbers cannot be inspected
        return True


def check_bernoulli(name: str, reward: Tensor, discount: float) -> None:
    """Raises ValueError if a reward is positive, so that exp(r/α) is not a probability."""
    highest = reward.max().item()
    if highest > 0:
        caution = (
            "which changes nothing else, as the discount is 1"
            if discount == 1
            else f"but with a discount of {discount:g} that changes the problem, since rewards "
            "end with termination; change the rewards themselves"
        )
        raise ValueError(
            f'{name}: optimality="bernoulli" needs rewards ≤ 0, so that p(O_t=1) = '
            f"exp(reward/temperature) is a probability; the largest is {highest:g}. "
            f"Subtract at least {highest:g} from every reward, {caution}; or take "
            'optimality="factor"'
        )


def check_rows(name: str, log_p: Tensor) -> None:
    """Raises ValueError if rows of log-probabilities do not sum to one over the last axis."""
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


def check_optimism(eta: Any, name: str = "optimism") -> float:
    """η as a float; raises ValueError if it is not one number, ±inf included.

    A subnormal η is returned as zero: 1/η would overflow, and no value is large enough for the
    difference to matter.
    """
    try:
        number = math.nan if isinstance(eta, str | bytes) else float(eta)
    except (TypeError, ValueError, RuntimeError):
        number = math.nan
    if math.isnan(number):
        refuse(name, "a real number or ±inf", repr(eta), "0 leaves the dynamics as they are")
    return 0.0 if abs(number) < sys.float_info.min else number


def described(x: Any) -> str:
    """How a message describes a value that should be a tensor: by its shape, else by its type."""
    return f"shape {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__


def refuse(where: str, expected: str, came: str, advice: str) -> NoReturn:
    """Raises ValueError in the common form of all messages, always on one line."""
    came = " ".join(came.split())
    came = came if len(came) <= _LONGEST else f"{came[:_LONGEST]} …"
    advice = f"; {advice}" if advice else ""
    raise ValueError(f"{where}: expected {expected}, got {came}{advice}")
