"""Ten thousand steps of three states: the most probable trajectory, and four drawn ones.

The references do the same by hand in NumPy: Viterbi's recursion over pairs of an action and a next
state, and a walk through the posterior's transition matrices by inverse distribution functions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import cai
from benchmarks.timing import Race, check_close
from cai import inference, models

HORIZON = 10_000


def problem() -> cai.Table:
    rng = np.random.default_rng(0)
    P = rng.random((3, 2, 3))
    return cai.tabulate(
        models.tabular(P / P.sum(-1, keepdims=True), rng.normal(size=(3, 2)), horizon=HORIZON)
    )


def most_probable() -> Race:
    table = problem()
    log_w = (
        (table.log_prior + table.reward / table.temperature).unsqueeze(-1) + table.log_dynamics
    ).numpy()
    start = table.log_initial.numpy()

    def ours() -> inference.MapTrajectory:
        return inference.map_trajectory(table)

    def theirs() -> tuple[float, Any, Any]:
        v = np.zeros((HORIZON + 1, 3))
        choice = np.empty((HORIZON, 3), int)
        for t in range(HORIZON - 1, -1, -1):
            onward = (log_w + v[t + 1]).reshape(3, 6)
            choice[t] = onward.argmax(1)
            v[t] = onward.max(1)
        s = int((start + v[0]).argmax())
        log_probability = float(start[s] + v[0, s])
        states, actions = [s], []
        for t in range(HORIZON):
            a, s = divmod(int(choice[t, s]), 3)
            states.append(s)
            actions.append(a)
        return log_probability, states, actions

    found = ours()
    log_probability, states, _ = theirs()
    check_close("log-probability, nats", found.log_probability, log_probability, 1e-6)
    check_close("states", found.states.numpy(), np.array(states), 0)
    return _race("map, long", "Viterbi in NumPy", ours, theirs)


def drawn() -> Race:
    table = problem()
    solution = inference.posterior(table)
    policy = solution.policy.log_probs.exp().numpy()
    after = solution.log_values[1:].numpy()
    after = np.exp(after - after.max(1, keepdims=True))
    weights = table.log_dynamics.exp().numpy() * after[:, None, None]
    start = solution.initial.numpy()

    def ours() -> Any:
        return solution.sample(4, seed=0).states

    def theirs() -> Any:
        uniform = np.random.default_rng(0).random((HORIZON, 2, 4))
        states = np.empty((4, HORIZON + 1), int)
        states[:, 0] = s = np.full(4, int(start.argmax()))
        for t in range(HORIZON):
            a = _pick(policy[t, s], uniform[t, 0])
            states[:, t + 1] = s = _pick(weights[t, s, a], uniform[t, 1])
        return states

    check_close("starts", start.max(), 1.0, 0)
    for states in (np.asarray(ours()), theirs()):
        shares = np.bincount(states.ravel(), minlength=3) / states.size
        check_close("shares of the states", shares, solution.states.mean(0).numpy(), 0.01)
    return _race("sample, long", "a walk in NumPy", ours, theirs)


def _pick(weights: Any, uniform: Any) -> Any:
    """The outcome of each row of weights (n, K) at a uniform number (n,)."""
    cumulative = weights.cumsum(-1)
    return (cumulative <= (uniform * cumulative[:, -1])[:, None]).sum(-1)


def _race(name: str, reference: str, ours: Any, theirs: Any) -> Race:
    return Race(
        name=name,
        sizes=f"S=3 A=2 T={HORIZON}",
        reference=reference,
        ours=ours,
        theirs=theirs,
        target=None,
    )
