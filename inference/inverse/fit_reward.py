"""Fits the weights of a reward to demonstrations, with errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import torch
from torch import Tensor

from cai import checks
from cai.demonstrations.demonstrations import Demonstrations
from cai.inference.inverse._estimates import covariance, information, named, undetermined
from cai.inference.inverse._fisher_scoring import INTERRUPTED, Maximum, maximise
from cai.inference.inverse._scores import Likelihood
from cai.inference.inverse._tasks import Task, of_model, of_trips
from cai.inference.inverse.reward_fit import RewardFit
from cai.program.trajectory import TrajectoryModel
from cai.rewards.linear_reward import LinearReward
from cai.roads.network import Streets
from cai.tables import bellman
from cai.tables.table import Table


def fit_reward(
    model: TrajectoryModel | Table | Streets,
    demonstrations: Demonstrations,
    reward: LinearReward | Sequence[str],
    *,
    optimism: float = 0.0,
    likelihood: Likelihood = "actions",
    rule: bellman.Rule = "soft",
    start: Any = None,
    prior: Any = None,
    cluster: str | None = None,
    on_impossible: str = "error",
    steps: int = 100,
) -> RewardFit:
    r"""The weights ψ of a linear reward under which demonstrations are most probable.

    With the values, the policy π and the dynamics q of ``soft_values`` at optimism η and weights ψ,
    it maximises the sum over demonstrations of

    ==============  ==============================================================================
    ``likelihood``  objective, nats
    ==============  ==============================================================================
    "actions"       Σ_t log π(a_t|s_t): at η = 0 the likelihood of maximum causal entropy
    "paths"         Σ_t log π(a_t|s_t) + log q(s_{t+1}|s_t,a_t): at η = 1 maximum-entropy inverse
                    reinforcement learning (Ziebart et al. 2008, eq. 4)
    "matching"      (R(τ) + V_L(s_L) - V_0(s_0))/α at η = 0: matched features, the dual of
                    maximum causal entropy (Ziebart 2010)
    ==============  ==============================================================================

    On deterministic dynamics without a discount the three are one. On others they are not: "paths"
    at η = 1 takes luck for choice, and "matching" has larger errors than "actions".

    "matching", and "paths" at η = 1, are concave. The others may have several maxima: the search
    begins from zeros and from the maximum of "matching", and the better end counts; give ``start``
    for others. By Fisher scoring, with the features that are expected from each step on (see
    :mod:`cai.inference.inverse._scores`). Standard errors come from the information; for
    "matching", whose Hessian is no covariance, always from the sandwich H⁻¹ (Σ s s') H⁻¹ of the
    scores s of demonstrations; with ``cluster`` from the sandwich of the scores of groups.

    On a road network each trip has a goal of its own, its last segment, and the probability of a
    route is exp(Σ utility) over the sum of all routes that end when they first enter the goal
    (Ziebart et al. 2008; the recursive logit of Fosgerau, Frejinger and Karlstrom 2013): turns have
    no prior, the temperature is one, and all objectives and optimisms are the same.

    Combinations of weights about which the data say nothing are named and get no error; they keep
    their values at the start.

    Args:
        model: a model with finitely many states and actions, or its table, whose rewards are
            replaced, but for the final one; or a road network.
        demonstrations: of such states and actions; trips, for a road network.
        reward: the features, and what is paid without a weight; for a road network the names of
            its features.
        optimism: η of the demonstrator, a finite number; for "matching" 0.
        likelihood: what is maximised, see above.
        rule: how the demonstrator chooses actions, "soft", "boltzmann" or "planned" (Boltzmann in
            the optimal Q*, whose likelihood has kinks: Ramachandran and Amir 2007, Neu and
            Szepesvári 2007).
        start: k weights to start from, instead of those above.
        prior: a distribution of weights, of Pyro or torch, whose log-density is added; None for
            none.
        cluster: "group" for errors by the groups of the demonstrations.
        on_impossible: "error" if a demonstration has a step of probability zero, or "drop" to leave
            such demonstrations out.
        steps: of the search, at most.

    Returns:
        A :class:`RewardFit`; after Ctrl-C that of the best weights so far.

    Raises:
        ValueError: if an argument is not one of those, demonstrations do not fit the model, a
            feature is not finite, or there are no values at the start (an infinite horizon).

    >>> import cai
    >>> from cai import inference, models
    >>> model = models.ledge()
    >>> reward = cai.LinearReward({"state": lambda s, a: s, "action": lambda s, a: a})
    >>> expert = reward.weighted([1.0, -0.5]).given_to(model)
    >>> paths = model.simulate(inference.soft_values(expert).policy, 500, seed=0)
    >>> fitted = inference.fit_reward(model, cai.Demonstrations.from_trajectories(paths), reward)
    >>> low, high = fitted.intervals(0.999)["state"]
    >>> low < 1 < high
    True
    """
    eta = _checked(optimism, likelihood, rule, on_impossible, cluster, steps)
    _check_prior(prior)
    kind, advice = "Demonstrations", "cai.Demonstrations.from_trajectories(…) makes some"
    checks.check_kind("demonstrations", demonstrations, Demonstrations, kind, advice)
    if cluster is not None and demonstrations.groups is None:
        checks.refuse("cluster", "demonstrations with groups", "none", "give them groups=")
    if isinstance(model, Streets):
        task = of_trips(model, demonstrations, reward, rule)
    else:
        task = of_model(model, demonstrations, reward, eta, rule, likelihood, on_impossible)
    k, n = len(task.names), len(task.demonstrations)
    tried: list[Maximum] = []
    for first in task.starts(None if start is None else _start(start, k)):
        tried.append(maximise(task.score, first, task.scale, prior, steps))
        if tried[-1].reason == INTERRUPTED:
            break
    found = max(tried, key=lambda x: x.value)
    paid, fitted_model = task.fitted(found.weights)
    observed, expected = task.features(found)
    unidentified, separated = undetermined(found, task.scale)
    groups = None if cluster is None else task.demonstrations.group_index
    return RewardFit(
        reward=paid,
        model=fitted_model,
        optimism=eta,
        rule=rule,
        likelihood=likelihood,
        covariance=covariance(found, task.scale, groups, likelihood == "matching"),
        errors=_errors(likelihood, cluster),
        log_likelihood=task.log_likelihood(found.weights),
        log_likelihood_without=_without(task, k),
        scores=found.scored.scores,
        information=information(found),
        observed=observed / n,
        expected=expected / n,
        unidentified=named(unidentified, task.names),
        separated=named(separated, task.names),
        demonstrations=n,
        actions=int(task.demonstrations.lengths.sum()),
        dropped=task.dropped,
        steps=found.steps,
        evaluations=sum(x.evaluations for x in tried),
        converged=found.converged,
        reason=found.reason,
    )


def _checked(
    optimism: Any, likelihood: Any, rule: Any, on_impossible: Any, cluster: Any, steps: Any
) -> float:
    eta = checks.check_optimism(optimism)
    checks.check_one_of("likelihood", likelihood, get_args(Likelihood), 'for instance "actions"')
    if not abs(eta) < torch.inf:
        advice = "weights have no likelihood that is smooth at ±inf"
        checks.refuse("optimism", "a finite number", str(eta), advice)
    if likelihood == "matching" and eta != 0:
        advice = 'for optimism 1 take "paths", which matches features, too'
        checks.refuse("optimism", '0 for likelihood="matching"', f"{eta:g}", advice)
    checks.check_one_of("rule", rule, ("soft", "boltzmann", "planned"), 'for instance "soft"')
    if rule != "soft" and likelihood != "actions":
        advice = 'take likelihood="actions"'
        checks.refuse("rule", f'"soft" for likelihood={likelihood!r}', repr(rule), advice)
    checks.check_one_of("on_impossible", on_impossible, ("error", "drop"), 'try "drop"')
    if cluster is not None:
        checks.check_one_of("cluster", cluster, ("group",), 'take "group" or None')
    checks.check_count("steps", steps)
    return eta


def _check_prior(prior: Any) -> None:
    if prior is not None and not hasattr(prior, "log_prob"):
        advice = "for instance torch.distributions.Normal(0.0, 3.0)"
        checks.refuse("prior", "a distribution of weights", repr(prior), advice)


def _start(start: Any, k: int) -> Tensor:
    found = torch.as_tensor(start, dtype=torch.float64)
    if found.shape != (k,) or not found.isfinite().all():
        checks.refuse("start", f"{k} finite weights", str(found.tolist()), "one for each feature")
    return found


def _errors(likelihood: Likelihood, cluster: str | None) -> str:
    if cluster is not None:
        return "clustered by group"
    return "sandwich" if likelihood == "matching" else "information"


def _without(task: Task, k: int) -> float | None:
    try:
        return task.log_likelihood(torch.zeros(k, dtype=torch.float64))
    except ValueError:  # no values there
        return None
