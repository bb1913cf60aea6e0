"""The error of a fit that could not go on, with all that it had reached."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cai.inference.fitting._not_finite import first_site
from cai.program.trajectory import TrajectoryModel


class FitStopped(ValueError):
    """A fit that could not go on; nothing that it had reached is lost.

    Attributes:
        step: how many steps were done.
        site: the first site that was not finite, ``a_3`` or ``o_3``; None where it is not known.
        policy: with the parameters before the step that failed.
        losses: (step,), nats.
    """

    def __init__(
        self, message: str, step: int, site: str | None, policy: nn.Module, losses: Tensor
    ) -> None:
        super().__init__(message)
        self.step, self.site, self.policy, self.losses = step, site, policy, losses

    def __reduce__(self) -> Any:
        """All of it, so that it comes out of a pool of processes as it was raised."""
        return type(self), (str(self), self.step, self.site, self.policy, self.losses)


def stopped(
    error: Exception,
    model: TrajectoryModel | None,
    policy: nn.Module,
    samples: int,
    losses: list[float],
) -> FitStopped:
    """What to raise in place of an error in a step, with the site where it came from if found.

    Args:
        error: of the step.
        model: the program; None of a table, which has no sites.
        policy: with the parameters before the step, which is where the error left them.
        samples: trajectories a step. Torch's generator is where it was before the step.
        losses: so far, nats.
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
