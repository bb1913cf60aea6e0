"""Adversarial learning on a table: the game is set up, played, and its end is told."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cai import checks
from cai.demonstrations.demonstrations import Demonstrations
from cai.evaluation.problem import as_problem
from cai.inference.adversarial._discriminator import Plain, Structured
from cai.inference.adversarial._fictitious_play import Ends, FictitiousPlay, Game, Signal
from cai.inference.adversarial._occupancies import (
    demonstrated,
    groups,
    stochastic,
    transitions,
    visits,
)
from cai.inference.adversarial.adversarial_result import AdversarialReward
from cai.inference.fitting.loop import train
from cai.inference.searches.search_file import (
    SearchFile,
    digest,
    of_demonstrations,
    of_dynamics,
)
from cai.policies.as_table import policy_log_probs
from cai.policies.tabular import TabularPolicy
from cai.program.trajectory import TrajectoryModel
from cai.rewards.linear_reward import LinearReward
from cai.rewards.neural_reward import NeuralReward
from cai.rewards.tabular_reward import TabularReward
from cai.tables.table import Table
from cai.tables.tabulation import enumerated

_PENALTY = 0.01  # where demonstrations leave things open
_APART = 0.01  # mean D on the generator, and 1 - D on demonstrations, if all are told apart
_FEW = 0.3  # of the demonstrators' variety of actions and states


AIRL = (
    "f = log ρ*/ρ + log π/p, with ρ* and ρ how often demonstrator and generator take a transition. "
    "On deterministic dynamics its r is that of maximum causal entropy, fit_reward(…), up to a "
    "constant where all states can be linked; on stochastic dynamics it is another one"
)
GAIL = (
    "the demonstrator's occupancies, by a policy alone: the discriminator ends at ½ and holds no "
    "reward"
)


def on_tables(
    model: TrajectoryModel | Table,
    demonstrations: Any,
    reward: Any,
    *,
    form: str,
    signal: Signal,
    ends: Ends,
    penalty: float | None,
    rounds: int,
    file: Path | None,
    progress: bool,
) -> AdversarialReward:
    """See :func:`cai.inference.adversarial_reward`, with the exact generator."""
    table = enumerated(model)
    n = actions = math.inf
    if isinstance(demonstrations, Demonstrations):
        real = demonstrated(table, demonstrations)
        n, actions = len(demonstrations), float(demonstrations.lengths.sum())
        told = of_demonstrations(demonstrations)
    else:
        log_q = policy_log_probs(_policy(demonstrations), table)
        real = transitions(table, visits(table, log_q))
        told = digest(log_q)
    if penalty is None:
        penalty = 0.0 if n == math.inf else _PENALTY
    game = Game(table, real, signal, ends, penalty, rounds)
    discriminator = Plain() if form == "gail" else Structured(reward, table)
    play = FictitiousPlay(game, discriminator)
    kept = None
    if file is not None:
        settings = {
            "form": form,
            "signal": signal,
            "ends": ends,
            "penalty": penalty,
            "demonstrations": told,
            "dynamics": of_dynamics(table),
            "reward": _described(reward, discriminator),
        }
        kept = SearchFile(file, settings, "adversarial_reward")
    with table.threads():
        train(play, kept, 10, progress)
        return _result(model, play, form, n, actions)


def _result(
    model: TrajectoryModel | Table, play: FictitiousPlay, form: str, n: float, actions: float
) -> AdversarialReward:
    game = play.game
    history = {k: torch.tensor(x, dtype=torch.float64) for k, x in play.history.items()}
    reward = potential = None
    holder: Any = model
    log_policy = play.log_policy
    if isinstance(play.discriminator, Structured):
        reward = play.discriminator.reward.trained()
        potential = play.discriminator.potential.detach()
        program = as_problem(model).program
        found = play.discriminator.reward().detached()
        holder = found if program is None else reward.given_to(program)
        log_policy = play.response
    last = {name: x[-1] if play.done else math.nan for name, x in play.history.items()}
    return AdversarialReward(
        form=form,
        reward=reward,
        model=holder,
        policy=TabularPolicy.from_log_probs(log_policy),
        log_odds=play.log_odds,
        potential=potential,
        converges_to=GAIL if form == "gail" else AIRL,
        on_demonstrations=last["on_demonstrations"],
        on_generator=last["on_generator"],
        lengths=(game.length(game.real.sum(-1)), game.length(play.taken)),
        distance=last["distance"],
        history=history,
        demonstrations=n,
        actions=actions,
        steps=play.done,
        converged=play.converged,
        reason=play.reason,
        remarks=_remarks(play),
    )


def _remarks(play: FictitiousPlay) -> tuple[str, ...]:
    if not play.done:
        return ()
    real, made = (play.history[x][-1] for x in ("on_demonstrations", "on_generator"))
    found, table = [], play.game.table
    if isinstance(play.discriminator, Structured):
        parts = groups(table)
        if stochastic(table):
            found.append(
                "The dynamics are stochastic, so that the reward is not the demonstrator's: for "
                "that take fit_reward."
            )
        elif parts > 1:
            found.append(
                f"The states fall into {parts} groups that are not linked: a reward of states is "
                "determined up to more than a constant."
            )
    if 1 - real < _APART and made < _APART:
        found.append(
            "The discriminator tells everything apart, and its reward means little: take a larger "
            "penalty, fewer features, or more demonstrations."
        )
    if _variety(play.taken) < _FEW * _variety(play.game.real.sum(-1)):
        found.append(
            "The generator collapsed to few of the demonstrators' states and actions: take a "
            "larger penalty, or a higher temperature."
        )
    return tuple(found)


def _variety(taken: Tensor) -> float:
    """How many states and actions, the exponential of the entropy of their shares."""
    share = taken / taken.sum()
    return math.exp(-float(torch.special.xlogy(share, share).sum()))


def _policy(given: Any) -> Any:
    """The policy of a solution, or a policy itself."""
    found = getattr(given, "policy", given)
    if not callable(found):
        expected = "Demonstrations, or a policy (t, s) -> distribution for the demonstrator itself"
        advice = "cai.Demonstrations.from_trajectories(…) makes some"
        checks.refuse("demonstrations", expected, type(given).__name__, advice)
    return found


def _described(reward: Any, discriminator: Structured | Plain) -> str:
    if isinstance(discriminator, Plain):
        return "none"
    held = list(discriminator.state_dict().values())
    known = getattr(discriminator.reward.arrays, "offset", None)
    more: tuple[Any, ...] = ()
    if isinstance(reward, LinearReward):
        arrays = discriminator.reward.arrays
        more = (arrays.names, arrays.reward, arrays.arrival)
    return f"{type(reward).__name__} {digest(*held, known, *more)}"


REWARDS = LinearReward | TabularReward | NeuralReward
