"""The result of a posterior over rewards: weighted draws of the weights, as a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cai import checks
from cai.evaluation.spelling import PrintedTable, data_size, number
from cai.frames.data_frame import data_frame
from cai.inference.inverse.reward_fit import Likelihood
from cai.inference.inverse.trained_reward import how_fitted
from cai.inference.particles.draw_summaries import chain_sizes, split_r_hat, weighted_quantiles
from cai.inference.particles.pareto import pareto_k, pareto_threshold
from cai.numerics.exclusive import cached_property
from cai.program.trajectory import TrajectoryModel
from cai.rewards.linear_reward import LinearReward
from cai.roads.network import Streets
from cai.tables import bellman
from cai.tables.state_rewards import state_rewards
from cai.tables.table import Table
from cai.tables.tabulation import enumerated

_LEAST = 25  # weights that have a tail
_LOW_R_HAT = 1.05


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class RewardPosterior(PrintedTable):
    """Draws of the weights of a reward, given demonstrations.

    It prints as a table of estimates, and exports to HTML (in a notebook), a dict, JSON, Markdown
    and a data frame; :func:`cai.plot.estimates` draws it beside fits.

    Attributes:
        reward: with the posterior mean of its weights, reward units per unit of each feature; so it
            pays the posterior mean of the reward.
        model: the model, or the table, with that reward; or the road network.
        method: "importance", "nuts" or "svi".
        optimism: η of the demonstrators.
        rule: how they choose actions.
        likelihood: "actions" or "paths".
        draws: (n, k), of the weights, those of NUTS chain after chain.
        log_weights: (n,), nats, up to a constant: the importance weight of each draw; zeros for
            NUTS.
        chains: of NUTS; 0 where draws are independent.
        divergences: divergent steps of NUTS after its warm-up; if there are any, some part of the
            posterior may be missing.
        mode: (k,), the weights where the posterior is highest, in unbounded coordinates.
        demonstrations: how many.
        actions: how many actions they have.
        dropped: how many were left out as impossible.
        remarks: what else a reader should know, a sentence each.

    >>> import torch, cai
    >>> from cai import inference, models
    >>> model = models.ledge()
    >>> paths = model.simulate(lambda t, s: model.prior(s), 50, seed=0)
    >>> seen = cai.Demonstrations.from_trajectories(paths)
    >>> reward = cai.LinearReward({"state": lambda s, a: s})
    >>> prior = torch.distributions.Normal(0.0, 1.0)
    >>> found = inference.reward_posterior(model, seen, reward, prior, samples=100)
    >>> found.draws.shape, found.reliable
    (torch.Size([100, 1]), True)
    """

    headings = ("", "mean", "std. dev.", "95% interval")

    reward: LinearReward
    model: TrajectoryModel | Table | Streets
    method: str
    optimism: float
    rule: bellman.Rule
    likelihood: Likelihood
    draws: Tensor
    log_weights: Tensor
    chains: int
    divergences: int
    mode: Tensor
    demonstrations: int
    actions: int
    dropped: int
    remarks: tuple[str, ...] = ()

    @property
    def weights(self) -> dict[str, float]:
        """Name -> the posterior mean of ψ, reward units per unit of the feature."""
        return dict(self.reward.weights or {})

    @cached_property
    def covariance(self) -> Tensor:
        """(k, k), of the weights under the posterior."""
        away = self.draws - self._shares @ self.draws
        return away.T @ (self._shares.unsqueeze(1) * away)

    @property
    def std_devs(self) -> dict[str, float]:
        """Name -> the posterior standard deviation of ψ."""
        return self._named(self.covariance.diagonal().sqrt())

    def intervals(self, level: float = 0.95) -> dict[str, tuple[float, float]]:
        """Name -> the ends of the interval with equal tails.

        Args:
            level: the posterior probability of the interval.

        Raises:
            ValueError: if the level is not between 0 and 1.
        """
        checks.check_real("level", level, lambda x: 0 < x < 1, "between 0 and 1", "such as 0.95")
        tail = (1 - level) / 2
        ends = [self.quantiles(p) for p in (tail, 1 - tail)]
        return {name: (ends[0][name], ends[1][name]) for name in self.reward.names}

    def quantiles(self, probability: float) -> dict[str, float]:
        """Name -> the number below which ψ lies with a posterior probability."""
        return self._named(weighted_quantiles(self.draws, self._shares, probability))

    @cached_property
    def effective_sample_size(self) -> float:
        """Of importance weights (Σ w)²/Σ w²; of chains the smallest over weights, for the mean."""
        if not self.chains:
            return 1 / float(self._shares.square().sum())
        return float(chain_sizes(self._by_chain).min())

    @cached_property
    def pareto_k(self) -> float | None:
        """k̂ of the importance weights, see :func:`cai.inference.pareto_k`; None for NUTS."""
        if self.chains or len(self.draws) < _LEAST:
            return None
        return pareto_k(self.log_weights)

    @cached_property
    def r_hat(self) -> float | None:
        """Split R̂ of the chains, the largest over weights; None where there are none."""
        if not self.chains:
            return None
        return float(split_r_hat(self._by_chain).max())

    @property
    def reliable(self) -> bool:
        """Whether k̂ is at most ``pareto_threshold(n)``; of chains, whether R̂ is below 1.05."""
        if self.r_hat is not None:
            return self.r_hat < _LOW_R_HAT
        return self.pareto_k is not None and self.pareto_k <= pareto_threshold(len(self.draws))

    def reward_map(self) -> dict[str, Tensor]:
        """What each state pays, of :func:`cai.plot.reward_map`: its posterior mean and spread.

        Returns:
            "posterior mean" and "standard deviation" -> (S,), reward units: what is paid for acting
            in a state and on arrival there, on average over actions.

        Raises:
            ValueError: on a road network, whose states are segments.
        """
        table = self._table()
        features = self.reward.on(table)
        zero = torch.zeros(len(features.names), dtype=torch.float64)
        known = state_rewards(features.rewards(table, zero))
        each = torch.eye(len(zero), dtype=torch.float64)
        basis = torch.stack([state_rewards(features.rewards(table, x)) for x in each]) - known
        mean, open_ = self._shares @ self.draws, known > -torch.inf
        spread = torch.einsum("is,ij,js->s", basis, self.covariance, basis).clamp(min=0).sqrt()
        return {
            "posterior mean": torch.where(open_, known + mean @ basis, -torch.inf),
            "standard deviation": torch.where(open_, spread, -torch.inf),
        }

    def rewards(self) -> Tensor:
        """(n, S, A), reward units: r(s,a) of each draw, with what it pays on arrival on average.

        Raises:
            ValueError: on a road network, whose rewards are of turns; for those take
                ``draws @ streets.features(names).T``.
        """
        table = self._table()
        features = self.reward.on(table)
        each = features.reward
        if features.arrival is not None:
            moves = table.log_dynamics.exp()
            moves = moves if moves.dim() == 3 else moves.mean(0)
            each = each + (features.arrival * moves).sum(-1)
        return features.offset + torch.einsum("nk,ksa->nsa", self.draws, each)

    def to_dict(self) -> dict[str, Any]:
        """Means, spreads, intervals and diagnostics, as plain values."""
        low_high, spread, mode = self.intervals(), self.std_devs, self._named(self.mode)
        return {
            "method": self.method,
            "likelihood": self.likelihood,
            "optimism": self.optimism,
            "rule": self.rule,
            "weights": {
                name: {
                    "mean": x,
                    "std_dev": spread[name],
                    "interval": list(low_high[name]),
                    "mode": mode[name],
                }
                for name, x in self.weights.items()
            },
            "draws": len(self.draws),
            "effective_sample_size": self.effective_sample_size,
            "pareto_k": self.pareto_k,
            "chains": self.chains,
            "r_hat": self.r_hat,
            "divergences": self.divergences,
            "reliable": self.reliable,
            "demonstrations": self.demonstrations,
            "actions": self.actions,
            "dropped": self.dropped,
            "remarks": list(self.remarks),
        }

    def to_dataframe(self) -> Any:
        """A pandas DataFrame, one row for each weight: "mean", "std_dev", "low" and "high".

        Raises:
            ValueError: if pandas is not installed.
        """
        ends = [*self.intervals().values()]
        columns = {
            "mean": [*self.weights.values()],
            "std_dev": [*self.std_devs.values()],
            "low": [low for low, _ in ends],
            "high": [high for _, high in ends],
        }
        return data_frame(columns, index=list(self.reward.names))

    def _table(self) -> Table:
        if isinstance(self.model, Streets):
            advice = "draws @ streets.features(names).T are utilities of turns"
            checks.refuse("model", "one with states and actions", "a road network", advice)
        return enumerated(self.model)

    @cached_property
    def _shares(self) -> Tensor:
        return self.log_weights.softmax(0)

    @property
    def _by_chain(self) -> Tensor:
        return self.draws.unflatten(0, (self.chains, -1))

    def _named(self, x: Tensor) -> dict[str, float]:
        return dict(zip(self.reward.names, x.tolist(), strict=True))

    def _title(self) -> str:
        on_roads = isinstance(self.model, Streets)
        many = data_size(self.demonstrations, self.actions, on_roads)
        if on_roads:  # where all objectives and optimisms are one
            return f"Posterior of utilities by the likelihood of routes: {many}"
        how = how_fitted(self.likelihood, self.optimism, self.rule)
        return f"Posterior of the {how[0].lower()}{how[1:]}: {many}"

    def _cells(self) -> list[list[str]]:
        spread, ends = self.std_devs, self.intervals()
        return [
            [name, number(x), number(spread[name]), " … ".join(map(number, ends[name]))]
            for name, x in self.weights.items()
        ]

    def _notes(self) -> list[str]:
        notes = [self._how_drawn()]
        if self.pareto_k is not None and not self.reliable:
            most = pareto_threshold(len(self.draws))
            notes.append(
                f"Not reliable: k̂ is above {most:.2f}, as the posterior has longer tails than the "
                'draws. Take method="nuts", or a narrower prior.'
            )
        elif not self.reliable:
            few = "there are too few draws" if self.r_hat is None else "chains do not agree"
            notes.append(f"Not reliable: {few}. Take more samples.")
        if self.dropped:
            notes.append(f"{self.dropped} impossible demonstrations were left out.")
        return [*notes, *self.remarks]

    def _how_drawn(self) -> str:
        n, size = len(self.draws), self.effective_sample_size
        if self.chains:
            count = "1 chain" if self.chains == 1 else f"{self.chains} chains"
            return (
                f"{n} draws of {count} of NUTS: effective size at least {size:.0f}, R̂ at most "
                f"{self.r_hat:.3f}, {self.divergences} divergent steps."
            )
        of = {"importance": "Laplace's approximation", "svi": "a normal guide"}[self.method]
        tail = "" if self.pareto_k is None else f", k̂ {self.pareto_k:.2f}"
        return f"{n} weighted draws of {of}: effective size {size:.0f}{tail}."
