"""Answers to the exercises of notebook 14, in a smaller town than its own."""

import math
from itertools import pairwise
from math import prod

import numpy as np
import torch

import cai
from cai import inference, models

NAMES = ["minutes", "left", "u_turn"]


def town_and_trips():
    """A town, and 15 trips of each of twelve drivers, whose weights differ."""
    town = models.city(6, 6, seed=1)
    rng = np.random.default_rng(0)
    paths, drivers = [], []
    for driver in range(12):
        spread = torch.tensor([1.0, 0.4, 0.4]) * torch.from_numpy(rng.normal(size=3)).clamp(-1, 1)
        weights = torch.tensor([-9.0, -0.7, -2.0]) + spread
        for _ in range(15):
            origin, goal = rng.choice(len(town.segments), 2, replace=False).tolist()
            drive = inference.Routes(town, tuple(NAMES), weights.double(), torch.tensor([goal]))
            paths.append(drive.sample(origin, goal, 1, seed=int(rng.integers(2**31)))[0])
            drivers.append(driver)
    turns = [town.locate_turns(path[:-1], path[1:]) for path in paths]
    goals = [int(path[-1]) for path in paths]
    trips = cai.Demonstrations.from_paths(
        paths, turns, ends="absorbed", groups=drivers, goals=goals
    )
    return town, trips


def answer_1():
    """It helps those who go where many went; a destination that was never driven to is ruled out.

    With counts as a prior, what has the count zero has the probability zero for ever, whatever the
    driver does. Adding one to each count is the usual remedy.
    """
    town, trips = town_and_trips()
    train, test = trips.split(0.8, seed=0)
    routes = inference.routes(inference.fit_reward(town, train, NAMES), trips.goals)
    counts = {g: train.goal_counts.get(g, 0) for g in routes.goals.tolist()}
    new = [g for g, n in counts.items() if n == 0]
    one = next(test[i] for i in range(len(test)) if test[i].goal in new)
    place = routes.goals.tolist().index(one.goal)
    for name, prior in {
        "equal prior": None,
        "counts": counts,
        "counts and one": {g: n + 1 for g, n in counts.items()},
    }.items():
        belief = routes.goal_posterior(one.prefix(0.9), prior)[place].item()
        print(f"{name:15} belief in a destination that is new: {belief:.4f}")
        assert (belief == 0) == (name == "counts")


def answer_2():
    """What used the closed segment goes round it: a few others are used far more than before."""
    town, trips = town_and_trips()
    fit = inference.fit_reward(town, trips, NAMES)
    weights = torch.tensor([*fit.weights.values()], dtype=torch.float64)
    trip = trips[int(trips.lengths.argmax())]
    way = trip.states[0].tolist()
    before = inference.Routes(town, tuple(NAMES), weights, torch.tensor([trip.goal]))
    use = before.use(trip.origin, trip.goal)
    busiest = max(way[2:-2], key=lambda s: use[s])
    closed = town.without(segments=torch.arange(len(use)) == busiest)

    name, index = town.segment_names, {n: k for k, n in enumerate(closed.segment_names)}
    goal, origin = index[name[trip.goal]], index[name[trip.origin]]
    after = inference.Routes(closed, tuple(NAMES), weights, torch.tensor([goal]))
    found = after.use(origin, goal)
    change = {n: found[k].item() - use[name.index(n)].item() for n, k in index.items()}
    print(f"{name[busiest]}, used by {use[busiest]:.0%} of the trips, is closed")
    for n in sorted(change, key=change.get, reverse=True)[:3]:
        print(f"{n}: {use[name.index(n)]:.0%} -> {found[index[n]]:.0%}")
    assert max(change.values()) > use[busiest] / 4


def answer_3():
    """Half a nat or a little more: turns are minor beside minutes, and the gain is no chance.

    Without weights for turns their cost goes into minutes, as far as it can: a way with many turns
    is often a long one as well.
    """
    town, trips = town_and_trips()
    train, test = trips.split(0.75, seed=0, by="group")
    per_trip = {}
    for names in (NAMES, ["minutes"]):
        fit = inference.fit_reward(town, train, names)
        per_trip[len(names)] = inference.routes(fit, goals=trips.goals).log_probability(test)
        print(f"{', '.join(names):22} {per_trip[len(names)].mean():.2f} nats a trip", end="; ")
        print(f"a minute costs {-fit.weights['minutes']:.2f}")
    gain = per_trip[3] - per_trip[1]
    error = gain.std() / len(gain) ** 0.5
    print(f"turns bring {gain.mean():.2f} ± {error:.2f} nats a trip")
    assert gain.mean() > 2 * error


def answer_4():
    """Whole routes: from 1/3 to 1/5. Node by node: it stays at 1/2.

    There are now five routes of the same cost, and four of them pass c. At a both streets still
    look alike to somebody who chooses at nodes by a prior that sums to one: what is behind c shares
    the half that c gets.
    """
    streets = ["oa", "ab", "bd", "dg", "ac", "gh"]
    for x in "efij":
        streets += ["c" + x, x + "g"]
    ways = ["oabdgh"] + [f"oac{x}gh" for x in "efij"]
    tails, heads = zip(*streets, strict=True)
    by_nodes = {}
    for recursive_logit in (True, False):
        model = models.road_network(tails, heads, -1.0, goals="h", recursive_logit=recursive_logit)
        state = {name: s for s, name in enumerate(model.layout.states)}
        choice = inference.soft_values(model).policy(0, torch.arange(len(state))).probs
        exits = {u: [v for t, v in streets if t == u] for u in state}
        by_nodes[recursive_logit] = [
            prod(float(choice[state[u], exits[u].index(v)]) for u, v in pairwise(way))
            for way in ways
        ]
    for name, p in (("whole routes", by_nodes[True]), ("by nodes", by_nodes[False])):
        print(
            f"{name:13}", " ".join(f"{way[1:-1]} {x:.3f}" for way, x in zip(ways, p, strict=True))
        )
    assert all(math.isclose(x, 0.2, abs_tol=1e-9) for x in by_nodes[True])
    assert math.isclose(by_nodes[False][0], 0.5, abs_tol=1e-9)
