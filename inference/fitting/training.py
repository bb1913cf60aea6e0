"""A training in progress: steps of an optimiser along an estimated gradient."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from cai import checks
from cai.inference.fitting.checkpoint_file import holds_nan
from cai.inference.fitting.descent import Budget, other_rates, rates_of
from cai.inference.gradients.gradient import Estimator
from cai.numerics.exclusive import generators, set_generators
from cai.progress.callback import asks_to_stop, is_due

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
        budget: the maximum number of steps, and the temperatures.
        callback: is called with records of the steps, and may end the training; or None.
        reached: what the mean of minus the recent losses is called there.
        losses: one per step, nats.
        alphas: α at each step.
        rates: the optimiser's rates at each step, one for each group of parameters.
        settled: the first step at the current temperature.
        resting: whether the last natural gradient was zero.
        best: the lowest mean loss, and the latest parameters that were no worse.
        final_temperature: α at the last step.
        gradient_norm: of the last step, before it was clipped.
        stopped: whether the callback ended the training.
    """

    policy: nn.Module
    build: Callable[[float], Estimator]
    estimate: Estimator
    temperature: float
    optimizer: torch.optim.Optimizer
    schedule: LRScheduler
    clip: float | None
    natural: bool
    budget: Budget
    callback: Callable[[dict[str, float]], bool | None] | None = None
    reached: str = "elbo"
    losses: list[float] = field(default_factory=list)
    alphas: list[float] = field(default_factory=list)
    rates: list[list[float]] = field(default_factory=list)
    settled: int = 0
    resting: bool = False
    best: tuple[float, dict[str, Tensor]] | None = None
    gradient_norm: float = math.nan
    stopped: bool = False
    verb, outcome, restarts = "fit", "the best", ""

    def __post_init__(self) -> None:
        self.final_temperature = self.budget.at(self.total - 1, self.temperature)
        self._begun = time.perf_counter()

    @property
    def done(self) -> int:
        """Steps so far."""
        return len(self.losses)

    @property
    def total(self) -> int:
        """Steps at most."""
        return self.budget.steps

    def over(self) -> bool:
        """Whether there is nothing left to gain, no step left, or the callback ended it."""
        return self.done >= self.total or self.stopped or self.converged()

    def step(self) -> None:
        """Takes one step of the optimiser and the schedule, and records the loss.

        Raises:
            FloatingPointError, ValueError: if the loss or its gradient is not finite; nothing has
                changed then, and torch's generator is restored.
            CallbackFailed: if the callback raised; the step is complete.
        """
        alpha, rates = self.budget.at(self.done, self.temperature), rates_of(self.optimizer)
        if alpha != self.temperature:
            self.anneal(alpha)
        before = generators()
        try:
            self._descend(rates)
        except (FloatingPointError, ValueError):
            set_generators(before)
            raise
        if self.callback is not None and is_due(self.done, self.total):
            self.stopped = asks_to_stop(self.callback, self._record())

    def _record(self) -> dict[str, float]:
        """What a callback is told of the last step."""
        recent = self.losses[self.settled :][-WINDOW:]
        return {
            "step": self.done,
            "loss": self.losses[-1],
            self.reached: -sum(recent) / len(recent),
            "gradient_norm": self.gradient_norm,
            "learning_rate": self.rates[-1][0],
            "seconds": time.perf_counter() - self._begun,
        }

    def _descend(self, rates: list[float]) -> None:
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
        self.gradient_norm = norm.item()
        if not math.isfinite(self.gradient_norm):
            raise FloatingPointError("the gradient is not finite")
        if self.clip is not None:
            nn.utils.clip_grads_with_norm_(parameters, self.clip, norm)
        return loss

    def anneal(self, temperature: float) -> None:
        """Changes the temperature, so that earlier losses no longer count."""
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

    def converged(self) -> bool:
        """Whether the losses no longer fall, at the final temperature."""
        if self.temperature != self.final_temperature:
            return False
        return self.resting if self.natural else self.plateau()

    def plateau(self) -> bool:
        """Whether the mean loss of the last fifth of the steps is no lower than of the one before.

        By how much it has to be lower is relative to its size above one.
        """
        window = max(WINDOW, self.total // 5)
        losses = self.losses[self.settled :]
        n = len(losses)
        if n < 2 * window or n % WINDOW:
            return False
        last = sum(losses[-window:]) / window
        before = sum(losses[-2 * window : -window]) / window
        return before - last < self.budget.tolerance * max(1.0, abs(last))

    def shown(self) -> str:
        """The ELBO of the last step and its moving average, for the progress bar."""
        recent = self.losses[-WINDOW:]
        mean = -sum(recent) / len(recent)
        return f"ELBO {-self.losses[-1]:.4f} nats, mean of {len(recent)}: {mean:.4f}"

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
        if state["temperature"] != self.temperature:
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

    def differs(self, kept: dict[str, Any]) -> str:
        """The first past step whose temperature or rate differs now, in words; or empty.

        Raises:
            ValueError: if there is NaN, or the counts are not numbers of steps.
        """
        alpha = self.temperature
        for step, then in enumerate(kept["alphas"].tolist()):
            try:
                alpha = self.budget.at(step, alpha)
            except Exception:  # a schedule that cannot be called for past steps is not compared
                continue
            if not math.isclose(alpha, then, rel_tol=1e-9):
                return f"temperature({step}) = {alpha:g} | temperature({step}) = {then:g}"
        other = other_rates(self.optimizer, self.schedule, kept)
        if not other:
            _check_whole(kept)
        return other


_KEPT = ("settled", "resting", "best")
_EACH_STEP = ("losses", "alphas", "rates")


def _learnt(estimate: Estimator) -> dict[str, Any]:
    """The state of an estimator's own module, such as a critic."""
    held = {name: getattr(estimate, name, None) for name in ("module", "optimizer")}
    return {name: part.state_dict() for name, part in held.items() if part is not None}


def _teach(estimate: Estimator, learnt: dict[str, Any]) -> None:
    for name, part in learnt.items():
        getattr(estimate, name).load_state_dict(part)


def _check_whole(kept: dict[str, Any]) -> None:
    """Raises ValueError if there is NaN, or the counts are not numbers of steps."""
    n = len(kept["losses"])
    counted = isinstance(kept["settled"], int) and 0 <= kept["settled"] <= n
    if not counted or not isinstance(kept["resting"], bool):
        raise ValueError("wrong counts of steps")
    if any(len(kept[name]) != n for name in ("alphas", "rates")) or holds_nan(kept):
        raise ValueError("NaN in it, or missing steps")
