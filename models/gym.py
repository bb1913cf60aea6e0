"""Gymnasium environments that publish their transition table."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Literal

import gymnasium
import numpy as np

from cai.layout import Layout
from cai.models.tabular import tabular
from cai.trajectory import TrajectoryModel


def gym(
    name: str,
    *,
    horizon: int | None = None,
    temperature: float = 1.0,
    discount: float = 1.0,
    optimality: Literal["factor", "bernoulli"] = "factor",
    **options: Any,
) -> TrajectoryModel:
    """A Gymnasium environment with a published table, such as FrozenLake, CliffWalking or Taxi.

    Whatever the environment pays is paid on arrival, r⁺(s,a,s'), never its mean: the posterior
    would otherwise collect the mean without arriving. Terminal states absorb, with reward zero.
    Where one step can reach the same state with different rewards, or a state both ends an episode
    and does not, the state is split into copies that differ in nothing else, since r⁺ is a
    function of (s,a,s').

    Args:
        name: what ``gymnasium.make`` takes, for instance "FrozenLake-v1".
        horizon: T; the environment's own time limit if not given.
        temperature: α.
        discount: γ.
        optimality: "factor" or "bernoulli".
        **options: the environment's own, for instance ``map_name="8x8"``, ``is_slippery=False``.

    Raises:
        ValueError: for an unknown environment or option, one without a published table, one whose
            table does not hold its whole dynamics, or where there is no horizon.
    """
    try:
        env = gymnasium.make(name, **options)
    except Exception as error:  # whatever the environment's own code makes of its options
        known = ", ".join(sorted(published()))
        raise ValueError(
            f"environment {name!r} with options {options}: Gymnasium cannot make it "
            f"({type(error).__name__}: {error}); environments with a published table here: {known}"
        ) from None
    limit = env.spec.max_episode_steps if env.spec is not None else None
    raw: Any = env.unwrapped
    env.close()
    if not hasattr(raw, "P") or not hasattr(raw, "initial_state_distrib"):
        raise ValueError(
            f"environment {name!r}: expected a published transition table (env.unwrapped.P), found "
            f"none; try one of {', '.join(sorted(published()))}, or write its dynamics in Pyro"
        )
    if getattr(raw, "fickle_passenger", False):
        raise ValueError(
            f"environment {name!r}: with fickle_passenger the passenger changes the destination "
            "outside the published table; leave the option out, or write the dynamics in Pyro"
        )
    steps = limit if horizon is None else horizon
    if steps is None:
        raise ValueError(
            f"horizon: environment {name!r} has no time limit of its own; give a number of steps"
        )
    arrays, origin = _arrays(raw)
    return tabular(
        **arrays,
        horizon=steps,
        temperature=temperature,
        discount=discount,
        optimality=optimality,
        layout=_layout(raw, origin),
    )


def _arrays(env: Any) -> tuple[dict[str, Any], list[int]]:
    """The table as successor lists, and which of the environment's states each state is."""
    S, A = int(env.observation_space.n), int(env.action_space.n)
    start = np.asarray(env.initial_state_distrib, dtype=float)
    ends: set[int] = set()
    goes_on: set[int] = set(np.flatnonzero(start).tolist())
    for s in range(S):
        for a in range(A):
            for p, s_next, _, done in env.P[s][a]:
                if p > 0:
                    (ends if done else goes_on).add(int(s_next))
    # A copy is known by (state, whether the episode is over, which of several rewards it paid).
    index: dict[tuple[int, bool, int], int] = {(s, s in ends - goes_on, 0): s for s in range(S)}
    moves: dict[tuple[int, int], dict[int, tuple[float, float]]] = {}
    for s in range(S):
        for a in range(A):
            moves[s, a] = _merge(env.P[s][a], index)
    n, K = len(index), max(len(outcomes) for outcomes in moves.values())
    origin, over = [0] * n, [False] * n
    for (s, done, _), k in index.items():
        origin[k], over[k] = s, done
    P, reward = np.zeros((n, A, K)), np.zeros((n, A, K))
    successors = np.tile(np.arange(n)[:, None, None], (1, A, K))
    for k in range(n):
        for a in range(A):
            if over[k]:
                P[k, a, 0] = 1
                continue
            for i, (target, (p, r)) in enumerate(moves[origin[k], a].items()):
                P[k, a, i], reward[k, a, i], successors[k, a, i] = p, r, target
    arrays = {
        "transitions": P,
        "successors": successors,
        "arrival_reward": reward,
        "reward": np.zeros((n, A)),
        "initial": np.concatenate([start, np.zeros(n - S)]),
    }
    return arrays, origin


def _merge(
    outcomes: list[Any], index: dict[tuple[int, bool, int], int]
) -> dict[int, tuple[float, float]]:
    """Probability and reward of each state that one step can reach; new copies go into index."""
    by_target: dict[tuple[int, bool], dict[float, float]] = defaultdict(lambda: defaultdict(float))
    for p, s_next, r, done in outcomes:
        if p > 0:
            by_target[int(s_next), bool(done)][float(r)] += float(p)
    merged = {}
    for (s_next, done), rewards in by_target.items():
        for rank, (r, p) in enumerate(sorted(rewards.items(), reverse=True)):
            merged[index.setdefault((s_next, done, rank), len(index))] = p, r
    return merged


def published() -> list[str]:
    """Environments of Gymnasium's own that publish a table."""
    return [
        name
        for name, spec in gymnasium.envs.registry.items()
        if "toy_text" in str(spec.entry_point) and not name.startswith("Blackjack")
    ]


def _layout(env: Any, origin: list[int]) -> Layout | None:
    """Where the states of the environments that we know lie on their maps."""
    steps = {"left": (0, -1), "down": (1, 0), "right": (0, 1), "up": (-1, 0)}
    if hasattr(env, "nrow") and hasattr(env, "desc"):  # FrozenLake
        rows = tuple("".join(c.decode() for c in row) for row in env.desc)
        cells = [divmod(s, env.ncol) for s in origin]
        actions: tuple[str, ...] = ("left", "down", "right", "up")
    elif hasattr(env, "_cliff"):  # CliffWalking
        letters = np.where(env._cliff, "C", ".")
        letters[np.unravel_index(env.start_state_index, env.shape)] = "S"
        letters[-1, -1] = "G"
        rows = tuple("".join(row) for row in letters)
        cells = [divmod(s, int(env.shape[1])) for s in origin]
        actions = ("up", "right", "down", "left")
    elif hasattr(env, "decode") and hasattr(env, "locs"):  # Taxi: where the taxi is
        inner = [[c.decode() for c in row[1:-1:2]] for row in env.desc[1:-1]]
        rows = tuple("".join("." if c == " " else c for c in row) for row in inner)
        cells = [tuple(env.decode(s))[:2] for s in origin]
        actions = ("down", "up", "right", "left", "pick up", "drop off")
    else:
        return None
    return Layout(
        actions=actions,
        map=rows,
        cells=tuple((int(i), int(j)) for i, j in cells),
        moves=tuple(steps.get(action, (0, 0)) for action in actions),
    )
