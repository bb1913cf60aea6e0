"""Where a number stopped being one: the first site of a rollout that is not finite."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from cai import checks
from cai.distributions.exact_scores import exact
from cai.numerics.exclusive import exclusive
from cai.program.trajectory import TrajectoryModel
from cai.tables.table import Table


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
    model: TrajectoryModel | Table,
    policy: nn.Module,
    particles: int,
    losses: list[float],
) -> FitStopped:
    """What to raise in place of an error in a step, with the site where it came from if found.

    Args:
        error: of the step.
        model: the model.
        policy: with the parameters before the step, which is where the error left them.
        particles: trajectories a step. Torch's generator is where it was before the step.
        losses: so far, nats.
    """
    site, what = first_site(model, policy, particles)
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


def first_site(
    model: TrajectoryModel | Table, policy: nn.Module, n: int
) -> tuple[str, str] | tuple[None, None]:
    """The first site, in order of time, that is not finite, and what about it is not.

    Rolls n trajectories out once more: from the state that the generator had before the step that
    failed, they are the same. Where values and scores are finite, their gradients are looked at.

    Args:
        model: the model; nothing is known of a table, which has no sites.
        policy: with the parameters that failed.
        n: as many trajectories as were drawn then.
    """
    if isinstance(model, Table):
        return None, None
    T = checks.finite_horizon(model, "fit")
    with exclusive(), _Watched(n) as watch:
        try:
            model._run(policy, range(T), factors=False)
        except ValueError as error:  # a distribution that refuses its parameters
            failure: ValueError | None = error
        else:
            failure = None
    for name, what, value in _terms(model, watch.sites, T):
        if not value.isfinite().all():
            return name, f"{what} is {value[~value.isfinite()][0].item():g}"
    if failure is not None:
        last = next(reversed(watch.sites), "s_0")
        words = str(failure).split("\n")[0]
        return _after(last), f"its distribution refuses its parameters: {words}"
    parameters = [p for p in policy.parameters() if p.requires_grad]
    for name, what, value in _terms(model, watch.sites, T):
        if value.requires_grad:
            slopes = torch.autograd.grad(
                value.sum(), parameters, retain_graph=True, allow_unused=True
            )
            if not all(slope is None or slope.isfinite().all() for slope in slopes):
                return name, f"the gradient of {what} is not finite"
    return None, None


def _terms(
    model: TrajectoryModel, sites: dict[str, tuple[Tensor, Tensor]], T: int
) -> Iterator[tuple[str, str, Tensor]]:
    """Values and scores of the sites, and the factors once a step is complete, in order of time."""
    for name, (value, score) in sites.items():
        yield name, "its value", value
        yield name, "its log-probability", score
        if name.startswith("s_") and name != "s_0":
            t = int(name[2:]) - 1
            s, a, s_next = (sites[site][0] for site in (f"s_{t}", f"a_{t}", name))
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


class _Watched(Messenger):
    """Draws n values at every site, with their gradients where these exist, and keeps them."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.shape = torch.Size((n,))
        self.sites: dict[str, tuple[Tensor, Tensor]] = {}  # name -> value, log-probability

    def _pyro_sample(self, msg: Any) -> None:
        msg["stop"] = True
        fn = msg["fn"]
        fn = fn if fn.batch_shape == self.shape else fn.expand(self.shape)
        value = fn.rsample() if fn.has_rsample else fn.sample()
        msg["value"], msg["done"] = value, True
        self.sites[msg["name"]] = value, exact(fn).log_prob(value)
