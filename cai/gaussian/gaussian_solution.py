"""What exact inference in a linear-Gaussian model returns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cai import checks
from cai.distributions.degenerate_normal import matvec
from cai.gaussian import riccati, riccati_equation
from cai.gaussian.bending import arrivals, luck
from cai.gaussian.forms import Gaussian, LinearMap, Quadratic
from cai.gaussian.linear_gaussian import LinearGaussian
from cai.gaussian.linear_policy import LinearGaussianPolicy
from cai.gaussian.long_run import long_run, long_run_return
from cai.gaussian.moments import expected_return, moments


@dataclass(frozen=True, eq=False)
class GaussianSolution:
    """The soft Bellman solution of a linear-Gaussian model at one optimism η.

    The counterpart of :class:`cai.Solution`: everything is Gaussian or quadratic. T steps, states
    of n numbers and actions of m; V and Q in reward units, bounds in nats. η = 1 is the exact
    posterior p(τ|O), η = 0 the best policy in the true dynamics. With a discount (η = 0 only) the
    Gaussians are those of the living, of whom there are γ^t. An infinite horizon has no axis of
    steps, and its ``states`` are those of the long run.

    Attributes:
        model: the model that was solved.
        optimism: η.
        V: V_t(s) = -½ s'P_t s + p_t's + k_t for t = 0 … T, reward units; called as V(t, s).
        gains: K_t, (T, m, n).
        offsets: k_t, (T, m): the policy is N(k_t - K_t s, αH_t⁻¹).
        curvature: H_t, (T, m, m), reward units: R + B'P̃B with the prior's αΣ⁻¹ in R.
        growth: of an infinite horizon without a discount: what each step more adds to the value,
            reward units; its k is zero, since only differences of values mean something.
    """

    model: LinearGaussian
    optimism: float
    V: Quadratic
    gains: Tensor
    offsets: Tensor
    curvature: Tensor
    growth: float | None = None

    @classmethod
    def at(
        cls, model: LinearGaussian, eta: float, root: riccati_equation.Root = "limit"
    ) -> GaussianSolution:
        """The solution at one optimism, over an infinite horizon by one root of its equation.

        Raises:
            Breakdown: where a value is infinite.
        """
        if model.horizon is None:
            found = riccati_equation.solve(model, eta, root)
            value = Quadratic(*map(torch.as_tensor, found.value))
            K, offset, H = map(torch.as_tensor, (found.K, found.offset, found.H))
            return cls(model, eta, value, K, offset, H, found.growth)
        sweep = riccati.backward(model, eta)
        value = Quadratic(*map(torch.as_tensor, (sweep.P, sweep.p, sweep.k)))
        K, offset, H = map(torch.as_tensor, (sweep.K, sweep.offset, sweep.H))
        return cls(model, eta, value, K, offset, H)

    def __repr__(self) -> str:
        if self.growth is not None:
            return f"GaussianSolution(optimism={self.optimism:g}, growth={self.growth:.6g} a step)"
        return f"GaussianSolution(optimism={self.optimism:g}, bound={self.bound:.6g} nats)"

    @cached_property
    def bound(self) -> float:
        """(), nats: (1/η) log E_{s_0} exp(η V_0/α); E[V_0]/α at η = 0.

        Raises:
            AttributeError: for an infinite horizon without a discount, where it grows for ever.
        """
        if self.growth is not None:
            raise AttributeError(
                "bound: over an infinite horizon without a discount it grows for ever, by "
                f"{self.growth / self.model.temperature:.6g} nats a step; take .growth (reward "
                "units a step), a finite horizon, or a discount"
            )
        mean, root = riccati.model_start(self.model)
        P, p, k = riccati.soften(self.first, root, self._theta, riccati.START)
        return float(k + p @ mean - 0.5 * mean @ P @ mean) / self.model.temperature

    @property
    def log_evidence(self) -> float:
        """(), nats: log p(O), the bound at η = 1.

        Raises:
            AttributeError: at any other η, where the bound is another quantity.
        """
        if self.optimism != 1:
            raise AttributeError(
                f"log_evidence: the bound at optimism {self.optimism:g} is not log p(O); "
                "take .bound, or inference.posterior(model).log_evidence"
            )
        return self.bound

    @property
    def elbo(self) -> float:
        """(), nats: the ELBO of the policy as a guide with the true dynamics, the bound at η = 0.

        Raises:
            AttributeError: at any other η, where the bound believes in other dynamics.
        """
        if self.optimism != 0:
            raise AttributeError(
                f"elbo: the bound at optimism {self.optimism:g} believes in bent dynamics; what "
                "its policy achieves in the true ones is cai.evaluate(model, solution.policy).elbo"
            )
        return self.bound

    @cached_property
    def policy(self) -> LinearGaussianPolicy:
        """π_t(a|s) = N(k_t - K_t s, αH_t⁻¹) ∝ p(a) exp(Q_t(s,a)/α); at η = 1, p(a_t|s_t,O)."""
        covariance = self.model.temperature * torch.linalg.inv(self.curvature)
        covariance = 0.5 * (covariance + covariance.mT)
        return LinearGaussianPolicy.from_matrices(self.gains, self.offsets, covariance)

    @cached_property
    def Q(self) -> Quadratic:
        """Values of actions, quadratic in (s, a), reward units; called with t, s and a."""
        model, theta = self.model, self._theta
        soft = riccati.soften(self.next, model.noise_root.factor.numpy(), theta, "of a step")
        P, p, k = (model.discount * torch.as_tensor(x) for x in soft)
        axis = torch.broadcast_shapes(model.A.shape[:-2], model.B.shape[:-2])
        A, B = (x.expand(*axis, *x.shape[-2:]) for x in (model.A, model.B))
        AB = torch.cat([A, B], -1)
        Pc = matvec(P, model.drift)
        return Quadratic(
            model.reward_curvature + AB.mT @ P @ AB,
            model.reward_slope + matvec(AB.mT, p - Pc),
            k + ((p - 0.5 * Pc) * model.drift).sum(-1),
        )

    @cached_property
    def initial(self) -> Gaussian:
        """q(s_0) ∝ p(s_0) exp(η V_0(s_0)/α), (n,) and (n, n); at η = 1, p(s_0|O)."""
        mean, root = riccati.model_start(self.model)
        Z, z, covariance = (torch.as_tensor(x) for x in riccati.bend(self.first, root, self._theta))
        return Gaussian(matvec(Z, torch.as_tensor(mean)) + z, covariance)

    def dynamics(self, t: int = 0) -> LinearMap:
        """q(s_{t+1}|s_t,a_t) ∝ p(s'|s,a) exp(η V_{t+1}(s')/α), linear-Gaussian again.

        With the true mean μ = As + Ba + c it has covariance W̃ = (W⁻¹ + θP)⁻¹ and mean
        W̃(W⁻¹μ + θp); at η = 1 that is p(s_{t+1}|s_t,a_t,O), at η = 0 the true dynamics.

        Args:
            t: the step, 0 ≤ t < T; of no consequence where the horizon is infinite.

        Raises:
            ValueError: for a step outside the horizon.
        """
        T = self.model.horizon
        if T is None:
            return self._bent
        checks.check_step(t, T)
        return self._bent.at(t)

    @property
    def states(self) -> Gaussian:
        """q(s_t) under the bent chain, (T+1, n) and (T+1, n, n); at η = 1, p(s_t|O)."""
        return self._moments[0]

    @property
    def state_actions(self) -> Gaussian:
        """q(s_t, a_t), (T, n+m) and (T, n+m, n+m), states first; at η = 1, p(s_t,a_t|O)."""
        return self._moments[1]

    @cached_property
    def imagined_return(self) -> float:
        """(), reward units: E[Σ rewards] under bent start, bent dynamics and own policy.

        For an infinite horizon without a discount, the average of a step in the long run.

        Raises:
            AttributeError: for an infinite horizon, where it is infinite.
        """
        model = self.model
        if model.horizon is not None:
            return expected_return(model, *self._moments).item()
        return long_run_return(model, self.initial, self._bent, self.policy)

    @cached_property
    def bend_start(self) -> float:
        """(), nats: KL(q(s_0) ‖ p(s_0))."""
        mean, root = (torch.as_tensor(x) for x in riccati.model_start(self.model))
        return luck(self.first, root, self._theta, Gaussian(mean, 0 * root))[0].item()

    @cached_property
    def bend_dynamics(self) -> float:
        """(), nats: Σ_t E_q[KL(q(s_{t+1}|s_t,a_t) ‖ p(s_{t+1}|s_t,a_t))], under the bent chain."""
        around = arrivals(self.model, self.state_actions)
        factor = self.model.noise_root.factor
        return luck(self.next, factor, self._theta, around)[0].sum().item()

    @property
    def total_bend(self) -> float:
        """(), nats: bend_start + bend_dynamics; d bound/dη = total_bend/η² for finite η ≠ 0."""
        return self.bend_start + self.bend_dynamics

    @property
    def _theta(self) -> float:
        return riccati.price(self.model, self.optimism)

    @property
    def first(self) -> riccati.Value:
        """V_0 as arrays."""
        P, p, k = self.V.P.numpy(), self.V.p.numpy(), self.V.k.numpy()
        return (P, p, k) if self.model.horizon is None else (P[0], p[0], k[0])

    @property
    def next(self) -> riccati.Value:
        """V_{t+1} of all steps as arrays."""
        P, p, k = self.V.P.numpy(), self.V.p.numpy(), self.V.k.numpy()
        return (P, p, k) if self.model.horizon is None else (P[1:], p[1:], k[1:])

    @cached_property
    def _bent(self) -> LinearMap:
        """The bent dynamics of all steps."""
        model = self.model
        factor = model.noise_root.factor.numpy()
        Z, z, W = (torch.as_tensor(x) for x in riccati.bend(self.next, factor, self._theta))
        return LinearMap(Z @ model.A, Z @ model.B, matvec(Z, model.drift) + z, W)

    @cached_property
    def _moments(self) -> tuple[Gaussian, Gaussian]:
        if self.model.horizon is None:
            return long_run(self._bent, self.policy)
        return moments(self.initial, self._bent, self.policy, self.model.horizon)
