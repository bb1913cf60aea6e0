"""Checks that a model can have a table: it must be finite, and if it is endless all steps alike.

In a subclass, methods may depend on t. Its steps are compared whenever it is tabulated: the table
holds one for all if they are alike, else each step of a finite horizon.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import pyro.distributions as dist
import torch
from torch import Tensor

from cai import checks
from cai.distributions.exact_scores import exact, log_probs, support_size
from cai.numerics import memory
from cai.numerics.default_type import AS_WRITTEN, Types
from cai.numerics.exclusive import seeded
from cai.program.trajectory import TrajectoryModel
from cai.tables.table import Table

_STEPS, _NUMBERS = 2**10, 2**26  # the most steps and numbers that are compared
_FEWEST = 8
_EARLY, _LATE = 2**8, (1000, 10_000)  # infinite horizon: all steps up to here, and two more
_ROUNDING = 1e-9


class NotEnumerable(ValueError):
    """The randomness of a model is not discrete and finite, so that it cannot be tabulated."""


class ChangesWithTime(NotEnumerable):
    """The steps of a model differ, and a method needs one that stands for all."""


def require_finite(model: TrajectoryModel) -> tuple[int, int]:
    """The numbers S of states and A of actions.

    Raises:
        ValueError: if either is not finite, naming the argument at fault.
    """
    checks.check_model(model, sampled=True)
    return _sizes(model)[:2]


def all_pairs(model: TrajectoryModel) -> tuple[Tensor, Tensor]:
    """Every state and action, both (S, A), in the dtypes in which they are sampled.

    The caller seeds torch's generator, so that these draws do not change its state.

    Raises:
        NotEnumerable: if they are not finitely many.
    """
    S, A, prior = _sizes(model)
    s = torch.arange(S, dtype=model.initial.sample().dtype)
    a = torch.arange(A, dtype=prior.sample().dtype)
    return s.unsqueeze(1).expand(S, A), a.expand(S, A)


def _sizes(model: TrajectoryModel) -> tuple[int, int, Any]:
    """S, A, and the prior in the first state, from which A is counted."""
    if (S := support_size(model.initial)) is None:
        _not_finite("initial", "states", model.initial)
    prior = model.prior(torch.zeros((), dtype=torch.long), 0)
    if (A := support_size(prior)) is None:
        _not_finite("action_prior", "actions", prior)
    return S, A, prior


def _not_finite(argument: str, what: str, distribution: Any) -> NoReturn:
    name = type(getattr(distribution, "base_dist", distribution)).__name__.lstrip("_")
    advice = (
        "use a one-hot Categorical, for instance "
        "dist.Categorical(torch.nn.functional.one_hot(torch.tensor(0), num_states).double())"
        if name == "Delta" and not distribution.event_shape
        else "exact inference is unavailable for continuous ones, use inference.fit, which samples"
    )
    raise NotEnumerable(
        f"{argument}: enumeration needs finitely many {what}, numbered 0 … n-1 by a Categorical, "
        f"got {name}; {advice}"
    )


def later_steps(model: TrajectoryModel, numbers: int) -> list[int]:
    """The steps to compare with the first: all of them, or if there are many, some and the last.

    For an infinite horizon they are the first ones and two late ones.

    Args:
        model: the model, which gives the number of steps.
        numbers: how many numbers have to be compared for each.
    """
    most = min(_STEPS, max(_FEWEST, _NUMBERS // max(numbers, 1)))
    if model.horizon is None:
        return [*range(1, min(most, _EARLY) + 1), *_LATE]
    T = int(model.horizon)
    if most >= T:
        return list(range(1, T))
    return torch.linspace(1, T - 1, most, dtype=torch.float64).round().long().unique().tolist()


def first_change(
    model: TrajectoryModel, name: str, found: Any, at: Callable[[int], Any]
) -> int | None:
    """The first step at which a method differs from step 0; None if none of those compared does.

    Args:
        model: the model; if it does not override the method there is nothing to compare.
        name: the name of the method.
        found: its result at step 0, a tensor, or several, some of which may be None.
        at: step -> its result at another step, in the same form.
    """
    if name not in model.may_change:
        return None
    first = found if isinstance(found, tuple) else (found,)
    for t in later_steps(model, sum(x.numel() for x in first if x is not None)):
        then = _asked(model, name, at, t)
        if not _same(first, then if isinstance(then, tuple) else (then,)):
            return t
    return None


def _asked(model: TrajectoryModel, name: str, at: Callable[[int], Any], t: int) -> Any:
    """The result of a method at a step; refuses a method that fails at some steps."""
    try:
        return at(t)
    except (ArithmeticError, LookupError, TypeError, RuntimeError) as error:
        steps = (
            "each step of an infinite horizon"
            if model.horizon is None
            else f"{model.horizon} steps"
        )
        came = f"{type(error).__name__} at step {t} ({' '.join(str(error).split())[:200]})"
        checks.refuse(name, f"a result at {steps}", came, "give the model a horizon that it covers")


def refuse_changes(model: TrajectoryModel, name: str, found: Any, at: Callable[[int], Any]) -> None:
    """Raises ChangesWithTime if there is a :func:`first_change`."""
    t = first_change(model, name, found, at)
    if t is not None:
        raise ChangesWithTime(
            f"{name}: expected the same at every step, as an infinite horizon or a grid needs it, "
            f"got another at step {t} than at step 0; tabulate a finite horizon, or take a method "
            "that runs the program step by step: simulate, inference.importance, inference.smc, or "
            "inference.fit of a cai.NeuralPolicy"
        )


def changes(model: TrajectoryModel, name: str, found: Any, at: Callable[[int], Any]) -> bool:
    """Whether there is a :func:`first_change`.

    Raises:
        ChangesWithTime: if there is and the horizon is infinite.
    """
    if model.horizon is None:
        refuse_changes(model, name, found, at)
        return False
    return first_change(model, name, found, at) is not None


def each_step(model: TrajectoryModel, name: str, at: Callable[[int], Any]) -> list[Any]:
    """The results of a method at all steps of a finite horizon."""
    return [_asked(model, name, at, t) for t in range(int(model.horizon or 0))]


def over_time(
    model: TrajectoryModel, name: str, shape: Sequence[int], at: Callable[[int], Tensor]
) -> Tensor:
    """The result of a method at step 0 if all steps agree, else the results of all, (T, …).

    Args:
        model: the model.
        name: the name of the method.
        shape: that of its result at a step.
        at: step -> its result, which is expanded to that shape.

    Raises:
        ChangesWithTime: if steps differ and the horizon is infinite.
    """

    def expanded(t: int) -> Tensor:
        return at(t).expand(shape)

    found = at(0).expand(shape)
    if name not in model.may_change:
        return found
    with torch.no_grad():
        if not changes(model, name, found, expanded):
            return found
    T = int(model.horizon or 0)
    advice = "take a shorter horizon, or inference.fit, which samples"
    memory.check_fits(name, f"numbers of {T} steps", T * found.numel(), advice)
    return torch.stack(each_step(model, name, expanded))


def _same(first: tuple[Any, ...], then: tuple[Any, ...]) -> bool:
    return all(
        x is y is None
        or (
            x is not None
            and y is not None
            and x.shape == y.shape
            and (torch.equal(x, y) or torch.allclose(x, y, _ROUNDING, _ROUNDING, equal_nan=True))
        )
        for x, y in zip(first, then, strict=True)
    )


def log_prior_table(
    model: TrajectoryModel, S: int | None = None, types: Types = AS_WRITTEN
) -> Tensor:
    """log p(a|s) for all S states and A actions, float64.

    Args:
        model: the model.
        S: the number of states where it is known.
        types: gives numbers written in the prior their type.

    Returns:
        (S, A), or (T, S, A) where it is not the same at every step.

    Raises:
        ValueError: if the states or the actions are not finitely many, or it changes with the step
            without an end.
    """
    if S is None:
        S, _ = require_finite(model)
    s = torch.arange(S)

    def at(t: int) -> Tensor:
        with types:
            prior = model.prior(s, t)
        if (A := support_size(prior)) is None:
            _not_finite("action_prior", "actions", prior)
        return log_probs(prior, A, types)

    return over_time(model, "prior", (S, -1), at)


def same_log_prior(model: TrajectoryModel, what: str) -> Tensor:
    """log p(a|s), (S, A), for a method that needs the same prior at every step.

    Raises:
        ChangesWithTime: if it changes with the step.
    """
    log_prior = log_prior_table(model)
    if log_prior.dim() == 3:
        raise ChangesWithTime(
            f"prior: expected the same at every step for {what}, got one that depends on the step; "
            "take cai.TabularPolicy(model) or cai.NeuralPolicy(model), which follow it"
        )
    return log_prior


def prior_sees_state(model: TrajectoryModel) -> bool:
    """Whether p(a|s) depends on the state, as a function or an overridden method."""
    if "prior" not in model.may_change:
        return not isinstance(model.action_prior, torch.distributions.Distribution)
    with seeded(0), torch.no_grad():
        steps = {0, (model.horizon or 1) - 1}
        s: Tensor = model.initial.sample((_FEWEST,))
        if (S := support_size(model.initial)) is not None:
            s = torch.linspace(0, S - 1, _FEWEST).round().to(s.dtype)
        for t in steps:
            first = exact(model.prior(s[0], t))
            if isinstance(first, dist.ImproperUniform):  # flat, which cannot be sampled
                continue
            a = first.sample()
            scores = [exact(model.prior(x, t)).log_prob(a) for x in s]
            if any(not torch.allclose(score, scores[0], equal_nan=True) for score in scores):
                return True
    return False


def check_alike(table: Table, what: str) -> None:
    """Raises ValueError where something depends on the step.

    Args:
        table: the problem.
        what: needs the same at every step, for the message.
    """
    if table.by_step:
        checks.refuse(
            what,
            "a problem that is the same at every step",
            f"one whose {' and '.join(table.by_step)} depend on it",
            "put the step into the state, or take soft_values, evaluate or fit, which follow it",
        )
