"""The error of a fit that could not continue, with its results so far."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cai.inference.fitting._not_finite import first_site
from cai.program.trajectory import TrajectoryModel


class FitStopped(ValueError):
    """Raised when training cannot continue; it carries the results so far.

    Attributes:
        step: the number of completed steps.
        site: the first site that was not finite, such as ``a_3`` or ``o_3``; None if unknown.
        policy: the policy with the parameters before the step that failed.
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
    site, what = first_site(model, policy, samples)
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
        f"parameters before it are in the exception's .policy{advice}"
    )
    return FitStopped(message, len(losses), site, policy, torch.tensor(losses, dtype=torch.float64))


def _broken(slope: Tensor | None) -> bool:
    return slope is not None and not bool(slope.isfinite().all())
