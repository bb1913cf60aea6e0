"""The long-run average: what a step is worth when there is no end and no discount."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from cai import checks
from cai.infinite.certificate import rounding
from cai.infinite.endings import Endings
from cai.infinite.gain_and_bias import DENSE, LongRun, Singular, closed_classes
from cai.numerics import logspace
from cai.policies.neural import TabularPolicy
from cai.program.trajectory import TrajectoryModel
from cai.tables import bellman
from cai.tables.table import Table
from cai.tables.tabulation import tabulate

_TOLERANCE = 1e-12  # width of the bracket at which to stop, relative to the gain, nats
_ENOUGH = 1e-8  # width, relative to the rewards, above which there is no answer
_APART = 1e-9  # gains that differ by less, relative to the rewards, are one
_NEVER = 230.0  # nats by which policy and bend rule out a move for good
_STEPS = 60  # of Newton's method
_POLICIES = 60  # that are tried one after another where both sides at once run in circles
_STALE = 4  # steps without a narrower bracket, which rounding errors then forbid


@dataclass(frozen=True, eq=False)
class AverageReward:
    """The solution of g + V = T V at one optimism η, T the Bellman operator without discount.

    S states, A actions. At η = 1 with the soft rule, exp(g/α) is the largest eigenvalue of
    M(s,s') = Σ_a p(a|s) exp((r + r⁺)/α) p(s'|s,a), and exp(V/α) its eigenvector (Todorov 2009).

    Attributes:
        table: the problem that was solved.
        optimism: η.
        rule: how actions are chosen, "soft" or "hard".
        gain: (), reward units a step: the long-run average of r - α KL(π‖prior), less the price
            α/η of bending the dynamics; the hard rule pays nothing for its policy.
        error: (), reward units: ``gain`` is off by at most this much, for certain.
        V: (S,), reward units: what it is worth to start in a state rather than on average; -inf
            where rewards of -inf cannot be avoided, and where the average is lower than from the
            model's start, +inf where it is higher.
        Q: (S, A), reward units: g + V = α log Σ_a p(a|s) exp(Q/α), or max_a Q with the hard rule.
        policy: π(a|s) ∝ p(a|s) exp(Q/α), or the prior among the best actions, stationary; the
            prior where V is infinite.
        states: (S,): how often each state is visited in the long run, under the bent chain.
    """

    table: Table
    optimism: float
    rule: bellman.Rule
    gain: float
    error: float
    V: Tensor
    Q: Tensor
    policy: TabularPolicy
    states: Tensor


def average_reward(
    model: TrajectoryModel | Table, optimism: float = 0.0, rule: bellman.Rule = "soft"
) -> AverageReward:
    """The best long-run average reward, less the cost of control, at optimism η.

    Newton's method on g + V = T V, that is Howard's policy iteration with the bent dynamics in the
    place of the true ones. T is monotone, and T(V + c) = TV + c, so that for any V whatever

        min_s (TV - V)(s) ≤ g ≤ max_s (TV - V)(s),

    which is the certificate (Collatz and Wielandt's for the eigenvalue at η = 1), with an allowance
    for rounding errors.

    The average may depend on the start although a single set of states is never left: at η > 0 luck
    can keep the chain in other states for ever, at η < 0 nature can, and the agent where it has the
    actions for it. The answer then is that from the model's start, and V is infinite in states with
    another average. From several starts it is the best of them for η > 0, the worst for η < 0.

    Args:
        model: a model with finitely many states and actions, infinite horizon and discount 1.
        optimism: η, any real number.
        rule: how actions are chosen, "soft" or "hard" (Howard's policy iteration at η = 0). The
            Boltzmann rule is not monotone, and has no certificate.

    Raises:
        ValueError: where the horizon is finite, there is a discount, every state is bound for a
            reward of -inf, there are two sets of states neither of which is ever left, each
            with an average of its own, at η = 0 chance decides between several averages, or
            floating-point numbers do not tell the average.
    """
    table = tabulate(model)
    eta = float(optimism)
    _check(table, eta, rule)
    with table.threads():
        held = _possible(table, eta, rule)
        _check_one_long_run(table, held)
        problem = _Problem(table, eta, rule)
        found = problem.solve(held)
        more = torch.zeros_like(held, dtype=torch.bool)
        if found.split:
            found, more = _from_the_start(problem, found)
        return _result(problem, found, more)


def _check(table: Table, eta: float, rule: bellman.Rule) -> None:
    if table.horizon is not None:
        raise ValueError(
            f"horizon: a long-run average needs an infinite horizon, got {table.horizon}; try "
            "dataclasses.replace(model, horizon=None)"
        )
    if table.discount < 1:
        raise ValueError(
            f"discount: with a discount of {table.discount:g} every trajectory ends, and its "
            "long-run average is zero; take soft_values, or a discount of 1"
        )
    if not math.isfinite(eta):
        raise ValueError(f"optimism: expected a finite number, got {eta}; ±1e3 is close to ±inf")
    if bellman.check_rule(rule) == "boltzmann":
        checks.refuse(
            "rule",
            '"soft" or "hard"',
            '"boltzmann"',
            "its recursion is not monotone, so that nothing bounds an average",
        )


def _possible(table: Table, eta: float, rule: bellman.Rule) -> Tensor:
    """Zero for states that can go on for ever without a reward of -inf, -inf for the others."""
    v = torch.zeros(table.num_states, dtype=torch.float64)
    while True:
        dead = bellman.backup(table, v, eta, rule) == -torch.inf
        if torch.equal(dead, v == -torch.inf):
            break
        v = v.masked_fill(dead, -torch.inf)
    if dead.all():
        raise ValueError(
            "evidence: p(O) = 0, a reward of -inf cannot be avoided from any state; make it finite"
        )
    return v


def _matrix(table: Table, moves: Tensor, inside: Tensor) -> Any:
    """Moves (S, A, K) as a matrix from state to state, over the states that are inside.

    An array where there are few states, else a sparse one.
    """
    S, kept = table.num_states, inside.numpy()
    if S <= DENSE:
        dense = moves.new_zeros(S, S).scatter_add_(1, table.successor_index, moves.flatten(1))
        return dense.numpy() if kept.all() else dense.numpy()[kept][:, kept]
    row = np.repeat(np.arange(S), table.successor_index.shape[1])
    entries = moves.flatten().numpy(), (row, table.successor_index.flatten().numpy())
    chain = sparse.csr_array(entries, shape=(S, S))
    chain = chain if kept.all() else chain[kept][:, kept]
    chain.eliminate_zeros()
    return chain


def _check_one_long_run(table: Table, held: Tensor) -> None:
    """Raises where the chain can end up in either of two sets of states, neither ever left."""
    inside = held.isfinite()
    may = table.log_prior.unsqueeze(-1) + table.log_dynamics > -torch.inf
    member, closed = closed_classes(_matrix(table, may.double(), inside))
    if len(closed) > 1:
        states = inside.nonzero().flatten().numpy()
        first, second = sorted(states[member == k][0] for k in closed)[:2]
        raise ValueError(
            f"average_reward: it depends on the start: there are {len(closed)} sets of states "
            f"that are never left again, one holds state {first}, another state {second}; solve "
            "them apart, or connect them by the action prior"
        )


@dataclass(frozen=True, eq=False)
class _Step:
    """T at v, made linear.

    Attributes:
        v: (S,), nats; infinite in states that are held.
        q: (S, A), nats.
        rise: (S,), nats: T v - v; zero in states that are held.
        noise: (S,), nats: how far ``rise`` may be off for rounding errors; zero where held.
        log_pi: (S, A).
        log_bent: (S, A, K): the bent dynamics.
    """

    v: Tensor
    q: Tensor
    rise: Tensor
    noise: Tensor
    log_pi: Tensor
    log_bent: Tensor

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
        lower, upper = self.bracket
        return upper - lower if upper >= lower else math.inf


@dataclass(frozen=True, eq=False)
class _Found:
    """Where the iteration led.

    Attributes:
        step: the last one, or that with the narrowest bracket.
        lower, upper: nats: the best bounds of the gain.
        gains: (S,), nats, the long-run average from each state where it is ``split``.
        split: whether it depends on the start.
    """

    step: _Step
    lower: float
    upper: float
    gains: Tensor
    split: bool = False


@dataclass(frozen=True, eq=False)
class _Problem:
    """g + v = T v, all in nats."""

    table: Table
    eta: float
    rule: bellman.Rule

    @cached_property
    def scale(self) -> float:
        """The size of a reward, nats, at least one."""
        t = self.table
        rewards = [t.reward] if t.arrival_reward is None else [t.reward, t.arrival_reward]
        sizes = [torch.where(r.isfinite(), r.abs(), 0.0).max().item() for r in rewards]
        return max(1.0, sum(sizes) / float(t.temperature))

    def solve(self, guess: Tensor) -> _Found:
        """The gain from a guess of v, (S,), nats; infinite where states are left out.

        Raises:
            ValueError: where it cannot be told.
        """
        found = self._newton(guess, None)
        if not self._answers(found) and self.eta < 0:
            found = self._alternating(guess)
        if not self._answers(found):
            raise _untold(self, found)
        return found

    def _answers(self, found: _Found) -> bool:
        enough = max(_ENOUGH * self.scale, _close(found.lower, found.upper))
        return found.split or found.step.width <= enough

    def _alternating(self, v: Tensor) -> _Found:
        """One policy after another, each against the nature that suits it least.

        Both at once may run in circles for η < 0, where T is neither convex nor concave; in turns
        they do not (Hoffman and Karp 1966).
        """
        log_pi = self.at(v, None).log_pi
        for _ in range(_POLICIES):
            v = self._newton(v, log_pi).step.v
            found = self._newton(v, None, steps=1)
            if self._answers(found):
                return self._newton(v, None)
            log_pi = found.step.log_pi
        return found

    def _newton(self, v: Tensor, log_pi: Tensor | None, steps: int | None = None) -> _Found:
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
            if gains is not None and _spread(gains[step.inside]) > _APART * self.scale:
                if self._settles(step, gains):
                    return _Found(step, lower, upper, gains, split=True)
                force = min(4 * force, 1e9)
        assert best is not None
        return _Found(best, lower, upper, torch.full_like(v, (lower + upper) / 2))

    def _settles(self, step: _Step, gains: Tensor) -> bool:
        """Whether v + t g moves on by g, for this t = 0 and for every larger one.

        It does where no state can do better than its g by going elsewhere, and all other moves
        count the less, the further levels are apart.
        """
        inside, table = step.inside, self.table
        off = ((step.rise - gains).abs() - 4 * step.noise)[inside].max()
        drowned = step.noise.max() > 1e-4 * _spread(gains[inside])
        if off > 1e-11 * self.scale or drowned:
            return False
        reach = torch.where(inside, gains, step.v)
        luck = math.copysign(math.inf, self.eta) if self.eta else 0.0
        ahead = logspace.soft_mean(table.log_dynamics, table.gather(reach), luck)
        best = bellman.state_values(table, ahead, "hard")
        return bool(((best - gains)[inside].abs() <= _APART * self.scale).all())

    def at(self, v: Tensor, log_pi: Tensor | None) -> _Step:
        """T at v, with the best policy or a given one."""
        table, eta = self.table, self.eta
        x = bellman.outcome_values(table, v, eta)
        q = table.reward / table.temperature + logspace.soft_mean(table.log_dynamics, x, eta)
        if log_pi is None:
            backed_up = bellman.state_values(table, q, self.rule)
            log_pi = bellman.log_policy(table, q, self.rule)
        else:
            price = self._price(log_pi)
            backed_up = torch.where(log_pi > -torch.inf, log_pi.exp() * (q - price), 0.0).sum(-1)
        inside = v.isfinite()
        noise = rounding(table, v, eta, Endings(~inside, inside))
        noise = torch.where(inside, noise + torch.finfo(torch.float64).eps * v.abs(), 0.0)
        rise = torch.where(inside, backed_up - v, 0.0)
        return _Step(v, q, rise, noise, log_pi, logspace.tilt(table.log_dynamics, x, eta))

    def chain(self, step: _Step) -> Any:
        """The policy followed by the bent dynamics, as a matrix over the states inside.

        What both together make less probable by 100 orders of magnitude has been chosen against.
        """
        log_moves = step.log_pi.unsqueeze(-1) + step.log_bent
        if _spread(step.v[step.inside]) * max(1.0, abs(self.eta)) > _NEVER:
            true = self.table.log_prior.unsqueeze(-1) + self.table.log_dynamics
            log_moves = torch.where(log_moves < true - _NEVER, -torch.inf, log_moves)
        return _matrix(self.table, log_moves.exp(), step.inside)

    def _price(self, log_pi: Tensor) -> Tensor:
        """log π/p, (S, A), nats: what an action costs; nothing with the hard rule."""
        if self.rule == "hard":
            return torch.zeros_like(log_pi)
        return torch.where(log_pi > -torch.inf, log_pi - self.table.log_prior, 0.0)

    def _paid(self, step: _Step) -> Tensor:
        """What a step earns under policy and bend, less their prices, (S,), nats."""
        table, bent = self.table, step.log_bent.exp()
        paid = table.reward / table.temperature - self._price(step.log_pi)
        if table.arrival_reward is not None:
            arrival = table.arrival_reward / table.temperature
            paid = paid + torch.where(bent > 0, bent * arrival, 0.0).sum(-1)
        if self.eta != 0:
            paid = paid - logspace.kl(step.log_bent, table.log_dynamics) / self.eta
        return torch.where(step.log_pi > -torch.inf, step.log_pi.exp() * paid, 0.0).sum(-1)

    def _ahead(self, step: _Step, force: float) -> tuple[Tensor, Tensor | None]:
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
            spread = _spread(gain)
            if spread > _APART * self.scale or step.noise.max() > 1e-9 * self.scale:
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
        spread = _spread(gain)
        if spread <= _APART * self.scale:
            return np.zeros_like(gain)
        far = 1e3 * max(1.0, 0.3 / abs(self.eta) if self.eta else 1.0) + 10 * _spread(bias)
        return far * force / spread * (gain - gain.max())


def _close(lower: float, upper: float) -> float:
    """The width, nats, at which a bracket within these bounds is closed."""
    return _TOLERANCE * max(1.0, min(abs(lower), abs(upper)))


def _spread(x: Any) -> float:
    return float(x.max() - x.min())


def _untold(problem: _Problem, found: _Found) -> ValueError:
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


def _from_the_start(problem: _Problem, found: _Found) -> tuple[_Found, Tensor]:
    """The solution in the states that have the average of the start; and which have a higher one.

    Raises:
        ValueError: where chance decides between several averages.
    """
    table, eta, gains = problem.table, problem.eta, found.gains
    inside, apart = found.step.inside, _APART * problem.scale
    starts = inside & (table.log_initial > -torch.inf)
    if not starts.any():
        raise ValueError(
            "evidence: p(O) = 0, a reward of -inf cannot be avoided from any initial state; make "
            "it finite, or start elsewhere"
        )
    level = (gains[starts].min() if eta < 0 else gains[starts].max()).item()
    same = inside & ((gains - level).abs() <= apart)
    if eta == 0:
        _check_no_chance(problem, found, starts, same)
    # Where more is gained, luck cannot go, and nature need not.
    more = inside & (gains > level + apart)
    v = torch.where(same, found.step.v - found.step.v[same].max(), -torch.inf)
    v = torch.where(more, torch.inf if eta < 0 else -torch.inf, v)
    ours = problem.solve(v)
    if ours.split or not ours.lower - apart <= level <= ours.upper + apart:
        raise _untold(problem, found)
    return ours, more


def _check_no_chance(problem: _Problem, found: _Found, starts: Tensor, same: Tensor) -> None:
    """Raises where the true dynamics lead from the start to states of another average."""
    chain = problem.chain(found.step)
    states = found.step.inside.nonzero().flatten()
    reached = starts[states].numpy()
    for _ in range(len(states)):
        before, reached = reached, reached | (chain.T @ reached.astype(float) > 0)
        if (before == reached).all():
            break
    other = states[torch.from_numpy(reached)]
    other = other[~same[other]]
    if len(other):
        alpha, gains = float(problem.table.temperature), found.gains
        first = int(starts.nonzero()[0])
        second = int(other[(gains[other] - gains[first]).abs().argmax()])
        raise ValueError(
            f"average_reward: it depends on the start, and on chance: it is "
            f"{alpha * gains[first].item():.6g} a step from state {first}, and "
            f"{alpha * gains[second].item():.6g} from state {second}, which can be reached; start "
            "where one of them is certain, or connect them by the action prior"
        )


def _result(problem: _Problem, found: _Found, more: Tensor) -> AverageReward:
    table, eta, rule = problem.table, problem.eta, problem.rule
    v, inside = found.step.v, found.step.inside
    alpha = float(table.temperature)
    start = torch.where(inside, logspace.tilt(table.log_initial, v, eta).exp(), 0.0)[inside]
    if not start.sum() > 0:
        start = torch.ones_like(start)
    states = torch.zeros_like(v)
    try:
        long_run = LongRun(problem.chain(found.step))
        states[inside] = torch.as_tensor(long_run.visits(start.numpy()))
    except Singular:
        raise _untold(problem, found) from None
    visited = states > 0
    v = v - states[visited] @ v[visited]
    q = bellman.action_values(table, v, eta)
    q = torch.where(inside.unsqueeze(-1), q, -torch.inf)
    log_pi = bellman.log_policy(table, q, rule)
    v, q = torch.where(more, torch.inf, v), torch.where(more.unsqueeze(-1), torch.inf, q)
    return AverageReward(
        table=table,
        optimism=eta,
        rule=rule,
        gain=alpha * (found.lower + found.upper) / 2,
        error=alpha * (found.upper - found.lower) / 2,
        V=alpha * v,
        Q=alpha * q,
        policy=TabularPolicy.from_log_probs(log_pi),
        states=states,
    )
