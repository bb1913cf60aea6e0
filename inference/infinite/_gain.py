"""Newton's method for g + v = T v, with bounds of the long-run average g that hold for any v.

The bracket min (T v - v) ≤ g ≤ max (T v - v) is checked with an allowance for rounding errors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cai.infinite.certificate import rounding
from cai.infinite.endings import reward_sizes
from cai.infinite.gain_and_bias import LongRun, Singular
from cai.infinite.transient import as_matrix
from cai.numerics import logspace
from cai.numerics.exclusive import cached_property
from cai.tables import bellman
from cai.tables.table import Table

_TOLERANCE = 1e-12  # width of the bracket at which to stop, relative to the gain, nats
_ENOUGH = 1e-8  # width, relative to the rewards, above which there is no answer
APART = 1e-9  # gains that differ by less, relative to the rewards, count as equal
_NEVER = 230.0  # nats by which policy and dynamics at η rule out a transition for good
_STEPS = 60  # of Newton's method
_POLICIES = 60  # that are tried one after another if changing both sides at once cycles
_STALE = 4  # steps without a narrower bracket, after which rounding errors are the limit


@dataclass(frozen=True, eq=False)
class GainStep:
    """The linearisation of T at v.

    Attributes:
        v: (S,), nats; infinite in states that are left out.
        rise: (S,), nats: T v - v; zero in states that are left out.
        noise: (S,), nats: a bound of the rounding error of ``rise``; zero in states left out.
        log_policy: (S, A), log π(a|s).
        log_transitions: (S, A, K): log of the dynamics at η.
    """

    v: Tensor
    rise: Tensor
    noise: Tensor
    log_policy: Tensor
    log_transitions: Tensor

    @property
    def inside(self) -> Tensor:
        """(S,), boolean: states that are not left out."""
        return self.v.isfinite()

    @cached_property
    def bracket(self) -> tuple[float, float]:
        """Certified lower and upper bounds of the gain, nats; NaN if v is."""
        inside = self.inside
        lower, upper = self.rise - self.noise, self.rise + self.noise
        return lower[inside].min().item(), upper[inside].max().item()

    @property
    def width(self) -> float:
        """The width of the bracket, nats; infinite if it is empty."""
        lower, upper = self.bracket
        return upper - lower if upper >= lower else math.inf


@dataclass(frozen=True, eq=False)
class Found:
    """The result of the iteration.

    Attributes:
        step: the last step, or that with the narrowest bracket.
        lower, upper: the best bounds of the gain, nats.
        gains: (S,), nats, the long-run average from each state, if it is ``split``.
        split: whether the average depends on the start.
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
        """The gain from a guess of v, (S,), nats; infinite in states that are left out.

        Raises:
            ValueError: if it cannot be determined.
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
        """Policy iteration in which each policy meets nature's best response.

        Changing both at once may cycle for η < 0, where T is neither convex nor concave; changing
        them in turns does not (Hoffman and Karp 1966).
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
        """Whether T(v + t g) = v + (t + 1) g, at t = 0 and for all larger t.

        It holds if no state can improve on its g by going elsewhere; all other transitions then
        count less, the larger t is.
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
        """The linearisation of T at v, with the best policy or a given one."""
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
        """The policy followed by the dynamics at η, as a matrix over the states inside.

        Transitions that both together make less probable by 100 orders of magnitude are dropped.
        """
        log_p = step.log_policy.unsqueeze(-1) + step.log_transitions
        if spread(step.v[step.inside]) * max(1.0, abs(self.eta)) > _NEVER:
            true = self.table.log_prior.unsqueeze(-1) + self.table.log_dynamics
            log_p = torch.where(log_p < true - _NEVER, -torch.inf, log_p)
        return transition_matrix(self.table, log_p.exp(), step.inside)

    def _price(self, log_pi: Tensor) -> Tensor:
        """log π/p, (S, A), nats: the cost of an action; zero with the hard rule."""
        if self.rule == "hard":
            return torch.zeros_like(log_pi)
        return torch.where(log_pi > -torch.inf, log_pi - self.table.log_prior, 0.0)

    def _paid(self, step: GainStep) -> Tensor:
        """The expected reward of a step minus the KL of policy and dynamics, (S,), nats."""
        table, tilted = self.table, step.log_transitions.exp()
        paid = table.reward / table.temperature - self._price(step.log_policy)
        if table.arrival_reward is not None:
            arrival = table.arrival_reward / table.temperature
            paid = paid + torch.where(tilted > 0, tilted * arrival, 0.0).sum(-1)
        if self.eta != 0:
            paid = paid - logspace.kl(step.log_transitions, table.log_dynamics) / self.eta
        return torch.where(step.log_policy > -torch.inf, step.log_policy.exp() * paid, 0.0).sum(-1)

    def _ahead(self, step: GainStep, force: float) -> tuple[Tensor, Tensor | None]:
        """The values after Newton's step, (S,), and the gain of each state.

        If v is so large that the change would be rounding errors, and if gains differ, values are
        computed anew. States with another gain are separated, by more each time, until the next
        policy puts the gain first (Howard's method for several classes).
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
        """The offsets that separate states of different gains, (n,), nats; zero for one gain."""
        apart = spread(gain)
        if apart <= APART * self.scale:
            return np.zeros_like(gain)
        far = 1e3 * max(1.0, 0.3 / abs(self.eta) if self.eta else 1.0) + 10 * spread(bias)
        return far * force / apart * (gain - gain.max())


def _close(lower: float, upper: float) -> float:
    """The width, nats, at which a bracket within these bounds counts as closed."""
    return _TOLERANCE * max(1.0, min(abs(lower), abs(upper)))


def spread(x: Any) -> float:
    """The largest number minus the smallest."""
    return float(x.max() - x.min())


def transition_matrix(table: Table, p: Tensor, inside: Tensor) -> Any:
    """Probabilities (S, A, K) as a matrix from state to state, over the states inside.

    It is dense if there are few states, else sparse.
    """
    chain, kept = as_matrix(table, p), inside.numpy()
    chain = chain.numpy() if isinstance(chain, Tensor) else chain
    return chain if kept.all() else chain[kept][:, kept]


def untold(problem: GainProblem, found: Found) -> ValueError:
    """The error for an average that is not determined, with its bounds."""
    alpha, step = float(problem.table.temperature), found.step
    rise = torch.where(step.inside, step.rise, torch.nan)
    low = int(torch.where(step.inside, rise, torch.inf).argmin())
    high = int(torch.where(step.inside, rise, -torch.inf).argmax())
    return ValueError(
        f"average_reward: at optimism {problem.eta:g} it lies between {alpha * found.lower:.6g} "
        f"and {alpha * found.upper:.6g} per step, and floating-point numbers do not tell more: "
        f"state {low} gains little, state {high} much, and transitions between them are extremely "
        "rare; solve them apart, or take an optimism nearer to 0"
    )
