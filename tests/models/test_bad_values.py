"""Fifty values that make no sense, for each argument of each model: one line, or what is meant."""

import datetime
import inspect
import math

import networkx as nx
import numpy as np
import pyro.distributions as dist
import pytest
import scipy.sparse
import torch

import cai
from cai import models


class Raises:
    """An object whose own conversion fails, in two lines."""

    def __array__(self, dtype=None, copy=None):
        raise KeyError("no\nway")


LOOP = []
LOOP.append(LOOP)
VALUES = {
    "a flag": True,
    "a flag of NumPy": np.True_,
    "text": "abc",
    "no text": "",
    "a digit": "1",
    "bytes": b"1",
    "NaN": math.nan,
    "inf": math.inf,
    "a negative number": -1.5,
    "a huge integer": 10**400,
    "2**63": 2**63,
    "-2**70": -(2**70),
    "1j": 1j,
    "a complex number of NumPy": np.complex128(1),
    "complex numbers of torch": torch.tensor([1j]),
    "an integer of NumPy": np.int64(3),
    "an empty list": [],
    "an empty list in a list": [[]],
    "a mapping": {0: 1.0},
    "a set": {1, 2},
    "a generator": None,  # made anew each time
    "a list of None": [None, None],
    "texts": ["a", "b"],
    "a ragged list": [[1.0, 2.0], [1.0]],
    "a list in itself": LOOP,
    "objects": np.array([object(), object()]),
    "no rows": np.zeros((0, 2)),
    "no columns": np.zeros((2, 0)),
    "no states": np.zeros((0, 0, 0)),
    "no actions": np.zeros((2, 0, 2)),
    "complex numbers": np.ones((2, 2), complex) / 2,
    "complex transitions": np.ones((2, 2, 2), complex) / 2,
    "NaN in an array": np.full((2, 2), math.nan),
    "a large array": np.full((100, 100), 0.01),
    "numbers as texts": np.array(["0.5", "0.5"]),
    "dates": np.array(["2020-01-01"], dtype="M8[D]"),
    "a date": datetime.date(2020, 1, 1),
    "masked": np.ma.array([1.0, 2.0], mask=[True, False]),
    "records": np.zeros(2, dtype=[("a", float)]),
    "a sparse tensor": torch.eye(2).to_sparse(),
    "a tensor without numbers": torch.ones(2, device="meta"),
    "complex sparse matrices": [scipy.sparse.eye_array(2, format="csr") * 1j] * 2,
    "sparse matrices of two sizes": [scipy.sparse.eye_array(n, format="csr") for n in (2, 3)],
    "a sparse matrix and None": [scipy.sparse.eye_array(2, format="csr"), None],
    "sparse matrices of nothing": [scipy.sparse.csr_array((0, 0))],
    "an object": object(),
    "a type": int,
    "a function": lambda *_: None,
    "a module": math,
    "a distribution": dist.Normal(0.0, 1.0),
    "what raises": Raises(),
}
# What some of them mean is plain: these are numbers, and names or hills of which there are none.
POSITIVE = {"an integer of NumPy", "2**63"}
PAID = POSITIVE | {"a negative number", "-2**70"}
COST = PAID | {"inf"}
NONE = {"an empty list", "no rows", "no states"}
TAKEN = {
    "reward": PAID,
    "arrival_reward": PAID,
    "final_reward": PAID,
    "step_reward": PAID,
    "goal_reward": PAID,
    "pit_reward": PAID,
    "fall_reward": PAID,
    "prize": PAID,
    "cost": COST,
    "exit_cost": COST,
    "final_cost": COST,
    "temperature": POSITIVE,
    "gravity": POSITIVE,
    "max_torque": POSITIVE,
    "obstacle_cost": POSITIVE,
    "acceleration": POSITIVE,
    "mass": POSITIVE,
    "length": POSITIVE,
    "noise": POSITIVE,
    "initial": {"an integer of NumPy", "a distribution"},  # a state, or p(s_0)
    "action_prior": {"a distribution"},
    "recursive_logit": {"a flag"},
    "continuous": {"a flag"},
    "obstacles": NONE,
    "cells": NONE,
    "moves": NONE,
    "actions": NONE | {"texts", "numbers as texts"},
    "features": {"a mapping"},
    "zones": {"an empty list", "no rows", "no states", "texts"},
    "degrees": {"a flag"},
    "seed": {"an integer of NumPy"},
    "map": NONE | {"texts", "numbers as texts"},
}
P = np.array([[[0.5, 0.5], [1.0, 0.0]], [[0.0, 1.0], [0.3, 0.7]]])
STREET = nx.MultiDiGraph([("a", "b"), ("b", "a")])
TWO = dist.Categorical(torch.ones(2))
MODELS = {
    models.tabular: {"transitions": P, "reward": np.zeros((2, 2)), "horizon": 2},
    models.road_network: {
        "tails": [0, 1],
        "heads": [1, 2],
        "reward": [-1.0, -2.0],
        "goals": 2,
    },
    models.linearly_solvable: {"passive": [[0.5, 0.5], [0, 1]], "cost": [1.0, 0], "horizon": 3},
    models.gridworld: {"map": "S.G"},
    models.city: {"rows": 4, "columns": 2},
    models.streets: {"graph": STREET},
    models.streets_from_columns: {"columns": {"tail": "ab", "head": "ba", "minutes": [1.0, 2.0]}},
    cai.Streets: {
        "segments": [[0, 1]],
        "turns": np.zeros((0, 2), int),
        "segment_features": {},
        "segment_names": [("a", "b", 0)],
        "node_names": "ab",
    },
    models.gym: {"name": "FrozenLake-v1", "horizon": 3},
    models.ledge: {},
    models.lottery: {},
    models.cartpole: {},
    models.pendulum: {},
    models.multigoal: {},
    models.double_integrator: {},
    cai.Layout: {},
    cai.EmpiricalStates: {"states": torch.ones(2, 2)},
    cai.SparseCategorical: {"logits": torch.zeros(2, 3)},
    cai.TrajectoryModel: {
        "initial": TWO,
        "dynamics": lambda s, a: dist.Delta(s),
        "reward": 0.0,
        "action_prior": TWO,
        "horizon": 3,
    },
}
# A policy with latents is asked for when it is drawn, options are the environment's own, and
# names of states are read as names of actions are.
SKIPPED = {(cai.TrajectoryModel, "auxiliary"), (models.gym, "options"), (cai.Layout, "states")}
# Nodes and attributes bear any names.
SKIPPED |= {(cai.Streets, "node_names")}
SKIPPED |= {(models.streets, name) for name in ("coordinates", "geometry")}
ARGUMENTS = [
    (make, name)
    for make in MODELS
    for name in inspect.signature(make).parameters
    if (make, name) not in SKIPPED and name != "validate_args"
]


@pytest.mark.parametrize(
    ("make", "name"), ARGUMENTS, ids=[f"{make.__name__}, {name}" for make, name in ARGUMENTS]
)
def test_every_argument(make, name):
    taken = set()
    for what, value in VALUES.items():
        value = (x for x in (0, 1)) if what == "a generator" else value
        message = refusal(make, MODELS[make] | {name: value})
        if message is None:
            taken.add(what)
        else:
            assert "\n" not in message, what
            assert len(message) < 1000, what
    assert taken <= TAKEN.get(name, set())


def refusal(make, arguments):
    """What ValueError says; None where there is none."""
    try:
        make(**arguments)
    except ValueError as error:
        return str(error)
    return None
