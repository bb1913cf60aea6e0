"""Gymnasium environments that publish their transition table."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec

from cai import checks
from cai.models.discrete.tabular import tabular
from cai.models.environments.gym_layout import layout_of
from cai.models.environments.gym_table import GymTable, Outcome, read_table
from cai.models.environments.making import check_options
from cai.program.trajectory import TrajectoryModel

_HARMLESS = {  # wrappers that change neither what happens nor what is paid
    "HumanRendering",
    "OrderEnforcing",
    "PassiveEnvChecker",
    "RecordEpisodeStatistics",
    "RecordVideo",
    "RenderCollection",
    "TimeLimit",
}


def gym(
    name: Any,
    *,
    horizon: int | Literal["time limit"] | None = "time limit",
    initial: Any = None,
    temperature: float = 1.0,
    discount: float = 1.0,
    optimality: Literal["factor", "bernoulli"] = "factor",
    **options: Any,
) -> TrajectoryModel:
    """A Gymnasium environment with a published table, such as FrozenLake, CliffWalking or Taxi.

    The table is ``env.unwrapped.P[state][action]``, a list of (probability, next state, reward,
    terminated). The rewards become arrival rewards r⁺(s,a,s'), never their mean: the posterior
    would otherwise collect the mean without arriving. Terminal states absorb, with reward zero.
    Where one step can reach the same state with different rewards, or a state sometimes ends the
    episode and sometimes not, the state is split into copies that differ in nothing else, since r⁺
    is a function of (s,a,s'); they come after the environment's own states.

    The states are numbered from 0, in C order where they have several parts (MultiDiscrete), and so
    are the actions; ``layout`` has the environment's own names where they are others. The prior is
    uniform over the actions that the table has for a state; what is missing is forbidden.

    Args:
        name: what ``gymnasium.make`` takes, for instance "FrozenLake-v1"; or an environment.
        horizon: T; None for an infinite one; the environment's own time limit if not given.
        initial: p(s_0), a weight for each of the environment's states, or one of them; what the
            environment publishes as ``initial_state_distrib`` or ``isd`` if not given.
        temperature: α.
        discount: γ.
        optimality: "factor" or "bernoulli".
        **options: the environment's own, for instance ``map_name="8x8"``, ``is_slippery=False``.

    Returns:
        The model, a :class:`cai.TrajectoryModel`.

    Raises:
        ValueError: for an unknown environment or option, an environment without a published table
            or with one that cannot be read or does not hold its whole dynamics, or if neither it
            nor the arguments give an initial state or a horizon.

    >>> from cai import inference, models
    >>> model = models.gym("FrozenLake-v1", horizon=20, temperature=0.1)
    >>> inference.soft_values(model).V.shape
    torch.Size([21, 16])
    """
    env = _made(name, options)
    raw: Any = getattr(env, "unwrapped", env)
    spec = getattr(env, "spec", None)
    label = f"environment {(type(raw).__name__ if spec is None else spec.id)!r}"
    _check_published(env, raw, label)
    if isinstance(horizon, str) and horizon == "time limit":
        horizon = _time_limit(env)
        if horizon is None:
            raise ValueError(
                f"horizon: {label} has no time limit of its own; give a number of steps, or None "
                "for an infinite horizon"
            )
    table = read_table(raw, label, initial)
    found, origin = _arrays(table, label)
    return tabular(
        **found,
        horizon=horizon,
        temperature=temperature,
        discount=discount,
        optimality=optimality,
        layout=layout_of(raw, table, origin),
    )


def _made(name: Any, options: dict[str, Any]) -> Any:
    """The environment of that name, closed again, since its table is all that is needed."""
    if isinstance(name, type):
        came, advice = f"the class {name.__name__}", f"make one: {name.__name__}(…)"
        checks.refuse("name", "an environment, or its name", came, advice)
    if not isinstance(name, str | EnvSpec):
        if not hasattr(name, "unwrapped") and not hasattr(name, "P"):
            advice = f"for instance one of {', '.join(sorted(published()))}"
            checks.refuse("name", "an environment, or its name", repr(name), advice)
        if options:
            came = ", ".join(options)
            checks.refuse("options", "none beside an environment", came, "make it with them")
        return name
    check_options(name, options)
    try:
        env = gymnasium.make(name, **options)
        env.close()
    except Exception as error:  # whatever the environment's own code makes of its options
        known = ", ".join(sorted(published()))
        message = (
            f"environment {name!r} with options {options}: Gymnasium cannot make it "
            f"({type(error).__name__}: {error}); environments with a published table here: {known}"
        )
        raise ValueError(" ".join(message.split())) from None
    return env


def _check_published(env: Any, raw: Any, label: str) -> None:
    """Raises ValueError unless there is a table that holds the whole dynamics."""
    if not hasattr(raw, "P"):
        raise ValueError(
            f"{label}: expected a published transition table (env.unwrapped.P), found none; try "
            f"one of {', '.join(sorted(published()))}, or write its dynamics in Pyro"
        )
    if getattr(raw, "fickle_passenger", False):
        raise ValueError(
            f"{label}: with fickle_passenger the passenger changes the destination "
            "outside the published table; leave the option out, or write the dynamics in Pyro"
        )
    for wrapper in _wrappers(env):
        if type(wrapper).__name__ not in _HARMLESS:
            expected = "no wrapper that changes what its published table says"
            came = type(wrapper).__name__
            checks.refuse(label, expected, came, "pass env.unwrapped for what the table says")


def _wrappers(env: Any) -> Iterator[Any]:
    while isinstance(env, gymnasium.Wrapper):
        yield env
        env = env.env


def _time_limit(env: Any) -> int | None:
    limits = [getattr(wrapper, "_max_episode_steps", None) for wrapper in _wrappers(env)]
    return min((int(limit) for limit in limits if limit is not None), default=None)


def _arrays(table: GymTable, label: str) -> tuple[dict[str, Any], list[int]]:
    """The table as successor lists, and which of the environment's states each state is."""
    S, A = table.states.n, table.actions.n
    over = _over(table, label)
    # A copy is identified by (state, whether the episode is over, which of several rewards).
    index: dict[tuple[int, bool, int], int] = {(s, s in over, 0): s for s in range(S)}
    moves = {
        (s, a): _merge(outcomes, index)
        for s, row in table.outcomes.items()
        for a, outcomes in row.items()
        if s not in over
    }
    n, K = len(index), max([1, *map(len, moves.values())])
    P, reward, prior = np.zeros((n, A, K)), np.zeros((n, A, K)), np.ones((n, A))
    successors = np.tile(np.arange(n)[:, None, None], (1, A, K))
    for (s, done, _), k in index.items():
        for a in range(A):
            if done or (s, a) not in moves:  # it stays where it is, if it may at all
                P[k, a, 0], prior[k, a] = 1, done
                continue
            for i, (target, (p, r)) in enumerate(moves[s, a].items()):
                P[k, a, i], reward[k, a, i], successors[k, a, i] = p, r, target
    found = {
        "transitions": P,
        "successors": successors,
        "arrival_reward": reward,
        "reward": np.zeros((n, A)),
        "initial": np.concatenate([table.start, np.zeros(n - S)]),
        "action_prior": None if prior.all() else prior,
    }
    return found, [s for s, _, _ in sorted(index, key=lambda copy: index[copy])]


def _over(table: GymTable, label: str) -> set[int]:
    """The states that are only entered by termination: no step is ever taken from them.

    Raises:
        ValueError: if a step is to be taken from a state without an action.
    """
    enters = {s: set[int]() for s in table.outcomes}
    ends = set[int]()
    for s, row in table.outcomes.items():
        for outcome in itertools.chain(*row.values()):
            (ends if outcome.over else enters[s]).add(outcome.state)
    entered = set(np.flatnonzero(table.start).tolist())
    alive, pending = set[int](), list(entered | (enters.keys() - ends))
    while pending:
        s = pending.pop()
        if s not in alive:
            alive.add(s)
            entered |= enters[s]
            pending += enters[s]
    stuck = {s for s in alive if not table.outcomes[s]}
    if stuck & entered:
        names, s = table.states.names(), min(stuck & entered)
        expected = "an action in each state where an episode can be"
        advice = "let what leads there be terminated, or give it an action that stays"
        checks.refuse(label, expected, f"none in state {s if names is None else names[s]}", advice)
    return (enters.keys() - alive) | stuck


def _merge(
    outcomes: list[Outcome], index: dict[tuple[int, bool, int], int]
) -> dict[int, tuple[float, float]]:
    """Probability and reward of each state that one step can reach; new copies go into index."""
    by_target: dict[tuple[int, bool], dict[float, float]] = defaultdict(lambda: defaultdict(float))
    for p, s_next, r, done in outcomes:
        by_target[s_next, done][r] += p
    merged = {}
    for (s_next, done), rewards in by_target.items():
        for rank, (r, p) in enumerate(sorted(rewards.items(), reverse=True)):
            merged[index.setdefault((s_next, done, rank), len(index))] = p, r
    return merged


def published() -> list[str]:
    """Environments of Gymnasium's own that publish a table.

    Returns:
        Their ids, as :func:`gym` takes them.

    >>> from cai import models
    >>> "FrozenLake-v1" in models.published()
    True
    """
    return [
        name
        for name, spec in gymnasium.envs.registry.items()
        if "toy_text" in str(spec.entry_point) and not name.startswith("Blackjack")
    ]
