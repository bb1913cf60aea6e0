"""Weighted draws around a normal guide, which Pyro's SVI trains first."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal, init_to_value
from pyro.optim import ClippedAdam

from cai.inference.bayesian._laplace import Laplace
from cai.inference.bayesian._weighted_draws import WeightedDraws

_STEPS = 150  # of Adam
_PARTICLES = 2  # of a gradient of the ELBO
_RATES = 0.05, 0.05  # of Adam: at first, and the factor by which it falls until the end


class GuidedDraws:
    """A multivariate normal guide in Laplace's coordinates, and then draws around it.

    Args:
        laplace: the posterior in its coordinates.
        samples: n.

    Attributes:
        total: steps of Adam, and draws.
        draws: those that have a weight; None before the guide is trained.
        impossible: how many steps met weights of likelihood zero, where the ELBO is -inf.
    """

    verb, outcome, restarts, policy = "reward_posterior", "the draws", "", None

    def __init__(self, laplace: Laplace, samples: int) -> None:
        self._laplace, self._samples, self.total = laplace, samples, _STEPS + samples
        self.draws: WeightedDraws | None = None
        self.impossible = self._trained = 0
        zero = torch.zeros(len(laplace.mode), dtype=torch.float64)
        start = init_to_value(values={"z": zero})
        self._guide = AutoMultivariateNormal(self._program, init_loc_fn=start, init_scale=1.0)
        rate, fall = _RATES
        self._adam = ClippedAdam({"lr": rate, "lrd": fall ** (1 / _STEPS)})
        self._svi = SVI(self._program, self._guide, self._adam, Trace_ELBO(_PARTICLES))
        self._loss = 0.0

    def _program(self) -> None:
        zero = torch.zeros_like(self._laplace.mode)
        flat = dist.Normal(zero, torch.ones_like(zero)).to_event(1).mask(False)
        z = pyro.sample("z", flat)
        pyro.factor("density", self._laplace.density(z))

    @property
    def done(self) -> int:
        """Steps of Adam, and draws that have a weight."""
        return self._trained + (0 if self.draws is None else self.draws.done)

    def over(self) -> bool:
        """Whether all draws have a weight."""
        return self.draws is not None and self.draws.over()

    def step(self) -> None:
        """One step of Adam, or a few draws."""
        if self.draws is not None:
            self.draws.step()
            return
        self._loss = self._svi.step()
        self.impossible += self._loss == torch.inf
        self._trained += 1
        if self._trained == _STEPS:
            self.draws = self._around()

    @torch.no_grad()
    def _around(self) -> WeightedDraws:
        found = self._guide.get_posterior()
        mean, root = found.mean.detach().clone(), found.scale_tril.detach().clone()
        return WeightedDraws(self._laplace, self._samples, mean, root)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What there is to say about the guide."""
        where = "where the ELBO is minus infinity"
        said = f"The guide met weights of likelihood zero in {self.impossible} steps, {where}."
        return (said,) if self.impossible else ()

    def shown(self) -> str:
        """The last ELBO."""
        return f"ELBO {-self._loss:.3f} nats"

    def differs(self, kept: dict[str, Any]) -> str:
        """Nothing: the settings say all."""
        return ""

    def state_dict(self) -> dict[str, Any]:
        """The guide, its optimiser, and the draws."""
        return {
            "trained": self._trained,
            "impossible": self.impossible,
            "guide": self._guide.state_dict(),
            "adam": self._adam.get_state(),
            "draws": None if self.draws is None else self.draws.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there."""
        self._trained, self.impossible = state["trained"], state["impossible"]
        if self._trained:
            self._guide()  # which has no parameters before it is called
            self._guide.load_state_dict(state["guide"])
            self._adam.set_state(state["adam"])
        if state["draws"] is not None:
            self.draws = self._around()
            self.draws.load_state_dict(state["draws"])
