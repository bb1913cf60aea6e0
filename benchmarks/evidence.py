"""The log evidence of FrozenLake 8x8 over 100 steps: one step tabulated, against the whole program.

Pyro sums the same program out step by step (``TraceEnum_ELBO`` within ``pyro.markov``). The
reference is the fastest of three programs: the model as it is, the model with its dynamics as one
dense ``Categorical``, and a bare program written for the purpose without this library.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import TraceEnum_ELBO, config_enumerate

import cai
from benchmarks.timing import Race, check_close, quickest
from cai import inference, models

HORIZON = 100


def lake() -> cai.TrajectoryModel:
    return models.gym("FrozenLake8x8-v1", horizon=HORIZON, temperature=0.1)


def from_program() -> Race:
    model = lake()
    return _race(
        "evidence, program", model, lambda: inference.posterior(model).log_evidence, target=20
    )


def from_table() -> Race:
    model = lake()
    table = cai.tabulate(model)
    return _race(
        "evidence, table kept", model, lambda: inference.posterior(table).log_evidence, target=40
    )


def _race(name: str, model: cai.TrajectoryModel, ours: Callable[[], float], target: float) -> Race:
    table = cai.tabulate(model)
    sides = {
        "the model as it is": enumerated(model),
        "dense dynamics": enumerated(with_dense_dynamics(model)),
        "a bare program": enumerated(bare_program(table)),
    }
    for program, side in sides.items():
        check_close(f"log evidence, {program}", ours(), side(), 1e-9)
    best = quickest(sides)
    return Race(
        name=name,
        sizes=f"S={table.num_states} A={table.num_actions} T={table.steps}",
        reference=f"TraceEnum_ELBO, {best}",
        ours=ours,
        theirs=sides[best],
        target=target,
    )


def enumerated(program: Callable[[], None]) -> Callable[[], float]:
    """Pyro's log evidence by parallel enumeration in the model, with an empty guide."""
    elbo = TraceEnum_ELBO(max_plate_nesting=0)
    program = config_enumerate(program, "parallel")
    return lambda: -elbo.loss(program, lambda: None)


def with_dense_dynamics(model: cai.TrajectoryModel) -> cai.TrajectoryModel:
    """The model with one Categorical over all states instead of lists of successors."""
    table = cai.tabulate(model)
    log_p = table.dense(table.log_dynamics).log()
    return dataclasses.replace(model, dynamics=lambda s, a: dist.Categorical(logits=log_p[s, a]))


def bare_program(table: cai.Table) -> Callable[[], None]:
    """The same p(τ, O), as one would write it for this one problem."""
    assert table.arrival_reward is not None
    assert table.successors is not None
    S, A = table.num_states, table.num_actions
    log_p = table.dense(table.log_dynamics).log()
    arrival = torch.zeros(S, A, S).double()
    arrival.scatter_add_(-1, table.successors, table.arrival_reward / table.temperature)
    zero = torch.zeros(())

    def program() -> None:
        s = pyro.sample("s_0", dist.Categorical(logits=table.log_initial))
        for t in pyro.markov(range(table.steps)):
            a = pyro.sample(f"a_{t}", dist.Categorical(logits=table.log_prior[s]))
            s_next = pyro.sample(f"s_{t + 1}", dist.Categorical(logits=log_p[s, a]))
            reward = arrival[s, a, s_next]
            potential = dist.Delta(zero.expand(reward.shape), log_density=reward)
            pyro.sample(f"o_{t}", potential, obs=zero)
            s = s_next

    return program
