"""Sampled plans, with diagnostics of the chains."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from pyro.ops import stats
from torch import Tensor

from cai.frames.data_tree import data_tree
from cai.numerics.exclusive import cached_property
from cai.program.trajectories import Trajectories


@dataclass(frozen=True, eq=False)
class PlanSamples:
    """Plans drawn by NUTS, each with a trajectory.

    Attributes:
        optimism: η.
        trajectories: n = chains · samples trajectories, chain after chain; ``actions`` are the
            plans, ``states`` those that the method believes in: by the true dynamics at η = 0, by
            the dynamics at η otherwise.
        log_density: (n,), nats: the log density of the samples, up to a constant.
        chains: the number of chains.
        diverging: (n,), boolean: whether a step of the integrator diverged before a draw.

    >>> from cai import inference, models
    >>> model = models.double_integrator(horizon=2, obstacles=())
    >>> plans = inference.sample_plans(model, samples=8, warmup=8, chains=1, progress=False)
    >>> plans.plans.shape, plans.r_hat.shape
    (torch.Size([8, 2, 2]), torch.Size([2, 2]))
    """

    optimism: float
    trajectories: Trajectories
    log_density: Tensor
    chains: int
    diverging: Tensor

    def __repr__(self) -> str:
        return (
            f"PlanSamples(optimism={self.optimism:g}, {len(self.plans)} plans of {self.chains} "
            f"chains, r_hat ≤ {self.r_hat.max().item():.3f}, "
            f"n_eff ≥ {self.n_eff.min().item():.0f}, {self.divergences} divergences)"
        )

    @property
    def divergences(self) -> int:
        """How many steps of the integrator diverged; if any did, some plans may be missing."""
        return int(self.diverging.sum())

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
        """(T) + event shape: split R̂ of each number of the plan; one if chains agree.

        Infinite if no chain has moved at all.
        """
        r_hat = stats.split_gelman_rubin(self._by_chain)
        return torch.where(self._stuck, math.inf, r_hat)

    @cached_property
    def n_eff(self) -> Tensor:
        """(T) + event shape: the effective sample size for the mean of each number."""
        n_eff = stats.effective_sample_size(self._by_chain)
        return torch.where(self._stuck, float(self.chains), n_eff)

    def to_arviz(self) -> Any:
        """An ``xarray.DataTree`` for ArviZ: "actions" and "states" by chain and draw.

        The group "sample_stats" has "lp", the log density, and "diverging".

        Raises:
            ValueError: if arviz-base is not installed.
        """
        drawn = {"actions": self.plans, "states": self.states}
        stats = {"lp": self.log_density, "diverging": self.diverging}
        return data_tree(drawn, stats, {"optimism": self.optimism}, self.chains)

    @property
    def _stuck(self) -> Tensor:
        """(T) + event shape: whether no chain has moved in this number, which would give 0/0."""
        return (self._by_chain == self._by_chain[:, :1]).all(1).all(0)

    @property
    def _by_chain(self) -> Tensor:
        return self.plans.unflatten(0, (self.chains, -1))
