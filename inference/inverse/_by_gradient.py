"""Trains a reward with many parameters on demonstrations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cai import checks
from cai.demonstrations.demonstrations import Demonstrations
from cai.demonstrations.parts import first_part
from cai.evaluation.problem import as_problem
from cai.inference.fitting.loop import seeded, train
from cai.inference.inverse._objective import Objective
from cai.inference.inverse._scores import Likelihood
from cai.inference.inverse.observed import Observed, observed
from cai.inference.inverse.trained_reward import RewardTraining, TrainedReward
from cai.inference.searches.early_stopping import EarlyStopping
from cai.inference.searches.lbfgs import LBFGS
from cai.inference.searches.search_file import (
    SearchFile,
    digest,
    of_demonstrations,
    of_dynamics,
)
from cai.inference.searches.sought import Sought
from cai.program.trajectory import TrajectoryModel
from cai.rewards.neural_reward import NeuralReward
from cai.rewards.reward_arrays import RewardArrays
from cai.rewards.tabular_reward import TabularReward
from cai.tables import bellman
from cai.tables.table import Table
from cai.tables.tabulation import enumerated

_STEPS = {"lbfgs": 1000, "adam": 3000}
_BETWEEN_FILES = {"lbfgs": 5, "adam": 20}  # steps


@dataclass(frozen=True, eq=False, kw_only=True)
class Asked:
    """The arguments of a fit that all kinds of reward have in common, checked.

    Attributes:
        eta: the optimism η.
        rule: how actions are chosen.
        likelihood: what is maximised.
        prior: a distribution of the weights or parameters, or None.
        on_impossible: "error" or "drop".
        steps: at most; None for as many as the method usually takes.
        file: of the checkpoint, or None.
        progress: whether to show a bar.
    """

    eta: float
    rule: bellman.Rule
    likelihood: Likelihood
    prior: Any
    on_impossible: str
    steps: int | None
    file: Path | None
    progress: bool

    def check_prior(self, k: int) -> None:
        """Raises ValueError unless the prior is one of k numbers."""
        event = getattr(self.prior, "event_shape", ())
        batch = getattr(self.prior, "batch_shape", ())
        if event not in ((), (k,)) or batch not in ((), (1,), (k,)) or (event and batch):
            came = f"one of shape {[*batch, *event]}"
            advice = "one number for each, or one for all, as Normal(0.0, 3.0) has"
            checks.refuse("prior", f"a distribution of {k} numbers", came, advice)

    def search_file(self, k: int, **identity: Any) -> SearchFile | None:
        """The checkpoint, told from others by these arguments and by what identifies the data."""
        if self.file is None:
            return None
        own = {name: getattr(self, name) for name in ("eta", "rule", "likelihood")}
        own["prior"] = _described(self.prior, k)
        return SearchFile(self.file, own | identity, "fit_reward")


def trained(
    model: TrajectoryModel | Table,
    demonstrations: Demonstrations,
    reward: TabularReward | NeuralReward,
    asked: Asked,
    method: str,
    training: RewardTraining,
) -> TrainedReward:
    """A reward with the parameters at which the objective is highest.

    Raises:
        ValueError: see :func:`cai.inference.fit_reward`.
    """
    table = enumerated(model)
    seen, dropped = observed(table, demonstrations, asked.on_impossible)
    arrays = reward.on(table)
    objective = Objective(table, seen, asked.eta, asked.rule, asked.likelihood)
    held_out = training.held_out if method == "adam" else 0.0
    sought = Sought(
        module=arrays,
        values=lambda: objective(arrays.rewards(table)),
        log_prior=None if asked.prior is None else lambda x: asked.prior.log_prob(x).sum(),
        inside=_inside(seen.demonstrations, held_out, training.seed),
    )
    steps = _STEPS[method] if asked.steps is None else asked.steps
    asked.check_prior(len(sought.flat))
    file = asked.search_file(
        len(sought.flat),
        method=method,
        training=str(training) if method == "adam" else "",
        reward=_shapes(arrays),
        demonstrations=of_demonstrations(seen.demonstrations),
        dynamics=of_dynamics(table),
        offset=digest(arrays.offset),
    )
    with seeded(training.seed, torch.device("cpu"), table):
        search: LBFGS | EarlyStopping = (
            LBFGS(sought, steps)
            if method == "lbfgs"
            else EarlyStopping(sought, steps, training.rate, training.batch, training.patience)
        )
        train(search, file, _BETWEEN_FILES[method], asked.progress)
        search.restore()
    return _result(as_problem(model).program, table, seen, arrays, asked, search, dropped)


def _result(
    program: TrajectoryModel | None,
    table: Table,
    seen: Observed,
    arrays: RewardArrays,
    asked: Asked,
    search: LBFGS | EarlyStopping,
    dropped: int,
) -> TrainedReward:
    """The reward as it was trained, what it is worth, and how it was found."""
    own = "actions" if asked.likelihood == "matching" else asked.likelihood
    likelihood = Objective(table, seen, asked.eta, asked.rule, own)
    paid = arrays.trained()
    with torch.no_grad():
        found = arrays.rewards(table).detached()
        return TrainedReward(
            reward=paid,
            model=found if program is None else paid.given_to(program),
            optimism=asked.eta,
            rule=asked.rule,
            likelihood=asked.likelihood,
            method=search.method,
            log_likelihood=float(likelihood(found).sum()),
            log_likelihood_without=_without(likelihood, table, arrays.offset),
            means=torch.tensor(search.means, dtype=torch.float64),
            held_out_means=torch.tensor(search.held_out, dtype=torch.float64),
            parameters=len(search.sought.flat),
            demonstrations=len(seen.demonstrations),
            held_out=int((~search.sought.inside).sum()),
            actions=int(seen.demonstrations.lengths.sum()),
            dropped=dropped,
            steps=search.done,
            evaluations=search.evaluations,
            converged=search.converged,
            reason=search.why,
        )


def _inside(seen: Demonstrations, held_out: float, seed: int) -> Tensor:
    """(n,), boolean: those to train on; of groups all or none."""
    n, by = len(seen), None if seen.groups is None else "group"
    if not held_out:
        return torch.ones(n, dtype=torch.bool)
    count = n if by is None else int(seen.group_index.max()) + 1
    if count < 2:
        came = f"one {by or 'demonstration'}"
        advice = "inference.RewardTraining(held_out=0) trains on all"
        checks.refuse("training.held_out", "several of which some are held out", came, advice)
    first = min(max(round((1 - held_out) * count), 1), count - 1)
    return first_part(seen, first / count, seed, by)


def _without(likelihood: Objective, table: Table, offset: Tensor) -> float | None:
    try:
        bare = table.holding(reward=offset, arrival_reward=None, program=None)
        return float(likelihood(bare).sum())
    except ValueError:  # no values there
        return None


def _shapes(module: torch.nn.Module) -> str:
    return ", ".join(f"{name} {list(p.shape)}" for name, p in module.named_parameters())


def _described(prior: Any, k: int) -> str:
    """What tells priors apart: their densities at a few places, whatever they are made of."""
    if prior is None:
        return "none"
    found = []
    for scale in (0.0, 0.1, 1.0, 3.0):
        for sign in (1.0, -1.0):
            x = sign * scale * torch.linspace(0.5, 1.0, k, dtype=torch.float64)
            try:
                found.append(prior.log_prob(x).detach())
            except ValueError:  # outside its support
                found.append("none")
    return f"{type(prior).__name__} {digest(*found)}"
