"""Problems that end when a state is first entered."""

from __future__ import annotations

import torch

from cai import checks
from cai.program.trajectory import TrajectoryModel
from cai.tables.table import Table
from cai.tables.tabulation import enumerated


def with_goal(model: TrajectoryModel | Table, goal: int) -> Table:
    """The table of a problem that ends, at no further reward, when it first enters a state.

    What is paid on arrival there still counts. With an infinite horizon and no discount its values
    are those of the way to the goal, whatever the rewards beyond it are.

    Args:
        model: a model with finitely many states and actions, or its table.
        goal: the state.

    Returns:
        The table, in which the goal is absorbing.

    Raises:
        ValueError: if the goal is not a state of the model.

    >>> import dataclasses, cai
    >>> from cai import inference, models
    >>> forever = dataclasses.replace(models.ledge(), horizon=None)
    >>> table = cai.with_goal(forever, 2)
    >>> inference.soft_values(table).V[2].item()
    0.0
    """
    table = enumerated(model)
    S = table.num_states
    if not checks.within(goal, lambda g: g in range(S)):
        checks.refuse("goal", f"a state 0 … {S - 1}", repr(goal), "number it as the model does")
    log_p, successors = table.log_dynamics.clone(), table.successors
    log_p[..., goal, :, :] = -torch.inf
    if successors is None:
        log_p[..., goal, :, goal] = 0.0
    else:
        successors = successors.clone()
        successors[goal] = goal
        log_p[..., goal, :, 0] = 0.0
    changes = {"reward": _without(table.reward, goal, 2), "log_dynamics": log_p}
    if table.arrival_reward is not None:
        changes["arrival_reward"] = _without(table.arrival_reward, goal, 3)
    final = _without(table.final_reward, goal, 1)
    return table.holding(successors=successors, final_reward=final, program=None, **changes)


def _without(x: torch.Tensor, goal: int, dims: int) -> torch.Tensor:
    """Zero in a state, the first of the last few axes."""
    found = x.clone()
    found.select(x.dim() - dims, goal).zero_()
    return found
