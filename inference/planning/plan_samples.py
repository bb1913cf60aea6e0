"""Plans that were drawn, and how well the chains that drew them agree."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from pyro.ops import stats
from torch import Tensor

from cai.program.trajectories import Trajectories


@dataclass(frozen=True, eq=False)
class PlanSamples:
    """Plans that NUTS has drawn, and a trajectory of each.

    Attributes:
        optimism: η.
        trajectories: n = chains · samples of them, chain after chain; ``actions`` are the plans,
            ``states`` what the method believes they lead to: the true dynamics at η = 0, and bent
            ones else.
        log_density: (n,), nats: of what was sampled, up to a constant.
        chains: how many.
        divergences: how many steps of the integrator went astray after the warm-up; some say that
            a part of the plans may be missing.
    """

    optimism: float
    trajectories: Trajectories
    log_density: Tensor
    chains: int
    divergences: int

    def __repr__(self) -> str:
        return (
            f"PlanSamples(optimism={self.optimism:g}, {len(self.plans)} plans of {self.chains} "
            f"chains, r_hat ≤ {self.r_hat.max().item():.3f}, "
            f"n_eff ≥ {self.n_eff.min().item():.0f}, {self.divergences} divergences)"
        )

    @property
    def plans(self) -> Tensor:
        """(n, T) + event shape of an action."""
        return self.trajectories.actions

    @property
    def states(self) -> Tensor:
        """(n, T+1) + event shape of a state."""
        return self.trajectories.states

    @cached_property
    def r_hat(self) -> Tensor:
        """(T) + event shape: split R̂ of each number of the plan; one where chains agree.

        Infinite where none of the chains has moved at all.
        """
        r_hat = stats.split_gelman_rubin(self._by_chain)
        return torch.where(self._stuck, math.inf, r_hat)

    @cached_property
    def n_eff(self) -> Tensor:
        """(T) + event shape: how many independent draws would say as much of its mean."""
        n_eff = stats.effective_sample_size(self._by_chain)
        return torch.where(self._stuck, float(self.chains), n_eff)

    @property
    def _stuck(self) -> Tensor:
        """(T) + event shape: whether no chain has moved in this number, so that 0/0 is at hand."""
        return (self._by_chain == self._by_chain[:, :1]).all(1).all(0)

    @property
    def _by_chain(self) -> Tensor:
        return self.plans.unflatten(0, (self.chains, -1))
