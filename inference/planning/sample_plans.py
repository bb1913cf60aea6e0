"""Plans by Hamiltonian Monte Carlo: Pyro's NUTS over the actions and the noise."""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass, field
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS
from torch import Tensor

from cai import checks
from cai.distributions.exact_scores import support_size
from cai.inference.planning._plan_density import PlanDensity
from cai.inference.planning.plan_samples import PlanSamples
from cai.numerics.exclusive import seeded
from cai.program.trajectory import TrajectoryModel
from cai.tables.finite import prior_sees_state

_STARTS = 100  # plans from the prior that are tried to find one of finite density


def sample_plans(
    model: TrajectoryModel,
    samples: int = 500,
    warmup: int = 300,
    chains: int = 2,
    optimism: float = 0.0,
    noises: int = 32,
    seed: int = 0,
    progress: bool = True,
    **options: Any,
) -> PlanSamples:
    """Samples of the best distribution over open-loop plans u = (a_0, …, a_{T-1}), by NUTS.

        η = 0:    q(u) ∝ p(u) exp(E_ε[R(u,ε)]/α)
        η > 0:    q(u) ∝ p(u) (E_ε exp(η R(u,ε)/α))^{1/η}

    R is the sum of rewards, a function of the plan and of the noise ε of start and dynamics. This
    is for plans what ``soft_values`` is for policies: the maximum over open-loop q(u) of the Rényi
    bound at η; at η = 0 of the ELBO in the true dynamics. At η = 1 plan and states together are the
    exact posterior p(τ|O), which chooses its luck with its actions.

    At η = 1/k the noise is sampled with the plan, in k independent copies of weight η each: the
    plan's marginal is then exactly the above, and the plan with one copy gives the trajectory that
    the method believes in. At η = 0 the expectation is a mean over noises that are drawn once in
    pairs ±ε: exact if R is quadratic or there is no noise, else more accurate with more noises.

    Noise is expressed in standard normal numbers, and actions on a box or half line are transformed
    by Pyro's own transforms, so that all variables are unbounded. The chains start at draws from
    the prior, or near zero if it is flat. They move between modes only if the path in between is
    not too improbable: ``r_hat`` far above one shows that they did not.

    With a discount termination is summed out. A plan is drawn as a whole, and its later actions
    count (in KL to the prior) even if the trajectory terminates before.

    An interrupt (Ctrl-C) ends the sampling. Complete chains are returned, or if there are none, the
    draws of the first one, if there are at least four.

    Args:
        model: a model with a finite horizon, continuous actions with one prior for all states,
            every site deterministic or reparameterised by normal numbers, and rewards with a
            gradient.
        samples: draws kept of each chain, at least 4.
        warmup: draws before these, in which NUTS finds its step size.
        chains: the number of chains, which run one after the other.
        optimism: η: 0, or 1/k for a whole number k; k = 1 is the exact posterior.
        noises: the number of noises at η = 0, even.
        seed: seed of all draws; torch's generator is not changed.
        progress: whether to show Pyro's progress bar on a terminal.
        options: options of Pyro's ``NUTS``, such as ``full_mass=True`` or ``max_tree_depth=6``.

    Returns:
        A :class:`PlanSamples`: plans, their trajectories, and diagnostics of the chains.

    Raises:
        ValueError: if a site has no gradient (the message names it), such as integers, the prior
            depends on the state, η is neither 0 nor 1/k, or no possible plan was found.

    >>> import torch
    >>> from cai import inference, models
    >>> model = models.double_integrator(horizon=2, obstacles=())
    >>> plans = inference.sample_plans(model, samples=8, warmup=8, chains=1, progress=False)
    >>> plans.trajectories.actions.shape
    torch.Size([8, 2, 2])
    """
    checks.check_model(model)
    T = checks.finite_horizon(model, "a plan")
    checks.check_seed(seed)
    checks.check_flag("progress", progress)
    checks.check_count("samples", samples, 4, "R̂ compares halves of a chain")
    checks.check_count("warmup", warmup)
    checks.check_count("chains", chains)
    copies = _copies(optimism, noises)
    _check_options(options)
    _check_actions(model)
    with seeded(seed), poutine.block():
        target = PlanDensity(model, T, optimism, copies)
        seeds = torch.randint(2**31, (chains,)).tolist()
        runs: list[_Chain] = []
        try:
            for chain_seed in seeds:
                runs.append(_Chain())
                torch.manual_seed(chain_seed)
                _sample(target, runs[-1], samples, warmup, progress, options)
        except KeyboardInterrupt:
            if len(runs) > 1:
                runs.pop()
            elif len(runs[0].draws) < 4:
                raise
        return _result(target, runs)


@dataclass
class _Chain:
    """The draws of a chain so far."""

    draws: list[dict[str, Tensor]] = field(default_factory=list)
    diverging: list[bool] = field(default_factory=list)

    def keep(self, kernel: Any, params: dict[str, Tensor], stage: str, i: int) -> None:
        """Pyro's hook, called after each draw."""
        if stage.startswith("Sample"):
            self.draws.append({name: value.detach().clone() for name, value in params.items()})
            so_far = len(kernel.diagnostics()["divergences"])
            self.diverging.append(so_far > sum(self.diverging))


def _sample(
    target: PlanDensity, chain: _Chain, samples: int, warmup: int, progress: bool, options: Any
) -> None:
    kernel = NUTS(potential_fn=target.potential, **options)
    # Divergent steps of the integrator are rejected by their energy, not by an exception.
    with pyro.validation_enabled(False):
        MCMC(
            kernel,
            num_samples=samples,
            warmup_steps=warmup,
            initial_params=_possible_start(target),
            hook_fn=chain.keep,
            disable_progbar=not (progress and sys.stderr.isatty()),
            transforms={},
        ).run()


def _possible_start(target: PlanDensity) -> dict[str, Tensor]:
    for _ in range(_STARTS):
        at = target.start()
        x = {name: value.clone().requires_grad_() for name, value in at.items()}
        value = target.log_density(x)
        if value.isfinite() and not value.requires_grad:
            came, advice = "one without", "do not detach it"
            checks.refuse("reward", "a function with a gradient", came, advice)
        if value.isfinite() and all(
            slope.isfinite().all() for slope in torch.autograd.grad(value, list(x.values()))
        ):
            return at
    checks.refuse(
        "evidence",
        "a plan from the prior that is possible",
        f"{_STARTS} of density zero, or without a gradient",
        "make rewards of -inf finite, or widen the prior; inference.smc accepts both",
    )


def _result(target: PlanDensity, runs: list[_Chain]) -> PlanSamples:
    kept = [draw for run in runs for draw in run.draws]
    with torch.no_grad():
        plans = target.plan(torch.stack([draw["plan"] for draw in kept]))
        log_density = torch.stack([target.log_density(draw) for draw in kept])
        if target.sampled:
            numbers = torch.stack([draw["noise"][0] for draw in kept])
        else:
            numbers = torch.randn(len(kept), target.size, dtype=torch.float64)
        rewards, states = target.outcomes(plans, numbers)
        tilt = target.eta * rewards if target.eta > 0 else torch.zeros_like(rewards)
        end = dist.Categorical(logits=target.log_death + tilt).sample()
        alive = torch.arange(target.T + 1) <= end.unsqueeze(-1)
    return PlanSamples(
        optimism=target.eta,
        trajectories=target.model.paid(states, plans, alive),
        log_density=log_density,
        chains=len(runs),
        diverging=torch.tensor([x for run in runs for x in run.diverging]),
    )


def _copies(eta: Any, noises: int) -> int:
    """The number of noises: k for η = 1/k, and as given at η = 0."""
    eta = checks.check_optimism(eta)
    checks.check_count("noises", noises)
    if eta == 0:
        if noises % 2:
            checks.refuse("noises", "an even number", str(noises), "they go in pairs ±ε")
        return noises
    if not 0 < eta <= 1 or abs(round(1 / eta) * eta - 1) > 1e-9:
        advice = "1 is the exact posterior, and 1/k takes k copies of the noise"
        checks.refuse("optimism", "0, or 1/k for a whole number k", f"{eta:g}", advice)
    return round(1 / eta)


def _check_options(options: dict[str, Any]) -> None:
    """Raises ValueError if Pyro's NUTS lacks one of the options."""
    known = set(inspect.signature(NUTS).parameters) - {"model", "potential_fn", "transforms"}
    if unknown := options.keys() - known:
        checks.refuse("options", f"of {', '.join(sorted(known))}", min(unknown), "see Pyro's NUTS")


def _check_actions(model: TrajectoryModel) -> None:
    if prior_sees_state(model):
        expected = "one density for all states, since a plan does not see them"
        advice = "give the model a distribution, or take inference.smc"
        checks.refuse("action_prior", expected, "a function of the state", advice)
    prior = model.prior(torch.zeros(()), 0)
    if support_size(prior) is not None or prior.support.is_discrete:
        checks.refuse(
            "action_prior",
            "a density, whose actions have gradients",
            f"{type(prior).__name__}, which is discrete",
            "take inference.belief_values(model, cai.blind) or inference.smc(model)",
        )
