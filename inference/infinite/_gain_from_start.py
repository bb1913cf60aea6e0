"""Long-run averages that depend on the start: the one from the model's start, or an error."""

from __future__ import annotations

import torch
from torch import Tensor

from cai.inference.infinite._gain import APART, Found, GainProblem, transition_matrix, untold
from cai.infinite.gain_and_bias import closed_classes
from cai.tables.table import Table


def check_one_long_run(table: Table, held: Tensor) -> None:
    """Raises ValueError if there are several sets of states that are never left."""
    inside = held.isfinite()
    may = table.log_prior.unsqueeze(-1) + table.log_dynamics > -torch.inf
    member, closed = closed_classes(transition_matrix(table, may.double(), inside))
    if len(closed) > 1:
        states = inside.nonzero().flatten().numpy()
        first, second = sorted(states[member == k][0] for k in closed)[:2]
        raise ValueError(
            f"average_reward: it depends on the start: there are {len(closed)} sets of states "
            f"that are never left, one with state {first}, another with state {second}; solve "
            "them apart, or connect them by the action prior"
        )


def from_the_start(problem: GainProblem, found: Found) -> tuple[Found, Tensor]:
    """The solution in states that have the average of the start, and which have a higher one.

    Raises:
        ValueError: if chance decides between several averages.
    """
    table, eta, gains = problem.table, problem.eta, found.gains
    inside, apart = found.step.inside, APART * problem.scale
    starts = inside & (table.log_initial > -torch.inf)
    if not starts.any():
        raise ValueError(
            "evidence: p(O) = 0, a reward of -inf cannot be avoided from any initial state; make "
            "it finite, or start elsewhere"
        )
    level = (gains[starts].min() if eta < 0 else gains[starts].max()).item()
    same = inside & ((gains - level).abs() <= apart)
    if eta == 0:
        _check_no_chance(problem, found, starts, same)
    # States with a higher average: luck cannot reach them, and nature avoids them.
    more = inside & (gains > level + apart)
    v = torch.where(same, found.step.v - found.step.v[same].max(), -torch.inf)
    v = torch.where(more, torch.inf if eta < 0 else -torch.inf, v)
    ours = problem.solve(v)
    if ours.split or not ours.lower - apart <= level <= ours.upper + apart:
        raise untold(problem, found)
    return ours, more


def _check_no_chance(problem: GainProblem, found: Found, starts: Tensor, same: Tensor) -> None:
    """Raises ValueError if the true dynamics lead from the start to states of another average."""
    chain = problem.chain(found.step)
    states = found.step.inside.nonzero().flatten()
    reached = starts[states].numpy()
    for _ in range(len(states)):
        before, reached = reached, reached | (chain.T @ reached.astype(float) > 0)
        if (before == reached).all():
            break
    other = states[torch.from_numpy(reached)]
    other = other[~same[other]]
    if len(other):
        alpha, gains = float(problem.table.temperature), found.gains
        first = int(starts.nonzero()[0])
        second = int(other[(gains[other] - gains[first]).abs().argmax()])
        raise ValueError(
            f"average_reward: it depends on the start, and on chance: it is "
            f"{alpha * gains[first].item():.6g} per step from state {first}, and "
            f"{alpha * gains[second].item():.6g} from state {second}, which can be reached; start "
            "where one of them is certain, or connect them by the action prior"
        )
