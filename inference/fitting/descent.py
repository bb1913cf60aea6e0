"""How the steps of a fit are taken: the optimiser, its schedule, and the temperatures."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ExponentialLR, LRScheduler, ReduceLROnPlateau

from cai import checks
from cai.inference.gradients.estimators import PLAIN, default_rate
from cai.inference.gradients.guarded import raising

MakeOptimizer: TypeAlias = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
MakeSchedule: TypeAlias = Callable[[torch.optim.Optimizer], LRScheduler]


@dataclass(frozen=True)
class Budget:
    """The length of a training and its temperatures.

    Attributes:
        steps: the maximum number of steps.
        tolerance: by how much the mean loss has to fall, see :meth:`Training.plateau`.
        temperature: step -> α; None for the same at every step.
    """

    steps: int
    tolerance: float
    temperature: Callable[[int], float] | None

    def at(self, step: int, otherwise: float) -> float:
        """α at a step.

        Raises:
            ValueError: if it is not a number above zero.
        """
        return temperature_at(self.temperature, step, otherwise)


def temperature_at(temperature: Any, step: int, otherwise: float) -> float:
    """α at a step: what the function says, or the other one if it is None.

    Raises:
        ValueError: if it is not a function, or does not return a number above zero.
    """
    if temperature is None:
        return otherwise
    if not callable(temperature):
        checks.refuse(
            "temperature",
            "a function step -> α",
            repr(temperature),
            "for one α give it to the model: dataclasses.replace(model, temperature=0.5)",
        )
    example = "for instance lambda step: max(0.1, 0.99**step)"
    with raising("temperature", "a function step -> α", example):
        alpha = temperature(step)
    return float(checks.check_positive(f"temperature({step})", alpha))


def make_steps(
    name: str,
    policy: nn.Module,
    steps: int,
    learning_rate: float | None,
    optimizer: MakeOptimizer | None,
    schedule: MakeSchedule | None,
) -> tuple[torch.optim.Optimizer, LRScheduler]:
    """The optimiser and its schedule: the user's, or Adam with a rate that falls by 100.

    Raises:
        ValueError: if a rate is not a number above zero, or is given twice, or a function returns
            something else.
    """
    if learning_rate is not None:
        checks.check_positive("learning_rate", learning_rate)
        if optimizer is not None:
            checks.refuse("learning_rate", "None beside an optimizer", repr(learning_rate), "one")
    for what, given in (("optimizer", optimizer), ("schedule", schedule)):
        if given is not None and not callable(given):
            checks.refuse(what, "a function that makes one", repr(given), "see the examples of fit")
    expected, example = "a function that makes one", "see the examples of fit"
    if optimizer is None:
        made = _descent(name, policy, learning_rate)
    else:
        with raising("optimizer", expected, example):
            made = optimizer(policy.parameters())
    if not isinstance(made, torch.optim.Optimizer):
        checks.refuse(
            "optimizer",
            "a function from parameters to a torch optimiser",
            f"one that returns {type(made).__name__}",
            "for instance functools.partial(torch.optim.SGD, lr=0.1)",
        )
    own = {id(p) for p in policy.parameters()}
    if any(id(p) not in own for group in made.param_groups for p in group["params"]):
        checks.refuse(
            "optimizer",
            "one of the parameters that it is called with",
            "one of others",
            "fit trains a copy of the policy",
        )
    falls = optimizer is None and name != "mirror"
    if schedule is None:
        rates: LRScheduler = ExponentialLR(made, 0.01 ** (1 / steps) if falls else 1.0)
    else:
        with raising("schedule", expected, example):
            rates = schedule(made)
    if not isinstance(rates, LRScheduler):
        checks.refuse(
            "schedule",
            "a function from an optimiser to a torch scheduler",
            f"one that returns {type(rates).__name__}",
            "for instance lambda by: torch.optim.lr_scheduler.CosineAnnealingLR(by, steps)",
        )
    return made, rates


def _descent(name: str, policy: nn.Module, rate: float | None) -> torch.optim.Optimizer:
    """Adam, or plain steps along a natural gradient."""
    if rate is None:
        rate = default_rate(name, policy)
    if name in PLAIN:
        return torch.optim.SGD(policy.parameters(), lr=rate)
    # Without noise a short memory suits Adam best: gradients shrink as probabilities settle.
    betas = (0.8, 0.95) if name == "exact" else (0.9, 0.999)
    return torch.optim.Adam(policy.parameters(), lr=rate, betas=betas)


def rates_of(optimizer: torch.optim.Optimizer) -> list[float]:
    """The rate of each group of parameters."""
    return [float(group.get("lr", 0.0)) for group in optimizer.param_groups]


def other_rates(
    optimizer: torch.optim.Optimizer, schedule: LRScheduler, kept: dict[str, Any]
) -> str:
    """The first step at which the schedule now gives other rates, or how its state differs.

    A copy of it runs through all past steps, with their losses.

    Args:
        optimizer: the optimiser before its first step.
        schedule: the schedule of its rate.
        kept: the state of the training in the file.
    """
    try:
        optimizer, schedule = copy.deepcopy((optimizer, schedule))
    except Exception:  # a generator, for instance, cannot be copied
        return ""
    losses, rates = kept["losses"].tolist(), kept["rates"].tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the optimiser itself takes no steps here
        for step, (loss, then) in enumerate(zip(losses, rates, strict=True)):
            now = rates_of(optimizer)
            if not _same_values(now, then):
                return f"rate({step}) = {_short(now)} | rate({step}) = {_short(then)}"
            if isinstance(schedule, ReduceLROnPlateau):
                schedule.step(loss)
            else:
                schedule.step()
    groups = optimizer.state_dict()["param_groups"]
    if not _same_values(groups, kept["optimizer"]["param_groups"]):
        return "optimizer"
    return "" if _same_values(schedule.state_dict(), kept["schedule"]) else "schedule"


def _same_values(one: Any, other: Any) -> bool:
    """Whether two states hold the same values under the names that both have."""
    if isinstance(one, dict) and isinstance(other, dict):
        return all(_same_values(one[name], other[name]) for name in one.keys() & other.keys())
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same_values, one, other))
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        one, other = (torch.as_tensor(x, dtype=torch.float64) for x in (one, other))
        return one.shape == other.shape and torch.allclose(one, other, 1e-9, 0.0, equal_nan=True)
    numbers = isinstance(one, int | float) and isinstance(other, int | float)
    return math.isclose(one, other, rel_tol=1e-9) if numbers else bool(one == other)


def _short(rates: list[float]) -> str:
    return ", ".join(f"{rate:g}" for rate in rates)
