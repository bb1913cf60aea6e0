"""Fits a reward to demonstrations: weights with errors, a table of numbers, or a network."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, get_args, overload

import torch
from torch import nn

from cai import checks
from cai.demonstrations.demonstrations import Demonstrations
from cai.inference.fitting import checkpoint_file
from cai.inference.inverse._by_gradient import Asked, trained
from cai.inference.inverse._estimates import estimated
from cai.inference.inverse._scores import Likelihood
from cai.inference.inverse.reward_fit import RewardFit
from cai.inference.inverse.tasks import check_demonstrations, check_demonstrator, task_of
from cai.inference.inverse.trained_reward import RewardTraining, TrainedReward
from cai.program.trajectory import TrajectoryModel
from cai.rewards.linear_reward import LinearReward
from cai.rewards.neural_reward import NeuralReward
from cai.rewards.tabular_reward import TabularReward
from cai.roads.network import Streets
from cai.tables import bellman
from cai.tables.table import Table

Method: TypeAlias = Literal["scoring", "exponentiated", "lbfgs", "adam"]
_METHODS: dict[type, tuple[Method, ...]] = {  # the usual one first
    LinearReward: ("scoring", "lbfgs", "exponentiated"),
    TabularReward: ("lbfgs", "adam"),
    NeuralReward: ("adam", "lbfgs"),
}


@overload
def fit_reward(
    model: TrajectoryModel | Table | Streets,
    demonstrations: Demonstrations,
    reward: LinearReward | Sequence[str],
    **options: Any,
) -> RewardFit: ...
@overload
def fit_reward(
    model: TrajectoryModel | Table,
    demonstrations: Demonstrations,
    reward: TabularReward | NeuralReward | nn.Module,
    **options: Any,
) -> TrainedReward: ...
def fit_reward(  # type: ignore[misc]  # its options are those of both
    model: TrajectoryModel | Table | Streets,
    demonstrations: Demonstrations,
    reward: Any,
    *,
    optimism: float = 0.0,
    likelihood: Likelihood = "actions",
    rule: bellman.Rule = "soft",
    start: Any = None,
    prior: Any = None,
    l1: float = 0.0,
    cluster: str | None = None,
    goals: Literal["own"] | None = None,
    on_impossible: str = "error",
    method: Method | None = None,
    training: RewardTraining | None = None,
    steps: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> RewardFit | TrainedReward:
    r"""The reward under which demonstrations are most probable: its weights, or its parameters.

    With the values, the policy π and the dynamics q of ``soft_values`` at optimism η and a reward,
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

    With ``l1`` = λ the objective is less λ Σ_i spread_i |ψ_i|, the spread of feature i being its
    standard deviation over states and actions, so that its unit does not matter. Weights are then
    zero unless the data ask for them: |∂/∂ψ_i| ≤ λ spread_i, with equality where ψ_i ≠ 0. They are
    pulled to zero, so that they have no standard errors.

    A reward with many parameters, a :class:`cai.TabularReward` or a network, has no errors, and is
    trained by the gradient in the rewards of all states and actions, from one solution of the model
    and one sweep back: a table by L-BFGS, a network by Adam, see :class:`RewardTraining`. A copy
    is trained.

    Args:
        model: a model with finitely many states and actions, or its table, whose rewards are
            replaced, but for the final one; or a road network.
        demonstrations: of such states and actions; trips, for a road network.
        reward: a :class:`cai.LinearReward`, for a road network the names of its features, or the
            reward of another fit on it; or a :class:`cai.TabularReward`, a
            :class:`cai.NeuralReward`, or a torch module of (s, a), whose parameters are where the
            search starts.
        optimism: η of the demonstrator, a finite number; for "matching" 0.
        likelihood: what is maximised, see above.
        rule: how the demonstrator chooses actions, "soft", "boltzmann" or "planned" (Boltzmann in
            the optimal Q*, whose likelihood has kinks: Ramachandran and Amir 2007, Neu and
            Szepesvári 2007).
        start: k weights to start from, instead of those above; for a linear reward.
        prior: a distribution of weights, or of all parameters in one row, of Pyro or torch, whose
            log-density is added; None for none.
        l1: λ of the penalty, nats per weight of a feature with unit spread; for a linear reward.
        cluster: "group" for errors by the groups of the demonstrations.
        goals: "own" if the problem of each demonstration ends where it first enters its goal, which
            is its ``goals``, else its last state; for a linear reward. On a road network they do.
        on_impossible: "error" if a demonstration has a step of probability zero, or "drop" to leave
            such demonstrations out.
        method: for weights "scoring"; "lbfgs" where they are hundreds, since it takes the
            sensitivities to each of them, which the errors need, only where it ends; or
            "exponentiated", as in Ziebart et al. (2008): slow, and for comparison only. For other
            rewards "lbfgs" or "adam". None for the usual one.
        training: the settings of "adam".
        steps: of the search, at most; None for as many as the method usually takes.
        checkpoint: path of a file that keeps the search. If it is there already, a linear reward is
            searched for from the best weights in it; training goes on exactly, bit for bit on one
            machine. A file of other demonstrations, dynamics or arguments is refused.
        progress: whether to show a bar on a terminal while training.

    Returns:
        A :class:`RewardFit`, or for many parameters a :class:`TrainedReward`; after Ctrl-C that of
        the best there was.

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
    common = (optimism, likelihood, rule, prior, on_impossible, steps, checkpoint, progress)
    asked = _checked(*common)
    check_demonstrations(demonstrations)
    if isinstance(reward, nn.Module):
        reward = NeuralReward(reward)
    by = _method(method, reward, training, l1)
    if isinstance(reward, TabularReward | NeuralReward):
        _check_linear_only(start=start, l1=l1 or None, cluster=cluster, goals=goals)
        if isinstance(model, Streets):
            expected, came = "the names of features on a road network", type(reward).__name__
            checks.refuse("reward", expected, came, 'for instance ["minutes", "left"]')
        return trained(model, demonstrations, reward, asked, by, training or RewardTraining())
    if cluster is not None:
        checks.check_one_of("cluster", cluster, ("group",), 'take "group" or None')
        if demonstrations.groups is None:
            checks.refuse("cluster", "demonstrations with groups", "none", "give them groups=")
        if len(set(demonstrations.groups)) < 2:
            advice = "errors by groups need many of them; leave it out"
            checks.refuse("cluster", "several groups", "one", advice)
    task = task_of(model, demonstrations, reward, asked.eta, rule, likelihood, on_impossible, goals)
    return estimated(task, asked, by, start, l1, cluster)


def _checked(
    optimism: Any,
    likelihood: Any,
    rule: Any,
    prior: Any,
    on_impossible: Any,
    steps: Any,
    checkpoint: Any,
    progress: Any,
) -> Asked:
    eta = check_demonstrator(optimism, likelihood, rule, on_impossible)
    if prior is not None and (isinstance(prior, type) or not hasattr(prior, "log_prob")):
        advice = "for instance torch.distributions.Normal(0.0, 3.0)"
        checks.refuse("prior", "a distribution of weights", repr(prior), advice)
    if steps is not None:
        checks.check_count("steps", steps)
    checks.check_flag("progress", progress)
    return Asked(
        eta=eta,
        rule=rule,
        likelihood=likelihood,
        prior=prior,
        on_impossible=on_impossible,
        steps=steps,
        file=None if checkpoint is None else checkpoint_file.check(checkpoint),
        progress=progress,
    )


def _method(method: Any, reward: Any, training: Any, l1: Any) -> Method:
    kind = next((k for k in _METHODS if isinstance(reward, k)), LinearReward)
    allowed = _METHODS[kind]
    if method is not None:
        checks.check_one_of("method", method, get_args(Method), 'for instance "scoring"')
        if method not in allowed:
            expected = " or ".join(f'"{x}"' for x in allowed) + f" for a {kind.__name__}"
            checks.refuse("method", expected, repr(method), "leave it out")
    found: Method = method or allowed[0]
    if training is not None:
        advice = "for instance inference.RewardTraining(held_out=0.1)"
        checks.check_kind("training", training, RewardTraining, "a RewardTraining", advice)
        if found != "adam":
            expected, came = 'None, but for method="adam"', f'settings of Adam for "{found}"'
            checks.refuse("training", expected, came, "leave it out")
    checks.check_real("l1", l1, lambda x: 0 <= x < torch.inf, "at least 0", "such as 1.0")
    if l1 and kind is LinearReward and found != "scoring":
        checks.refuse("l1", f'0 for method="{found}"', f"{l1:g}", 'take "scoring"')
    return found


def _check_linear_only(**given: Any) -> None:
    for name, x in given.items():
        if x is not None:
            came = f"{name}={x!r} for a reward with many parameters"
            advice = "parameters start where they are" if name == "start" else "leave it out"
            checks.refuse(name, "a linear reward with it", came, advice)
