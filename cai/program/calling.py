"""Calls of a user's own functions, with messages that say what is wrong if they fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from cai import checks
from cai.distributions.lookup import ToldStep
from cai.numerics import memory

SPARSE = (
    "where few states follow each, return cai.SparseCategorical(logits, successors, num_states) or "
    "a Delta, which list them; models.tabular takes lists and scipy.sparse matrices"
)

SINCE = "look for where it came from: a rate that was too high, 0/0, or inf - inf"


FIELDS = {
    "prior": "action_prior",
    "transition": "dynamics",
    "rewards": "reward",
    "arrival_rewards": "arrival_reward",
}
"""Which field of a model is asked by each of its methods that know the step."""

REWARDS = ("reward", "arrival_reward", "final_reward")
METHODS = *FIELDS, "final_rewards", "log_factor"
_SIGNATURES = {
    "action_prior": "action_prior(s)",
    "dynamics": "dynamics(s, a)",
    "reward": "reward(s, a); what depends on the next state is arrival_reward(s, a, s_next)",
    "arrival_reward": "arrival_reward(s, a, s_next)",
    "final_reward": "final_reward(s)",
}


def prior_at(prior: Callable[..., Any], s: Tensor, t: Any) -> Any:
    """The distribution that the action prior of a model returns for (s, t).

    Raises:
        ValueError: in place of those of torch about parameters; all else as it is.
    """
    try:
        return prior(s, t)
    except ValueError as error:
        refuse_parameters("action_prior", f"step {t}", error)
        raise


@dataclass(frozen=True, eq=False)
class AsPrior(ToldStep):
    """(s, t) -> p(a|s) at step t, what a policy does there.

    Attributes:
        policy: (t, s) -> q(a_t|s_t).
    """

    policy: Callable[..., Any]

    def __call__(self, s: Tensor, t: Any) -> Any:
        """p(a|s) at step t, in the batch shape of s."""
        with torch.no_grad():
            return self.policy(t, s)


def call(name: str, function: Any, *arguments: Any) -> Any:
    """The result of a user's function; errors are restated in terms of the contract."""
    try:
        return function(*arguments)
    except Exception as error:
        restate(name, error, *arguments)


def restate(name: str, error: Exception, *arguments: Any) -> NoReturn:
    """Raises ValueError in place of what a user's function raised, in terms of the contract."""
    ours = "dynamics: ", "reward: ", "torch.distributions"
    if isinstance(error, ValueError) and str(error).startswith(ours):
        raise error
    shapes = " and ".join(str(list(x.shape)) for x in arguments if isinstance(x, Tensor))
    if isinstance(error, MemoryError) or "allocate" in str(error):
        asked = memory.asked_for(error)
        memory.refuse(name, f"one that allocates {asked} for arguments of shapes {shapes}", SPARSE)
    called = f"called with tensors of shape {shapes} it" if shapes else "this"
    dims = {x.dim() for x in arguments if isinstance(x, Tensor)}
    advice = _advice(name, error, len(dims) > 1)
    raise ValueError(f"{name}: {called} raised {type(error).__name__}: {error}{advice}") from error


def _advice(name: str, error: Exception, mixed: bool) -> str:
    """What may help against an error of a user's function.

    Args:
        name: the name of the function.
        error: what it raised.
        mixed: whether its arguments are vectors and numbers.
    """
    words = str(error)
    broadcast = ". It must broadcast over any batch shape of its arguments, scalars included: "
    if "must match" in words and mixed:
        return broadcast + (
            "one of them is a vector here and another a number, so write a.unsqueeze(-1) where "
            "the number meets the vector, or s[..., 0] for a coordinate of the vector"
        )
    if "ambiguous" in words or "must match" in words or "broadcast" in words:
        return broadcast + "index tables with them, and use torch.where instead of Python `if`"
    if isinstance(error, TypeError) and "positional argument" in words and name in _SIGNATURES:
        return f"; it is called as {_SIGNATURES[name]}"
    if isinstance(error, IndexError) and ("must be long" in words or "valid indices" in words):
        return (
            "; what a Normal or a Bernoulli draws are not whole numbers: take a Categorical, or "
            "convert them with .long()"
        )
    if isinstance(error, IndexError):
        return (
            "; states are numbered by `initial` and actions by `action_prior`, each from 0: look "
            "at the order of the axes of the table, and at how many rows it has"
        )
    return ""


def check_shape(name: str, shape: Any, batch: Any) -> None:
    """Raises ValueError unless the batch shape of a result broadcasts to that of the arguments."""
    try:
        fits = np.broadcast_shapes(shape, batch) == tuple(batch)  # torch's own imports sympy
    except ValueError:
        fits = False
    if not fits:
        advice = "and end the distribution of a vector with .to_event(1)"
        if name in REWARDS:
            advice = "and sum over the axis of a vector: (s**2).sum(-1)"
        raise ValueError(
            f"{name}: batch shape {list(shape)} does not broadcast with states and actions of "
            f"shape {list(batch)}; index tables with s and a instead of reshaping, {advice}"
        )


def refuse_parameters(where: str, when: str, error: ValueError) -> None:
    """Raises ValueError in place of torch's own about parameters, which names neither."""
    if not str(error).startswith("Expected parameter"):
        return
    what = str(error).partition(" to satisfy")[0].removeprefix("Expected ")
    expected = f"a distribution of finite parameters at {when}"
    checks.refuse(where, expected, f"another {what}", f"look for NaN in what the {where} computes")


def numbers_at(name: str, function: Any, t: Any, s: Tensor, event_dims: int, advice: str) -> Tensor:
    """The values of a function (t, s) -> number, float64, expanded to one for each state.

    Args:
        name: the name of the argument, for the message.
        function: the argument.
        t: an int, or a tensor of the batch shape of s.
        s: states of any batch shape.
        event_dims: the number of event dimensions of a state.
        advice: what to try.

    Raises:
        ValueError: if it is not a function, raises anything, or returns NaN or anything else.
    """
    if not callable(function) or isinstance(function, Tensor):
        checks.refuse(name, "a function (t, s) -> numbers", type(function).__name__, advice)
    try:
        answer = function(t, s)
    except Exception as error:
        refuse_raised(name, t, s, error, advice)
    shape = list(s.shape[: s.dim() - event_dims])
    try:
        found = torch.as_tensor(answer, dtype=torch.float64).expand(shape)
    except (RuntimeError, TypeError, ValueError):
        came = checks.described(answer)
        checks.refuse(name, f"one number for each state, shape {shape}", came, advice)
    if found.isnan().any():
        checks.refuse(name, "numbers", f"NaN at step {_first(t, found)}", advice)
    return found


def _first(t: Any, found: Tensor) -> int:
    """The first step with NaN."""
    return t if isinstance(t, int) else int(t.expand(found.shape)[found.isnan()].min())


def refuse_raised(name: str, t: Any, s: Tensor, error: Exception, advice: str) -> NoReturn:
    """Raises ValueError for a function of (t, s) that raised something."""
    when = f"step {t}" if isinstance(t, int) else f"steps of shape {list(t.shape)}"
    checks.refuse(
        name,
        f"a function that takes {when} and states of shape {list(s.shape)}, {s.dtype}",
        f"one that raised {type(error).__name__}: {error}",
        f"it may have been made for another model; {advice}",
    )
