"""The hard rule without an end where actions tie: textbook problems, by hand and by sweeps."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import cai
from cai import inference, models


def hard(P, r, eta=0.0, **changes):
    return inference.soft_values(models.tabular(P, r, horizon=None, **changes), eta, "hard")


def fork(beside):
    """0 -> 1 or 2 -> 3, the goal; in state 2 the second action costs `beside`."""
    P = np.zeros((4, 2, 4))
    P[0, 0, 1] = P[0, 1, 2] = 1
    P[1, :, 3] = P[2, :, 3] = P[3, :, 3] = 1
    return P, [[-1.0, -1.0], [-1.0, -1.0], [-1.0, -beside], [0.0, 0.0]]


@pytest.mark.parametrize("eta", [-math.inf, -1.0, -1e-6, 0.0, 0.3, 1.0, math.inf])
@pytest.mark.parametrize("beside", [10.0, 100.0, 1e6])
def test_a_fork_with_something_dear_beside_one_way(beside, eta):
    found = hard(*fork(beside), eta)
    assert found.V.tolist() == pytest.approx([-2, -1, -1, 0], abs=1e-12)
    assert found.error < 1e-12 * (10 + beside)
    found = hard(*fork(beside), 0.0, discount=0.9)
    assert found.V.tolist() == pytest.approx([-1.9, -1, -1, 0], abs=1e-12)


@pytest.mark.parametrize("beside", [1.0, 100.0])
def test_a_fork_with_a_discount_away_from_zero_optimism(beside):
    """v(0) = -1 + log(γ exp(-η) + 1 - γ)/η: death is luck."""
    for eta in (-0.7, 0.5, 1.0, 20.0):
        found = hard(*fork(beside), eta, discount=0.9)
        expected = -1 + math.log(0.9 * math.exp(-eta) + 0.1) / eta
        assert abs(found.V[0].item() - expected) <= found.error + 1e-15


def lattice(rows, columns, goals, wind=None):
    """Steps right, down, left and up for a cost of 1; walls are bumped into; goals absorb.

    Upward wind blows in some columns, as in Sutton and Barto, example 6.5.
    """
    row, column = np.divmod(np.arange(rows * columns), columns)
    blown = 0 if wind is None else np.asarray(wind)[column]
    P = np.zeros((rows * columns, 4, rows * columns))
    for a, (down, right) in enumerate(((0, 1), (1, 0), (0, -1), (-1, 0))):
        to_row = np.clip(row + down - blown, 0, rows - 1)
        to = columns * to_row + np.clip(column + right, 0, columns - 1)
        P[np.arange(len(row)), a, to] = 1
    r = -np.ones((rows * columns, 4))
    P[goals], r[goals] = np.eye(rows * columns)[goals][:, None], 0
    return P, r, row, column


@pytest.mark.parametrize("eta", [-math.inf, -2.0, 0.0, 1.0, math.inf])
def test_the_small_gridworld_of_sutton_and_barto(eta):
    """Example 4.1: two corners absorb, and V is minus the distance to the nearer one."""
    P, r, row, column = lattice(4, 4, [0, 15])
    found = hard(P, r, eta)
    expected = [-min(d, 6 - d) for d in (row + column).tolist()]
    assert found.V.tolist() == pytest.approx(expected, abs=1e-12)
    assert found.error < 1e-11


@pytest.mark.parametrize("mud", [1.0, 30.0])
def test_open_ground_where_all_ways_tie(mud):
    """8 × 8 cells, 3432 shortest ways; mud makes the last steps into the goal costly, for all."""
    P, r, row, column = lattice(8, 8, [63])
    r[62, 0] = r[55, 1] = -mud
    expected = -(14 - row - column) - (mud - 1) * (np.arange(64) != 63)
    for eta in (-0.5, 0.0, 1.0):
        assert hard(P, r, eta).V.tolist() == pytest.approx(expected.tolist(), abs=1e-11)
    if mud == 1:
        found = hard(P, r, discount=0.9)
        assert found.V.tolist() == pytest.approx((-10 * (1 - 0.9**-expected)).tolist(), abs=1e-11)


def test_the_cliff_of_sutton_and_barto():
    """Example 6.6: 13 steps along the edge; who steps over it pays 100 and is back at the start."""
    P, r, row, column = lattice(4, 12, [47])
    for s, a in ((s, a) for s in range(48) for a in range(4)):
        if P[s, a].argmax() in range(37, 47) and s != 47:
            P[s, a], r[s, a] = np.eye(48)[36], -100
    V = hard(P, r).V
    assert V[36].item() == pytest.approx(-13, abs=1e-12)
    above = row < 3
    assert V[above].tolist() == pytest.approx((-(14 - row - column)[above]).tolist(), abs=1e-12)


def test_the_windy_gridworld_of_sutton_and_barto():
    """Example 6.5: 15 steps, the shortest way there is."""
    P, r, _, _ = lattice(7, 10, [37], wind=[0, 0, 0, 1, 1, 1, 2, 2, 1, 0])
    assert hard(P, r).V[30].item() == pytest.approx(-15, abs=1e-12)


def test_slippery_ground_with_symmetric_ways():
    """What is as far from the diagonal on either side ties, but for rounding errors."""
    n = 25
    P, r, _, _ = lattice(n, n, [n * n - 1])
    P = 0.8 * P + 0.1 * np.roll(P, 1, 1) + 0.1 * np.roll(P, -1, 1)
    found = hard(P, r)
    V = found.V.view(n, n)
    assert (V - V.T).abs().max() <= 2 * found.error < 1e-8
    assert (torch.as_tensor(r + P @ found.V.numpy()).amax(-1) - found.V).abs().max() < 1e-11


@pytest.mark.parametrize("eta", [-1.0, 0.5, 1.0, 2.0, 30.0])
def test_the_tower_of_hanoi(eta):
    """Three discs: V is minus the number of moves, 7 at first; the certificate is as close."""
    places = list(itertools.product(range(3), repeat=3))  # of the discs, the smallest first
    P = np.zeros((27, 6, 27))
    for s, place in enumerate(places):
        for a, (here, there) in enumerate(itertools.permutations(range(3), 2)):
            disc = place.index(here) if here in place else None
            if disc is None or there in place[:disc]:
                P[s, a, s] = 1
            else:
                P[s, a, places.index((*place[:disc], there, *place[disc + 1 :]))] = 1
    r = -np.ones((27, 6))
    P[-1], r[-1] = np.eye(27)[-1], 0
    moves = np.where(np.arange(27) == 26, 0, 99)
    for _ in range(7):
        moves = np.where(moves == 0, 0, 1 + moves[P.argmax(-1)].min(-1))
    assert moves[0] == 7
    found = hard(P, r, eta)
    assert found.V.tolist() == pytest.approx((-moves).tolist(), abs=1e-12)
    assert found.error < 1e-9


def random_problem(seed):
    """Integer costs, successors of equal odds: ties everywhere, and a way to the end."""
    rng = np.random.default_rng(seed)
    S, A, K = rng.integers(3, 9), rng.integers(2, 5), rng.integers(1, 4)
    P = np.eye(S)[rng.integers(S, size=(K, S, A))].mean(0)
    P[np.arange(S), 0] = np.eye(S)[np.minimum(np.arange(S) + rng.integers(1, 3, size=S), S - 1)]
    r = -rng.choice([0.01, 1.0, 100.0]) * rng.integers(1, 4, size=(S, A))
    r[rng.random((S, A)) < 0.15] *= 100
    P[-1], r[-1] = np.eye(S)[-1], 0
    return P, r


def swept(P, r, eta, discount, sweeps=3000):
    """The values of a long horizon, by sweeps in numpy; None where they do not settle."""
    v, log_p = np.zeros(len(P)), np.log(P, where=P > 0, out=np.full(P.shape, -np.inf))
    for _ in range(sweeps):
        if eta == 0:
            ahead = discount * P @ v
        elif np.isinf(eta):
            alive = v if discount == 1 else (np.maximum(v, 0) if eta > 0 else np.minimum(v, 0))
            x = np.where(P > 0, alive, -eta)
            ahead = x.max(-1) if eta > 0 else x.min(-1)
        else:
            x = eta * v
            if discount < 1:
                x = np.logaddexp(np.log(discount) + x, np.log1p(-discount))
            ahead = np.logaddexp.reduce(log_p + x, -1) / eta
        new = (r + ahead).max(-1)
        if np.abs(new - v).max() <= 1e-15 * (1 + np.abs(new).max()):
            return new
        v = new
    return None


@settings(max_examples=40)
@example(95927, 1.0, -0.5)  # a price of 20000 to get away surely, best from far below zero on
@given(
    st.integers(0, 10**6),
    st.sampled_from([1.0, 0.9, 0.5]),
    st.sampled_from([-math.inf, -4.0, -0.5, -0.1, -0.02, 0.0, 0.3, 1.0, 8.0, math.inf]),
)
def test_random_problems_with_ties_against_sweeps(seed, discount, eta):
    P, r = random_problem(seed)
    expected = swept(P, r, eta, discount)
    if expected is not None:
        found = hard(P, r, eta, discount=discount)
        size = 1 + np.abs(expected).max()
        # Sweeps stop at a change of 1e-15, which γ or 1/(1 - J) of a hundred steps sums up.
        assert np.abs(found.V.numpy() - expected).max() <= found.error + 1e-12 * size
        assert found.error < 1e-8 * size


@pytest.mark.parametrize("cost", [1.0, 100.0])
@pytest.mark.parametrize("length", [1, 2, 5])
def test_a_circle_that_costs_nothing_is_still_refused(length, cost):
    """Round and round for nothing, or out of it at a cost."""
    P = np.zeros((length + 1, 2, length + 1))
    P[np.arange(length), 0, (np.arange(length) + 1) % length] = 1
    P[:, 1, -1] = P[-1, :, -1] = 1
    r = np.zeros((length + 1, 2))
    r[:-1, 1] = -cost
    with pytest.raises(ValueError, match="can go on for ever at no cost"):
        hard(P, r)
    r[:-1, 0] = -1e-3  # a price on the circle, and it is answered
    assert hard(P, r).V.tolist() == pytest.approx([-cost] * length + [0.0], abs=1e-12)


def test_policies_mix_what_ties():
    found = hard(*fork(100.0), initial=[1.0, 0, 0, 0])
    assert found.policy.log_probs.exp()[0].tolist() == [0.5, 0.5]
    assert found.states.tolist() == [1.0, 0.5, 0.5, 0.0]
    assert cai.evaluate(found.table, found.policy).expected_return == pytest.approx(found.bound)
