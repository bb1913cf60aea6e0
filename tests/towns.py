"""Small towns, trips through them, and what dense algebra says of those."""

import dataclasses

import numpy as np
import torch

import cai
from cai import models

NAMES = ["minutes", "left", "u_turn"]


def town(seed=0):
    """A small town with minutes of its own for each segment, and no dead end."""
    streets = models.city(4, 4, seed=seed)
    rng = torch.Generator().manual_seed(seed)
    minutes = torch.rand(len(streets.segments), generator=rng, dtype=torch.float64) + 0.5
    return dataclasses.replace(streets, segment_features={"minutes": minutes})


def walks(streets, n, seed=0, most=12):
    """Random walks; each ends where it first enters its last segment."""
    rng = np.random.default_rng(seed)
    paths = []
    while len(paths) < n:
        path = [int(rng.integers(len(streets.segments)))]
        for _ in range(int(rng.integers(2, most))):
            first, last = streets.offsets[path[-1] : path[-1] + 2].tolist()
            if first == last:
                break
            path.append(int(streets.turns[rng.integers(first, last), 1]))
        path = path[: path.index(path[-1]) + 1]
        if len(path) > 1:
            paths.append(path)
    return trips_of(streets, paths)


def trips_of(streets, paths, **options):
    turns = [
        streets.locate_turns(torch.tensor(path[:-1]), torch.tensor(path[1:])) for path in paths
    ]
    goals = [path[-1] for path in paths]
    return cai.Demonstrations.from_paths(paths, turns, ends="absorbed", goals=goals, **options)


def dense_values(streets, utility, trips):
    """log P of each trip, one dense solve for each goal."""
    E = len(streets.segments)
    M = torch.zeros(E, E, dtype=torch.float64)
    M[streets.turns[:, 0], streets.turns[:, 1]] = utility.exp()
    found = []
    for i in range(len(trips)):
        o, d = int(trips.states[i, 0]), int(trips.goals[i])
        others = torch.arange(E) != d
        A = torch.eye(E - 1, dtype=torch.float64) - M[others][:, others]
        z = torch.ones(E, dtype=torch.float64)
        z[others] = torch.linalg.solve(A, M[others, d])
        paid = utility[trips.actions[i, : trips.lengths[i]]].sum()
        found.append(paid - z[o].log())
    return torch.stack(found)


def simulated(streets, weights, n, seed):
    """Trips drawn from the model, by dense values."""
    rng = np.random.default_rng(seed)
    E = len(streets.segments)
    moves = (streets.features(NAMES) @ weights).exp()
    M = torch.zeros(E, E, dtype=torch.float64)
    M[streets.turns[:, 0], streets.turns[:, 1]] = moves
    paths = []
    for _ in range(n):
        o, d = rng.choice(E, 2, replace=False).tolist()
        others = torch.arange(E) != d
        z = torch.ones(E, dtype=torch.float64)
        A = torch.eye(E - 1, dtype=torch.float64) - M[others][:, others]
        z[others] = torch.linalg.solve(A, M[others, d])
        path = [o]
        while path[-1] != d:
            p = (M[path[-1]] * z).numpy()
            path.append(int(rng.choice(E, p=p / p.sum())))
        paths.append(path)
    return paths
