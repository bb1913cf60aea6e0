"""Plans by Hamiltonian Monte Carlo: Pyro's NUTS over the actions and the noise."""

from __future__ import annotations

import inspect
import math
import sys
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS
from pyro.ops import stats
from torch import Tensor
from torch.distributions import Transform, biject_to

from cai import checks
from cai.distributions.flat_prior import FlatPrior
from cai.distributions.support import support_size
from cai.inference.planning._noise import roll
from cai.numerics import memory
from cai.numerics.exclusive import seeded
from cai.program.trajectories import Trajectories
from cai.program.trajectory import TrajectoryModel
from cai.tables.finite import prior_sees_state

_STARTS = 100  # plans of the prior that are tried for one of finite density


@dataclass(frozen=True, eq=False)
class PlanSamples:
    """Plans that NUTS has drawn, and a trajectory of each.

    Attributes:
        optimism: η.
        trajectories: n = chains · draws of them, chain after chain; ``actions`` are the plans,
            ``states`` what the method believes they lead to: the true dynamics at η = 0, and bent
            ones else.
        log_density: (n,), nats: of what was sampled, up to a constant.
        chains: how many.
        divergences: how many steps of the integrator went astray after the warm-up; some say that
            a part of the plans may be missing.
    """

    optimism: float
    trajectories: Trajectories
    log_density: Tensor
    chains: int
    divergences: int

    def __repr__(self) -> str:
        return (
            f"PlanSamples(optimism={self.optimism:g}, {len(self.plans)} plans of {self.chains} "
            f"chains, r_hat ≤ {self.r_hat.max().item():.3f}, "
            f"n_eff ≥ {self.n_eff.min().item():.0f}, {self.divergences} divergences)"
        )

    @property
    def plans(self) -> Tensor:
        """(n, T) + event shape of an action."""
        return self.trajectories.actions

    @property
    def states(self) -> Tensor:
        """(n, T+1) + event shape of a state."""
        return self.trajectories.states

    @cached_property
    def r_hat(self) -> Tensor:
        """(T) + event shape: split R̂ of each number of the plan; one where chains agree.

        Infinite where none of the chains has moved at all.
        """
        r_hat = stats.split_gelman_rubin(self._by_chain)
        return torch.where(self._stuck, math.inf, r_hat)

    @cached_property
    def n_eff(self) -> Tensor:
        """(T) + event shape: how many independent draws would say as much of its mean."""
        n_eff = stats.effective_sample_size(self._by_chain)
        return torch.where(self._stuck, float(self.chains), n_eff)

    @property
    def _stuck(self) -> Tensor:
        """(T) + event shape: whether no chain has moved in this number, so that 0/0 is at hand."""
        return (self._by_chain == self._by_chain[:, :1]).all(1).all(0)

    @property
    def _by_chain(self) -> Tensor:
        return self.plans.unflatten(0, (self.chains, -1))


def sample_plans(
    model: TrajectoryModel,
    draws: int = 500,
    warmup: int = 300,
    chains: int = 2,
    optimism: float = 0.0,
    noises: int = 32,
    seed: int = 0,
    progress: bool = True,
    **options: Any,
) -> PlanSamples:
    """Draws from the best distribution over open-loop plans u = (a_0, …, a_{T-1}), by NUTS.

        η = 0:    q(u) ∝ p(u) exp(E_ε[R(u,ε)]/α)
        η > 0:    q(u) ∝ p(u) (E_ε exp(η R(u,ε)/α))^{1/η}

    R is the sum of rewards, a function of the plan and of the noise ε of start and dynamics. That
    is what ``soft_values`` is for policies: the maximum over q(u), which no state is shown to, of
    the Rényi bound at η; at η = 0 of the ELBO with the true dynamics. At η = 1 plan and states
    together are the exact posterior p(τ|O), which chooses its luck with its actions.

    At η = 1/k the noise is sampled along with the plan, k independent copies of it which count η
    each: the plan's marginal is then exactly the above, and one copy with it is the trajectory that
    is believed in. At η = 0 the expectation is a mean over noises that are drawn once and go in
    pairs ±ε: exact where R is quadratic or there is no noise, and else as good as they are many.

    Noise is counted in standard normal numbers, and actions are moved off their box or half line by
    Pyro's own transforms, so that nothing is bounded. The chains start at draws from the prior, or
    near zero where it is flat. They leave a mode for another one only where the way between
    is not too improbable: ``r_hat`` far above one says that they have not.

    With a discount the coin of death is summed out. A plan is drawn as a whole, and pays for its
    later actions (in KL to the prior) even if it dies before.

    An interrupt (Ctrl-C) ends the sampling. Chains that are complete are returned, or if none is,
    what there is of the first; with less than four draws there is nothing to return.

    Args:
        model: with a finite horizon, continuous actions of one prior for all states, and every
            site reparameterised by normal numbers (or certain); rewards with a gradient.
        draws: kept of each chain, at least 4.
        warmup: draws before these, in which NUTS finds its step size.
        chains: one after the other.
        optimism: η: 0, or 1/k for a whole number k; k = 1 is the exact posterior.
        noises: how many at η = 0; an even number.
        seed: of everything; torch's generator stays as it was.
        progress: whether to show Pyro's progress bar on a terminal.
        options: of Pyro's ``NUTS``, such as ``full_mass=True`` or ``max_tree_depth=6``.

    Raises:
        ValueError: where a site has no gradient (it is named), such as integers, the prior depends
            on the state, η is neither 0 nor 1/k, or no plan was found that is possible.
    """
    checks.check_model(model)
    T = checks.finite_horizon(model, "a plan")
    checks.check_seed(seed)
    checks.check_flag("progress", progress)
    for name, count in (("draws", draws), ("warmup", warmup), ("chains", chains)):
        checks.check_count(name, count)
    if draws < 4:
        checks.refuse("draws", "at least 4", str(draws), "R̂ compares halves of a chain")
    copies = _copies(optimism, noises)
    _check_options(options)
    _check_actions(model)
    with seeded(seed), poutine.block():
        target = _Target(model, T, optimism, copies)
        seeds = torch.randint(2**31, (chains,)).tolist()
        runs: list[_Chain] = []
        try:
            for chain_seed in seeds:
                runs.append(_Chain())
                torch.manual_seed(chain_seed)
                _sample(target, runs[-1], draws, warmup, progress, options)
        except KeyboardInterrupt:
            if len(runs) > 1:
                runs.pop()
            elif len(runs[0].draws) < 4:
                raise
        return _result(target, runs)


@dataclass
class _Chain:
    """What a chain has come to so far."""

    def __init__(self) -> None:
        self.draws: list[dict[str, Tensor]] = []
        self.divergences = 0

    def keep(self, kernel: Any, params: dict[str, Tensor], stage: str, i: int) -> None:
        """Pyro's hook, called after each draw."""
        if stage.startswith("Sample"):
            self.draws.append({name: value.detach().clone() for name, value in params.items()})
            self.divergences = len(kernel.diagnostics()["divergences"])


class _Target:
    """The density that is sampled, of a plan x without bounds and of noise."""

    def __init__(self, model: TrajectoryModel, T: int, eta: float, copies: int) -> None:
        self.model, self.T, self.eta = model, T, eta
        self.prior = model.prior(torch.zeros(()), torch.arange(T))
        self.flat = isinstance(self.prior, FlatPrior)
        self.off: Transform = biject_to(self.prior.support)
        with torch.no_grad():
            self.size = roll(model, self.plan(self.start()["plan"]).unsqueeze(0), None)[1]
        self.copies = copies if self.size else 1
        self.sampled = self.size > 0 and eta > 0
        size, advice = self.copies * self.size, "take fewer noises"
        memory.check_fits("noises", f"{self.copies} of {self.size} numbers", size, advice)
        half = torch.randn(self.copies // 2, self.size, dtype=torch.float64)
        self.fixed = torch.cat([half, -half]) if self.size else half.new_zeros(1, 0)
        gamma, t = model.discount, torch.arange(T, dtype=torch.float64)
        # log P(dying on arrival at step t + 1), t < T, and of surviving them all.
        dies = t * math.log(gamma) + (math.log1p(-gamma) if gamma < 1 else -math.inf)
        self.log_death = torch.cat([dies, dies.new_tensor([T * math.log(gamma)])])

    def start(self) -> dict[str, Tensor]:
        """A plan of the prior and noise, to start from."""
        shape = torch.Size((self.T,))
        if self.flat:
            plan = torch.randn(self.T, *self.prior.event_shape, dtype=torch.float64)
            return {"plan": plan} | self._noise()
        plan = self.off.inv(self.prior.expand(shape).sample().double())
        return {"plan": plan} | self._noise()

    def _noise(self) -> dict[str, Tensor]:
        if not getattr(self, "sampled", False):
            return {}
        return {"noise": torch.randn(self.copies, self.size, dtype=torch.float64)}

    def plan(self, x: Tensor) -> Tensor:
        """The actions of unbounded numbers, (..., T) + event shape."""
        action: Tensor = self.off(x)
        return action

    def potential(self, at: dict[str, Tensor]) -> Tensor:
        """- log density, nats, ()."""
        return -self.log_density(at)

    def log_density(self, at: dict[str, Tensor]) -> Tensor:
        """Of the unbounded numbers, up to a constant, nats, ()."""
        x = at["plan"]
        plan = self.plan(x)
        total = self.off.log_abs_det_jacobian(x, plan).sum() + self.prior.log_prob(plan).sum()
        noise = at["noise"] if self.sampled else self.fixed
        if self.sampled:
            total = total - 0.5 * noise.square().sum()
        return total + self.worth(self.outcomes(plan.expand(len(noise), *plan.shape), noise)[0])

    def outcomes(self, plans: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """What is earned until each possible end, (n, T+1), nats, and the states."""
        states, _ = roll(self.model, plans, numbers)
        before, after = states[:, :-1], states[:, 1:]
        paid = self.model.log_factor(before, plans, after, torch.arange(self.T))
        earned = paid.expand(len(plans), self.T).cumsum(-1)
        final = self.model.final_rewards(states[:, -1]) / self.model.temperature
        return torch.cat([earned, (earned[:, -1] + final).unsqueeze(-1)], -1), states

    def worth(self, earned: Tensor) -> Tensor:
        """(1/η) log E exp(η R/α) over the coin of death, or E[R]/α; its mean over the noises."""
        if self.model.discount == 1:
            return earned[:, -1].mean()
        if self.eta > 0:
            return (self.log_death + self.eta * earned).logsumexp(-1).mean() / self.eta
        return (earned * self.log_death.exp()).sum(-1).mean()


def _sample(
    target: _Target, chain: _Chain, draws: int, warmup: int, progress: bool, options: Any
) -> None:
    kernel = NUTS(potential_fn=target.potential, **options)
    # What goes astray in the integrator is turned down by its energy, not by an exception.
    with pyro.validation_enabled(False):
        MCMC(
            kernel,
            num_samples=draws,
            warmup_steps=warmup,
            initial_params=_possible_start(target),
            hook_fn=chain.keep,
            disable_progbar=not (progress and sys.stderr.isatty()),
            transforms={},
        ).run()


def _possible_start(target: _Target) -> dict[str, Tensor]:
    for _ in range(_STARTS):
        at = target.start()
        x = {name: value.clone().requires_grad_() for name, value in at.items()}
        value = target.log_density(x)
        if value.isfinite() and not value.requires_grad:
            _refuse_rewards()
        if value.isfinite() and all(
            slope.isfinite().all() for slope in torch.autograd.grad(value, list(x.values()))
        ):
            return at
    checks.refuse(
        "evidence",
        "a plan of the prior that is possible",
        f"{_STARTS} of density zero, or without a gradient",
        "make rewards of -inf finite, or soften the prior; inference.smc takes them as they are",
    )


def _refuse_rewards() -> None:
    checks.refuse("reward", "a function with a gradient", "one without", "do not detach it")


def _result(target: _Target, runs: list[_Chain]) -> PlanSamples:
    kept = [draw for run in runs for draw in run.draws]
    with torch.no_grad():
        plans = target.plan(torch.stack([draw["plan"] for draw in kept]))
        log_density = torch.stack([target.log_density(draw) for draw in kept])
        if target.sampled:
            numbers = torch.stack([draw["noise"][0] for draw in kept])
        else:
            numbers = torch.randn(len(kept), target.size, dtype=torch.float64)
        earned, states = target.outcomes(plans, numbers)
        tilt = target.eta * earned if target.eta > 0 else torch.zeros_like(earned)
        end = dist.Categorical(logits=target.log_death + tilt).sample()
        alive = torch.arange(target.T + 1) <= end.unsqueeze(-1)
    return PlanSamples(
        optimism=target.eta,
        trajectories=target.model.paid(states, plans, alive),
        log_density=log_density,
        chains=len(runs),
        divergences=sum(run.divergences for run in runs),
    )


def _copies(eta: Any, noises: int) -> int:
    """How many noises: k for η = 1/k, and as asked for at η = 0."""
    eta = checks.check_optimism(eta)
    checks.check_count("noises", noises)
    if eta == 0:
        if noises % 2:
            checks.refuse("noises", "an even number", str(noises), "they go in pairs ±ε")
        return noises
    if not 0 < eta <= 1 or abs(round(1 / eta) * eta - 1) > 1e-9:
        checks.refuse(
            "optimism",
            "0, or 1/k for a whole number k",
            f"{eta:g}",
            "1 is the exact posterior, and 1/k takes k copies of the noise",
        )
    return round(1 / eta)


def _check_options(options: dict[str, Any]) -> None:
    """Raises ValueError where Pyro's NUTS does not know one of them."""
    known = set(inspect.signature(NUTS).parameters) - {"model", "potential_fn", "transforms"}
    if unknown := options.keys() - known:
        checks.refuse("options", f"of {', '.join(sorted(known))}", min(unknown), "see Pyro's NUTS")


def _check_actions(model: TrajectoryModel) -> None:
    if prior_sees_state(model):
        checks.refuse(
            "action_prior",
            "one density for all states, since a plan does not see them",
            "a function of the state",
            "give the model a distribution, or take inference.smc",
        )
    prior = model.prior(torch.zeros(()), 0)
    if support_size(prior) is not None or prior.support.is_discrete:
        checks.refuse(
            "action_prior",
            "a density, in whose actions there are gradients",
            f"{type(prior).__name__}, which is discrete",
            "take inference.belief_values(model) or inference.smc(model)",
        )
