"""Trajectories drawn from a solution's own chain: at η = 1, joint samples of p(τ|O).

The chain is Markov, so that filtering backward (the values) and sampling forward is exact.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cai import checks
from cai.numerics import inverse_cdf, logspace, memory
from cai.program.trajectories import Trajectories
from cai.solutions.chain import Chain

Array: TypeAlias = npt.NDArray[np.float64]
Indices: TypeAlias = npt.NDArray[np.int64]

_CHUNK = 2**21  # numbers held at once
_SMALL = 2**12  # transitions per step up to which cumulative sums of all of them are kept


def sample(chain: Chain, n: int, seed: int | None) -> Trajectories:
    """Draws n independent trajectories, as ``Solution.sample`` documents it."""
    checks.check_count("samples", n)
    T = checks.finite_horizon(chain.table, "sampling trajectories")
    memory.check_fits("samples", f"{n} trajectories", n * (2 * T + 1), "draw fewer at a time")
    if seed is not None:
        checks.check_seed(seed)
        seed = int(seed)
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    states, actions = np.empty((T + 1, n), np.int64), np.empty((T, n), np.int64)
    chosen, alive = np.empty((T, n), np.int64), np.ones((T + 1, n), np.bool_)
    walk = _Walk(chain, n)
    states[0] = walk.start(_uniform(n, generator=generator))
    with chain.table.threads():
        for first in range(0, T, walk.chunk):
            steps = slice(first, min(first + walk.chunk, T))
            walk.prepare(steps)
            uniform = _uniform(3, steps.stop - first, n, generator=generator)
            for t in range(first, steps.stop):
                here = states[t], alive[t], uniform[:, t - first]
                actions[t], chosen[t], states[t + 1], alive[t + 1] = walk.step(t - first, *here)
    return _paid(chain, *map(torch.from_numpy, (states, actions, chosen, alive)))


class _Walk:
    """n trajectories step by step; policies and transitions are computed for chunks of steps."""

    def __init__(self, chain: Chain, n: int) -> None:
        self.chain, self.table = chain, chain.table
        S, A, K = self.table.log_dynamics.shape[-3:]
        self.looks_up = max(_SMALL, n * K) >= S * A * K
        self.chunk = max(1, _CHUNK // max(S * A * (K if self.looks_up else 1), 3 * n))
        listed = self.table.successors
        self.successors = None if listed is None else listed.numpy()
        self.mortal = self.table.discount < 1
        timed = "log_prior" in self.table.by_step
        self.prior = _cumulative(self.table.log_prior) if self.mortal and not timed else None

    def start(self, uniform: Array) -> Indices:
        """s_0."""
        row = _cumulative(self.chain.log_initial)
        start: Indices = inverse_cdf.draw(row, uniform[:, None])
        return start

    def prepare(self, steps: slice) -> None:
        """Computes policy, transitions and survival of a few steps, for all states."""
        self.first = steps.start
        self.policy = _cumulative(self.chain.log_policy(steps))
        if self.looks_up:
            self.moves = _cumulative(self.chain.log_transitions(steps))
        if self.mortal:
            self.survival = self.chain.log_survival(steps).exp().numpy()

    def step(
        self, i: int, s: Indices, alive: npt.NDArray[np.bool_], uniform: Array
    ) -> tuple[Indices, Indices, Indices, npt.NDArray[np.bool_]]:
        """Actions, indices of the successors, next states, and which trajectories survive."""
        ghosts = not alive.all()
        rows = self.policy[i, s]
        if ghosts:
            now = self.table.at(self.first + i)
            prior = _cumulative(now.log_prior) if self.prior is None else self.prior
            rows = np.where(alive[:, None], rows, prior[s])
        a = inverse_cdf.draw(rows, uniform[0, :, None])
        rows = self.moves[i, s, a] if self.looks_up else self._moves(i, s, a)
        if ghosts:
            dead = ~alive
            rows[dead] = _cumulative(now.log_dynamics[s[dead], a[dead]])
        k = inverse_cdf.draw(rows, uniform[1, :, None])
        s_next = k if self.successors is None else self.successors[s, a, k]
        if self.mortal:
            alive = alive & (uniform[2] < self.survival[i, s_next])
        return a, k, s_next, alive

    def _moves(self, i: int, s: Indices, a: Indices) -> Array:
        """Cumulative q(s'|s,a) of n states and actions, if there are many more than n."""
        table, eta, t = self.table, self.chain.optimism, self.first + i
        u = self.chain.log_values[t + 1]
        if self.mortal:
            log_p, x = self.chain.termination(slice(t, t + 1))
            u = logspace.soft_mean(log_p, x[0], eta)
        here = torch.from_numpy(s), torch.from_numpy(a)
        x = u if table.successors is None else u[table.successors[here]]
        if (reward := self.chain.arrival_reward(t)) is not None:
            x = x + reward[here] / table.temperature
        return _cumulative(logspace.tilt(table.at(t).log_dynamics[here], x, eta))


def _uniform(*shape: int, generator: torch.Generator | None) -> Array:
    return torch.rand(shape, dtype=torch.float64, generator=generator).numpy()


def _cumulative(log_p: Tensor) -> Array:
    return inverse_cdf.cumulative(log_p.exp()).numpy()


def _paid(chain: Chain, s: Tensor, a: Tensor, k: Tensor, alive: Tensor) -> Trajectories:
    """The trajectories with their rewards, 0 after termination, from (T, n) to (n, T)."""
    table, steps = chain.table, torch.arange(len(a)).unsqueeze(-1)

    def looked_up(name: str, *where: Tensor) -> Tensor:
        found: Tensor = getattr(table, name)[(steps, *where) if name in table.by_step else where]
        return found

    rewards = looked_up("reward", s[:-1], a)
    if table.arrival_reward is not None:
        rewards = rewards + looked_up("arrival_reward", s[:-1], a, k)
    return Trajectories(
        states=s.T.contiguous(),
        actions=a.T.contiguous(),
        rewards=torch.where(alive[:-1], rewards, 0.0).T.contiguous(),
        final_rewards=torch.where(alive[-1], table.final_reward[s[-1]], 0.0),
        alive=alive.T.contiguous(),
    )
