"""Solutions as proposals and twists of particles: their own dynamics and their values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import pyro.distributions as dist
import torch
from torch import Tensor

from cai import checks
from cai.distributions.exact_scores import support_size
from cai.evaluation.problem import as_problem
from cai.gaussian.gaussian_solution import GaussianSolution
from cai.numerics import logspace
from cai.numerics.differences import differs
from cai.program import handlers
from cai.program.episode import unrolled
from cai.program.trajectory import TrajectoryModel
from cai.solutions.chain import Chain
from cai.tables.tabulation import tabulate

# The fields that define the start, the dynamics and the end of a model.
_TABULAR = ("horizon", "discount", "log_initial", "log_dynamics", "successors")
_GAUSSIAN = (
    *("horizon", "discount", "A", "B", "drift", "noise"),
    *("initial_mean", "initial_covariance"),
)

Tilted: TypeAlias = Chain | GaussianSolution


def belief_of(x: Any) -> TiltedTable | TiltedGaussian | None:
    """The chain of a solution; None for anything else."""
    if isinstance(x, Chain):
        return TiltedTable(x)
    return TiltedGaussian(x) if isinstance(x, GaussianSolution) else None


def draw(distribution: Any, n: int) -> Tensor:
    """n values, (n, ...), one of each element if the distribution has a batch."""
    shape = torch.Size((n,))
    fits = distribution.batch_shape == shape
    whole = distribution if fits else distribution.expand(shape)
    return handlers.draw(whole, torch.Size(), "particles")


class TiltedTable:
    """The own chain of a solution at η > 0: start, policy, transitions, termination."""

    def __init__(self, solution: Chain) -> None:
        self.solution, self.table = solution, solution.table
        self.policy = unrolled(solution.policy)

    def is_whole(self) -> bool:
        """Whether it is the solution by the soft rule, of all o_t and nothing else."""
        return self.solution.rule == "soft" and not self.solution.conditioned

    def has_dynamics_of(self, model: TrajectoryModel) -> bool:
        """Whether it is for exactly the dynamics of a model."""
        # Not by table.program, which a table keeps when its arrays are replaced.
        other = tabulate(model)
        return not differs(self.table, other, _TABULAR)

    def log_psi(self, model: TrajectoryModel, T: int) -> Callable[[int, Tensor], Tensor]:
        """(t, s) -> V_t(s)/α, nats, as a twist of T steps of a model.

        Raises:
            ValueError: if the solution has other steps or states, or is one with observations.
        """
        _check_fits((self.table.horizon, self.table.num_states), (T, support_size(model.initial)))
        _check_unconditioned(self.solution)
        values = _hopeful(self.solution)
        return lambda t, s: values[t, s]

    def start(self, n: int) -> tuple[Tensor, Tensor]:
        """s_0 ~ q(s_0), and log p/q."""
        log_q = self.solution.log_initial
        s = draw(dist.Categorical(logits=log_q, validate_args=False), n)
        return s, (self.table.log_initial - log_q)[s]

    def step(self, t: int, s: Tensor, a: Tensor, alive: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """s' ~ q(s'|s,a) and survival while alive, the true dynamics after termination."""
        table, now = self.table, slice(t, t + 1)
        with table.threads():
            log_tilted = self.solution.log_transitions(now)[0][s, a]
        log_p = table.at(t).log_dynamics[s, a]
        log_q = torch.where(alive.unsqueeze(-1), log_tilted, log_p)
        k = draw(dist.Categorical(logits=log_q, validate_args=False), len(s)).unsqueeze(-1)
        ratio = (log_p.gather(-1, k) - log_q.gather(-1, k)).squeeze(-1)
        s_next = k if table.successors is None else table.successors[s, a].gather(-1, k)
        s_next = s_next.squeeze(-1)
        if table.discount < 1:
            log_true, x = self.solution.termination(now)
            log_coin = logspace.tilt(log_true, x[0], self.solution.optimism)
            survives = torch.rand(len(s), dtype=torch.float64).log() < log_coin[s_next, 0]
            side = (~survives).long()
            ratio = ratio + torch.where(alive, log_true[side] - log_coin[s_next, side], 0.0)
            alive = alive & survives
        return s_next, alive, ratio


class TiltedGaussian:
    """The own chain of a linear-Gaussian solution at η > 0.

    p(s'|s,a)/q(s'|s,a) = E[exp(ηV/α) | s,a] exp(-ηV(s')/α), with the expectation from Q; so no
    density is needed, which singular noise lacks.
    """

    def __init__(self, solution: GaussianSolution) -> None:
        self.solution, self.model = solution, solution.model
        self.policy = unrolled(solution.policy)
        self.theta = solution.optimism / solution.model.temperature

    def is_whole(self) -> bool:
        """Whether it is the solution by the soft rule, of all o_t and nothing else."""
        return not self.solution.conditioned

    def has_dynamics_of(self, model: TrajectoryModel) -> bool:
        """Whether it is for exactly the dynamics of a model."""
        other = as_problem(model).gaussian
        return other is not None and not differs(self.model, other, _GAUSSIAN)

    def log_psi(self, model: TrajectoryModel, T: int) -> Callable[[int, Tensor], Tensor]:
        """(t, s) -> V_t(s)/α, nats, as a twist of T steps of a model.

        Raises:
            ValueError: if the solution has other steps or states, or is one with observations.
        """
        event = tuple(model.initial.event_shape)
        _check_fits((self.model.horizon, (self.model.state_size,)), (T, event))
        _check_unconditioned(self.solution)
        value, temperature = self.solution.V, self.model.temperature
        return lambda t, s: value(t, s) / temperature

    def start(self, n: int) -> tuple[Tensor, Tensor]:
        """s_0 ~ q(s_0), and log p/q."""
        s = draw(self.solution.initial.distribution(), n)
        bound = self.solution.optimism * self.solution.bound
        return s, bound - self.theta * self.solution.V(0, s)

    def step(self, t: int, s: Tensor, a: Tensor, alive: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """s' ~ q(s'|s,a), all alive, and log p/q."""
        s_next = draw(self.solution.dynamics(t)(s, a), len(s))
        ahead = self.solution.Q(t, s, a) - self.model.rewards(s, a, t)
        return s_next, alive, self.theta * (ahead - self.solution.V(t + 1, s_next))


def _check_fits(came: tuple[Any, Any], expected: tuple[Any, Any]) -> None:
    """Raises ValueError if a solution has other steps or states than the model."""
    for what, one, other in zip(("steps", "states"), came, expected, strict=True):
        if one != other:
            wanted = f"as many {what} as the model" if other is None else f"{other} {what}"
            advice = "solve the model that you sample"
            checks.refuse("twist", f"a solution of {wanted}", str(one), advice)


def _check_unconditioned(twist: Tilted) -> None:
    if twist.conditioned:
        came, advice = repr(twist), "their -inf rule out possible states; solve without them"
        checks.refuse("twist", "a solution without observations", came, advice)


def _hopeful(solution: Chain) -> Tensor:
    """V/α, (T+1, S), without the -inf of η ≤ 0, which would rule out possible states."""
    values = solution.log_values
    if solution.optimism > 0:
        return values
    finite = values.isfinite()
    least = torch.where(finite, values, math.inf).amin(-1, keepdim=True)
    return torch.where(finite, values, torch.where(least < math.inf, least, 0.0))
