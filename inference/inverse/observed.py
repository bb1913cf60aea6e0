"""Demonstrations on a table: which step of the recursion each action belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, NoReturn

import torch
from torch import Tensor

from cai import checks
from cai.demonstrations.demonstrations import Demonstrations
from cai.rewards.linear_reward import FeatureArrays
from cai.tables.goal import with_goal
from cai.tables.table import Table


@dataclass(frozen=True, eq=False)
class Observed:
    """N actions of n demonstrations, sorted by the step of the recursion.

    Attributes:
        demonstrations: the n trajectories.
        t: (N,), the step of the recursion, ascending; 0 for an infinite horizon.
        who: (N,), which demonstration.
        step: (N,), the step of that demonstration.
        s: (N,), states.
        a: (N,), actions.
        outcome: (N,), which of the K successors followed.
        alive: (N,), boolean: whether it was not terminated by the discount after the action.
        first: (n,), the step of the recursion of the first action of each.
        last: (n,), that of the last state; for an infinite horizon 0.
        stop: (n,), the last state.
        goes_on: (n,), boolean: whether it was cut off before its end.
    """

    demonstrations: Demonstrations
    t: Tensor
    who: Tensor
    step: Tensor
    s: Tensor
    a: Tensor
    outcome: Tensor
    alive: Tensor
    first: Tensor
    last: Tensor
    stop: Tensor
    goes_on: Tensor

    def at(self, t: int) -> slice:
        """The actions that belong to a step of the recursion."""
        ends = torch.searchsorted(self.t, torch.tensor([t, t + 1]))
        return slice(*ends.tolist())

    @property
    def starts(self) -> Tensor:
        """(n,), the first states."""
        return self.demonstrations.states[:, 0]


class Part(NamedTuple):
    """Demonstrations of one problem: which they are, (m,), and what they are scored by."""

    who: Tensor
    table: Table
    features: FeatureArrays
    seen: Observed


def observed(table: Table, seen: Demonstrations, on_impossible: str) -> tuple[Observed, int]:
    """Demonstrations, checked against a table; and how many were dropped.

    Args:
        table: the problem.
        seen: the demonstrations.
        on_impossible: "error", or "drop" to leave out those with a step of probability zero.

    Raises:
        ValueError: naming demonstration and step, if one is impossible or does not fit the horizon.
    """
    _check_numbers(table, seen)
    first = _first_steps(table, seen)
    who, step = seen.taken.nonzero(as_tuple=True)
    s, a, after = (x[who, step] for x in (seen.states[:, :-1], seen.actions, seen.states[:, 1:]))
    t = first[who] + step if table.horizon is not None else torch.zeros_like(step)
    outcome, possible = _outcomes(table, t, s, a, after)
    if not possible.all():
        bad = int((~possible).nonzero()[0])
        if on_impossible == "error":
            _refuse_step(table, *(int(x[bad]) for x in (who, step, s, a, after, t)))
        keep = torch.ones(len(seen), dtype=torch.bool)
        keep[who[~possible]] = False
        if not keep.any():
            checks.refuse("demonstrations", "some that are possible", "none", "see the model")
        return observed(table, seen[keep], "error")[0], int((~keep).sum())
    final = step == seen.lengths[who] - 1
    order = t.argsort(stable=True)
    alive = ~(final & seen.ending("terminated")[who])
    t, who, step, s, a, outcome, alive = (x[order] for x in (t, who, step, s, a, outcome, alive))
    stop = seen.states.gather(1, seen.lengths.unsqueeze(1)).squeeze(1)
    last = torch.zeros_like(first) if table.horizon is None else first + seen.lengths
    goes_on = seen.ending("cut") | seen.ending("absorbed")
    found = Observed(seen, t, who, step, s, a, outcome, alive, first, last, stop, goes_on)
    return found, 0


def to_goals(table: Table, features: FeatureArrays, seen: Demonstrations) -> list[Part]:
    """Demonstrations by where they go: each problem ends when it first enters the goal."""
    _check_arrivals(seen)
    parts = []
    for goal in seen.destinations.unique().tolist():
        who = (seen.destinations == goal).nonzero().squeeze(1)
        ending = with_goal(table, goal)
        own, _ = observed(ending, seen[who], "error")
        parts.append(Part(who, ending, features.without(goal), own))
    return parts


def _check_arrivals(seen: Demonstrations) -> None:
    """Raises ValueError, naming a demonstration that passes its goal, or arrives somewhere else."""
    goals, path = seen.destinations, seen.states
    inside = torch.arange(path.shape[1]) < seen.lengths.unsqueeze(1)
    passed = (path == goals.unsqueeze(1)) & inside
    if passed.any():
        i, t = passed.nonzero()[0].tolist()
        expected, came = "a goal that is entered last", f"state {int(goals[i])} at step {t} already"
        checks.refuse(f"demonstration {i}", expected, came, "cut it there")
    last = path.gather(1, seen.lengths.unsqueeze(1)).squeeze(1)
    astray = seen.ending("absorbed") & (last != goals)
    if astray.any():
        i = int(astray.nonzero()[0])
        expected = f'state {int(goals[i])}, its goal, at the end of what ends "absorbed"'
        advice = 'where it was cut off on the way say ends="cut"'
        checks.refuse(f"demonstration {i}", expected, f"state {int(last[i])}", advice)


def _check_numbers(table: Table, seen: Demonstrations) -> None:
    S, A = table.num_states, table.num_actions
    for name, x, size in (("states", seen.states, S), ("actions", seen.actions, A)):
        outside = (x < 0) | (x >= size)
        if outside.any():
            i, t = outside.nonzero()[0].tolist()
            expected, came = f"integers in 0 … {size - 1}", f"{x[i, t].item()} at step {t}"
            checks.refuse(f"demonstration {i}, {name}", expected, came, "number them as the model")


def _first_steps(table: Table, seen: Demonstrations) -> Tensor:
    """(n,), the step of the recursion at which each one begins."""
    T, whole, own = table.horizon, seen.ending("horizon"), seen.ending("own")
    if T is None:
        if (whole | own).any():
            came = f"{int((whole | own).sum())} that end at a horizon"
            advice = 'demonstrations.with_ends("cut") or "absorbed", or give the model a horizon'
            checks.refuse("ends", 'no "horizon" or "own" for an infinite horizon', came, advice)
        return torch.zeros_like(seen.lengths)
    wrong = torch.where(whole, seen.lengths != T, seen.lengths > T)
    if wrong.any():
        i = int(wrong.nonzero()[0])
        expected = f"{T} actions, the horizon" if whole[i] else f"at most {T} actions, the horizon"
        came = f"{int(seen.lengths[i])} in demonstration {i}, which ends {seen.ends[i]!r}"
        advice = 'for lengths of their own demonstrations.with_ends("own"), or "cut"'
        checks.refuse("lengths", expected, came, advice)
    if own.any() and table.by_step:
        came = f"one whose {' and '.join(table.by_step)} depend on it"
        expected = 'a model that is the same at every step for ends="own"'
        checks.refuse("ends", expected, came, 'take "cut"')
    return torch.where(own, T - seen.lengths, 0)


def _outcomes(
    table: Table, t: Tensor, s: Tensor, a: Tensor, after: Tensor
) -> tuple[Tensor, Tensor]:
    """Which successor followed, (N,), and whether action and successor are possible, (N,)."""
    log_p = table.log_dynamics
    log_p = log_p[t, s, a] if log_p.dim() == 4 else log_p[s, a]
    if table.successors is None:
        outcome = after
        fits = torch.ones_like(after, dtype=torch.bool)
    else:
        matches = (table.successors[s, a] == after.unsqueeze(1)) & (log_p > -torch.inf)
        fits, outcome = matches.max(1)
    prior = table.log_prior
    prior = prior[t, s, a] if prior.dim() == 3 else prior[s, a]
    possible = log_p.gather(1, outcome.unsqueeze(1)).squeeze(1) > -torch.inf
    return outcome, fits & possible & (prior > -torch.inf)


def _refuse_step(table: Table, who: int, step: int, s: int, a: int, after: int, t: int) -> NoReturn:
    prior = table.log_prior[t] if table.log_prior.dim() == 3 else table.log_prior
    if prior[s, a] == -torch.inf:
        came = f"action {a} in state {s}, which action_prior forbids"
    else:
        came = f"state {after} after action {a} in state {s}, whose probability is zero"
    checks.refuse(
        f"demonstration {who}, step {step}",
        "an action and a next state that the model allows",
        came,
        'on_impossible="drop" leaves such demonstrations out',
    )
