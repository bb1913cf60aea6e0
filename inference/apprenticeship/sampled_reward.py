"""Guided cost learning: rewards from rollouts in place of a partition function."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cai import checks
from cai.demonstrations.demonstrations import Demonstrations
from cai.evaluation.problem import as_problem
from cai.evaluation.spelling import number
from cai.inference.apprenticeship._sampled_rounds import ByMatching, Setting
from cai.inference.apprenticeship._weighted_rollouts import totals_seen
from cai.inference.apprenticeship._weighted_rounds import ByWeights, tabulated, tabulated_one
from cai.inference.apprenticeship.learned_reward import LearnedReward
from cai.inference.exact.soft_values import soft_values
from cai.inference.fitting import checkpoint_file
from cai.inference.fitting.loop import train
from cai.inference.inverse.observed import observed
from cai.inference.searches.search_file import (
    SearchFile,
    digest,
    of_demonstrations,
    of_dynamics,
)
from cai.numerics.exclusive import seeded
from cai.program.interfaces import Policy
from cai.program.trajectory import TrajectoryModel
from cai.rewards.linear_reward import LinearReward
from cai.roads.network import Streets
from cai.tables.table import Table
from cai.tables.tabulation import enumerated

_ROUNDS = {True: 5, False: 200}


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class SampledReward(LearnedReward):
    """A reward that was learnt from rollouts, see :func:`cai.inference.sampled_reward`.

    Attributes:
        weighted: whether rollouts had importance weights.
        rollouts: how many there were in all.
        sampling_errors: (k,), the standard error of each weight that comes from the rollouts alone,
            not from the demonstrations; NaN for a weight that these leave open.
        effective_fraction: (Σ w)²/(N Σ w²) of the weights at the end, on average over first states;
            1 without weights.
        ceiling: the highest such fraction of any proposals, exp(2 (b_1 - b_2)) with the bounds b_η
            of the learnt reward, see :func:`cai.inference.effective_sample_ceiling`.

    >>> import cai
    >>> from cai import inference, models
    >>> model = models.ledge()
    >>> expert = inference.soft_values(model).policy
    >>> seen = cai.Demonstrations.from_trajectories(model.simulate(expert, 200, seed=0))
    >>> reward = cai.LinearReward({"state": lambda s, a: s})
    >>> found = inference.sampled_reward(model, seen, reward, samples=500, progress=False)
    >>> 0 < found.effective_fraction < 1.1 * found.ceiling < 1.1
    True
    """

    headings = ("", "weight", "sampling error", "observed", "expected")

    weighted: bool
    rollouts: int
    sampling_errors: Tensor
    effective_fraction: float
    ceiling: float

    def to_dict(self) -> dict[str, Any]:
        """Weights, moments, the state of the search, and how good the sample is."""
        errors = [x if math.isfinite(x) else None for x in self.sampling_errors.tolist()]
        return super().to_dict() | {
            "weighted": self.weighted,
            "rollouts": self.rollouts,
            "sampling_errors": dict(zip(self.weights, errors, strict=True)),
            "effective_fraction": self.effective_fraction,
            "ceiling": self.ceiling,
        }

    def _cells(self) -> list[list[str]]:
        cells = super()._cells()
        for row, error in zip(cells, self.sampling_errors.tolist(), strict=True):
            row.insert(2, number(error if math.isfinite(error) else None))
        return cells

    def _notes(self) -> list[str]:
        notes = super()._notes()
        said = f"{self.rollouts} rollouts without weights."
        if self.weighted:
            said = (
                f"{self.rollouts} rollouts, {100 * self.effective_fraction:.1f}% of them effective;"
                f" with any proposals at most {100 * self.ceiling:.1f}%."
            )
        return [said, *notes]


def sampled_reward(
    model: TrajectoryModel | Table,
    demonstrations: Demonstrations,
    reward: LinearReward,
    *,
    weighted: bool = True,
    samples: int = 2_000,
    rounds: int | None = None,
    proposals: Sequence[Policy] | None = None,
    demonstrator: Policy | None = None,
    start: Any = None,
    checkpoint: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> SampledReward:
    r"""A linear reward from rollouts, without a sum over all paths: guided cost learning.

    Maximum-entropy inverse reinforcement learning maximises the mean of

        R(τ)/α - log Z(s_0),    Z(s_0) = Σ_τ p(τ|s_0) exp(R(τ)/α),

    over demonstrations. Guided cost learning (Finn, Levine and Abbeel 2016) estimates Z by the mean
    weight of rollouts of proposals q_j in the true dynamics,

        w(τ) = Π_t p(a_t|s_t) exp(R(τ)/α) / Σ_j c_j Π_t q_j(a_t|s_t),

    with c_j the share of rollouts of q_j (the balance heuristic of several proposals). The
    dynamics cancel. In each round some rollouts of one more proposal are drawn, the soft policy of
    the present weights, and the estimated objective, which is concave in the weights, is maximised
    with all rollouts so far.

    ============  =============================================================================
    ``weighted``  converges to, with the number of rollouts
    ============  =============================================================================
    True          ``fit_reward(…, likelihood="paths", optimism=1)``: maximum entropy (Ziebart
                  2008), which takes luck for choice on stochastic dynamics
    False         ``fit_reward(…, likelihood="matching")``: maximum causal entropy at η = 0
    ============  =============================================================================

    Published accounts write both with one symbol. Without weights the expected features are the
    plain mean over rollouts of the soft policy of the present weights, and the step is
    α Ĉ⁻¹ (observed - expected) with their covariance Ĉ: Ĉ/α² is the curvature and what chance adds
    to it, so that a whole step does not overshoot. Steps are whole ones in the first half of the
    rounds and fall slowly in the second, whose weights are averaged (Polyak and Juditsky 1992).

    No proposal can choose its luck: the effective fraction of rollouts is at most
    exp(2 (b_1 - b_2)), however good the proposals are. Self-normalised weights are biased by about
    the inverse of their effective number; the weights are as precise as ``sampling_errors`` says.

    Args:
        model: a model with finitely many states and actions and a finite horizon, or its table,
            whose rewards are replaced, but for the final one.
        demonstrations: whole ones, which end at the horizon, or are terminated by the discount.
        reward: the features.
        weighted: whether rollouts have importance weights, see above.
        samples: how many rollouts there are in a round, spread over the first states of the
            demonstrations as these are.
        rounds: how many; None for 5 with weights, 200 without.
        proposals: policies (t, s) -> distribution that are used in all rounds, in place of the soft
            policy of the present weights; with weights only.
        demonstrator: the policy that demonstrations come from. If it is known, or was fitted to
            them, they join the rollouts as those of one more proposal; without its density in the
            mixture they must not. With weights only.
        start: k weights to start from; None for zeros.
        checkpoint: path of a file that is written after each round, and resumed from if it exists.
        seed: seed of the rollouts.
        progress: whether to show a bar on a terminal.

    Returns:
        A :class:`SampledReward`; after Ctrl-C that of the rounds so far.

    Raises:
        ValueError: if an argument is not one of those, the horizon is infinite, demonstrations do
            not fit the model or are not whole, or a proposal never does what they do.

    >>> import cai
    >>> from cai import inference, models
    >>> model = models.ledge()
    >>> reward = cai.LinearReward({"state": lambda s, a: s, "action": lambda s, a: a})
    >>> expert = reward.weighted([1.0, -0.5]).given_to(model)
    >>> paths = model.simulate(inference.soft_values(expert).policy, 500, seed=0)
    >>> seen = cai.Demonstrations.from_trajectories(paths)
    >>> found = inference.sampled_reward(model, seen, reward, progress=False)
    >>> exact = inference.fit_reward(model, seen, reward, likelihood="paths", optimism=1.0)
    >>> bool(abs(found.weights["state"] - exact.weights["state"]) < 0.1)
    True
    """
    if isinstance(model, Streets):
        came, advice = "a road network", "fit_reward, max_margin and feature_matching take it"
        checks.refuse("model", "a model with a finite horizon, or its table", came, advice)
    _check(demonstrations, reward, weighted, samples, rounds, seed, progress)
    checks.finite_horizon(model, "sampled_reward")
    table = enumerated(model)
    features = reward.on(table)
    _check_whole(demonstrations)
    seen, _ = observed(table, demonstrations, "error")
    k = len(features.names)
    first = torch.zeros(k, dtype=torch.float64)
    if start is not None:
        begun = reward.weighted(start).weights or {}
        first = torch.tensor(list(begun.values()), dtype=torch.float64)
        if not first.isfinite().all():
            checks.refuse("start", f"{k} finite weights", str(first.tolist()), "None takes zeros")
    setting = Setting(
        table=table,
        features=features,
        seen=seen,
        totals=totals_seen(table, features, seen),
        scale=features.spread(table),
        samples=samples,
        rounds=rounds or _ROUNDS[weighted],
    )
    given = None if proposals is None else tabulated(proposals, table)
    own = None if demonstrator is None else tabulated_one(demonstrator, "demonstrator", table)
    if not weighted and (given is not None or own is not None):
        name = "proposals" if given is not None else "demonstrator"
        expected, came = "none without weights", "some"
        checks.refuse(name, expected, came, "its rollouts must have weights: weighted=True")
    search = ByWeights(setting, first, given, own) if weighted else ByMatching(setting, first)
    file = None
    if checkpoint is not None:
        settings = {
            "weighted": weighted,
            "samples": samples,
            "seed": seed,
            "proposals": digest(*(given or ())),
            "demonstrator": digest(own),
            "demonstrations": of_demonstrations(demonstrations),
            "features": digest(features.names, features.reward, features.arrival, features.offset),
            "dynamics": of_dynamics(table),
            "start": digest(first),
        }
        file = SearchFile(checkpoint_file.check(checkpoint), settings, "sampled_reward")
    with seeded(seed), table.threads():
        train(search, file, 1, progress)
        return _result(model, reward, setting, search)


def _result(
    model: TrajectoryModel | Table,
    reward: LinearReward,
    setting: Setting,
    search: ByWeights | ByMatching,
) -> SampledReward:
    table, features, weights = setting.table, setting.features, search.weights
    paid = reward.weighted(weights)
    found, program = features.rewards(table, weights), as_problem(model).program
    observed = setting.totals.features.mean(0)
    expected = setting.expected(weights)
    bounds = [soft_values(found, eta).V[0, setting.first_states] for eta in (1.0, 2.0)]
    ceiling = (2 * (bounds[0] - bounds[1]) / table.temperature).clamp(max=0.0).exp()
    return SampledReward(
        reward=paid,
        model=found if program is None else paid.given_to(program),
        method=search.method,
        converges_to=search.converges_to,
        observed=observed,
        expected=expected,
        history=torch.tensor(search.history, dtype=torch.float64),
        history_name=search.history_name,
        demonstrations=len(setting.seen.demonstrations),
        actions=int(setting.seen.demonstrations.lengths.sum()),
        steps=search.done,
        converged=search.converged,
        reason=search.reason,
        remarks=search.remarks(),
        weighted=isinstance(search, ByWeights),
        rollouts=search.rollouts,
        sampling_errors=search.errors(),
        effective_fraction=search.effective_fraction,
        ceiling=float(setting.share @ ceiling),
    )


def _check(
    seen: Any, reward: Any, weighted: Any, samples: Any, rounds: Any, seed: Any, progress: Any
) -> None:
    kind, advice = "Demonstrations", "cai.Demonstrations.from_trajectories(…) makes some"
    checks.check_kind("demonstrations", seen, Demonstrations, kind, advice)
    advice = "for instance cai.LinearReward({…})"
    checks.check_kind("reward", reward, LinearReward, "a LinearReward", advice)
    checks.check_flag("weighted", weighted)
    checks.check_count("samples", samples, 10, "estimates from fewer say nothing")
    if rounds is not None:
        checks.check_count("rounds", rounds)
    checks.check_seed(seed)
    checks.check_flag("progress", progress)


def _check_whole(seen: Demonstrations) -> None:
    wrong = [x for x in seen.ends if x not in ("horizon", "terminated")]
    if wrong:
        expected = 'demonstrations that end "horizon" or "terminated", as rollouts do'
        advice = "inference.fit_reward takes any, since it knows the values where they end"
        checks.refuse("ends", expected, repr(wrong[0]), advice)
