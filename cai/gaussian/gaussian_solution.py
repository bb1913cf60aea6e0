"""The solution of a linear-Gaussian model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cai import checks
from cai.distributions.degenerate_normal import matvec
from cai.gaussian import riccati, riccati_equation, tilted_noise
from cai.gaussian.forms import Gaussian, LinearMap, Quadratic
from cai.gaussian.linear_gaussian import LinearGaussian, same
from cai.gaussian.linear_policy import LinearGaussianPolicy
from cai.gaussian.long_run import long_run, long_run_return
from cai.gaussian.moments import expected_return, moments
from cai.gaussian.tilted_noise import Array, Value
from cai.gaussian.tilting import arrivals, tilt_divergences
from cai.numerics.exclusive import cached_property
from cai.program.interfaces import ExactBelief, Forms


@dataclass(frozen=True, eq=False, kw_only=True)
class GaussianSolution(ExactBelief):
    """The soft Bellman solution of a linear-Gaussian model at one optimism η.

    The counterpart of :class:`cai.Solution`: everything is Gaussian or quadratic. T steps, states
    of n numbers and actions of m; V and Q in reward units, bounds in nats. η = 1 is the exact
    posterior p(τ|O), η = 0 the best policy in the true dynamics. With a discount (η = 0 only) the
    Gaussians are those of the trajectories that are alive, a fraction γ^t. An infinite horizon has
    no axis of steps, and its ``states`` are those of the long run.

    If sites other than optimality are observed, or only some o_t, O stands for all that is
    observed. An exactly observed site has covariance zero, and where there is no noise that makes
    the covariances of earlier sites singular. Values are log densities, α log p(all that is
    observed at a_t or later | s_t=s); where noise is missing and no action can correct s, they are
    meant on the subspace of states that are possible.

    Attributes:
        model: the model that was solved.
        optimism: η.
        V: V_t(s) = -½ s'P_t s + p_t's + k_t for t = 0 … T, reward units; called as V(t, s).
        Q: values of actions, quadratic in (s, a), reward units; called as Q(t, s, a).
        policy: π_t(a|s) = N(k_t - K_t s, C_t) ∝ p(a) exp(Q_t(s,a)/α); at η = 1, p(a_t|s_t,O).
        initial: q(s_0) ∝ p(s_0) exp(η V_0(s_0)/α), (n,) and (n, n); at η = 1, p(s_0|O).
        transitions: q(s_{t+1}|s_t,a_t) of all steps, as :meth:`dynamics`.
        first_value: reward units, α times the bound; with ``growth``, relative to the values.
        growth: for an infinite horizon without a discount, the value that each further step adds,
            reward units; k is then zero, since only differences of values have a meaning.
        conditioned: whether anything but the optimality of all steps is observed.

    >>> from cai import inference, models
    >>> model = models.linear_gaussian([[1.0]], [[1.0]], horizon=3, R=[[1.0]], noise=[[0.1]])
    >>> solution = inference.soft_values(model)
    >>> solution.states.mean.shape, solution.V(0, [1.0]).shape
    (torch.Size([4, 1]), torch.Size([]))
    """

    model: LinearGaussian
    optimism: float
    V: Quadratic
    Q: Quadratic
    policy: LinearGaussianPolicy
    initial: Gaussian
    transitions: LinearMap
    first_value: float
    growth: float | None = None
    conditioned: bool = False

    @classmethod
    def at(
        cls, model: LinearGaussian, eta: float, root: riccati_equation.Root = "limit"
    ) -> GaussianSolution:
        """The solution at one optimism; with an infinite horizon, from a root of its equation.

        Raises:
            ArithmeticError: if a value is infinite, a ``Breakdown``.
        """
        if model.horizon is None:
            found = riccati_equation.solve(model, eta, root)
        else:
            found = riccati.backward(model, eta)
        theta, alpha = riccati.price(model, eta), model.temperature
        first, after = _ends(model, found.value)
        noise = tilted_noise.spectrum(after, model.noise_root.factor.numpy(), theta)
        mean, root_of_start = riccati.model_start(model)
        start = tilted_noise.spectrum(first, root_of_start, theta)
        P, p, k = tilted_noise.soften(first, start, theta, tilted_noise.START)
        Z, z, W = _tensors(tilted_noise.tilt(noise, theta))
        Z_0, z_0, W_0 = _tensors(tilted_noise.tilt(start, theta))
        C = alpha * torch.linalg.inv(torch.as_tensor(found.H))
        gains, offsets = _tensors((found.K, found.offset))
        return cls(
            model=model,
            optimism=eta,
            V=Quadratic(*_tensors(found.value)),
            Q=_action_values(model, tilted_noise.soften(after, noise, theta, "of a step")),
            policy=LinearGaussianPolicy.from_matrices(gains, offsets, 0.5 * (C + C.mT)),
            initial=Gaussian(matvec(Z_0, torch.as_tensor(mean)) + z_0, W_0),
            transitions=LinearMap(Z @ model.A, Z @ model.B, matvec(Z, model.drift) + z, W),
            first_value=float(k + p @ mean - 0.5 * mean @ P @ mean),
            growth=found.growth,
        )

    def __repr__(self) -> str:
        if self.growth is not None:
            return f"GaussianSolution(optimism={self.optimism:g}, growth={self.growth:.6g}/step)"
        name = "log_evidence" if self.conditioned else "bound"
        return f"GaussianSolution(optimism={self.optimism:g}, {name}={self.bound:.6g} nats)"

    @cached_property
    def bound(self) -> float:
        """(), nats: (1/η) log E_{s_0} exp(η V_0/α); E[V_0]/α at η = 0.

        Raises:
            AttributeError: for an infinite horizon without a discount, where it grows forever.
        """
        if self.growth is not None:
            raise AttributeError(
                "bound: over an infinite horizon without a discount it grows forever, by "
                f"{self.growth / self.model.temperature:.6g} nats per step; take .growth (reward "
                "units per step), a finite horizon, or a discount"
            )
        return self.first_value / self.model.temperature

    def is_of(self, problem: Forms) -> bool:
        """Whether it solves a problem, number for number."""
        return problem.gaussian is not None and same(self.model, problem.gaussian)

    @property
    def gains(self) -> Tensor:
        """K_t, (T, m, n), of the policy N(k_t - K_t s, αH_t⁻¹)."""
        return self.policy.gains

    @property
    def offsets(self) -> Tensor:
        """k_t, (T, m), of the policy."""
        return self.policy.offsets

    @property
    def curvature(self) -> Tensor:
        """H_t, (T, m, m), reward units: R + B'P̃B with the prior's αΣ⁻¹ in R.

        Raises:
            AttributeError: with observations, which may determine an action exactly.
        """
        self._check_unconditioned("curvature")
        return self.model.temperature * torch.cholesky_inverse(self.policy.scale_tril)

    def dynamics(self, t: int = 0) -> LinearMap:
        """q(s_{t+1}|s_t,a_t) ∝ p(s'|s,a) exp(η V_{t+1}(s')/α), linear-Gaussian again.

        With the true mean μ = As + Ba + c it has covariance W̃ = (W⁻¹ + θP)⁻¹ and mean
        W̃(W⁻¹μ + θp); at η = 1 that is p(s_{t+1}|s_t,a_t,O), at η = 0 the true dynamics.

        Args:
            t: the step, 0 ≤ t < T; ignored with an infinite horizon.

        Raises:
            ValueError: for a step outside the horizon.
        """
        T = self.model.horizon
        if T is None:
            return self.transitions
        checks.check_step(t, T)
        return self.transitions.at(t)

    @property
    def states(self) -> Gaussian:
        """q(s_t) in the solution's own dynamics, (T+1, n) and (T+1, n, n); at η = 1, p(s_t|O)."""
        return self._moments[0]

    @property
    def state_actions(self) -> Gaussian:
        """q(s_t, a_t), (T, n+m) and (T, n+m, n+m), states first; at η = 1, p(s_t,a_t|O)."""
        return self._moments[1]

    @cached_property
    def imagined_return(self) -> float:
        """(), reward units: E[Σ rewards] under the solution's own start, dynamics and policy.

        For an infinite horizon without a discount, the average reward per step.

        Raises:
            AttributeError: for an infinite horizon, where it is infinite.
        """
        model = self.model
        if model.horizon is not None:
            return expected_return(model, *self._moments).item()
        return long_run_return(model, self.initial, self.transitions, self.policy)

    @cached_property
    def tilt_start(self) -> float:
        """(), nats: KL(q(s_0) ‖ p(s_0)).

        Raises:
            AttributeError: with observations.
        """
        self._check_unconditioned("tilt_start")
        mean, root = _tensors(riccati.model_start(self.model))
        return tilt_divergences(self.first, root, self._theta, Gaussian(mean, 0 * root))[0].item()

    @cached_property
    def tilt_dynamics(self) -> float:
        """(), nats: Σ_t E_q[KL(q(s_{t+1}|s_t,a_t) ‖ p(s_{t+1}|s_t,a_t))].

        Raises:
            AttributeError: with observations.
        """
        self._check_unconditioned("tilt_dynamics")
        around = arrivals(self.model, self.state_actions)
        factor = self.model.noise_root.factor
        return tilt_divergences(self.next, factor, self._theta, around)[0].sum().item()

    @property
    def total_tilt(self) -> float:
        """(), nats: tilt_start + tilt_dynamics; d bound/dη = total_tilt/η² for finite η ≠ 0."""
        return self.tilt_start + self.tilt_dynamics

    @property
    def first(self) -> Value:
        """V_0 as arrays."""
        return _ends(self.model, self._value)[0]

    @property
    def next(self) -> Value:
        """V_{t+1} of all steps as arrays."""
        return _ends(self.model, self._value)[1]

    @property
    def _value(self) -> Value:
        return self.V.P.numpy(), self.V.p.numpy(), self.V.k.numpy()

    @property
    def _theta(self) -> float:
        return riccati.price(self.model, self.optimism)

    @cached_property
    def _moments(self) -> tuple[Gaussian, Gaussian]:
        if self.model.horizon is None:
            return long_run(self.transitions, self.policy)
        return moments(self.initial, self.transitions, self.policy, self.model.horizon)

    def _check_unconditioned(self, name: str) -> None:
        if self.conditioned:
            raise AttributeError(
                f"{name}: expected a solution where all o_t are observed and nothing else, got "
                "one with other observations, which may determine a state or an action exactly; "
                "take inference.posterior(model)"
            )


def _ends(model: LinearGaussian, value: Value) -> tuple[Value, Value]:
    """V_0, and V_{t+1} of all steps."""
    P, p, k = value
    if model.horizon is None:
        return value, value
    return (P[0], p[0], k[0]), (P[1:], p[1:], k[1:])


def _action_values(model: LinearGaussian, soft: Value) -> Quadratic:
    """Q from the values of the next step, by a soft expectation over its noise."""
    P, p, k = (model.discount * x for x in _tensors(soft))
    AB, Pc = model.joint_dynamics, matvec(P, model.drift)
    return Quadratic(
        model.reward_curvature + AB.mT @ P @ AB,
        model.reward_slope + matvec(AB.mT, p - Pc),
        k + ((p - 0.5 * Pc) * model.drift).sum(-1),
    )


def _tensors(arrays: tuple[Array, ...]) -> tuple[Tensor, ...]:
    return tuple(torch.as_tensor(x) for x in arrays)
