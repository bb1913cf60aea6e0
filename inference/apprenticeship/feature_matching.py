"""Apprenticeship by matched features: a mixture of policies that earns what was demonstrated."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from cai import checks
from cai.demonstrations.demonstrations import Demonstrations
from cai.inference.apprenticeship._mixture import Mixture
from cai.inference.apprenticeship.examples import Examples
from cai.inference.apprenticeship.learned_reward import LearnedReward
from cai.inference.fitting import checkpoint_file
from cai.inference.fitting.loop import train
from cai.inference.searches.search_file import SearchFile
from cai.numerics.exclusive import cached_property
from cai.policies.tabular import TabularPolicy
from cai.program.interfaces import Policy
from cai.program.trajectory import TrajectoryModel
from cai.rewards.linear_reward import LinearReward
from cai.rewards.places import endless
from cai.roads.network import Streets
from cai.tables.table import Table
from cai.tables.tabulation import enumerated

_UNIDENTIFIED = "The weights are the last direction that was tried, not a maximum of a likelihood."


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class FeatureMatching(LearnedReward):
    """A mixture of policies whose expected features are those of the demonstrations.

    It prints as a table of ``weights``, with ``observed`` and ``expected`` features, and exports to
    a dict, JSON and Markdown; ``cai.compare`` takes it, for the policy of the mixture.
    ``history`` holds the distance before each step, the margin of Abbeel and Ng; ``reward`` the
    last direction of length one in which the demonstrations were ahead of all policies so far, and
    ``expected`` the features of the mixture. m policies, k features, S states, A actions.

    Attributes:
        mixture: (m,), the weights of the policies, which sum to one: the action prior, and the
            policies that were best for the direction of a step.
        features: (m, k), what each of them is expected to be paid, summed.
        visits: (T, S, A), or (S, A) with an infinite horizon: how often the mixture is expected to
            take each action.
        distance: of the mixture from the demonstrations, in units of the spread of each feature.
        bound: no mixture of any policies is nearer than this.

    >>> import cai
    >>> from cai import inference, models
    >>> model = models.ledge()
    >>> seen = cai.Demonstrations.from_paths([[0, 1, 2, 3, 3]], [[1, 1, 1, 0]])
    >>> reward = cai.LinearReward({"state": lambda s, a: s, "action": lambda s, a: a})
    >>> found = inference.feature_matching(model, seen, reward, progress=False)
    >>> float(found.mixture.sum().round(decimals=9)), found.bound <= found.distance
    (1.0, True)
    """

    mixture: Tensor
    features: Tensor
    visits: Tensor
    distance: float
    bound: float

    @cached_property
    def policy(self) -> Policy:
        """The Markov policy with the visits of the mixture, and so its features.

        A policy is drawn from the mixture at the start and then kept; π(a|s) ∝ visits(s,a) draws
        its actions one by one, and visits every state and action as often. Where the mixture never
        is, it is the action prior.
        """
        log_prior = enumerated(self._one_model()).log_prior
        seen = self.visits.sum(-1, keepdim=True) > 0
        log_probs = (self.visits / self.visits.sum(-1, keepdim=True)).log()
        return TabularPolicy.from_log_probs(torch.where(seen, log_probs, log_prior))

    def to_dict(self) -> dict[str, Any]:
        """Weights, moments, mixture and the state of the search, as plain values."""
        own = {"distance": self.distance, "bound": self.bound, "mixture": self.mixture.tolist()}
        return super().to_dict() | own

    def _notes(self) -> list[str]:
        used = int((self.mixture > 0).sum())
        said = (
            f"distance {self.distance:.4g} in spreads of features, by {used} policies; "
            f"no mixture is nearer than {max(self.bound, 0.0):.4g}."
        )
        return [said, *super()._notes()]


def feature_matching(
    model: TrajectoryModel | Table,
    demonstrations: Demonstrations,
    reward: LinearReward,
    *,
    method: Literal["projection", "margin"] = "projection",
    tolerance: float = 0.01,
    on_impossible: str = "error",
    steps: int = 1000,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> FeatureMatching:
    r"""A mixture of policies that is paid as much of each feature as the demonstrations were.

    Apprenticeship learning (Abbeel and Ng 2004). With μ_E the observed features, summed over a
    demonstration, and μ̄ those that the mixture expects, each step plans for the reward
    w·f with w = μ_E - μ̄, by the hard Bellman recursion, and takes the policy that it finds, μ,
    into the mixture. Features count in units of their spread over states and actions.

    =============  =================================================================================
    ``method``     the next mixture
    =============  =================================================================================
    "projection"   the nearest point of the line from μ̄ to μ, at μ at the furthest
    "margin"       the nearest mixture of all policies so far, which is the dual of Abbeel and Ng's
                   margin max t with w·μ_E ≥ w·μ_j + t, |w| ≤ 1; needs fewer steps
    =============  =================================================================================

    It converges to the point of the convex hull of all policies' features that is nearest to μ_E:
    after n steps of the projection the squared distance is above that of the nearest point by at
    most 4 D²/(n + 2), D the diameter of the hull; and w·(μ_E - μ)/|w| of each step is a distance
    that no mixture is below. For any reward of unit length in these features, the mixture is worth
    what the demonstrations were, up to the distance.

    That is no maximum likelihood, and there is no reward to be had of it: where features are
    matched any reward explains them, also zero; the weights are the last direction that was tried.
    Who wants a reward under which demonstrations are probable takes :func:`fit_reward`, whose
    ``likelihood="matching"`` matches the same features by the policy of the largest entropy.

    Args:
        model: a model with finitely many states and actions, or its table; with a finite horizon or
            a discount, and no final reward.
        demonstrations: of such states and actions.
        reward: a :class:`cai.LinearReward` without an offset, since a known reward plays no part.
        method: see above.
        tolerance: a distance, in spreads of features: it ends when features are matched so well, or
            no mixture can be nearer by more than this.
        on_impossible: "error" if a demonstration has a step of probability zero, or "drop" to leave
            such demonstrations out.
        steps: at most.
        checkpoint: path of a file that is written after each step, and resumed from if it exists.
        progress: whether to show a bar on a terminal.

    Returns:
        A :class:`FeatureMatching`; after Ctrl-C the mixture so far.

    Raises:
        ValueError: if an argument is not one of those, or demonstrations do not fit the model or
            were cut off before their end.

    >>> import cai
    >>> from cai import inference, models
    >>> model = models.ledge()
    >>> reward = cai.LinearReward({"state": lambda s, a: s, "action": lambda s, a: a})
    >>> paths = model.simulate(inference.soft_values(model).policy, 200, seed=0)
    >>> seen = cai.Demonstrations.from_trajectories(paths)
    >>> found = inference.feature_matching(model, seen, reward, method="margin", progress=False)
    >>> found.distance < 0.01
    True
    """
    checks.check_one_of("method", method, ("projection", "margin"), 'take "projection"')
    checks.check_positive("tolerance", tolerance)
    checks.check_count("steps", steps)
    checks.check_flag("progress", progress)
    if isinstance(model, Streets):
        advice = "inference.max_margin takes one"
        checks.refuse("model", "a model or a table", "a road network", advice)
    of = Examples(model, demonstrations, reward, on_impossible)
    _check_known(of)
    search = Mixture(of, method == "margin", float(tolerance), steps)
    file = None
    if checkpoint is not None:
        settings = {"method": method, "tolerance": float(tolerance), **of.identity}
        file = SearchFile(checkpoint_file.check(checkpoint), settings, "feature_matching")
    train(search, file, 1, progress)
    visits = search.visits
    paid, paying = of.paying(search.direction / search.direction.norm() / of.scale)
    return FeatureMatching(
        reward=paid,
        model=paying,
        method="matched features" + (", projection" if method == "projection" else ", margin"),
        converges_to="the point nearest to the observed features in the hull of all policies'",
        observed=of.taken.mean(0),
        expected=search.mean * of.scale,
        history=visits.new_tensor(search.history),
        history_name="distance",
        demonstrations=len(of),
        actions=int(of.demonstrations.lengths.sum()),
        steps=search.done,
        converged=search.converged,
        reason=search.why,
        remarks=(*of.remarks, _UNIDENTIFIED),
        mixture=search.mixture,
        features=search.corners * of.scale,
        visits=visits[0] if of.table.horizon is None else visits,
        distance=float((search.sought - search.mean).norm()),
        bound=search.bound,
    )


def _check_known(of: Examples) -> None:
    """Raises ValueError if there is a reward without a weight, or features may grow for ever."""
    if endless(of.table):
        expected = "a finite horizon or a discount, so that features are finite"
        advice = "dataclasses.replace(model, discount=0.99) for instance"
        checks.refuse("model", expected, "neither of the two", advice)
    if of.offset.any():
        came, advice = "one with an offset", "make it a feature, or leave it out"
        checks.refuse("reward", "no known part, as features alone are matched", came, advice)
    if of.table.final_reward.any():
        came, advice = "one that is not zero", "dataclasses.replace(model, final_reward=None)"
        checks.refuse("final_reward", "none, as features alone are matched", came, advice)
