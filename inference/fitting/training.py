"""A training in progress: steps of an optimiser along an estimated gradient."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ExponentialLR, LRScheduler, ReduceLROnPlateau

from cai import checks
from cai.inference.gradients.estimators import default_rate
from cai.inference.gradients.gradient import Estimator
from cai.inference.gradients.guarded import raising

MakeOptimizer: TypeAlias = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
MakeSchedule: TypeAlias = Callable[[torch.optim.Optimizer], LRScheduler]

WINDOW = 50  # steps that the running mean of the losses covers
_ROUNDING = 1e-11  # a natural gradient this small, relative to the ELBO above one, is zero


@dataclass(eq=False, kw_only=True)
class Training:
    """All that the next step depends on, except for the state of torch's generator.

    Attributes:
        policy: the policy, trained in place.
        build: α -> the estimator of the gradient at that temperature.
        estimate: the current estimator.
        temperature: the current α.
        optimizer: the optimiser of the policy's parameters.
        schedule: the schedule of the optimiser's rate.
        clip: the maximum norm of a gradient; None for no limit.
        natural: whether steps follow the natural gradient, which is zero at the optimum alone.
        losses: one per step, nats.
        alphas: α at each step.
        rates: the optimiser's rates at each step, one for each group of parameters.
        settled: the first step at the current temperature.
        resting: whether the last natural gradient was zero.
        best: the lowest mean loss, and the latest parameters that were no worse.
    """

    policy: nn.Module
    build: Callable[[float], Estimator]
    estimate: Estimator
    temperature: float
    optimizer: torch.optim.Optimizer
    schedule: LRScheduler
    clip: float | None
    natural: bool
    losses: list[float] = field(default_factory=list)
    alphas: list[float] = field(default_factory=list)
    rates: list[list[float]] = field(default_factory=list)
    settled: int = 0
    resting: bool = False
    best: tuple[float, dict[str, Tensor]] | None = None

    def step(self) -> None:
        """Takes one step of the optimiser and the schedule, and records the loss.

        Raises:
            FloatingPointError: if the loss or its gradient is not finite; nothing has changed then.
        """
        rates = rates_of(self.optimizer)
        loss = float(self.optimizer.step(self._loss_and_gradient))
        self.losses.append(loss)
        self.alphas.append(self.temperature)
        self.rates.append(rates)
        self.resting = self.natural and self._at_rest()
        if isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.step(loss)
        else:
            self.schedule.step()
        if (len(self.losses) - self.settled) % WINDOW == 0:
            self.remember()

    def _loss_and_gradient(self) -> float:
        self.optimizer.zero_grad()
        try:
            loss = self.estimate()
        except RuntimeError as error:
            if "does not require grad" not in str(error):
                raise
            checks.refuse(
                "policy",
                "actions whose probabilities depend on its parameters",
                f"{type(self.policy).__name__}, which does not use them or detaches them",
                "compute the distribution from the parameters, outside torch.inference_mode()",
            )
        parameters = [p for p in self.policy.parameters() if p.grad is not None]
        if not parameters:
            checks.refuse(
                "estimator",
                "one that adds the gradient of -ELBO to the policy's parameters",
                "one that adds none",
                "call .backward() on what depends on them",
            )
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if not math.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss:g}")
        if not math.isfinite(norm.item()):
            raise FloatingPointError("the gradient is not finite")
        if self.clip is not None:
            nn.utils.clip_grads_with_norm_(parameters, self.clip, norm)
        return loss

    def anneal(self, temperature: float) -> None:
        """Changes the temperature, so that earlier losses no longer count."""
        if temperature != self.temperature:
            learnt = _learnt(self.estimate)
            self.temperature, self.estimate = temperature, self.build(temperature)
            _teach(self.estimate, learnt)
            self.settled, self.best, self.resting = len(self.losses), None, False

    def remember(self) -> None:
        """Keeps the parameters, unless earlier ones were better by over two standard errors."""
        recent = torch.tensor(self.losses[self.settled :][-WINDOW:], dtype=torch.float64)
        if not len(recent):
            return
        mean = recent.mean().item()
        noise = recent.std().item() / len(recent) ** 0.5 if len(recent) > 1 else 0.0
        lowest = math.inf if self.best is None else self.best[0]
        if mean <= lowest + 2 * noise:
            kept = {name: value.clone() for name, value in self.policy.state_dict().items()}
            self.best = min(mean, lowest), kept

    def restore(self) -> None:
        """Restores the best parameters."""
        if self.best is not None:
            self.policy.load_state_dict(self.best[1])

    def _keep_types(self, state: dict[int, dict[str, Any]]) -> None:
        """Restores the dtypes of an optimiser's state, which torch casts to the parameters'."""
        held = [p for group in self.optimizer.param_groups for p in group["params"]]
        for index, kept in state.items():
            mine = self.optimizer.state[held[index]]
            for name, value in kept.items():
                if isinstance(value, Tensor):
                    mine[name] = mine[name].to(value.dtype)

    def _at_rest(self) -> bool:
        """Whether the gradient of the last step was zero up to rounding errors."""
        slopes = [p.grad for group in self.optimizer.param_groups for p in group["params"]]
        tiny = _ROUNDING * max(1.0, abs(self.losses[-1]))
        return all(slope is None or bool(slope.abs().max() <= tiny) for slope in slopes)

    def state_dict(self) -> dict[str, Any]:
        """The state from which :meth:`load_state_dict` continues."""
        return {
            "policy": self.policy.state_dict(),
            "estimator": _learnt(self.estimate),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            **{x: torch.tensor(getattr(self, x), dtype=torch.float64) for x in _EACH_STEP},
            **{name: getattr(self, name) for name in ("temperature", *_KEPT)},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the run from a state."""
        self.anneal(state["temperature"])
        self.policy.load_state_dict(state["policy"])
        _teach(self.estimate, state["estimator"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._keep_types(state["optimizer"]["state"])
        self.schedule.load_state_dict(state["schedule"])
        for name in _EACH_STEP:
            setattr(self, name, state[name].tolist())
        for name in _KEPT:
            setattr(self, name, state[name])


_KEPT = ("settled", "resting", "best")
_EACH_STEP = ("losses", "alphas", "rates")


def rates_of(optimizer: torch.optim.Optimizer) -> list[float]:
    """The rate of each group of parameters."""
    return [float(group.get("lr", 0.0)) for group in optimizer.param_groups]


def generators() -> list[torch.Tensor]:
    """The states of torch's generators."""
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if _on_cuda() else [])]


def set_generators(states: list[torch.Tensor]) -> None:
    """Restores the states of torch's generators."""
    torch.set_rng_state(states[0])
    if _on_cuda():
        torch.cuda.set_rng_state_all(states[1:])


def _on_cuda() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_initialized()


def _learnt(estimate: Estimator) -> dict[str, Any]:
    """The state of an estimator's own module, such as a critic."""
    held = {name: getattr(estimate, name, None) for name in ("module", "optimizer")}
    return {name: part.state_dict() for name, part in held.items() if part is not None}


def _teach(estimate: Estimator, learnt: dict[str, Any]) -> None:
    for name, part in learnt.items():
        getattr(estimate, name).load_state_dict(part)


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
    if name == "mirror":
        return torch.optim.SGD(policy.parameters(), lr=rate)
    # Without noise a short memory suits Adam best: gradients shrink as probabilities settle.
    betas = (0.8, 0.95) if name == "exact" else (0.9, 0.999)
    return torch.optim.Adam(policy.parameters(), lr=rate, betas=betas)
