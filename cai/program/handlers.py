"""Pyro handlers around a program: which sites it may draw, and how."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn, Self, TypeAlias

import pyro
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from cai import checks
from cai.distributions.exact_scores import exact
from cai.program import sites
from cai.program.calling import SINCE, refuse_parameters

Draw: TypeAlias = Callable[[str, Any, torch.Size], Tensor]
"""(name, distribution, (n,)) -> independent values of a site in this batch shape."""

_UNDRAWABLE = ("probability tensor", "normal expects", "Expected p_in")  # torch's, of NaN


class DrawsSites(ValueError):
    """A policy drew a site that it must not draw."""


class NoSites(Messenger):
    """Refuses sites that a policy must not draw: the model's own, and latents without a score.

    Args:
        latents: whether the policy may draw latents, because it has a ``reverse``.
    """

    def __init__(self, latents: bool = False) -> None:
        super().__init__()
        self.latents = latents

    def _pyro_sample(self, msg: Any) -> None:
        if sites.of_the_program(msg["name"]):
            refuse_site(msg["name"])
        if not self.latents:
            raise DrawsSites(
                "policy: expected a distribution of actions without sites of its own, got one that "
                f"draws the site {msg['name']}; a policy with latents draws them in start() and "
                "scores them in reverse(states, actions, alive), see cai.LatentPolicy"
            )


def refuse_site(name: str) -> NoReturn:
    """Raises DrawsSites for a site that a policy draws though it is the model's."""
    raise DrawsSites(
        f"policy, site {name}: expected the model alone to draw it, since a guide keeps the true "
        "dynamics, got another draw; return the distribution of the action and leave the drawing "
        "to model.rollout(policy), give latents other names, and for a guide that changes the "
        "dynamics take cai.DynamicsGuide"
    )


class Scope(Messenger):
    """Puts the step in front of the dynamics' own latent sites, so that each step has its own.

    It also names the step where torch refuses the parameters of a distribution.
    """

    def __init__(self) -> None:
        super().__init__()
        self.step: Any = 0

    def of(self, t: Any) -> Self:
        """The scope of a step."""
        self.step = t
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)
        if isinstance(error, ValueError):
            refuse_parameters("dynamics", f"step {self.step}", error)

    def _pyro_sample(self, msg: Any) -> None:
        msg["name"] = f"t{self.step}/{msg['name']}"


def draw(distribution: Any, shape: torch.Size, where: str) -> Tensor:
    """Values of a distribution in a batch shape, to which it is expanded if it has none.

    Raises:
        ValueError: if it cannot be sampled.
    """
    try:
        value: Tensor = distribution.sample(shape)
    except RuntimeError as error:
        _refuse_draw(where, distribution, error)
    return value


def sampled(name: str, distribution: Any) -> Tensor:
    """The value of a sample site, by ``pyro.sample`` under the active handlers.

    Raises:
        ValueError: if torch cannot draw from the distribution.
    """
    try:
        value: Tensor = pyro.sample(name, distribution)
    except RuntimeError as error:
        if not str(error).startswith(_UNDRAWABLE):
            raise
        _refuse_draw(name, distribution, error)
    return value


def _refuse_draw(where: str, distribution: Any, error: RuntimeError) -> NoReturn:
    words = str(error).split("\n")[0]
    came = f"a {type(distribution).__name__} that raised {type(error).__name__}: {words}"
    checks.refuse(where, "a distribution that can be drawn from", came, SINCE)


def values(name: str, distribution: Any, shape: torch.Size) -> Tensor:
    """Independent values of a site without gradients, in this batch shape."""
    if not distribution.batch_shape:
        return draw(distribution, shape, name)
    return draw(in_shape(distribution, shape), torch.Size(), name)


def in_shape(distribution: Any, shape: torch.Size) -> Any:
    """The distribution in this batch shape."""
    return distribution if distribution.batch_shape == shape else distribution.expand(shape)


class Draws(Messenger):
    """Draws n independent values at every sample site and records them by name.

    Like a plate, but without scores: simulation is the inner loop of training. Outer handlers take
    no part, so that ``sample`` may be called in place of ``pyro.sample``.

    Args:
        n: how many.
        draw: how to draw them; without gradients if not given.
        scored: a test of names of sites whose log-probabilities are kept; none if not given.

    Attributes:
        values: name of the site -> values, in order, deterministic sites included.
        scores: name of the site -> log-probabilities (n,), nats, of scored sites.
    """

    def __init__(
        self,
        n: int,
        draw: Draw = values,
        scored: Callable[[str], bool] | None = None,
    ) -> None:
        super().__init__()
        self.shape, self.draw, self.scored = torch.Size((n,)), draw, scored
        self.values: dict[str, Tensor] = {}
        self.scores: dict[str, Tensor] = {}

    def sample(self, name: str, distribution: Any) -> Tensor:
        """The values of a site, (n,) + event shape."""
        value = self.draw(name, distribution, self.shape)
        if name in self.values:
            refuse_site(name)
        self.values[name] = value
        if self.scored is not None and self.scored(name):
            self.scores[name] = exact(distribution).log_prob(value).expand(self.shape)
        return value

    def _pyro_sample(self, msg: Any) -> None:
        msg["stop"] = True
        if msg["is_observed"]:
            self.values[msg["name"]] = msg["value"]
        else:
            msg["value"], msg["done"] = self.sample(msg["name"], msg["fn"]), True
