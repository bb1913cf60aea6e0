"""The linear-Gaussian model: linear dynamics, Gaussian noise and prior, quadratic reward."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor

from cai import checks, one_line
from cai.distributions.degenerate_normal import Root
from cai.distributions.flat_prior import FlatPrior
from cai.gaussian.forms import LinearMap, Quadratic
from cai.numerics import arrays
from cai.numerics.differences import differs
from cai.numerics.exclusive import cached_property
from cai.program.arguments import check_arguments
from cai.program.interfaces import ArrivalReward, Dynamics, FinalReward, Reward
from cai.program.trajectory import TrajectoryModel

_TOLERANCE = 1e-8  # asymmetry and negative eigenvalues of a covariance, relative to its largest


@dataclass(frozen=True, eq=False, kw_only=True)
class LinearGaussian(TrajectoryModel):
    """p(τ, O) with everything linear, Gaussian or quadratic, so that inference is exact.

        s_0 ~ N(μ_0, S_0),   s' = A s + B a + c + w,  w ~ N(0, W),   a ~ N(m, Σ) or flat
        r(s,a) = -½ (s'Qs + 2 s'Na + a'Ra) + q's + ρ'a,      r_T(s) = -½ s'Q_T s + q_T's

    It is an ordinary Pyro program, which every inference takes. The matrices may be constant or,
    with a leading axis of length T, depend on the step; all are kept in float64. n is the dimension
    of a state, m of an action. ``transition(s, a, t)`` and ``rewards(s, a, t)`` are those of step
    t, ``dynamics`` and ``reward`` those of step 0. See :func:`cai.models.linear_gaussian`.

    Args:
        A: (n, n) or (T, n, n).
        B: (n, m) or (T, n, m).
        drift: c, (n,) or (T, n).
        noise: W, (n, n) or (T, n, n); may be singular, zero included.
        Q: (n, n) or (T, n, n), reward units; only its symmetric part counts, as of R and Q_T.
        R: (m, m) or (T, m, m).
        N: (n, m) or (T, n, m).
        q: (n,) or (T, n).
        rho: ρ, (m,) or (T, m).
        Q_final: Q_T, (n, n).
        q_final: q_T, (n,).
        initial_mean, initial_covariance: μ_0, (n,), and S_0, (n, n), which may be singular.
        action_prior: a MultivariateNormal over actions, of batch shape () or (T,); or FlatPrior.

    Raises:
        ValueError: if shapes do not fit, a number is not finite, a covariance is not symmetric
            or has a negative eigenvalue, or something depends on the step of an infinite horizon.

    >>> import cai
    >>> cai.models.linear_gaussian([[1.0]], [[1.0]], horizon=3, R=[[1.0]]).state_size
    1
    """

    A: Tensor
    B: Tensor
    drift: Tensor
    noise: Tensor
    Q: Tensor
    R: Tensor
    N: Tensor
    q: Tensor
    rho: Tensor
    Q_final: Tensor
    q_final: Tensor
    initial_mean: Tensor
    initial_covariance: Tensor
    initial: TorchDistribution = field(init=False)
    dynamics: Dynamics = field(init=False)
    reward: Reward | float = field(init=False)
    arrival_reward: ArrivalReward | float | None = field(init=False)
    final_reward: FinalReward | None = field(init=False)

    __repr__ = one_line.of_fields

    def __post_init__(self) -> None:
        _check_methods(self)
        if self.horizon is not None:
            checks.check_count("horizon", self.horizon)
        n, m = sizes(self.B)
        for name, shape in shapes(n, m).items():
            value = _tensor(name, getattr(self, name), shape, self.horizon)
            object.__setattr__(self, name, value)
        object.__setattr__(self, "action_prior", _prior(self.action_prior, m, self.horizon))
        pays = bool(self.Q_final.any() or self.q_final.any())
        derived = {
            "initial": Root.of(self.initial_covariance).around(self.initial_mean),
            "dynamics": self.transition,
            "reward": self.rewards,
            "arrival_reward": None,
            "final_reward": self._final_reward if pays else None,
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)
        check_arguments(self)

    @property
    def state_size(self) -> int:
        """n, the dimension of a state."""
        return self.A.shape[-1]

    @property
    def action_size(self) -> int:
        """m, the dimension of an action."""
        return self.B.shape[-1]

    @property
    def flat(self) -> bool:
        """Whether the action prior is flat."""
        return isinstance(self.action_prior, FlatPrior)

    @cached_property
    def noise_root(self) -> Root:
        """The root of W, for each step where W depends on it."""
        return Root.of(self.noise)

    @cached_property
    def joint_dynamics(self) -> Tensor:
        """[A, B], (n, n+m) or (T, n, n+m)."""
        return torch.cat(_alike(2, self.A, self.B), -1)

    @cached_property
    def reward_curvature(self) -> Tensor:
        """[[Q, N], [N', R]], (n+m, n+m) or (T, n+m, n+m)."""
        Q, N, R = _alike(2, self.Q, self.N, self.R)
        return torch.cat([torch.cat([Q, N], -1), torch.cat([N.mT, R], -1)], -2)

    @cached_property
    def reward_slope(self) -> Tensor:
        """[q, ρ], (n+m,) or (T, n+m)."""
        return torch.cat(_alike(1, self.q, self.rho), -1)

    @cached_property
    def reward_form(self) -> Quadratic:
        """r as a function of (s, a), one or one for each step."""
        curvature, slope = self.reward_curvature, self.reward_slope
        axis = torch.broadcast_shapes(curvature.shape[:-2], slope.shape[:-1])
        return Quadratic(
            curvature.expand(*axis, -1, -1),
            slope.expand(*axis, -1),
            torch.zeros(axis, dtype=torch.float64),
        )

    @cached_property
    def final_form(self) -> Quadratic:
        """r_T as a function of s."""
        return Quadratic(self.Q_final, self.q_final, torch.zeros((), dtype=torch.float64))

    def step(self, t: Any) -> LinearMap:
        """The linear map and the noise of step t, an int or a tensor of steps."""
        return LinearMap(
            at(self.A, t, 2), at(self.B, t, 2), at(self.drift, t, 1), at(self.noise, t, 2)
        )

    def prior(self, s: Tensor, t: Any = 0) -> TorchDistribution:
        """p(a) at step t; it does not depend on the state."""
        prior = self.action_prior
        if isinstance(prior, dist.MultivariateNormal) and prior.batch_shape:
            scale_tril = prior.scale_tril[t]
            return dist.MultivariateNormal(prior.loc[t], scale_tril=scale_tril, validate_args=False)
        return super().prior(s, t)

    def transition(self, s: Tensor, a: Tensor, t: Any = 0) -> TorchDistribution:
        """N(A s + B a + c, W) of step t, for states (..., n) and actions (..., m)."""
        return self.noise_root.at(t).around(self.step(t).mean(s, a))

    def rewards(self, s: Tensor, a: Tensor, t: Any = 0) -> Tensor:
        """r(s,a) of step t in float64, (...)."""
        return self.reward_form(t, s, a)

    def _final_reward(self, s: Tensor) -> Tensor:
        return self.final_form(self.horizon, s)


def _check_methods(model: LinearGaussian) -> None:
    """Raises ValueError if a subclass overrides what the matrices define."""
    for name in ("prior", "transition", "rewards", "arrival_rewards", "final_rewards"):
        if getattr(type(model), name) is not getattr(LinearGaussian, name):
            expected = "that of the matrices, which the exact methods read"
            advice = "give each step matrices of its own, or derive from cai.TrajectoryModel"
            checks.refuse(name, expected, f"another in {type(model).__name__}", advice)


def at(x: Tensor, t: Any, dims: int) -> Tensor:
    """The entry of step t, of a tensor with or without a leading axis of steps."""
    return x if x.dim() == dims else x[t]


def _alike(dims: int, *arrays: Tensor) -> list[Tensor]:
    """Arrays of so many dimensions, all with an axis of steps in front if one has it."""
    axis = torch.broadcast_shapes(*(x.shape[:-dims] for x in arrays))
    return [x.expand(*axis, *x.shape[-dims:]) for x in arrays]


def sizes(B: Any) -> tuple[int, int]:
    """n and m, the dimensions of a state and of an action, from the shape of B.

    Raises:
        ValueError: if B is neither a matrix nor one matrix for each step.
    """
    shape = arrays.read("B", B, "an array of shape (n, m)").shape
    if len(shape) not in (2, 3) or 0 in shape:
        checks.refuse("B", "a shape (n, m) or (T, n, m)", str(list(shape)), "a state has n numbers")
    return shape[-2], shape[-1]


def shapes(n: int, m: int) -> dict[str, tuple[int, ...]]:
    """The shape of each matrix and vector of a model, for one step."""
    found: dict[str, tuple[int, ...]] = {"B": (n, m), "N": (n, m), "R": (m, m), "rho": (m,)}
    found |= dict.fromkeys(("A", "noise", "Q", "Q_final", "initial_covariance"), (n, n))
    return found | dict.fromkeys(("drift", "q", "q_final", "initial_mean"), (n,))


_ONCE = ("Q_final", "q_final", "initial_mean", "initial_covariance")


def _tensor(name: str, value: Any, shape: tuple[int, ...], T: int | None) -> Tensor:
    """A checked float64 tensor of a shape, with or without a leading axis of T steps."""
    x = arrays.numbers(name, value, f"an array of shape {shape}").detach()
    allowed = [shape] if T is None or name in _ONCE else [shape, (T, *shape)]
    if tuple(x.shape) not in allowed:
        advice = (
            "an infinite horizon has one matrix for all steps"
            if T is None
            else "the first axis, if there is another, counts the steps 0 … T-1"
        )
        expected = " or ".join(map(str, allowed))
        checks.refuse(name, f"a shape {expected}", str(tuple(x.shape)), advice)
    if not x.isfinite().all():
        checks.refuse(name, "finite numbers", "inf or NaN", "a quadratic reward cannot forbid")
    if name in ("Q", "R", "Q_final"):
        return 0.5 * (x + x.mT)
    return _covariance(name, x) if name in ("noise", "initial_covariance") else x


def _covariance(name: str, x: Tensor) -> Tensor:
    size = x.abs().max()
    if ((x - x.mT).abs() > _TOLERANCE * size).any():
        checks.refuse(name, "a symmetric matrix", "an asymmetric one", "take (W + W')/2")
    least = torch.linalg.eigvalsh(x).min()
    if least < -_TOLERANCE * size:
        came, advice = f"an eigenvalue of {least.item():g}", "standard deviations enter squared"
        checks.refuse(name, "a covariance, with eigenvalues ≥ 0", came, advice)
    return 0.5 * (x + x.mT)


def _prior(prior: Any, m: int, T: int | None) -> TorchDistribution:
    """The action prior in float64."""
    if isinstance(prior, FlatPrior) and prior.event_shape == (m,):
        return prior
    batches = [()] if T is None else [(), (T,)]
    if not isinstance(prior, torch.distributions.MultivariateNormal) or (
        prior.event_shape != (m,) or tuple(prior.batch_shape) not in batches
    ):
        checks.refuse(
            "action_prior",
            f"a MultivariateNormal over {m} numbers of batch shape () or (T,), or a FlatPrior({m})",
            repr(prior),
            "models.linear_gaussian(action_prior=None) is flat",
        )
    for name, x in (("mean", prior.loc), ("scale_tril", prior.scale_tril)):
        checks.check_no_nan(f"action_prior, {name}", x, "look for 0/0 where it is made")
    return dist.MultivariateNormal(
        prior.loc.detach().double().clone(),
        scale_tril=prior.scale_tril.detach().double().clone(),
        validate_args=False,
    )


def same(one: LinearGaussian, other: LinearGaussian) -> bool:
    """Whether two linear-Gaussian models are the same problem, number for number."""
    names = ("horizon", "temperature", "discount", "flat", *shapes(1, 1))
    if one is other or differs(one, other, names) is not None:
        return one is other
    prior = ("loc", "covariance_matrix")
    return one.flat or differs(one.action_prior, other.action_prior, prior) is None
