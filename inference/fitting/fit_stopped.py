"""The error of a fit that could not continue, with its results so far."""

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
from cai.progress.callback import CallbackFailed


class FitStopped(ValueError):
    """Raised when training cannot continue; it carries the results so far.

    Attributes:
        step: the number of completed steps.
        site: the first site that was not finite, such as ``a_3`` or ``o_3``; None if unknown.
        policy: the policy with the parameters before the step that failed, or after the step that
            a callback failed on.
        losses: (step,), nats.

    >>> import cai
    >>> from cai import inference, models
    >>> model = models.ledge()
    >>> try:
    ...     inference.fit(model, cai.TabularPolicy(model), learning_rate=1e308)
    ... except inference.FitStopped as stopped:
    ...     stopped.step, stopped.site
    (1, 'a_0')
    """

    def __init__(
        self, message: str, step: int, site: str | None, policy: nn.Module, losses: Tensor
    ) -> None:
        super().__init__(message)
        self.step, self.site, self.policy, self.losses = step, site, policy, losses

    def __reduce__(self) -> Any:
        """All attributes, so that it can be raised across processes."""
        return type(self), (str(self), self.step, self.site, self.policy, self.losses)


def stopped(
    error: Exception,
    model: TrajectoryModel | None,
    policy: nn.Module,
    samples: int,
    losses: list[float],
) -> FitStopped:
    """The error to raise in place of one in a training step, with its site if that is found.

    Args:
        error: the error of the step.
        model: the program; None for a table, which has no sites.
        policy: the policy with the parameters before the step.
        samples: trajectories per step. Torch's generator has the state before the step.
        losses: the losses so far, nats.
    """
    told = isinstance(error, CallbackFailed)  # then the step itself is complete
    site, what = (None, None) if told else _first_site(model, policy, samples)
    where = "" if site is None else f", first at the site {site}: {what}"
    if site is None and isinstance(error, FloatingPointError):
        broken = [n for n, p in policy.named_parameters() if _broken(p.grad)]
        where = f", in the gradient of {', '.join(broken)}" if broken else ""
    numbers = site is not None or isinstance(error, FloatingPointError)
    advice = (
        "; try clip=1.0, a lower learning_rate, or make what that site depends on finite"
        if numbers
        else ""
    )
    message = (
        f"fit: stopped at step {len(losses)}: {str(error).removeprefix('fit: ')}{where}. The "
        f"parameters {'after' if told else 'before'} it are in the exception's .policy{advice}"
    )
    return FitStopped(message, len(losses), site, policy, torch.tensor(losses, dtype=torch.float64))


def _broken(slope: Tensor | None) -> bool:
    return slope is not None and not bool(slope.isfinite().all())


def _first_site(
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
