"""Maximum causal entropy on FrozenLake 8x8 over 100 steps, against numpy and ``imitation``.

Values and state occupancies at optimism 0. ``imitation`` has rewards of states, so both sides get
FrozenLake's dynamics with a reward of 1 for each step in the goal. Its functions
``mce_partition_fh`` and ``mce_occupancy_measures`` are read from its unchanged files, since its
versions of gymnasium and numpy conflict with ours and importing it needs many more packages;
install it without dependencies into a folder of its own:

    pip install --no-deps --target out/imitation imitation==1.0.1

or set IMITATION to another such folder. The numpy reference is the same algorithm, hand-written and
vectorised as far as possible.
"""

from __future__ import annotations
import __future__

import ast
import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import scipy.special
import torch

import cai
from benchmarks.evidence import lake
from benchmarks.timing import Missing, Race, check_close
from cai import inference

_FOLDER = Path(os.environ.get("IMITATION", "out/imitation"))


def against_numpy() -> Race:
    return _race("lake / numpy", "numpy, by hand", by_hand, 0.5)


def against_imitation() -> Race:
    return _race("lake / imitation", "imitation 1.0.1", _installed(), 3.0)


def _race(name: str, reference: str, solve: Callable[[Any], Any], target: float) -> Race:
    table, env = problem()
    V, D = solve(env)
    found = inference.soft_values(table)
    steps = np.arange(table.steps, 0, -1)[:, None]
    # Theirs counts actions (entropy), ours has a uniform prior.
    check_close("V", found.V[:-1].numpy(), V - steps * np.log(table.num_actions), 1e-9)
    check_close("occupancies", found.states.numpy(), D, 1e-9)
    return Race(
        name=name,
        sizes=f"S={table.num_states} A={table.num_actions} T={table.steps}",
        reference=reference,
        ours=lambda: inference.soft_values(table).states,
        theirs=lambda: solve(env),
        target=target,
    )


def problem() -> tuple[cai.Table, Any]:
    """The table, and the attributes of an environment that ``imitation`` reads."""
    table = cai.tabulate(lake())
    goal = torch.zeros(table.num_states, dtype=torch.float64)
    goal[63] = 1.0
    table = dataclasses.replace(
        table,
        reward=goal.unsqueeze(1).expand_as(table.reward).contiguous(),
        arrival_reward=None,
        temperature=1.0,
    )
    env = SimpleNamespace(
        horizon=table.steps,
        state_dim=table.num_states,
        action_dim=table.num_actions,
        transition_matrix=table.dense(table.log_dynamics).numpy(),
        reward_matrix=goal.numpy(),
        initial_state_dist=table.log_initial.exp().numpy(),
    )
    return table, env


def by_hand(env: Any) -> tuple[Any, Any]:
    """Values (T, S) and occupancies (T+1, S) by numpy."""
    T, S, A = env.horizon, env.state_dim, env.action_dim
    P = env.transition_matrix.transpose(1, 0, 2).reshape(A * S, S)
    V, pi = np.zeros((T + 1, S)), np.empty((T, A, S))
    for t in range(T - 1, -1, -1):
        q = env.reward_matrix + (P @ V[t + 1]).reshape(A, S)
        top = q.max(0)
        p = np.exp(q - top)
        total = p.sum(0)
        V[t], pi[t] = top + np.log(total), p / total
    D = np.empty((T + 1, S))
    D[0] = env.initial_state_dist
    for t in range(T):
        D[t + 1] = (pi[t] * D[t]).ravel() @ P
    return V[:-1], D


def _installed() -> Callable[[Any], Any]:
    names: dict[str, Any] = {"np": np, "scipy": scipy}
    rollout = _functions("data/rollout.py", {"discounted_sum"}, names)
    names = names | {"rollout": SimpleNamespace(**rollout)}
    found = _functions(
        "algorithms/mce_irl.py", {"mce_partition_fh", "mce_occupancy_measures"}, names
    )

    def solve(env: Any) -> tuple[Any, Any]:
        V, _, pi = found["mce_partition_fh"](env)
        return V, found["mce_occupancy_measures"](env, pi=pi)[0]

    return solve


def _functions(path: str, wanted: set[str], names: dict[str, Any]) -> dict[str, Any]:
    """Some functions of a file of imitation, without the other imports of the file."""
    file = _FOLDER / "imitation" / path
    if not file.exists():
        raise Missing(
            "lake / imitation: not installed; pip install --no-deps --target out/imitation "
            "imitation==1.0.1, or set IMITATION to such a folder"
        )
    tree = ast.parse(file.read_text(encoding="utf-8"))
    tree.body = [
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in wanted
    ]
    flags = __future__.annotations.compiler_flag
    space = dict(names)
    exec(compile(tree, str(file), "exec", flags), space)
    return {name: space[name] for name in wanted}
