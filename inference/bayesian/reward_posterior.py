"""The posterior over rewards, given demonstrations of one demonstrator or of several."""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, get_args, overload

import pyro
import torch
from torch import Tensor

from cai import checks
from cai.demonstrations.demonstrations import Demonstrations
from cai.inference.bayesian._chains import Chains
from cai.inference.bayesian._guided_draws import GuidedDraws
from cai.inference.bayesian._laplace import Laplace, laplace
from cai.inference.bayesian._weighted_draws import WeightedDraws
from cai.inference.bayesian.posterior_draws import RewardPosterior
from cai.inference.fitting import checkpoint_file
from cai.inference.fitting.loop import train
from cai.inference.inverse.reward_fit import Likelihood
from cai.inference.populations.demonstrators import Demonstrator, by_groups, demonstrator
from cai.inference.populations.empirical_bayes import empirical_bayes
from cai.inference.populations.group_posterior import GroupPosterior
from cai.inference.scoring.task import Task
from cai.inference.searches.search_file import SearchFile, of_prior
from cai.numerics.exclusive import seeded
from cai.program.trajectory import TrajectoryModel
from cai.rewards.weight_priors import Coordinates, of_weights
from cai.roads.network import Streets
from cai.tables import bellman
from cai.tables.table import Table

Method: TypeAlias = Literal["importance", "nuts", "svi"]
_BETWEEN_FILES = {"importance": 100, "nuts": 20, "svi": 100}  # draws, and steps of a guide
_FEWEST = 4  # draws of a chain, whose halves R̂ compares


@overload
def reward_posterior(
    model: TrajectoryModel | Table | Streets,
    demonstrations: Demonstrations,
    reward: Any,
    prior: Any = None,
    *,
    groups: Literal[False] = False,
    **options: Any,
) -> RewardPosterior: ...
@overload
def reward_posterior(
    model: TrajectoryModel | Table | Streets,
    demonstrations: Demonstrations,
    reward: Any,
    prior: Any = None,
    *,
    groups: Literal[True] | Sequence[Hashable],
    **options: Any,
) -> GroupPosterior: ...
def reward_posterior(  # type: ignore[misc]  # its options are those of both
    model: TrajectoryModel | Table | Streets,
    demonstrations: Demonstrations,
    reward: Any,
    prior: Any = None,
    *,
    groups: bool | Sequence[Hashable] = False,
    method: Method = "importance",
    samples: int = 400,
    warmup: int = 100,
    chains: int = 2,
    seed: int = 0,
    optimism: float = 0.0,
    likelihood: Likelihood = "actions",
    rule: bellman.Rule = "soft",
    goals: Literal["own"] | None = None,
    on_impossible: str = "error",
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> RewardPosterior | GroupPosterior:
    r"""What is known of the weights ψ of a reward after demonstrations, as weighted draws.

        p(ψ | demonstrations) ∝ p(ψ) exp(log-likelihood of the demonstrations given ψ)

    (Ramachandran and Amir 2007 with ``rule="planned"``.) All methods work in coordinates in which
    the posterior is nearly standard normal: the mode, and minus the Hessian there (Laplace).

    ============  ================================================================================
    ``method``    draws
    ============  ================================================================================
    "importance"  of Student's distribution around the mode, with importance weights. k̂ tells
                  whether it is near enough (Vehtari et al. 2024); if it is not, the table says so,
                  and "nuts" is the method to take
    "nuts"        of Pyro's NUTS in Laplace's coordinates: one gradient for each leapfrog step
    "svi"         the same around a normal guide with the highest ELBO, by Pyro's SVI
    ============  ================================================================================

    Where a prior is on a part of the numbers, such as ``HalfNormal``, unbounded coordinates are
    those of Pyro's ``biject_to``. To see the program itself, or to sample it otherwise, take
    :func:`reward_program`.

    With ``groups`` demonstrators differ: ψ_d ~ N(μ, Σ), and μ and Σ are estimated by empirical
    Bayes: EM on the marginal likelihood, with Laplace's approximation at the mode of each
    demonstrator. Those with few demonstrations are drawn to the mean, and those with none get
    N(μ, Σ). See :class:`GroupPosterior`.

    Args:
        model: a model with finitely many states and actions, or its table, whose rewards are
            replaced, but for the final one; or a road network.
        demonstrations: of such states and actions; trips, for a road network.
        reward: a :class:`cai.LinearReward`; for a road network the names of its features, or the
            reward of a fit on it.
        prior: a distribution of Pyro or torch for k weights, for each alike, or for one whose
            copies they get; with groups that of μ. None for a flat one, and an improper one,
            are refused where the data do not determine all weights.
        groups: whether demonstrators differ, by ``demonstrations.groups``; or the labels of all
            demonstrators, if some have no demonstrations.
        method: see above; with groups "importance" only.
        samples: draws, of all chains together; at least 25, or 4 for each chain.
        warmup: draws of each chain before these.
        chains: of NUTS, one after the other.
        seed: of all draws; torch's generator is not changed.
        optimism: η of the demonstrators, a finite number.
        likelihood: "actions" or "paths", see :func:`fit_reward`.
        rule: how demonstrators choose actions, "soft", "boltzmann" or "planned".
        goals: "own" if the problem of each demonstration ends where it first enters its goal.
        on_impossible: "error", or "drop" to leave out impossible demonstrations.
        checkpoint: path of a file that keeps the draws, or μ, Σ and all modes; if it is there
            already, they go on, bit for bit on one machine.
        progress: whether to show a bar on a terminal.

    Returns:
        A :class:`RewardPosterior`, with groups a :class:`GroupPosterior`; after Ctrl-C that of the
        draws, or of the EM, so far.

    Raises:
        ValueError: if an argument is not one of those, demonstrations do not fit the model, or
            neither they nor the prior determine the weights (the message names what is open).

    >>> import torch, cai
    >>> from cai import inference, models
    >>> model = models.ledge()
    >>> reward = cai.LinearReward({"state": lambda s, a: s, "action": lambda s, a: a})
    >>> expert = reward.weighted([1.0, -0.5]).given_to(model)
    >>> paths = model.simulate(inference.soft_values(expert).policy, 100, seed=0)
    >>> seen, prior = cai.Demonstrations.from_trajectories(paths), torch.distributions.Normal(0, 3)
    >>> posterior = inference.reward_posterior(model, seen, reward, prior)
    >>> low, high = posterior.intervals(0.99)["state"]
    >>> low < 1 < high
    True
    """
    how = demonstrator(demonstrations, optimism, likelihood, rule, goals, on_impossible)
    asked = _checked(method, samples, warmup, chains, seed, checkpoint, progress)
    if groups is not False and method != "importance":
        advice = "leave it out, or run Pyro's NUTS on inference.reward_program(…, groups=…)"
        checks.refuse("method", '"importance" with groups', repr(method), advice)
    with seeded(seed), pyro.get_param_store().scope():
        if groups is not False:
            of = by_groups(how, model, demonstrations, reward, groups)
            found = None if prior is None else of_weights(prior, len(of.whole.names))
            file = asked.file(of.whole, how, prior, "groups")
            return empirical_bayes(of, how, found, file, progress)
        task = how.task(model, demonstrations, reward)
        near = laplace(task, Coordinates(of_weights(prior, len(task.names))))
        return _result(asked, how, near, asked.file(task, how, prior, method))


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """How the posterior is to be drawn, checked."""

    method: Method
    samples: int
    warmup: int
    chains: int
    seed: int
    path: Path | None
    progress: bool

    def file(self, task: Task, how: Demonstrator, prior: Any, method: str) -> SearchFile | None:
        """The checkpoint."""
        if self.path is None:
            return None
        own: dict[str, Any] = {"eta": how.optimism, "rule": how.rule, "likelihood": how.likelihood}
        own |= {"method": method, "prior": of_prior(prior, len(task.names))}
        if method != "groups":
            own |= {"samples": self.samples, "seed": self.seed}
        if method == "nuts":
            own |= {"warmup": self.warmup, "chains": self.chains}
        return SearchFile(self.path, own | task.identity, "reward_posterior")


def _checked(
    method: Any,
    samples: Any,
    warmup: Any,
    chains: Any,
    seed: Any,
    checkpoint: Any,
    progress: Any,
) -> _Asked:
    checks.check_one_of("method", method, get_args(Method), 'for instance "importance"')
    checks.check_count("chains", chains)
    least = _FEWEST * chains if method == "nuts" else 25
    checks.check_count("samples", samples, least, "fewer tell nothing of their own quality")
    if method == "nuts" and samples % chains:
        came = f"{samples} for {chains} chains"
        checks.refuse("samples", "as many for each chain", came, "take a multiple")
    checks.check_count("warmup", warmup)
    checks.check_seed(seed)
    checks.check_flag("progress", progress)
    return _Asked(
        method=method,
        samples=samples,
        warmup=warmup,
        chains=chains,
        seed=seed,
        path=None if checkpoint is None else checkpoint_file.check(checkpoint),
        progress=progress,
    )


class _Drawn(NamedTuple):
    """Draws in Laplace's coordinates.

    Attributes:
        z: (n, k).
        log_weights: (n,), nats.
        chains: of NUTS, else 0.
        divergences: of NUTS.
        remarks: what there is to say.
    """

    z: Tensor
    log_weights: Tensor
    chains: int
    divergences: int
    remarks: tuple[str, ...]


def _result(
    asked: _Asked, how: Demonstrator, near: Laplace, file: SearchFile | None
) -> RewardPosterior:
    """Draws, and the mean reward on the model."""
    found = _by_nuts(asked, near, file) if asked.method == "nuts" else _weighted(asked, near, file)
    draws, task = near.weights(found.z), near.task
    paid, fitted = task.fitted(found.log_weights.softmax(0) @ draws)
    return RewardPosterior(
        reward=paid,
        model=fitted,
        method=asked.method,
        optimism=how.optimism,
        rule=how.rule,
        likelihood=how.likelihood,
        draws=draws,
        log_weights=found.log_weights,
        chains=found.chains,
        divergences=found.divergences,
        mode=near.weights(torch.zeros_like(near.mode)),
        demonstrations=len(task.demonstrations),
        actions=int(task.demonstrations.lengths.sum()),
        dropped=task.dropped,
        remarks=(*near.remarks, *found.remarks),
    )


def _by_nuts(asked: _Asked, near: Laplace, file: SearchFile | None) -> _Drawn:
    run = Chains(near, asked.chains, asked.samples // asked.chains, asked.warmup)
    train(run, file, _BETWEEN_FILES["nuts"], asked.progress)
    z = run.z
    if z.shape[1] < _FEWEST:
        raise KeyboardInterrupt
    equal = torch.zeros(z.shape[:2], dtype=torch.float64).flatten()
    return _Drawn(z.flatten(0, 1), equal, len(z), run.divergences, _interrupted(run))


def _weighted(asked: _Asked, near: Laplace, file: SearchFile | None) -> _Drawn:
    if asked.method == "svi":
        guided = GuidedDraws(near, asked.samples)
        train(guided, file, _BETWEEN_FILES["svi"], asked.progress)
        run, remarks = guided.draws, guided.remarks
    else:
        run, remarks = WeightedDraws(near, asked.samples), ()
        train(run, file, _BETWEEN_FILES["importance"], asked.progress)
    if run is None or not run.done:
        raise KeyboardInterrupt
    if run.log_weights.max() == -torch.inf:
        advice = "look for features that are not zero in an absorbing state, or narrow the prior"
        checks.refuse("draws", "some at which the model has values", "none near the mode", advice)
    return _Drawn(run.z, run.log_weights, 0, 0, (*remarks, *_interrupted(run)))


def _interrupted(run: Chains | WeightedDraws) -> tuple[str, ...]:
    words = f"It was interrupted after {run.done} of {run.total} draws."
    return () if run.over() else (words,)
