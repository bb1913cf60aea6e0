"""Answers to the exercises of notebook 3."""

import math

import numpy as np
import torch

import cai
from cai import inference, models


def bridge(slip=0.1):
    return models.gridworld(
        "bridge", horizon=24, temperature=0.5, slip=slip, goal_reward=10.0, pit_reward=-20.0
    )


def ever(model, marked):
    """The probability that the best policy ever stands on one of some cells: they hold the walk."""
    table = cai.tabulate(model)
    best = inference.soft_values(table)
    cells = [model.layout.cells.index(cell) for cell in marked]
    P = best.dynamics(0).clone()
    P[cells] = torch.eye(table.num_states).double()[cells].unsqueeze(1)
    here = best.initial
    for t in range(24):
        here = torch.einsum("s,sa,san->n", here, best.policy.log_probs[t].exp(), P)
    return here[cells].sum().item()


def answer_1():
    """From a slip of about 0.1 on a few walks go north; at 0.2 it is one in five.

    Even at 0.3 most still take the bridge: four more steps cost 4 for certain. On ice that is worse
    still, the north is no longer safe to reach within the time, and its share falls again.
    """
    bridge_cells, north = [(3, j) for j in (2, 3, 4)], [(0, 3), (1, 3)]
    shares = []
    print("slip   over the bridge   round by the north")
    for slip in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5):
        over, around = (ever(bridge(slip), cells) for cells in (bridge_cells, north))
        shares.append(around)
        print(f"{slip:4} {over:17.3f} {around:20.3f}")
    assert shares[0] < 1e-3
    assert 0.01 < shares[1] < 0.05
    assert max(shares) == shares[3] > shares[5]


def answer_2():
    """That it hurried into the pit: most likely it fell in step 4, as soon as it could get there.

    In a pit nothing is paid any more, and each step outside costs 1. Whoever is known to end there,
    and to have done well in every step, did not waste any. The evidence at step 12 changes
    everything that came before it.
    """
    model = bridge()
    table = cai.tabulate(model)
    pit = model.layout.cells.index((2, 3))
    nosy = inference.posterior(table, observed={"s_12": pit})
    falls = nosy.states[:, pit]
    print(f"P(in that pit) at steps 1 to 12: {[round(x, 3) for x in falls[1:13].tolist()]}")
    for t, here in enumerate(nosy.states[:5]):
        print(
            f"step {t}: most likely in {model.layout.cells[int(here.argmax())]}, {here.max():.2f}"
        )
    assert falls[3] < 1e-6
    assert falls[4] > 0.8


def answer_3():
    """A quarter of what it was: only the product of η and the covariance of the gusts matters."""

    def cart(gusts):
        return models.linear_gaussian(
            A=[[1.0, 0.2], [0.0, 1.0]],
            B=[[0.0], [0.2]],
            noise=[[0.0, 0.0], [0.0, gusts]],
            Q=[[1.0, 0.0], [0.0, 0.0]],
            R=[[1.0]],
            Q_final=[[1.0, 0.0], [0.0, 0.0]],
            initial_mean=[2.0, 0.0],
            initial_covariance=[[0.0, 0.0], [0.0, 0.0]],
            action_prior=None,
            horizon=40,
            temperature=1.0,
        )

    lowest, lower = (inference.optimism_range(cart(x))[0] for x in (0.1, 0.4))
    print(f"lowest η {lowest:.4f} and {lower:.4f}, ratio {lowest / lower:.4f}")
    print(
        "(with a start that is known; an uncertain one is bent as well, but its covariance is not"
    )
    print("multiplied by four)")
    assert abs(lowest / lower - 4) < 1e-3


def answer_4():
    """z is ½ z_X + ¼ z_Y + ¼ z_Z, and solving the mixed problem gives the same to rounding."""
    rows = ("X..#..Y", ".#...#.", ".#.#.#.", "...S...", ".###.#.", ".....#Z")
    places = [(i, j) for i, row in enumerate(rows) for j, c in enumerate(row) if c != "#"]
    letters = [rows[i][j] for i, j in places]
    number = {place: k for k, place in enumerate(places)}
    passive = np.zeros((len(places), len(places)))
    for k, (i, j) in enumerate(places):
        around = [
            number[p] for p in ((i - 1, j), (i, j + 1), (i + 1, j), (i, j - 1)) if p in number
        ]
        passive[k, k if letters[k] in "XYZ" else around] = 1.0
    passive /= passive.sum(1, keepdims=True)

    def maze(prices):
        return models.linearly_solvable(
            passive,
            [0.0 if letter in "XYZ" else 0.1 for letter in letters],
            horizon=None,
            exit_cost=[prices.get(letter, 0.0) for letter in letters],
            initial=[float(letter == "S") for letter in letters],
            temperature=0.2,
        )

    weights = {"X": 0.5, "Y": 0.25, "Z": 0.25}
    alone = [{letter: 0.0 if letter == exit else 9.0 for letter in weights} for exit in weights]
    parts = [inference.soft_values(maze(prices)) for prices in alone]
    mixed = inference.compose(parts, list(weights.values()))
    prices = {
        letter: -0.2
        * math.log(
            sum(
                w * math.exp(-p[letter] / 0.2) for w, p in zip(weights.values(), alone, strict=True)
            )
        )
        for letter in weights
    }
    solved = inference.soft_values(maze(prices))
    difference = (solved.V - mixed.V).abs().max()
    print("largest difference below 1e-9:", bool(difference < 1e-9))
    assert difference < 1e-9
