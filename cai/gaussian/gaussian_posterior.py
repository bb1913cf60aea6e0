"""What exact inference in a linear-Gaussian model returns where more, or less, is observed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from cai import checks
from cai.gaussian.forms import Gaussian, LinearMap, Quadratic
from cai.gaussian.linear_gaussian import LinearGaussian
from cai.gaussian.linear_policy import LinearGaussianPolicy
from cai.gaussian.moments import expected_return, moments


@dataclass(frozen=True, eq=False, kw_only=True)
class GaussianPosterior:
    """p(τ | observed, O_observed) of a linear-Gaussian model: Gaussian again, and Markov.

    The fields are those of :class:`cai.GaussianSolution` at η = 1. What is observed exactly has no
    spread: covariances are zero there, and singular where, without noise, it decides what comes
    before. T steps, states of n numbers and actions of m.

    Attributes:
        model: the model that was conditioned.
        bound: (), nats: log p(observed, O), of states and actions the log of a density.
        V: V_t(s) = -½ s'P_t s + p_t's + k_t for t = 0 … T, reward units; called as V(t, s).
            α log p(what is observed at a_t or later | s_t=s), again with densities. Where, without
            noise, no action can make up for s, it counts along the states that can be, and is a
            density along them.
        Q: Q_t(s,a), likewise, quadratic in (s, a); called as Q(t, s, a).
        policy: p(a_t|s_t, observed, O), perhaps without spread.
        initial: p(s_0 | observed, O), (n,) and (n, n).
        transitions: p(s_{t+1} | s_t, a_t, observed, O), a linear map with noise for each step.
    """

    model: LinearGaussian
    bound: float
    V: Quadratic
    Q: Quadratic
    policy: LinearGaussianPolicy
    initial: Gaussian
    transitions: LinearMap

    def __repr__(self) -> str:
        return f"GaussianPosterior(log_evidence={self.bound:.6g} nats)"

    @property
    def optimism(self) -> float:
        """1: conditioning believes in luck."""
        return 1.0

    @property
    def log_evidence(self) -> float:
        """(), nats: log p(observed, O), the bound."""
        return self.bound

    def dynamics(self, t: int) -> LinearMap:
        """p(s_{t+1} | s_t, a_t, observed, O), linear-Gaussian again.

        Args:
            t: the step, 0 ≤ t < T.

        Raises:
            ValueError: for a step outside the horizon.
        """
        checks.check_step(t, len(self.transitions.c))
        return self.transitions.at(t)

    @property
    def states(self) -> Gaussian:
        """p(s_t | observed, O), (T+1, n) and (T+1, n, n)."""
        return self._moments[0]

    @property
    def state_actions(self) -> Gaussian:
        """p(s_t, a_t | observed, O), (T, n+m) and (T, n+m, n+m), states first."""
        return self._moments[1]

    @cached_property
    def imagined_return(self) -> float:
        """(), reward units: E[Σ rewards], those of unobserved o_t included."""
        return expected_return(self.model, *self._moments).item()

    @cached_property
    def _moments(self) -> tuple[Gaussian, Gaussian]:
        return moments(self.initial, self.transitions, self.policy, len(self.transitions.c))
