"""The return as a quadratic function of actions around those that were observed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cai import checks
from cai.inference.fitting.loop import train
from cai.inference.local_models._realised_noise import noise_of
from cai.inference.planning.noise import from_noise
from cai.inference.searches.rounds import Rounds
from cai.inference.searches.search_file import SearchFile, digest
from cai.numerics import memory
from cai.program.calling import call
from cai.program.handlers import NoSites
from cai.program.trajectories import Trajectories
from cai.program.trajectory import TrajectoryModel
from cai.rewards.linear_reward import LinearReward
from cai.rewards.places import value_at

_OFF = 1e-5  # how far off what the dynamics say a state may be, relative to its size


class Expansion(NamedTuple):
    """What n demonstrations of d unknowns are paid, in nats, to second order.

    The last of k + 1 is what has no weight: known rewards, the action prior, and the noise.

    Attributes:
        slopes: (n, k+1, d), gradients.
        curvatures: (n, k+1, d, d), minus the Hessians.
        taken: (n, k), the features of each demonstration, summed.
    """

    slopes: Tensor
    curvatures: Tensor
    taken: Tensor


class Unrolled:
    """Demonstrations as functions of their actions, and of their noise.

    Args:
        model: the program.
        seen: n trajectories of T steps.
        reward: k features.
        with_noise: whether the noise is unknown, too.

    Raises:
        ValueError: naming demonstration and step, if the dynamics cannot lead to a state.
    """

    def __init__(
        self, model: TrajectoryModel, seen: Trajectories, reward: LinearReward, with_noise: bool
    ) -> None:
        self.model, self.reward = model, reward
        self.states, self.actions = seen.states.double(), seen.actions.double()
        self.n, self.T = self.actions.shape[:2]
        self.shape = self.actions.shape[2:]
        each = [noise_of(t, d, self.states[:, t + 1]) for t, d in enumerate(self._steps())]
        self.z = torch.stack([found.z.expand_as(self.states[:, 0]) for found in each], 1)
        noisy = torch.stack([found.noisy.expand(self.z.shape[-1]) for found in each])
        self.unknown = noisy if with_noise else torch.zeros_like(noisy)
        self.d = self.T * math.prod(self.shape) + int(self.unknown.sum())
        self._check_states()

    def _steps(self) -> Iterator[Any]:
        for t in range(self.T):
            yield self._transition(self.states[:, t], self.actions[:, t], t)

    def _transition(self, s: Tensor, a: Tensor, t: int) -> Any:
        with NoSites():
            return self.model.transition(s, a, t)

    def _check_states(self) -> None:
        found, _, _ = self._followed(self.observed())
        size = 1 + self.states.abs().amax((0, 1))
        off = ((found - self.states).abs() > _OFF * size).any(-1)
        if off.any():
            i, t = off.nonzero()[0].tolist()
            expected, came = "a state that the dynamics lead to", str(self.states[i, t].tolist())
            advice = "states and actions must be those of this model"
            checks.refuse(f"demonstration {i}, step {t}", expected, came, advice)

    def observed(self) -> Tensor:
        """(n, d), the unknowns as they were observed: all actions, then the noise."""
        return torch.cat([self.actions.flatten(1), self.z[:, self.unknown]], 1)

    def _followed(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """States (n, T+1, …), actions (n, T, …) and the unknown noise of unknowns (n, d)."""
        free = self.T * math.prod(self.shape)
        actions = x[:, :free].view(self.n, self.T, *self.shape)
        noise = x[:, free:]
        z = self.z.clone()
        z[:, self.unknown] = noise
        states = [self.states[:, 0]]
        for t in range(self.T):
            states.append(from_noise(self._transition(states[-1], actions[:, t], t), z[:, t]))
        return torch.stack(states, 1), actions, noise

    def sums(self, x: Tensor) -> Tensor:
        """(n, k+1): sums of features, and nats without a weight."""
        states, actions, noise = self._followed(x)
        s, a, after = states[:, :-1], actions, states[:, 1:]
        of = self.reward
        found = [self._sum(f"features[{k!r}]", f, s, a) for k, f in of.features.items()]
        found += [self._sum(f"arrival[{k!r}]", f, s, a, after) for k, f in of.arrival.items()]
        alpha = float(self.model.temperature)
        known = self._sum("offset", of.offset, s, a) + self.model.final_rewards(states[:, -1])
        known = known / alpha + self._log_prior(s, a)
        known = known - 0.5 * (noise.square() + math.log(2 * math.pi)).sum(1)
        return torch.stack([*found, known], 1)

    def _sum(self, where: str, feature: Any, *at: Tensor) -> Tensor:
        if isinstance(feature, Tensor) and feature.dim():
            came, advice = "a tensor of finitely many states", "for instance lambda s, a: s[..., 0]"
            checks.refuse(where, "a function of states and actions", came, advice)
        found: Any = call(where, value_at, feature, *at)
        if not isinstance(found, Tensor) or found.shape not in ((), (self.n, self.T)):
            expected = f"one number for each of shape {[self.n, self.T]}"
            checks.refuse(where, expected, checks.described(found), "end with .sum(-1) perhaps")
        return found.double().expand(self.n, self.T).sum(1)

    def _log_prior(self, s: Tensor, a: Tensor) -> Tensor:
        log_p = self.model.prior(s, torch.arange(self.T)).log_prob(a)
        log_p = log_p.double().expand(self.n, self.T)
        if not log_p.isfinite().all():
            i, t = (~log_p.isfinite()).nonzero()[0].tolist()
            came, advice = str(a[i, t].tolist()), "clip it, or widen the prior"
            expected = "an action that the action prior allows"
            checks.refuse(f"demonstration {i}, step {t}", expected, came, advice)
        return log_p.sum(1)


class Differentiation(Rounds):
    """Gradients and Hessians by d + 1 passes back for each feature, all demonstrations at once.

    Args:
        unrolled: the demonstrations.

    Attributes:
        slopes: see :class:`Expansion`, before they are divided by α.
        curvatures: likewise, with the passes back that are done.

    Raises:
        ValueError: if they do not fit into memory.
    """

    outcome = "the derivatives"
    held = ("slopes", "curvatures")

    def __init__(self, unrolled: Unrolled) -> None:
        n, d, names = unrolled.n, unrolled.d, (*unrolled.reward.names, "what has no weight")
        super().__init__("laplace_reward", len(names) * d)
        what = f"Hessians of {n} demonstrations, {len(names)} features and {d} unknowns"
        numbers = n * len(names) * d**2
        memory.check_fits("demonstrations", what, numbers, "take fewer, or shorter ones")
        self._unrolled, self._names = unrolled, names
        self._x = unrolled.observed().requires_grad_(True)
        with torch.enable_grad():
            self._sums = unrolled.sums(self._x)
        self.slopes = torch.zeros(n, len(names), d, dtype=torch.float64)
        self.curvatures = torch.zeros(n, len(names), d, d, dtype=torch.float64)
        self._feature, self._slope = -1, self._x

    @property
    def identity(self) -> dict[str, str]:
        """What tells the demonstrations and their features from others, for a checkpoint."""
        return {
            "demonstrations": digest(self._unrolled.states, self._unrolled.actions),
            "features": digest(self._names, self._sums),
        }

    def step(self) -> None:
        """One row of the Hessians of one feature."""
        i, j = divmod(self.done, self._unrolled.d)
        with torch.enable_grad():
            if i != self._feature:
                self._feature = i
                self._slope = _slope(self._sums[:, i].sum(), self._x, create_graph=True)
                self.slopes[:, i] = self._slope.detach()
            self.curvatures[:, i, j] = -_slope(self._slope[:, j].sum(), self._x)
        self.done += 1

    def found(self) -> Expansion:
        """All of them.

        Raises:
            ValueError: if they are not finite.
        """
        alpha = float(self._unrolled.model.temperature)
        slopes, curvatures = self.slopes.clone(), self.curvatures.clone()
        slopes[:, :-1] /= alpha
        curvatures[:, :-1] /= alpha
        curvatures = 0.5 * (curvatures + curvatures.mT)
        fine = slopes.isfinite().all(-1) & curvatures.isfinite().flatten(2).all(-1)
        if not fine.all():
            who, what_of = (~fine).nonzero()[0].tolist()
            came, advice = f"others for demonstration {who}", "look for roots and norms of zero"
            checks.refuse(self._names[what_of], "finite derivatives", came, advice)
        return Expansion(slopes, curvatures, self._sums.detach()[:, :-1])


def expansion(unrolled: Unrolled, file: Path | None = None, progress: bool = False) -> Expansion:
    """The demonstrations to second order.

    Args:
        unrolled: the demonstrations.
        file: that keeps the derivatives, or None.
        progress: whether to show a bar on a terminal.

    Raises:
        KeyboardInterrupt: if it is interrupted, since a part of the derivatives is of no use; the
            file keeps them.
        ValueError: if they do not fit into memory, or are not finite.
    """
    run = Differentiation(unrolled)
    kept = None if file is None else SearchFile(file, run.identity, run.verb)
    train(run, kept, unrolled.d, progress)
    if not run.over():
        raise KeyboardInterrupt
    return run.found()


def _slope(y: Tensor, x: Tensor, create_graph: bool = False) -> Tensor:
    """dy/dx, zero where y does not depend on x."""
    if not y.requires_grad:
        return torch.zeros_like(x)
    (found,) = torch.autograd.grad(
        y, x, retain_graph=True, create_graph=create_graph, allow_unused=True
    )
    return torch.zeros_like(x) if found is None else found
