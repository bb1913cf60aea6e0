"""Answers to the exercises of notebook 15."""

import dataclasses
from itertools import pairwise

import torch

import cai
from cai import inference, models

BLOCKS = ["S......", ".##.##.", ".......", ".##.##.", "......."]
PLACES = {"noodles": (0, 6), "burgers": (4, 6), "salad": (4, 0)}
MOVES = {(-1, 0): 0, (0, 1): 1, (1, 0): 2, (0, -1): 3}  # up, right, down, left

TOWN = models.gridworld(BLOCKS, horizon=None, slip=0.0, temperature=0.5)
CELL = {place: k for k, place in enumerate(TOWN.layout.cells)}


def going_to(alpha=0.5):
    table = cai.tabulate(dataclasses.replace(TOWN, temperature=alpha))
    return {name: cai.with_goal(table, CELL[place]) for name, place in PLACES.items()}


def walk(path):
    """R, L, U and D, from the upper left corner."""
    cells = [(0, 0)]
    for letter in path:
        i, j = {"U": (-1, 0), "R": (0, 1), "D": (1, 0), "L": (0, -1)}[letter]
        cells.append((cells[-1][0] + i, cells[-1][1] + j))
    moves = [MOVES[b[0] - a[0], b[1] - a[1]] for a, b in pairwise(cells)]
    return cai.Demonstrations.from_paths([[CELL[c] for c in cells]], [moves], ends="cut")


def answer_1():
    """After the first: one step to the right leads away from it, and a block is worth 2 nats.

    Away and back are two blocks, so that the odds of the salad fall by more than e^4, which is more
    than a prior of 0.9 against 0.05 can bear.
    """
    lunch = walk("RRRDDDD")
    prior = {"noodles": 0.05, "burgers": 0.05, "salad": 0.9}
    belief = inference.intent(going_to(), lunch, prior)
    salad = belief.probability[0, :, belief.names.index("salad")]
    print("belief in the salad after 0, 1, 2, … steps:", [f"{p:.1e}" for p in salad[:4].tolist()])
    assert salad[0] > 0.89
    assert salad[1] < 0.5


def answer_2():
    """2.9 blocks per nat, the maximum of the likelihood. The mean is far above it, at 4.4.

    A careless walker has a long right-hand tail: a walk like this is nearly as probable for
    somebody who does not look at all, so that high temperatures are never ruled out. The maximum
    does not see a tail; the mean does, and depends on where the list of temperatures ends.
    """
    detour = walk("DDRRRUURR")
    alphas = [0.1 * 1.15**k for k in range(36)]
    people = {(n, a): table for a in alphas for n, table in going_to(a).items()}
    how = inference.intent(people, detour).marginal(1)
    mean = (how.final[0] @ torch.tensor(how.names, dtype=torch.float64)).item()
    mode = how.names[int(how.final[0].argmax())]
    print(f"posterior of the temperature: mean {mean:.2f}, most probable {mode:.2f}")

    noodles = CELL[PLACES["noodles"]]
    step = cai.LinearReward({"step": lambda s, a: s != noodles})
    fit = inference.fit_reward(going_to(1.0)["noodles"], detour, step)
    found = -1 / fit.weights["step"]  # rewards at α = 1 are in nats
    print(f"fit_reward, who knows that it was noodles: {found:.2f}")
    assert abs(found / mode - 1) < 0.1
    assert mean > 1.3 * mode


POND = ["......", ".PPPP.", "S....G"]
ETAS, ALPHAS = (-1.0, 0.0, 1.0), (0.25, 0.5, 1.0, 2.0)


def pond(alpha, slip=0.2):
    return models.gridworld(POND, horizon=14, slip=slip, pit_reward=-4.0, temperature=alpha)


def answer_3():
    """No: at η = 0 an agent gives to what happens just the probability that it has."""
    walkers = {(a, eta): inference.soft_values(pond(a), eta) for a in ALPHAS for eta in ETAS}
    realist = cai.Demonstrations.from_trajectories(
        pond(0.5).simulate(walkers[0.5, 0.0].policy, 60, seed=0)
    )
    for likelihood in ("actions", "paths"):
        belief = inference.intent(walkers, realist, likelihood=likelihood)
        alpha, eta = belief.names[belief.pooled.argmax()]
        print(
            f"{likelihood:8} the most probable: α = {alpha}, η = {eta:g}, {belief.pooled.max():.3f}"
        )
        assert (alpha, eta) == (0.5, 0.0)


def answer_4():
    """Both find 0.2, and "paths" needs fewer walks: it also counts how often the floor slipped.

    Where models differ in their dynamics, what happened says which is right, and leaving that out
    wastes it. It was misleading in section 4 since there the dynamics were the same for all, and
    only beliefs about them differed.
    """
    chances = (0.1, 0.2, 0.3, 0.4)
    walkers = {slip: inference.soft_values(pond(0.5, slip)) for slip in chances}
    seen = cai.Demonstrations.from_trajectories(pond(0.5).simulate(walkers[0.2].policy, 20, seed=0))
    found = {}
    for likelihood in ("actions", "paths"):
        belief = inference.intent(walkers, seen, likelihood=likelihood)
        found[likelihood] = dict(zip(belief.names, belief.pooled.tolist(), strict=True))
        print(likelihood, {slip: round(p, 3) for slip, p in found[likelihood].items()})
        assert max(found[likelihood], key=found[likelihood].get) == 0.2
    assert found["paths"][0.2] > found["actions"][0.2]
