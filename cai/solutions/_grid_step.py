"""One step of a continuous deterministic model, with finitely many actions that are tried."""

from __future__ import annotations

from dataclasses import dataclass

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from cai import checks
from cai.distributions.exact_scores import exact, log_probs
from cai.numerics import logspace
from cai.program.calling import call
from cai.program.trajectory import TrajectoryModel


@dataclass(frozen=True, eq=False)
class Choices:
    """The actions that are tried, each standing for the cell around it.

    Attributes:
        model: the model, whose states are vectors or numbers.
        actions: (A,) or (A, k), as the model takes them.
        low: (A, k), the lower corners of the cells; None where actions are finitely many.
        high: (A, k), the upper corners; None likewise.
    """

    model: TrajectoryModel
    actions: Tensor
    low: Tensor | None = None
    high: Tensor | None = None

    @classmethod
    def on(cls, model: TrajectoryModel, points: list[Tensor]) -> Choices:
        """The nodes of a grid, and around each what is nearer to it than to its neighbours."""
        middles = [(x[1:] + x[:-1]) / 2 for x in points]
        low = [torch.cat([x[:1], middle]) for x, middle in zip(points, middles, strict=True)]
        high = [torch.cat([middle, x[-1:]]) for x, middle in zip(points, middles, strict=True)]
        nodes, low_, high_ = (
            torch.cartesian_prod(*x).reshape(-1, len(points)) for x in (points, low, high)
        )
        vectors = bool(model.prior(model.initial.sample(), 0).event_shape)
        return cls(model, nodes if vectors else nodes.squeeze(-1), low_, high_)

    def log_prior(self, s: Tensor, t: int = 0) -> Tensor:
        """log p of each cell by its size and the density in its middle, normalised, (..., A)."""
        if self.low is None or self.high is None:
            prior = self.model.prior(s, t)
            log_p = log_probs(prior, len(self.actions))
        else:
            prior = exact(self.model.prior(self._apart(s), t))
            size = (self.high - self.low).log().sum(-1)
            log_p = logspace.log_softmax(prior.log_prob(self.actions).double() + size)
        batch = s.shape[: s.dim() - len(self.model.initial.event_shape)]
        return log_p.expand(*batch, len(self.actions))

    def beside(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """Each state with each action, both of batch shape (..., A)."""
        events, A = len(self.model.initial.event_shape), len(self.actions)
        batch = (*s.shape[: s.dim() - events], A)
        states = self._apart(s).expand(*batch, *self.model.initial.event_shape)
        return states, self.actions.expand(*batch, *self.actions.shape[1:])

    def distribution(self, log_policy: Tensor) -> TorchDistribution:
        """The policy with given log-probabilities of cells, (..., A), constant on each."""
        among = dist.Categorical(logits=log_policy, validate_args=False)
        if self.low is None or self.high is None:
            return among
        shape = (*log_policy.shape, self.low.shape[-1])
        inside = dist.Uniform(self.low.expand(shape), self.high.expand(shape), validate_args=False)
        if self.actions.dim() == 1:
            inside = dist.Uniform(
                inside.low.squeeze(-1), inside.high.squeeze(-1), validate_args=False
            )
            return dist.MixtureSameFamily(among, inside, validate_args=False)
        return dist.MixtureSameFamily(among, inside.to_event(1), validate_args=False)

    def _apart(self, s: Tensor) -> Tensor:
        return s.unsqueeze(s.dim() - len(self.model.initial.event_shape))


def stepped(model: TrajectoryModel, s: Tensor, a: Tensor, t: int = 0) -> tuple[Tensor, Tensor]:
    """Where a step leads for certain, and what it pays, of any batch shape."""
    with poutine.block():
        s_next = model.transition(s, a, t).mean.double().expand(s.shape)
        reward = model.rewards(s, a, t)
        if model.pays_on_arrival:
            reward = reward + model.paid_on_arrival(s, a, s_next, t)
    batch = s.shape[: s.dim() - len(model.initial.event_shape)]
    return s_next, reward.expand(batch)


def check_deterministic(model: TrajectoryModel, s: Tensor, a: Tensor) -> None:
    """Raises ValueError where dynamics draw something, or return no certain state."""
    traced = poutine.trace(model.transition)
    found = call("dynamics", traced.get_trace, s, a, 0)
    drawn = [name for name, site in found.nodes.items() if site["type"] == "sample"]
    came = f"dynamics that sample the site {drawn[0]!r}" if drawn else None
    returned = found.nodes["_RETURN"]["value"]
    if came is None and not _certain(returned):
        came = f"a {type(returned).__name__} that is not certain"
    if came is not None:
        checks.refuse(
            "model",
            "deterministic dynamics, which return a Delta",
            came,
            "leave the noise out, as noise=0 does in cai.models",
        )


def _certain(distribution: object) -> bool:
    try:
        return bool((distribution.variance == 0).all())  # type: ignore[attr-defined]
    except (AttributeError, NotImplementedError):
        return False
