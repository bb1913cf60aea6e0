"""Weights at the maximum, their covariance, and what the data leave open."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cai import checks
from cai.inference.fitting.loop import train
from cai.inference.fitting.resumption import Resumable
from cai.inference.inverse._by_gradient import Asked
from cai.inference.inverse._scores import Likelihood
from cai.inference.inverse.reward_fit import RewardFit
from cai.inference.scoring.falls import irregular_falls
from cai.inference.scoring.fisher_scoring import (
    INTERRUPTED,
    Maximum,
    by_exponentiated_gradient,
    maximise,
)
from cai.inference.scoring.task import Task
from cai.inference.scoring.undetermined import covariance, information, named, undetermined
from cai.inference.searches.lbfgs import LBFGS
from cai.inference.searches.search_file import SearchFile, digest
from cai.inference.searches.sought import Sought

_STEPS = {"scoring": 100, "exponentiated": 3000, "lbfgs": 1000}


def estimated(
    task: Task, asked: Asked, method: str, start: Any, l1: float, cluster: str | None
) -> RewardFit:
    """The weights of a linear reward at the highest maximum that was found, with their errors.

    Args:
        task: what is maximised.
        asked: the arguments that all rewards have in common.
        method: "scoring", "lbfgs" or "exponentiated".
        start: weights to start from, or None.
        l1: the penalty λ.
        cluster: "group", or None.
    """
    k, n = len(task.names), len(task.demonstrations)
    asked.check_prior(k)
    penalty = l1 * task.scale if l1 else None
    found, evaluations = _highest(task, asked, method, start, penalty)
    paid, model = task.fitted(found.weights)
    observed, expected = task.features(found)
    unidentified, separated = undetermined(found, task.scale)
    groups = None if cluster is None else task.demonstrations.group_index
    spread = covariance(found, task.scale, groups, asked.likelihood == "matching")
    falls = {}
    if found.refused and not l1:  # else there are no weights near without values
        plain = covariance(found, task.scale, None, False)
        falls = irregular_falls(task.totals, asked.prior, found.weights, plain, task.names)
    penalties = {} if penalty is None else dict(zip(task.names, penalty.tolist(), strict=True))
    return RewardFit(
        reward=paid,
        model=model,
        optimism=asked.eta,
        rule=asked.rule,
        likelihood=asked.likelihood,
        covariance=torch.full_like(spread, torch.nan) if l1 else spread,
        errors="none" if l1 else _errors(asked.likelihood, cluster),
        log_likelihood=task.log_likelihood(found.weights),
        log_likelihood_without=_without(task, k),
        scores=found.scored.scores,
        information=information(found),
        observed=observed / n,
        expected=expected / n,
        unidentified=named(unidentified, task.names),
        separated=() if l1 else named(separated, task.names),
        falls=falls,
        penalties=penalties,
        demonstrations=n,
        actions=int(task.demonstrations.lengths.sum()),
        goals=task.goals,
        dropped=task.dropped,
        steps=found.steps,
        evaluations=evaluations,
        converged=found.converged,
        reason=found.reason,
    )


def _highest(
    task: Task, asked: Asked, method: str, start: Any, penalty: Tensor | None
) -> tuple[Maximum, int]:
    """The best end of the searches from all starts, and the number of evaluations."""
    k, known = len(task.names), {"method": method, "penalty": digest(penalty)}
    kept = _Kept(asked.search_file(k, **known, **task.identity))
    given = None if start is None else _start(start, k)
    if (state := kept.read()) is None:
        first, starts = None, task.starts(given)
    else:
        first, starts = state["first"], iter([state["weights"]])
    tried: list[Maximum] = []
    try:
        for one in starts:
            if not tried or _possible(task, one, asked.prior):
                tried.append(_searched(task, asked, method, one, penalty, first, kept))
                first = tried[0].first  # a later start may lie where the likelihood is flat
            if tried[-1].reason == INTERRUPTED:
                break
    except KeyboardInterrupt:  # between two searches
        if not tried:
            raise
        task.interrupted = True
    if task.interrupted:
        tried = [replace(x, converged=False, reason=INTERRUPTED) for x in tried]
    return max(tried, key=lambda x: x.value), sum(x.evaluations for x in tried)


def _searched(
    task: Task,
    asked: Asked,
    method: str,
    start: Tensor,
    penalty: Tensor | None,
    first: Tensor | None,
    kept: _Kept,
) -> Maximum:
    """The end of the search from one start."""
    steps = 0 if task.interrupted else asked.steps or _STEPS[method]
    where = (task.score, start, task.scale, asked.prior, steps)
    if method == "exponentiated":
        found = by_exponentiated_gradient(*where, first=first, keep=kept)
    elif method == "lbfgs":
        found = _by_lbfgs(task, *where[1:], asked.progress, first, kept)
    else:
        slope = task.gradient if task.dear else None
        found = maximise(*where, penalty=penalty, first=first, keep=kept, slope=slope)
    kept(found)
    return found


def _by_lbfgs(
    task: Task,
    start: Tensor,
    scale: Tensor,
    prior: Any,
    steps: int,
    progress: bool,
    first: Tensor | None,
    keep: _Kept,
) -> Maximum:
    """The maximum by gradients, from one sweep for all weights; scored only where it ends."""
    begun = maximise(task.score, start, scale, prior, 0, first=first)
    scaled = torch.nn.ParameterList([start * scale])
    sought = Sought(
        module=scaled,
        values=lambda: task.values(scaled[0] / scale),
        log_prior=None if prior is None else lambda x: prior.log_prob(x / scale).sum(),
        inside=torch.ones(len(begun.scored.values), dtype=torch.bool),
    )
    search = LBFGS(sought, steps)
    train(search, _DuringSearch(keep, begun, scale), 1, progress)
    search.restore()
    found = maximise(task.score, sought.flat.detach() / scale, scale, prior, 0, first=begun.first)
    return replace(
        found,
        steps=search.done,
        evaluations=search.evaluations + 2,
        refused=search.refused,
        converged=search.converged,
        reason=search.why if search.over() else INTERRUPTED,
    )


@dataclass(frozen=True, eq=False)
class _DuringSearch:
    """Keeps the weights of a search by gradients, which begins anew from them."""

    kept: _Kept
    begun: Maximum
    scale: Tensor

    def load(self, run: Resumable) -> bool:
        """Nothing, since the search has begun from the best weights in the file."""
        return False

    def keep(self, run: Resumable) -> None:
        """Writes the weights, which are better after each step."""
        state = run.state_dict()
        if state["at"] is not None:
            x, loss, *_ = state["at"]
            self.kept(replace(self.begun, weights=x / self.scale, value=-loss))


class _Kept:
    """The best weights so far, in a file if there is one."""

    def __init__(self, file: SearchFile | None) -> None:
        self._file, self._value = file, -math.inf

    def read(self) -> dict[str, Any] | None:
        """Weights and the information where the search first began; None if there is no file."""
        return None if self._file is None else self._file.read()

    def __call__(self, found: Maximum) -> None:
        """Keeps weights if they are better."""
        if self._file is not None and found.value > self._value:
            self._file.write({"weights": found.weights, "first": found.first})
            self._value = found.value


def _possible(task: Task, start: Tensor, prior: Any) -> bool:
    """Whether a search can begin there: the prior, or the model, may not allow it."""
    try:
        maximise(task.score, start, task.scale, prior, 0)
    except ValueError:
        return False
    return True


def _start(start: Any, k: int) -> Tensor:
    advice = "one for each feature"
    numbers = checks.several("start", start, "such as [0.0, 0.0]", f"{k} finite weights")
    try:
        found = torch.as_tensor(numbers, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        checks.refuse("start", f"{k} finite weights", repr(start), advice)
    if found.shape != (k,) or not found.isfinite().all():
        checks.refuse("start", f"{k} finite weights", str(found.tolist()), advice)
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
