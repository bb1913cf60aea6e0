"""Finds the first site of a rollout that is not finite."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from cai import checks
from cai.numerics.exclusive import exclusive
from cai.program.episode import acting, run
from cai.program.handlers import Draws, in_shape
from cai.program.trajectory import TrajectoryModel


def first_site(
    model: TrajectoryModel | None, policy: nn.Module, n: int
) -> tuple[str, str] | tuple[None, None]:
    """The first site, in order of time, that is not finite, and which of its numbers is not.

    Repeats the rollout of n trajectories: from the state of the generator before the failed step,
    they are the same. If values and scores are finite, their gradients are checked.

    Args:
        model: the program; None for a table, which has no sites.
        policy: the policy with the parameters that failed.
        n: the number of trajectories of the failed step.
    """
    if model is None:
        return None, None
    T = checks.finite_horizon(model, "fit")
    with exclusive(), Draws(n, _with_gradient, lambda name: True) as draws:
        try:
            run(model, acting(model, policy, draws.sample), range(T), sample=draws.sample)
        except ValueError as error:  # a distribution that refuses its parameters
            failure: ValueError | None = error
        else:
            failure = None
    for name, what, value in _terms(model, draws, T):
        if not value.isfinite().all():
            return name, f"{what} is {value[~value.isfinite()][0].item():g}"
    if failure is not None:
        last = next(reversed(draws.scores), "s_0")
        words = str(failure).split("\n")[0]
        return _after(last), f"its distribution refuses its parameters: {words}"
    parameters = [p for p in policy.parameters() if p.requires_grad]
    for name, what, value in _terms(model, draws, T):
        if value.requires_grad:
            slopes = torch.autograd.grad(
                value.sum(), parameters, retain_graph=True, allow_unused=True
            )
            if not all(slope is None or slope.isfinite().all() for slope in slopes):
                return name, f"the gradient of {what} is not finite"
    return None, None


def _terms(model: TrajectoryModel, draws: Draws, T: int) -> Iterator[tuple[str, str, Tensor]]:
    """Values and scores of the sites, and the factors of each step, in order of time."""
    for name, value in draws.values.items():
        yield name, "its value", value
        if name in draws.scores:
            yield name, "its log-probability", draws.scores[name]
        if name.startswith("s_") and name != "s_0":
            t = int(name[2:]) - 1
            s, a, s_next = (draws.values[site] for site in (f"s_{t}", f"a_{t}", name))
            yield f"o_{t}", "its factor, reward / temperature,", model.log_factor(s, a, s_next, t)
            if t + 1 == T:
                final = model.final_rewards(s_next) / model.temperature
                yield f"o_{T}", "its factor, final reward / temperature,", final


def _after(site: str) -> str:
    """The site of the trajectory that comes next."""
    kind, _, t = site.rpartition("/")[2].partition("_")
    if site.startswith("t") and "/" in site:
        return f"s_{int(site[1 : site.index('/')]) + 1}"
    return f"s_{int(t) + 1}" if kind == "a" else f"a_{t}"


def _with_gradient(name: str, distribution: Any, shape: torch.Size) -> Tensor:
    """Values, with gradients if they exist."""
    whole = in_shape(distribution, shape)
    value: Tensor = whole.rsample() if whole.has_rsample else whole.sample()
    return value
