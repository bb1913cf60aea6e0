"""Sequential Monte Carlo: the exact posterior by particles that are resampled on the way.

By hand: Pyro's own only filters, and other libraries of particles know no programs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from cai import checks
from cai.distributions.exact_scores import exact
from cai.distributions.support import check_support
from cai.frames.data_tree import data_tree
from cai.inference.particles._beliefs import Tilted, belief_of, draw
from cai.inference.particles._proposals import Proposal, proposal_of
from cai.numerics import memory
from cai.numerics.exclusive import seeded
from cai.program.calling import numbers_at
from cai.program.episode import policy_at
from cai.program.interfaces import Policy
from cai.program.trajectories import Trajectories
from cai.program.trajectory import TrajectoryModel

Twist: TypeAlias = Callable[[int, Tensor], Tensor]
"""(t, s) -> nats, (n,): a guess of the value to go, V_t(s)/α."""


@dataclass(frozen=True, eq=False)
class ParticlePosterior:
    """n equally weighted trajectories that approximate p(τ|O).

    Attributes:
        log_evidence: (), nats: an estimate of log p(O). Its exponential is unbiased, so that the
            estimate itself is too low on average.
        trajectories: n trajectories. Many may share their early steps, see ``lineages``.
        effective_sample_sizes: (T+1,), 1 to n: of the weights at each step, before resampling.
        resampled: (T+1,), boolean: whether particles were resampled at a step; always at the end.
        lineages: (T+1,), how many particles of each step have descendants at the end.

    >>> from cai import inference, models
    >>> found = inference.smc(models.ledge(), particles=100)
    >>> found.trajectories.states.shape, found.effective_sample_sizes.shape
    (torch.Size([100, 5]), torch.Size([5]))
    """

    log_evidence: float
    trajectories: Trajectories
    effective_sample_sizes: Tensor
    resampled: Tensor
    lineages: Tensor

    def __repr__(self) -> str:
        n, least = len(self.trajectories.alive), self.effective_sample_sizes.min().item()
        return (
            f"ParticlePosterior(log_evidence={self.log_evidence:.6g} nats, {n} particles of "
            f"{int(self.lineages[0])} ancestors, effective {least:.1f} at least)"
        )

    def to_arviz(self) -> Any:
        """An ``xarray.DataTree`` for ArviZ: "actions", "states", "returns", and equal "weights".

        Raises:
            ValueError: if arviz-base is not installed.
        """
        paths = self.trajectories
        drawn = {"actions": paths.actions, "states": paths.states, "returns": paths.returns}
        weights = torch.full((n := len(paths.returns),), 1 / n, dtype=torch.float64)
        about = {"log_evidence": self.log_evidence, "ancestors": int(self.lineages[0])}
        return data_tree(drawn, {"weights": weights}, about)


def smc(
    model: TrajectoryModel,
    particles: int = 1000,
    twist: Tilted | Twist | None = None,
    proposal: Policy | Tilted | None = None,
    seed: int = 0,
    ess_threshold: float = 0.5,
) -> ParticlePosterior:
    """Particle smoothing of p(τ|O), with a value function that looks ahead.

    Particles move by the proposal q. At step t they represent p(τ_{0:t}, O_{<t}) ψ_t(s_t), which
    with ψ_T = exp(r_T/α) is p(τ, O) at the end. A step multiplies a particle's weight by

        p(a|s)/q(a|s) · p(s'|s,a)/q(s'|s,a) · exp((r + r⁺)/α) ψ_{t+1}(s')/ψ_t(s)

    and when the effective sample size is too small, particles are resampled (systematically). With
    ψ = 1 they are judged by past rewards; the twist ψ = exp(V/α) adds expected future rewards
    (Guarniero, Johansen and Lee 2017; Heng, Bishop, Deligiannidis and Doucet 2020). The best twist
    is V of optimism 1, the backward message: with it as twist and proposal all weights are p(O),
    and one particle would do. The evidence is unbiased for any twist and proposal that do not rule
    out possible trajectories; only its variance depends on them.

    A policy proposes actions and keeps the true dynamics; a solution at η > 0 proposes luck as
    well, termination included. Terminated particles keep their weight.

    Trajectories are traced back through their ancestors: if resampling is frequent they share their
    first steps, so that little is known about s_0; a better twist makes resampling rare.

    Args:
        model: any program with a finite horizon, latents and discount included.
        particles: n.
        twist: a solution at any optimism, for its V/α, or a function (t, s) -> nats for 0 ≤ t < T;
            none if not given. Values of -inf of a solution at η ≤ 0, where one possible disaster
            suffices for -inf, are replaced by the lowest finite value of that step.
        proposal: (t, s) -> q(a_t|s_t) without a memory, or a solution; the prior if not given.
        seed: seed of the draws; torch's generator is not changed.
        ess_threshold: particles are resampled if their effective sample size is below this fraction
            of n.

    Returns:
        A :class:`ParticlePosterior`: equally weighted trajectories, and an estimate of log p(O).

    Raises:
        ValueError: if the horizon is infinite, all weights are zero at a step, the twist is NaN or
            +inf, has other steps or states or observations, or the proposal does not fit.

    >>> from cai import inference, models
    >>> model = models.ledge()
    >>> found = inference.smc(model, particles=500, twist=inference.soft_values(model))
    >>> abs(found.log_evidence - inference.posterior(model).log_evidence) < 0.2
    True
    """
    checks.check_model(model)
    T = checks.finite_horizon(model, "smc")
    checks.check_seed(seed)
    checks.check_count("particles", particles)
    checks.check_share("ess_threshold", ess_threshold, "0 never resamples, 1 at every step")
    event = model.initial.event_shape.numel()
    advice = "take fewer particles, or a better twist"
    memory.check_fits("particles", f"{particles} of them", particles * (T + 1) * event, advice)
    q, look = proposal_of(model, proposal), _Twist(model, twist, T)
    with seeded(seed), torch.no_grad():
        return _run(model, q, look, particles, ess_threshold * particles, T)


def _run(
    model: TrajectoryModel, q: Proposal, look: _Twist, n: int, enough: float, T: int
) -> ParticlePosterior:
    s, log_w = q.start(n)
    alive = torch.ones(n, dtype=torch.bool)
    ahead = look(0, s, alive)
    log_w = log_w + ahead
    log_evidence, history = 0.0, _History()
    for t in range(T + 1):
        size = _effective_size(log_w, t, n)
        parents = torch.arange(n)
        if resampled := size < enough or t == T:
            log_evidence += log_w.logsumexp(0).item() - math.log(n)
            parents = _systematic(log_w.softmax(0))
            log_w = torch.zeros(n, dtype=torch.float64)
        history.add(s, alive, parents, size, resampled)
        if t == T:
            break
        s, alive, ahead = s[parents], alive[parents], ahead[parents]
        a, log_ratio = _act(model, q, t, s, alive)
        s_next, lives, log_moves = q.step(t, s, a, alive)
        paid = torch.where(alive, model.log_factor(s, a, s_next, t), 0.0)
        then = look(t + 1, s_next, lives)
        # Weights of zero stay zero; a twist of -inf would make them NaN.
        gain = log_ratio + log_moves + paid + then - torch.where(ahead.isfinite(), ahead, 0.0)
        log_w = torch.where(log_w == -math.inf, log_w, log_w + gain)
        s, alive, ahead = s_next, lives, then
        history.actions.append(a)
    states, actions, lived, lineages = history.traced()
    advice = "look for 0/0 or 0·inf in what the proposal or the dynamics compute"
    checks.check_no_nan("actions of (particle, step)", actions, advice)
    checks.check_no_nan("states of (particle, step)", states, advice)
    return ParticlePosterior(
        log_evidence,
        model.paid(states, actions, lived),
        torch.tensor(history.sizes, dtype=torch.float64),
        torch.tensor(history.resampled),
        lineages,
    )


def _act(
    model: TrajectoryModel, q: Proposal, t: int, s: Tensor, alive: Tensor
) -> tuple[Tensor, Tensor]:
    """Actions, from the prior after termination, and log p(a|s)/q(a|s) while alive, (n,)."""
    policy, prior = policy_at(q.policy, t, s), model.prior(s, t)
    if t == 0:
        check_support(policy, prior)
    a = draw(policy, len(s))
    try:
        log_ratio = exact(prior).log_prob(a) - exact(policy).log_prob(a)
    except ValueError as error:  # torch's error for a value outside the support, of many lines
        words = str(error).partition(", but found")[0]
        advice = "look for NaN, or actions outside of the prior's support, in the proposal"
        checks.refuse(f"proposal at step {t}", "actions that the prior can take", words, advice)
    if not alive.all():
        dead = ~alive
        a = torch.where(dead.view(-1, *(1,) * (a.dim() - 1)), draw(prior, len(s)), a)
        log_ratio = torch.where(dead, 0.0, log_ratio)
    return a, log_ratio.double()


class _Twist:
    """log ψ_t(s), (n,), nats: zero after termination, and at the end the true final reward."""

    def __init__(self, model: TrajectoryModel, twist: Tilted | Twist | None, T: int) -> None:
        self.model, self.T, self.twist = model, T, _function(model, twist, T)

    def __call__(self, t: int, s: Tensor, alive: Tensor) -> Tensor:
        if t == self.T:
            log_psi = self.model.final_rewards(s) / self.model.temperature
        elif self.twist is None:
            log_psi = torch.zeros((), dtype=torch.float64)
        else:
            advice = "it is a guess of V_t(s)/α in nats; 0 if there is none"
            event = len(self.model.initial.event_shape)
            log_psi = numbers_at("twist", self.twist, t, s, event, advice)
            if (log_psi == math.inf).any():
                checks.refuse(f"twist at step {t}", "numbers below +inf", "+inf", advice)
        return torch.where(alive, log_psi.expand(len(s)), 0.0)


def _function(model: TrajectoryModel, twist: Any, T: int) -> Twist | None:
    """The values of a solution, or the user's function."""
    tilted = belief_of(twist)
    if tilted is not None:
        return tilted.log_psi(model, T)
    if twist is not None and not callable(twist):
        advice = "for instance inference.soft_values(model, optimism=1)"
        came = type(twist).__name__
        checks.refuse("twist", "a solution or a function (t, s) -> nats", came, advice)
    return twist


class _History:
    """Particles of all steps, before resampling, and the parents of each step."""

    def __init__(self) -> None:
        self.states: list[Tensor] = []
        self.actions: list[Tensor] = []
        self.alive: list[Tensor] = []
        self.parents: list[Tensor] = []
        self.sizes: list[float] = []
        self.resampled: list[bool] = []

    def add(self, s: Tensor, alive: Tensor, parents: Tensor, size: float, resampled: bool) -> None:
        self.states.append(s)
        self.alive.append(alive)
        self.parents.append(parents)
        self.sizes.append(size)
        self.resampled.append(resampled)

    def traced(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """States (n, T+1, ...), actions (n, T, ...), alive (n, T+1), lineages (T+1,)."""
        T, at = len(self.actions), self.parents[-1]
        states, actions, alive, lineages = [], [], [], []
        for t in range(T, -1, -1):
            states.append(self.states[t][at])
            alive.append(self.alive[t][at])
            lineages.append(len(at.unique()))
            if t > 0:
                actions.append(self.actions[t - 1][at])
                at = self.parents[t - 1][at]
        forward = [torch.stack(x[::-1], 1) for x in (states, actions, alive)]
        return forward[0], forward[1], forward[2], torch.tensor(lineages[::-1])


def _effective_size(log_w: Tensor, t: int, n: int) -> float:
    """(Σ w)²/Σ w².

    Raises:
        ValueError: if all weights are zero.
    """
    if log_w.max() == -math.inf:
        checks.refuse(
            "evidence",
            f"a particle of positive weight at step {t}",
            f"{n} of weight zero",
            "either p(O) = 0, or possible paths are rare: take more particles, or as twist and "
            "proposal the solution inference.soft_values(model, optimism=1), of a simpler model "
            "if need be",
        )
    size = 1 / log_w.softmax(0).square().sum().item()
    if math.isnan(size):
        where = f"prior, dynamics or rewards before step {t}"
        checks.refuse(where, "numbers", "NaN", "look for 0/0 or 0·inf, where particles lead")
    return size


def _systematic(weights: Tensor) -> Tensor:
    """The parents of n offspring, by systematic resampling, (n,)."""
    n = len(weights)
    total = weights.cumsum(0)
    places = (torch.rand((), dtype=torch.float64) + torch.arange(n)) / n * total[-1]
    # Rounding must not select beyond the last particle of positive weight.
    last = int(weights.nonzero()[-1])
    return torch.searchsorted(total, places, right=True).clamp(max=last)
