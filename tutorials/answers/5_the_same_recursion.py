"""Answers to the exercises of notebook 5."""

import math
import re

import numpy as np

from cai import inference, models


def said(model, optimism):
    """What the library says of an optimism at which there is no value."""
    try:
        solution = inference.soft_values(model, optimism=optimism)
    except ValueError as error:
        return str(error)
    raise AssertionError(f"a value beyond the cliff: {solution.V}")


def answer_1():
    """At -log(2/γ) = -0.80: each step longer now costs nature log 2 + log(1/γ), and you still 1.

    A step goes on with probability γ/2. To make that certain costs log(2/γ) nats of KL, at a price
    of 1/|η|, so that waiting for ever is a bargain beyond |η| = log(2/γ).
    """
    for discount in (1.0, 0.9, 0.5):
        waiting = models.tabular(
            [[[0.5, 0.5]], [[0.0, 1.0]]],
            [[-1.0], [0.0]],
            horizon=None,
            initial=[1.0, 0.0],
            discount=discount,
        )
        cliff = -math.log(2 / discount)
        eta = cliff + 0.02
        on = 0.5 * discount * math.exp(-eta)
        closed = math.log(math.exp(-eta) * (1 - 0.5 * discount) / (1 - on)) / eta
        value = inference.soft_values(waiting, optimism=eta).V[0].item()
        print(f"γ = {discount}: cliff at η = {cliff:.3f}; at {eta:.3f}, V = {value:.3f}", end=" ")
        print(f"(closed form {closed:.3f})")
        assert abs(value - closed) < 1e-6
        beyond = said(waiting, cliff - 0.02)
        found = float(re.search(r"critical optimism .* is about (-[\d.]+\d)", beyond)[1])
        assert abs(found - cliff) < 1e-4


def answer_2():
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


def answer_3():
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
