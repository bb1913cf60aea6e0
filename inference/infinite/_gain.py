"""Newton's method on g + v = T v for the long-run average g, with bounds that hold for any v.

The bracket min (T v - v) ≤ g ≤ max (T v - v) is checked with an allowance for rounding errors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cai.infinite.certificate import rounding
from cai.infinite.endings import reward_sizes
from cai.infinite.gain_and_bias import LongRun, Singular
from cai.infinite.transient import as_matrix
from cai.numerics import logspace
from cai.tables import bellman
from cai.tables.table import Table

_TOLERANCE = 1e-12  # width of the bracket at which to stop, relative to the gain, nats
_ENOUGH = 1e-8  # width, relative to the rewards, above which there is no answer
APART = 1e-9  # gains that differ by less, relative to the rewards, are one
_NEVER = 230.0  # nats by which policy and bend rule out a move for good
_STEPS = 60  # of Newton's method
_POLICIES = 60  # that are tried one after another where both sides at once run in circles
_STALE = 4  # steps without a narrower bracket, which rounding errors then forbid


@dataclass(frozen=True, eq=False)
class GainStep:
    """T at v, made linear.

    Attributes:
        v: (S,), nats; infinite in states that are held.
        rise: (S,), nats: T v - v; zero in states that are held.
        noise: (S,), nats: how far ``rise`` may be off for rounding errors; zero where held.
        log_policy: (S, A).
        log_transitions: (S, A, K): the bent dynamics.
    """

    v: Tensor
    rise: Tensor
    noise: Tensor
    log_policy: Tensor
    log_transitions: Tensor

    @property
    def inside(self) -> Tensor:
        """(S,), boolean: states that are not held."""
        return self.v.isfinite()

    @cached_property
    def bracket(self) -> tuple[float, float]:
        """What the gain is at least and at most, nats, for certain; NaN where v is."""
        inside = self.inside
        lower, upper = self.rise - self.noise, self.rise + self.noise
        return lower[inside].min().item(), upper[inside].max().item()

    @property
    def width(self) -> float:
        """How far apart the two are, nats; infinite where they do not bracket anything."""
        lower, upper = self.bracket
        return upper - lower if upper >= lower else math.inf


@dataclass(frozen=True, eq=False)
class Found:
    """Where the iteration led.

    Attributes:
        step: the last one, or that with the narrowest bracket.
        lower, upper: nats: the best bounds of the gain.
        gains: (S,), nats, the long-run average from each state where it is ``split``.
        split: whether it depends on the start.
    """

    step: GainStep
    lower: float
    upper: float
    gains: Tensor
    split: bool = False


@dataclass(frozen=True, eq=False)
class GainProblem:
    """g + v = T v, all in nats."""

    table: Table
    eta: float
    rule: bellman.Rule

    @cached_property
    def scale(self) -> float:
        """The size of a reward, nats, at least one."""
        return max(1.0, sum(reward_sizes(self.table)))

    def solve(self, guess: Tensor) -> Found:
        """The gain from a guess of v, (S,), nats; infinite where states are left out.

        Raises:
            ValueError: if it cannot be told.
        """
        found = self._newton(guess, None)
        if not self._answers(found) and self.eta < 0:
            found = self._alternating(guess)
        if not self._answers(found):
            raise untold(self, found)
        return found

    def _answers(self, found: Found) -> bool:
        enough = max(_ENOUGH * self.scale, _close(found.lower, found.upper))
        return found.split or found.step.width <= enough

    def _alternating(self, v: Tensor) -> Found:
        """One policy after another, each against the nature that suits it least.

        Both at once may run in circles for η < 0, where T is neither convex nor concave; in turns
        they do not (Hoffman and Karp 1966).
        """
        log_pi = self.at(v, None).log_policy
        for _ in range(_POLICIES):
            v = self._newton(v, log_pi).step.v
            found = self._newton(v, None, steps=1)
            if self._answers(found):
                return self._newton(v, None)
            log_pi = found.step.log_policy
        return found

    def _newton(self, v: Tensor, log_pi: Tensor | None, steps: int | None = None) -> Found:
        """Newton's method from v, with the best policy or a given one."""
        best, stale, lower, upper, force = None, 0, -math.inf, math.inf, 1.0
        for _ in range(steps or _STEPS):
            step = self.at(v, log_pi)
            lower, upper = max(lower, step.bracket[0]), min(upper, step.bracket[1])
            narrower = best is None or step.width < 0.9 * best.width
            stale = 0 if narrower else stale + 1
            best = step if best is None or step.width < best.width else best
            done = stale == _STALE or best.width <= 4 * best.noise.max()
            settled = done and best.width <= _ENOUGH * self.scale
            if settled or best.width <= _close(lower, upper):
                break
            v, gains = self._ahead(step, force)
            if gains is not None and spread(gains[step.inside]) > APART * self.scale:
                if self._settles(step, gains):
                    return Found(step, lower, upper, gains, split=True)
                force = min(4 * force, 1e9)
        assert best is not None
        return Found(best, lower, upper, torch.full_like(v, (lower + upper) / 2))

    def _settles(self, step: GainStep, gains: Tensor) -> bool:
        """Whether v + t g moves on by g, for this t = 0 and for every larger one.

        It does where no state can do better than its g by going elsewhere, and all other moves
        count the less, the further levels are apart.
        """
        inside, table = step.inside, self.table
        off = ((step.rise - gains).abs() - 4 * step.noise)[inside].max()
        drowned = step.noise.max() > 1e-4 * spread(gains[inside])
        if off > 1e-11 * self.scale or drowned:
            return False
        reach = torch.where(inside, gains, step.v)
        luck = math.copysign(math.inf, self.eta) if self.eta else 0.0
        ahead = logspace.soft_mean(table.log_dynamics, table.gather(reach), luck)
        best = bellman.state_values(table, ahead, "hard")
        return bool(((best - gains)[inside].abs() <= APART * self.scale).all())

    def at(self, v: Tensor, log_pi: Tensor | None) -> GainStep:
        """T at v, with the best policy or a given one."""
        table, eta = self.table, self.eta
        linear = bellman.linearised(table, v, eta, self.rule)
        q = linear.q
        if log_pi is None:
            backed_up, log_pi = bellman.state_values(table, q, self.rule), linear.log_policy
        else:
            price = self._price(log_pi)
            backed_up = torch.where(log_pi > -torch.inf, log_pi.exp() * (q - price), 0.0).sum(-1)
        inside = v.isfinite()
        noise = rounding(table, v, eta) + torch.finfo(torch.float64).eps * v.abs()
        noise = torch.where(inside, noise, 0.0)
        rise = torch.where(inside, backed_up - v, 0.0)
        return GainStep(v, rise, noise, log_pi, linear.log_transitions)

    def chain(self, step: GainStep) -> Any:
        """The policy followed by the bent dynamics, as a matrix over the states inside.

        What both together make less probable by 100 orders of magnitude has been chosen against.
        """
        log_p = step.log_policy.unsqueeze(-1) + step.log_transitions
        if spread(step.v[step.inside]) * max(1.0, abs(self.eta)) > _NEVER:
            true = self.table.log_prior.unsqueeze(-1) + self.table.log_dynamics
            log_p = torch.where(log_p < true - _NEVER, -torch.inf, log_p)
        return transition_matrix(self.table, log_p.exp(), step.inside)

    def _price(self, log_pi: Tensor) -> Tensor:
        """log π/p, (S, A), nats: what an action costs; nothing with the hard rule."""
        if self.rule == "hard":
            return torch.zeros_like(log_pi)
        return torch.where(log_pi > -torch.inf, log_pi - self.table.log_prior, 0.0)

    def _paid(self, step: GainStep) -> Tensor:
        """The expected reward of a step under policy and bend, less their prices, (S,), nats."""
        table, bent = self.table, step.log_transitions.exp()
        paid = table.reward / table.temperature - self._price(step.log_policy)
        if table.arrival_reward is not None:
            arrival = table.arrival_reward / table.temperature
            paid = paid + torch.where(bent > 0, bent * arrival, 0.0).sum(-1)
        if self.eta != 0:
            paid = paid - logspace.kl(step.log_transitions, table.log_dynamics) / self.eta
        return torch.where(step.log_policy > -torch.inf, step.log_policy.exp() * paid, 0.0).sum(-1)

    def _ahead(self, step: GainStep, force: float) -> tuple[Tensor, Tensor | None]:
        """Where Newton's step leads, (S,), and the gains there of each state.

        Where v is far out, what is left of it after a step would be rounding errors: then, and
        where gains differ, values are computed afresh. States with another gain are set apart, with
        more force each time, until the next policy cares for the gain first (Howard's for several
        classes).
        """
        inside = step.inside
        v, gains = step.v.clone(), torch.zeros_like(step.v)
        try:
            long_run = LongRun(self.chain(step))
            gain, change = long_run.gain_and_bias(step.rise[inside].numpy())
            apart = spread(gain)
            if apart > APART * self.scale or step.noise.max() > 1e-9 * self.scale:
                gain, new = long_run.gain_and_bias(self._paid(step)[inside].numpy())
            else:
                new = step.v[inside].numpy() + change
        except Singular:
            half = step.v + step.rise / 2
            return torch.where(inside, half - half[inside].max(), step.v), None
        new = new + self._set_apart(gain, new, force)
        v[inside] = torch.as_tensor(new - new.max())
        gains[inside] = torch.as_tensor(gain)
        return v, gains

    def _set_apart(self, gain: Any, bias: Any, force: float) -> Any:
        """What keeps states of several gains apart, (n,), nats; zero for one gain."""
        apart = spread(gain)
        if apart <= APART * self.scale:
            return np.zeros_like(gain)
        far = 1e3 * max(1.0, 0.3 / abs(self.eta) if self.eta else 1.0) + 10 * spread(bias)
        return far * force / apart * (gain - gain.max())


def _close(lower: float, upper: float) -> float:
    """The width, nats, at which a bracket within these bounds is closed."""
    return _TOLERANCE * max(1.0, min(abs(lower), abs(upper)))


def spread(x: Any) -> float:
    """The largest number less the smallest."""
    return float(x.max() - x.min())


def transition_matrix(table: Table, p: Tensor, inside: Tensor) -> Any:
    """Probabilities (S, A, K) as a matrix from state to state, over the states that are inside.

    An array where there are few states, else a sparse one.
    """
    chain, kept = as_matrix(table, p), inside.numpy()
    chain = chain.numpy() if isinstance(chain, Tensor) else chain
    return chain if kept.all() else chain[kept][:, kept]


def untold(problem: GainProblem, found: Found) -> ValueError:
    """The error that says between which numbers the average lies."""
    alpha, step = float(problem.table.temperature), found.step
    rise = torch.where(step.inside, step.rise, torch.nan)
    low = int(torch.where(step.inside, rise, torch.inf).argmin())
    high = int(torch.where(step.inside, rise, -torch.inf).argmax())
    return ValueError(
        f"average_reward: at optimism {problem.eta:g} it lies between {alpha * found.lower:.6g} "
        f"and {alpha * found.upper:.6g} a step, and floating-point numbers do not tell more: from "
        f"state {low} little is gained, from state {high} much, and the one is hardly ever left "
        "for the other; solve them apart, or take an optimism nearer to 0"
    )
