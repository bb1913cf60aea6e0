"""Fits the weights of a reward to demonstrations, with errors."""

from __future__ import annotations

from typing import Any, get_args

import torch
from torch import Tensor

from cai import checks
from cai.demonstrations.demonstrations import Demonstrations
from cai.evaluation.problem import as_problem
from cai.inference.inverse._fisher_scoring import Maximum, directions, largest, maximise
from cai.inference.inverse._observed import Observed, observed
from cai.inference.inverse._scores import Likelihood, Likelihoods, ScoredDemonstrations
from cai.inference.inverse.reward_fit import RewardFit
from cai.program.trajectory import TrajectoryModel
from cai.rewards.linear_reward import FeatureArrays, LinearReward
from cai.tables import bellman
from cai.tables.table import Table
from cai.tables.tabulation import enumerated

_SEEN = 1e-6  # the share of a direction in one weight from which on it counts


def fit_reward(
    model: TrajectoryModel | Table,
    demonstrations: Demonstrations,
    reward: LinearReward,
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

    By Fisher scoring, with the features that are expected from each step on (see
    :mod:`cai.inference.inverse._scores`). Standard errors come from the information; for
    "matching", whose Hessian is no covariance, always from the sandwich H⁻¹ (Σ s s') H⁻¹ of the
    scores s of demonstrations; with ``cluster`` from the sandwich of the scores of groups.

    Combinations of weights about which the data say nothing are named and get no error; they keep
    their values at the start.

    Args:
        model: a model with finitely many states and actions, or its table. Its rewards are
            replaced, but for the final one.
        demonstrations: of such states and actions.
        reward: the features, and what is paid without a weight.
        optimism: η of the demonstrator, a finite number; for "matching" 0.
        likelihood: what is maximised, see above.
        rule: how the demonstrator chooses actions, "soft" or "boltzmann".
        start: k weights to start from; zeros if not given.
        prior: a distribution of weights, of Pyro or torch, whose log-density is added; None for
            none.
        cluster: "group" for errors by the groups of the demonstrations.
        on_impossible: "error" if a demonstration has a step of probability zero, or "drop" to leave
            such demonstrations out.
        steps: of the search, at most.

    Returns:
        A :class:`RewardFit`.

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
    checks.check_kind("reward", reward, LinearReward, "a LinearReward", "cai.LinearReward({…})")
    kind, advice = "Demonstrations", "cai.Demonstrations.from_trajectories(…) makes some"
    checks.check_kind("demonstrations", demonstrations, Demonstrations, kind, advice)
    problem = as_problem(model)
    if cluster is not None and demonstrations.groups is None:
        checks.refuse("cluster", "demonstrations with groups", "none", "give them groups=")
    table = enumerated(model)
    features = reward.on(table)
    seen, dropped = observed(table, demonstrations, on_impossible)
    score = Likelihoods(table, features, seen, eta, rule, likelihood)
    scale = _scale(table, features)
    first = torch.zeros_like(scale) if start is None else _start(start, len(scale))
    found = maximise(score, first, scale, prior, steps)
    weighted = reward.weighted(found.weights)
    scored, of = found.scored, score
    if likelihood == "matching":  # which is none
        of = Likelihoods(table, features, seen, eta, rule, "actions")
        scored = of(found.weights)
    unidentified, separated = _undetermined(found, scale)
    return RewardFit(
        reward=weighted,
        model=(
            features.rewards(table, found.weights)
            if problem.program is None
            else weighted.given_to(problem.program)
        ),
        optimism=eta,
        rule=rule,
        likelihood=likelihood,
        covariance=_covariance(found, scale, seen, likelihood, cluster),
        errors=_errors(likelihood, cluster),
        log_likelihood=float(scored.values.sum()),
        log_likelihood_without=_without(of, torch.zeros_like(scale)),
        scores=found.scored.scores,
        information=_information(found),
        observed=score.observed_features() / len(seen.demonstrations),
        expected=score.expected_features(found.weights) / len(seen.demonstrations),
        unidentified=_named(unidentified, features.names),
        separated=_named(separated, features.names),
        demonstrations=len(seen.demonstrations),
        actions=len(seen.s),
        dropped=dropped,
        steps=found.steps,
        evaluations=found.evaluations,
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
    checks.check_one_of("rule", rule, ("soft", "boltzmann"), 'for instance "soft"')
    if rule != "soft" and likelihood != "actions":
        advice = 'take likelihood="actions"'
        checks.refuse("rule", f'"soft" for likelihood={likelihood!r}', repr(rule), advice)
    checks.check_one_of("on_impossible", on_impossible, ("error", "drop"), 'try "drop"')
    if cluster is not None:
        checks.check_one_of("cluster", cluster, ("group",), 'take "group" or None')
    checks.check_count("steps", steps)
    return eta


def _start(start: Any, k: int) -> Tensor:
    found = torch.as_tensor(start, dtype=torch.float64)
    if found.shape != (k,) or not found.isfinite().all():
        checks.refuse("start", f"{k} finite weights", str(found.tolist()), "one for each feature")
    return found


def _scale(table: Table, features: FeatureArrays) -> Tensor:
    """(k,), the spread of each feature over actions that are allowed; of constants their size."""
    allowed = table.log_prior > -torch.inf
    allowed = allowed if allowed.dim() == 2 else allowed.any(0)
    each = features.reward[:, allowed]
    if features.arrival is not None:
        each = torch.cat([each.unsqueeze(-1), features.arrival[:, allowed]], -1).flatten(1)
    spread, size = each.std(1, correction=0), each.abs().amax(1)
    found = torch.where(spread > 1e-12 * size, spread, size)
    return torch.where(found > 0, found, 1.0)


def _undetermined(found: Maximum, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Changes of the weights that are not identified, and those that have no maximum, (k, j)."""
    *_, never = directions(found.first, scale, 0.0)
    *_, now = directions(_information(found), scale, largest(found.first, scale))
    if now.shape[1] <= never.shape[1]:
        return never, now[:, :0]
    both, before = (x * scale.unsqueeze(1) for x in (now, never))  # orthonormal
    vectors, sizes, _ = torch.linalg.svd(both - before @ (before.T @ both), full_matrices=False)
    return never, vectors[:, sizes > 0.5] / scale.unsqueeze(1)


def _information(found: Maximum) -> Tensor:
    return found.scored.information + found.prior


def _named(changes: Tensor, names: tuple[str, ...]) -> tuple[dict[str, float], ...]:
    """Changes of the weights in reduced form, their largest entry one, small ones left out."""
    if not changes.shape[1]:
        return ()
    rows = _reduced(changes.T)
    return tuple(
        {name: x for name, x in zip(names, row, strict=True) if abs(x) > _SEEN}
        for row in rows.tolist()
    )


def _reduced(rows: Tensor) -> Tensor:
    """A basis of the same rows, in which each has a name of its own (Gauss and Jordan)."""
    rows = rows.clone()
    for i in range(len(rows)):
        row, column = divmod(int(rows[i:].abs().argmax()), rows.shape[1])
        rows[[i, i + row]] = rows[[i + row, i]]
        rows[i] = rows[i] / rows[i, column]
        others = torch.arange(len(rows)) != i
        rows[others] -= rows[others, column : column + 1] * rows[i]
    return rows


def _covariance(
    found: Maximum, scale: Tensor, seen: Observed, likelihood: Likelihood, cluster: str | None
) -> Tensor:
    """(k, k); NaN for weights that the data do not determine."""
    most = largest(found.first, scale)
    values, vectors, none = directions(_information(found), scale, most)
    inverse = (vectors / values) @ vectors.T
    if cluster is not None or likelihood == "matching":
        scores = found.scored.scores
        if cluster is not None:
            of = seen.demonstrations.group_index
            scores = scores.new_zeros(int(of.max()) + 1, scores.shape[1]).index_add(0, of, scores)
        inverse = inverse @ (scores.T @ scores) @ inverse
    open_ended = (none * scale.unsqueeze(1)).abs().gt(_SEEN).any(1)
    unknown = open_ended | open_ended.unsqueeze(1)
    return torch.where(unknown, torch.nan, inverse)


def _errors(likelihood: Likelihood, cluster: str | None) -> str:
    if cluster is not None:
        return "clustered by group"
    return "sandwich" if likelihood == "matching" else "information"


def _without(score: Likelihoods, zeros: Tensor) -> float | None:
    try:
        found: ScoredDemonstrations = score(zeros)
    except ValueError:
        return None
    return float(found.values.sum())
