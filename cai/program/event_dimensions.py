"""Explains errors of functions that index vectors but are given plain numbers, or vice versa.

``a[..., 0]`` fails, or takes one element of a batch for all, if an action has no event dimension.
The error messages of torch, and of the comparison of batches with scalars, hide that cause.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import torch
from pyro import poutine
from torch import Tensor
from torch.distributions import Distribution

from cai import checks
from cai.distributions.exact_scores import support_size
from cai.numerics.exclusive import seeded
from cai.program import contract
from cai.program.calling import REWARDS
from cai.program.interfaces import Program

Change: TypeAlias = Callable[[Tensor], Tensor]

_EXAMPLE = "dist.Normal(torch.zeros(1), 1.0).to_event(1)"
_SAID_BY = {"s": "initial", "a": "action_prior"}
_WHAT = {"s": "state", "a": "action"}


def explain(model: Program, error: ValueError) -> None:
    """Raises a ValueError about event dimensions if a function would run with different ones.

    Args:
        model: the model whose check failed.
        error: the error of the check; its message begins with the name of the function.
    """
    name = str(error).partition(":")[0].partition(",")[0]
    if name not in ("action_prior", "dynamics", *REWARDS):
        return
    with seeded(0), torch.no_grad(), poutine.block():
        if _runs(_Changed(model, {}), name):
            return  # there is another reason
        for changed in _changes(model, name):
            if _runs(_Changed(model, changed), name):
                _refuse(model, name, tuple(changed))


def _changes(model: Program, name: str) -> Iterator[dict[str, Change]]:
    """Changes to try: an event dimension more or less for actions, states, or both."""
    found: dict[str, Change] = {}
    for variable in ("a", "s"):
        shape = _shape(_distribution(model, variable))
        if shape in ((), (1,)):
            found[variable] = _longer if shape == () else _shorter
    if name in ("action_prior", "final_reward"):
        found.pop("a", None)
    yield from ({variable: change} for variable, change in found.items())
    if len(found) == 2:
        yield found


def _longer(x: Tensor) -> Tensor:
    return x.unsqueeze(-1)


def _shorter(x: Tensor) -> Tensor:
    return x.squeeze(-1)


def _distribution(model: Program, variable: str) -> Any:
    """p(s_0) or p(a|s); None if the prior is what failed."""
    if variable == "s":
        return model.initial
    try:
        return model.prior(contract.probe_states(model), 0)
    except Exception:  # of the user's function, which is what is being explained
        return None


def _shape(distribution: Any) -> tuple[int, ...] | None:
    return tuple(distribution.event_shape) if isinstance(distribution, Distribution) else None


class _Changed:
    """A model whose functions are called with other event dimensions."""

    def __init__(self, model: Program, change: dict[str, Change]) -> None:
        self.model, self.change = model, change

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def _s(self, s: Tensor) -> Tensor:
        return self.change.get("s", _same)(s)

    def _a(self, a: Tensor) -> Tensor:
        return self.change.get("a", _same)(a)

    def prior(self, s: Tensor, t: Any) -> Any:
        return self.model.prior(self._s(s), t)

    def transition(self, s: Tensor, a: Tensor, t: Any) -> Any:
        return self.model.transition(self._s(s), self._a(a), t)

    def rewards(self, s: Tensor, a: Tensor, t: Any) -> Tensor:
        return self.model.rewards(self._s(s), self._a(a), t)

    def paid_on_arrival(self, s: Tensor, a: Tensor, s_next: Tensor, t: Any) -> Tensor:
        return self.model.paid_on_arrival(self._s(s), self._a(a), self._s(s_next), t)

    def final_rewards(self, s: Tensor) -> Tensor:
        return self.model.final_rewards(self._s(s))


def _same(x: Tensor) -> Tensor:
    return x


def _runs(changed: Any, name: str) -> bool:
    """Whether the function passes the check that it failed."""
    model = changed.model
    s = contract.probe_states(model)
    event = model.initial.event_shape
    events = [event, torch.Size([1]) if event == () else torch.Size()]
    for shape in events if "s" in changed.change else [event]:
        try:
            if name == "action_prior":
                contract.check_prior(changed, s)
            elif name == "dynamics":
                contract.check_dynamics(changed, s, contract.check_prior(model, s), shape)
            else:
                contract.check_reward_of(changed, name, s, contract.check_prior(model, s))
        except Exception:  # any error means that this change does not help
            continue
        return True
    return False


def _refuse(model: Program, name: str, variables: tuple[str, ...]) -> None:
    """Raises ValueError: which argument has an event dimension too few or too many."""
    plain = [x for x in variables if _shape(_distribution(model, x)) == ()]
    of = sorted(plain or variables, reverse=True)  # s before a
    has = "has" if len(of) == 1 else "have"
    what = " and ".join(_WHAT[x] for x in of)
    said = " and ".join(_SAID_BY[x] for x in of)
    index = " and ".join(f"{x}[..., 0]" for x in of)
    itself = " and ".join(of)
    beside = " and ".join(f"{x}.unsqueeze(-1)" for x in of)
    if plain:
        counted = any(support_size(_distribution(model, x)) is not None for x in plain)
        other = "" if counted else f", or give {said} an event dimension, {_EXAMPLE}"
        checks.refuse(
            name,
            f"a function of a plain number as the {what}, since {said} {has} no event dimension",
            f"one that takes vectors, as {index} does",
            f"take {itself} without an index, {beside} beside a vector{other}",
        )
    checks.refuse(
        name,
        f"a function of a vector of one number as the {what}, since {said} {has} event shape [1]",
        "one that takes plain numbers",
        f"take {index}, or leave out the event dimension of {said}",
    )
