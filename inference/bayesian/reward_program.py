"""Demonstrations as a Pyro program: weights from a prior, and their exact likelihood."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from cai import checks, one_line
from cai.demonstrations.demonstrations import Demonstrations
from cai.inference.bayesian._likelihood import log_likelihood
from cai.inference.inverse.reward_fit import Likelihood
from cai.inference.populations.demonstrators import by_groups, demonstrator
from cai.inference.scoring.task import Task
from cai.program.trajectory import TrajectoryModel
from cai.rewards.weight_priors import is_proper, of_weights
from cai.roads.network import Streets
from cai.tables import bellman
from cai.tables.table import Table


def reward_program(
    model: TrajectoryModel | Table | Streets,
    demonstrations: Demonstrations,
    reward: Any,
    prior: Any,
    *,
    groups: bool | Sequence[Hashable] = False,
    spread: Any = None,
    optimism: float = 0.0,
    likelihood: Likelihood = "actions",
    rule: bellman.Rule = "soft",
    goals: Literal["own"] | None = None,
    on_impossible: str = "error",
) -> RewardProgram:
    r"""A Pyro program of the weights ψ of a reward and of who follows it.

        p(ψ | demonstrations) ∝ p(ψ) exp(log-likelihood of the demonstrations given ψ)

    The likelihood is exact, that of :func:`fit_reward`: a solution of the model for each ψ, whose
    gradient takes one sweep back. (Ramachandran and Amir 2007 have the likelihood of "planned".)
    It is a program like any other: Pyro's NUTS, its SVI with any guide, and effect handlers take
    it. Where a demonstration is impossible, or there are no values, its log-density is -inf.

    ================  ===============  ============================================================
    site              shape            what it is
    ================  ===============  ============================================================
    "weights"         (k,)             ψ, from the prior
    "demonstrations"  ()               a factor, their log-likelihood, nats
    ================  ===============  ============================================================

    With ``groups`` each of D demonstrators has weights of its own, drawn from a population:

    ================  ===============  ============================================================
    site              shape            what it is
    ================  ===============  ============================================================
    "mean"            (k,)             μ of the population, from the prior
    "spread"          (k,)             its standard deviations σ
    "correlation"     (k, k)           the Cholesky factor of its correlations, from Lewandowski,
                                       Kurowicka and Joe (2009) with η = 2; none for one weight
    "groups"          D                a plate
    "weights"         (D, k)           ψ_d ~ N(μ, Σ), in the plate
    "demonstrations"  (D,)             a factor in the plate, 0 for a group without demonstrations
    ================  ===============  ============================================================

    Args:
        model: a model with finitely many states and actions, or its table, whose rewards are
            replaced, but for the final one; or a road network.
        demonstrations: of such states and actions; trips, for a road network.
        reward: a :class:`cai.LinearReward`; for a road network the names of its features.
        prior: a proper distribution of Pyro or torch for k weights, for each alike, or for one
            whose copies they get; with groups that of the mean.
        groups: whether demonstrators differ, by ``demonstrations.groups``; or the labels of all
            demonstrators, if some have no demonstrations.
        spread: with groups: a distribution of σ, above 0; None for half normal ones with the
            standard deviations of the prior.
        optimism: η of the demonstrators, a finite number.
        likelihood: "actions" or "paths".
        rule: how demonstrators choose actions, "soft", "boltzmann" or "planned".
        goals: "own" if the problem of each demonstration ends where it first enters its goal.
        on_impossible: "error", or "drop" to leave out impossible demonstrations.

    Returns:
        A :class:`RewardProgram`, () -> the weights.

    Raises:
        ValueError: if an argument is not one of those, the prior is improper, or demonstrations do
            not fit the model.

    >>> import pyro, torch, cai
    >>> import pyro.distributions as dist
    >>> from cai import inference, models
    >>> model = models.ledge()
    >>> paths = model.simulate(lambda t, s: model.prior(s), 20, seed=0)
    >>> seen = cai.Demonstrations.from_trajectories(paths)
    >>> reward = cai.LinearReward({"state": lambda s, a: s})
    >>> prior = dist.Normal(torch.zeros(1, dtype=torch.float64), 1.0)
    >>> program = inference.reward_program(model, seen, reward, prior)
    >>> trace = pyro.poutine.trace(program).get_trace()
    >>> list(trace.nodes)[1:3]
    ['weights', 'demonstrations']
    """
    how = demonstrator(demonstrations, optimism, likelihood, rule, goals, on_impossible)
    if groups is False:
        if spread is not None:
            checks.refuse("spread", "None without groups", repr(spread), "give groups=True")
        task = how.task(model, demonstrations, reward)
        return RewardProgram(task.names, (task,), _proper("prior", prior, len(task.names)))
    labels, tasks, whole = by_groups(how, model, demonstrations, reward, groups)
    k = len(whole.names)
    of_mean = _proper("prior", prior, k)
    of_spread = _proper("spread", _half_normal(of_mean) if spread is None else spread, k)
    if any(of_spread.support.check(torch.full((k,), x)).all() for x in (-1e-6, -1.0)):
        came, advice = (
            f"{spread!r}, which allows negative ones",
            "take dist.HalfNormal(1.0) perhaps",
        )
        checks.refuse("spread", "a distribution of standard deviations", came, advice)
    return RewardProgram(whole.names, tasks, of_mean, labels, of_spread)


@dataclass(frozen=True, eq=False)
class RewardProgram:
    """A Pyro program of the weights of a reward, see :func:`cai.inference.reward_program`.

    Attributes:
        names: of the k features.
        tasks: the demonstrations of each demonstrator, None where there are none.
        prior: of the weights, or of their mean over demonstrators.
        labels: of the demonstrators, in the order of the plate; None if there is one only.
        spread: the prior of the population's standard deviations; None without groups.

    >>> import pyro, torch, cai
    >>> from cai import inference, models
    >>> model = models.ledge()
    >>> paths = model.simulate(lambda t, s: model.prior(s), 20, seed=0)
    >>> seen = cai.Demonstrations.from_trajectories(paths)
    >>> reward = cai.LinearReward({"state": lambda s, a: s, "action": lambda s, a: a})
    >>> prior = torch.distributions.Normal(0.0, 1.0)
    >>> program = inference.reward_program(model, seen, reward, prior)
    >>> drawn = pyro.poutine.trace(program).get_trace().nodes["weights"]["value"]
    >>> program.names, drawn.shape
    (('state', 'action'), torch.Size([2]))
    """

    names: tuple[str, ...]
    tasks: tuple[Task | None, ...]
    prior: dist.TorchDistribution
    labels: tuple[Hashable, ...] | None = None
    spread: dist.TorchDistribution | None = None

    __repr__ = one_line.of_fields

    def __call__(self) -> Tensor:
        """Runs the program; returns the weights, (k,) or (D, k)."""
        if self.spread is None:
            weights: Tensor = pyro.sample("weights", self.prior)
            one = weights.double().unsqueeze(-2)
            pyro.factor("demonstrations", log_likelihood(self.tasks, one).squeeze(-1))
            return weights
        k, two = len(self.names), torch.tensor(2.0, dtype=torch.float64)
        mean = pyro.sample("mean", self.prior).double()
        scale = pyro.sample("spread", self.spread).double().unsqueeze(-1)
        root = scale * torch.eye(k, dtype=torch.float64)
        if k > 1:
            root = scale * pyro.sample("correlation", dist.LKJCholesky(k, two))
        with pyro.plate("groups", len(self.tasks)):
            population = dist.MultivariateNormal(mean.unsqueeze(-2), scale_tril=root.unsqueeze(-3))
            weights = pyro.sample("weights", population)
            pyro.factor("demonstrations", log_likelihood(self.tasks, weights))
        return weights


def _proper(where: str, prior: Any, k: int) -> dist.TorchDistribution:
    """A prior that can be sampled."""
    found = of_weights(prior, k, where)
    if prior is None or not is_proper(found):
        came = "none" if prior is None else "an improper one"
        advice = "the program draws from it: take dist.Normal(0.0, 10.0) perhaps"
        checks.refuse(where, "a proper distribution", came, advice)
    return found


def _half_normal(prior: dist.TorchDistribution) -> Any:
    """Half normal spreads as wide as a prior."""
    try:
        scale = prior.stddev
    except (NotImplementedError, AttributeError):
        scale = torch.tensor(torch.nan)
    if not (scale.isfinite() & (scale > 0)).all():
        came, advice = "a prior without one", "give dist.HalfNormal(1.0) perhaps"
        checks.refuse(
            "spread", "a standard deviation of the prior, or a distribution", came, advice
        )
    return dist.HalfNormal(scale.double())
