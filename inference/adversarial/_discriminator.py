"""Discriminators of transitions on a table: with a reward inside, or plain ones."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from cai.rewards.linear_reward import LinearReward
from cai.rewards.neural_reward import NeuralReward
from cai.rewards.reward_arrays import RewardArrays
from cai.rewards.tabular_reward import TabularReward
from cai.tables.absorbing import absorbing
from cai.tables.table import Table

_MOST = 2**25  # numbers of a matrix of all transitions by all parameters
_STEPS, _HALVINGS = 50, 40
_ENOUGH = 1e-13  # nats a transition: the gain of a further step
_FAR = 100.0  # nats: log-odds of what one side never does


class RewardPart(nn.Module):
    """r(s,a) and r⁺(s,a,s') with parameters.

    Args:
        reward: a linear one, a table, or modules, of which a copy is trained.
        table: the problem.
    """

    def __init__(self, reward: Any, table: Table) -> None:
        super().__init__()
        self._table, self._reward = table.holding(program=None), reward
        self.affine = not isinstance(reward, NeuralReward)
        self.arrays: Any
        if isinstance(reward, LinearReward):
            self.arrays = reward.on(table)
            begun = list((reward.weights or dict.fromkeys(reward.names, 0.0)).values())
            self.weights = nn.Parameter(torch.tensor(begun, dtype=torch.float64))
        else:
            self.arrays = reward.on(table)

    def forward(self) -> Table:
        """The table with these rewards."""
        if isinstance(self.arrays, RewardArrays):
            return self.arrays.rewards(self._table)
        found: Table = self.arrays.rewards(self._table, self.weights)
        return found

    def trained(self) -> LinearReward | TabularReward | NeuralReward:
        """The reward with the parameters as they are now."""
        if isinstance(self.arrays, RewardArrays):
            found = copy.deepcopy(self.arrays).trained()
            assert isinstance(found, TabularReward | NeuralReward)
            return found
        linear: LinearReward = self._reward.weighted(self.weights.detach())
        return linear


class Structured(nn.Module):
    """f = (r + γ Φ(s') - Φ(s))/α, the log-odds but for the policy (Fu, Luo and Levine 2018).

    Φ is free in each state, and at each step of a finite horizon, at whose end it is the final
    reward, which is known. Without a horizon and a discount it is zero in absorbing states.

    Args:
        reward: see :class:`RewardPart`.
        table: the problem.
    """

    def __init__(self, reward: Any, table: Table) -> None:
        super().__init__()
        self.reward, self._table = RewardPart(reward, table), table
        S, self._alpha = table.num_states, float(table.temperature)
        shape = (S,) if table.horizon is None else (table.steps, S)
        self.shaping = nn.Parameter(torch.zeros(shape, dtype=torch.float64))
        self._free = torch.ones(S, dtype=torch.bool)
        if table.horizon is None and table.discount == 1:
            self._free = ~absorbing(table)
        self._affine: tuple[Tensor, Tensor] | None = None

    @property
    def potential(self) -> Tensor:
        """Φ, reward units: (T+1, S), or (S,) for an infinite horizon."""
        own = self._alpha * self.shaping
        if self._table.horizon is None:
            return torch.where(self._free, own, 0.0)
        return torch.cat([own, self._table.final_reward.unsqueeze(0)])

    def forward(self) -> Tensor:
        """f, (T, S, A, K) or (S, A, K), nats."""
        table, potential = self._table, self.potential
        paid = self.reward().outcome_rewards
        here, after = potential, potential
        if table.horizon is not None:
            here, after = potential[:-1], potential[1:]
        moved = table.discount * table.gather(after) - here[..., None, None]
        found: Tensor = (paid + moved) / self._alpha
        return found.expand(*here.shape, *table.log_dynamics.shape[-2:])

    def fit(self, real: Tensor, made: Tensor, log_ratio: Tensor, penalty: float) -> Tensor:
        """Minimises the loss on transitions; returns log-odds.

        Args:
            real: of demonstrations, (T, S, A, K) or (S, A, K).
            made: of the generator.
            log_ratio: log π/p of the generator, the same but for the last axis.
            penalty: λ of ½ λ (log-odds)² of each transition, zero where nothing can be told apart.
        """
        counts = (real + made) > 0
        shift = log_ratio.unsqueeze(-1).expand(counts.shape)[counts]
        weights = real[counts], made[counts], penalty
        dims = sum(p.numel() for p in self.parameters())
        if self.reward.affine and dims * real.numel() <= _MOST:
            self._by_newton(counts, shift, *weights)
        else:
            self._by_lbfgs(counts, shift, *weights)
        with torch.no_grad():
            return self() - log_ratio.unsqueeze(-1)

    def _by_newton(
        self, counts: Tensor, shift: Tensor, real: Tensor, made: Tensor, penalty: float
    ) -> None:
        """The loss is convex, as the log-odds are affine in the parameters."""
        held = list(self.parameters())
        with torch.no_grad():
            x = parameters_to_vector(held)
            if self._affine is None:
                self._affine = self._base_and_slopes(len(x))
            base, slopes = (y[counts] for y in self._affine)
            x = _newton(x, base - shift, slopes, real, made, penalty)
            vector_to_parameters(x, held)

    def _base_and_slopes(self, dims: int) -> tuple[Tensor, Tensor]:
        """f at zero parameters, and its derivatives, (…, dims), parameter by parameter."""
        held = list(self.parameters())
        x = parameters_to_vector(held)
        vector_to_parameters(torch.zeros_like(x), held)
        base = self().clone()
        columns = []
        for one in torch.eye(dims, dtype=torch.float64):
            vector_to_parameters(one, held)
            columns.append(self() - base)
        vector_to_parameters(x, held)
        return base, torch.stack(columns, -1)

    def _by_lbfgs(
        self, counts: Tensor, shift: Tensor, real: Tensor, made: Tensor, penalty: float
    ) -> None:
        held = list(self.parameters())
        search = torch.optim.LBFGS(
            held, max_iter=_STEPS, tolerance_grad=1e-9, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            search.zero_grad()
            found = penalised(self()[counts] - shift, real, made, penalty)
            found.backward()
            return found

        search.step(closure)


class Plain:
    """Log-odds that are free for each state and action, and step of a finite horizon."""

    def fit(self, real: Tensor, made: Tensor, log_ratio: Tensor, penalty: float) -> Tensor:
        """Minimises the loss; returns log-odds. Args are those of :class:`Structured`."""
        a, b = real.sum(-1), made.sum(-1)
        if not penalty:
            found = (a.log() - b.log()).nan_to_num(nan=0.0, posinf=_FAR, neginf=-_FAR)
            return found.clamp(-_FAR, _FAR).unsqueeze(-1).expand(real.shape)
        low, high = torch.full_like(a, -_FAR), torch.full_like(a, _FAR)
        for _ in range(70):  # of a slope that falls
            x = (low + high) / 2
            rises = a * (-x).sigmoid() - b * x.sigmoid() - penalty * (a + b) * x > 0
            low, high = torch.where(rises, x, low), torch.where(rises, high, x)
        return ((low + high) / 2).unsqueeze(-1).expand(real.shape)


def loss(log_odds: Tensor, real: Tensor, made: Tensor) -> Tensor:
    """(), nats: -Σ real log D - Σ made log(1 - D)."""
    found = real * softplus(-log_odds) + made * softplus(log_odds)
    return torch.where((real > 0) | (made > 0), found, 0.0).sum()


def penalised(log_odds: Tensor, real: Tensor, made: Tensor, penalty: float) -> Tensor:
    """(), nats: the same with ½ λ (log-odds)² of each transition."""
    squares = (real + made) * log_odds.square()
    return loss(log_odds, real, made) + 0.5 * penalty * squares.sum()


def _newton(
    x: Tensor, base: Tensor, slopes: Tensor, real: Tensor, made: Tensor, penalty: float
) -> Tensor:
    """The parameters at which the penalised loss of log-odds base + slopes x is lowest."""
    both, ridge = real + made, 1e-9 * float(real.sum())  # which keeps at rest what is left open
    odds = base + slopes @ x
    value = float(penalised(odds, real, made, penalty))
    for _ in range(_STEPS):
        D = odds.sigmoid()
        gradient = slopes.T @ (made * D - real * (1 - D) + penalty * both * odds)
        curved = slopes.T @ ((both * (D * (1 - D) + penalty)).unsqueeze(1) * slopes)
        curved.diagonal().add_(ridge)
        step = -torch.linalg.solve(curved, gradient)
        gain = -float(gradient @ step)
        if gain < _ENOUGH * float(real.sum()):
            break
        share, along = 1.0, slopes @ step
        for _ in range(_HALVINGS):
            tried = float(penalised(odds + share * along, real, made, penalty))
            if tried <= value - 1e-4 * share * gain:
                break
            share /= 2
        else:
            break
        x, odds, value = x + share * step, odds + share * along, tried
    return x
