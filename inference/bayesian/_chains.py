"""NUTS in Laplace's coordinates, one draw at a time, so that a file can keep it."""

from __future__ import annotations

from typing import Any

import pyro
import torch
from pyro.infer import NUTS
from torch import Tensor

from cai.inference.bayesian._laplace import Laplace


class Chains:
    """Chains of Pyro's NUTS, one after the other, that begin at draws of Laplace's approximation.

    The mass matrix stays the unit matrix, which is what Laplace's coordinates are for; the warm-up
    finds the step size. A chain that was left during its warm-up begins anew, with its own seed, so
    that a resumed run is the run that was interrupted.

    Args:
        laplace: the posterior in its coordinates.
        chains: how many.
        samples: kept of each.
        warmup: draws of each before these.

    Attributes:
        done: how many draws were made, those of warm-ups included.
        total: how many there will be.
        divergences: divergent steps of the integrator after the warm-ups.
    """

    verb, outcome, restarts, policy = "reward_posterior", "the draws", "", None

    def __init__(self, laplace: Laplace, chains: int, samples: int, warmup: int) -> None:
        self._laplace, self._samples, self._warmup = laplace, samples, warmup
        self._seeds = torch.randint(2**31, (chains,)).tolist()
        self._draws = torch.zeros(chains, samples, len(laplace.mode), dtype=torch.float64)
        self.done, self.total, self.divergences = 0, chains * (samples + warmup), 0
        self._kernel: Any = None
        self._at = torch.zeros_like(laplace.mode)
        self._diverged = 0  # of this chain, at its last draw
        self._step_size = 1.0

    @property
    def z(self) -> Tensor:
        """(chains, m, k): the draws of complete chains, else those of the first one."""
        whole = self.done // self._each
        if whole:
            return self._draws[:whole]
        return self._draws[:1, : max(0, self.done - self._warmup)]

    @property
    def _each(self) -> int:
        return self._samples + self._warmup

    def over(self) -> bool:
        """Whether all chains are complete."""
        return self.done >= self.total

    def step(self) -> None:
        """One draw."""
        chain, i = divmod(self.done, self._each)
        # Divergent steps of the integrator are rejected by their energy, not by an exception.
        with pyro.validation_enabled(False):
            if i == 0:
                torch.manual_seed(self._seeds[chain])
                self._begin(self._start(), self._warmup)
            elif self._kernel is None:
                self._begin(self._draws[chain, i - self._warmup - 1], 0)
            z = self._kernel.sample({"z": self._at})["z"].detach()
        self._at = z
        if i >= self._warmup:
            self._draws[chain, i - self._warmup] = z
            diverged = len(self._kernel.diagnostics()["divergences"])
            self.divergences += diverged - self._diverged
            self._diverged = diverged
        self._step_size = float(self._kernel.step_size)
        self.done += 1

    def _begin(self, at: Tensor, warmup: int) -> None:
        """A kernel; after a warm-up its step size is the one that was found."""
        self._kernel = NUTS(
            potential_fn=self._potential,
            step_size=1.0 if warmup else self._step_size,
            adapt_step_size=warmup > 0,
            adapt_mass_matrix=False,
        )
        self._kernel.initial_params = {"z": at}
        self._kernel.setup(warmup)
        self._at, self._diverged = at, 0

    def _start(self) -> Tensor:
        """A draw where the density is not zero; the mode if there is hardly any."""
        for _ in range(20):
            z = torch.randn(len(self._laplace.mode), dtype=torch.float64)
            if self._laplace.log_density(z) > -torch.inf:
                return z
        return torch.zeros_like(self._laplace.mode)

    def _potential(self, at: dict[str, Tensor]) -> Tensor:
        return -self._laplace.density(at["z"])

    def shown(self) -> str:
        """The step size."""
        return f"step size {self._step_size:.2g}, {self.divergences} divergences"

    def differs(self, kept: dict[str, Any]) -> str:
        """Nothing: the settings say all."""
        return ""

    def state_dict(self) -> dict[str, Any]:
        """All draws so far; of a chain in its warm-up nothing."""
        chain, i = divmod(self.done, self._each)
        return {
            "done": self.done if i > self._warmup else chain * self._each,
            "draws": self._draws,
            "seeds": self._seeds,
            "divergences": self.divergences,
            "step_size": self._step_size,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there."""
        self.done, self._draws, self._seeds = state["done"], state["draws"], state["seeds"]
        self.divergences, self._step_size = state["divergences"], state["step_size"]
        self._kernel = None
