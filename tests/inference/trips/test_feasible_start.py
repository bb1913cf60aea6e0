"""Starts of a fit of trips: spectral radii by dense algebra, convexity, and cycles that gain."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from towns import NAMES, town, trips_of, walks

from cai import inference, models
from cai.inference.trips.feasible_start import Cycles, feasible_start
from cai.inference.trips.trip_likelihoods import TripLikelihoods


def dense_radius(streets, utility):
    """log of the largest eigenvalue in absolute value."""
    E = len(streets.segments)
    M = np.zeros((E, E))
    M[tuple(streets.turns.numpy().T)] = np.exp(utility)
    return math.log(np.abs(np.linalg.eigvals(M)).max())


def with_gains(tail, head, gains):
    streets = models.streets_from_columns({"tail": list(tail), "head": list(head)})
    gains = torch.tensor(gains, dtype=torch.float64)
    return dataclasses.replace(streets, segment_features={"gain": gains})


@pytest.mark.parametrize("size", [4, 6])  # dense, and by Arnoldi's iteration
def test_the_radius_its_slope_and_its_convexity(size):
    streets = models.city(size, size, seed=1)
    cycles = Cycles(streets.turns.numpy(), len(streets.segments))
    rng = np.random.default_rng(size)
    at, along = (rng.normal(size=len(streets.turns)) for _ in range(2))

    def radius(x):
        return cycles.radius((at + x * along)[cycles.inside])

    assert radius(0.0)[0] == pytest.approx(dense_radius(streets, at), abs=1e-8)
    slope = (radius(1e-4)[0] - radius(-1e-4)[0]) / 2e-4
    assert radius(0.0)[1] @ along[cycles.inside] == pytest.approx(slope, abs=1e-5)
    for x in (-2.0, -0.5, 1.0):
        assert radius(x)[0] + radius(x + 2)[0] >= 2 * radius(x + 1)[0] - 1e-8


@pytest.mark.parametrize("seed", range(3))
def test_a_start_is_a_little_inside(seed):
    streets = town(seed)
    features = streets.features(NAMES).numpy()
    found = feasible_start(streets.turns.numpy(), len(streets.segments), features)
    inside = dense_radius(streets, features @ found.weights)
    assert inside == pytest.approx(-0.5, abs=0.1)
    assert found.log_radius == pytest.approx(inside, abs=1e-8)


def test_where_no_cost_can_be_avoided_the_cycle_is_named():
    """Without a left turn one may drive there and back for nothing, whatever lefts cost."""
    streets = town()
    trips = walks(streets, 10)
    with pytest.raises(ValueError, match=r"start: .* → .*whatever the weights are") as caught:
        inference.fit_reward(streets, trips, ["left"])
    first, second, third = (
        str(caught.value).split("no cost, for ")[1].split(" whatever")[0].split(" → ")
    )
    assert first == third
    assert first != second
    named = {str(name): e for e, name in enumerate(streets.segment_names)}
    pair = torch.tensor([named[first], named[second]])
    turns = streets.locate_turns(pair, pair.flip(0))
    assert (streets.features(["left"])[turns] == 0).all()


def test_a_given_start_that_gains_is_refused_with_its_cycle():
    streets = town()
    trips = walks(streets, 10)
    with pytest.raises(ValueError, match=r"start: .* → .* at \[1.0, 0.0, 0.0\]; leave start= out"):
        inference.fit_reward(streets, trips, NAMES, start=[1.0, 0.0, 0.0])


def test_a_given_start_beyond_all_numbers_is_no_cycle_that_gains():
    once = with_gains("oaabc", "abccd", [1.0, 1.0, 2.5, 1.0, 1.0])  # without a cycle
    rows = {"trip": [0] * 4 + [1] * 3, "u": list("oabcoac"), "v": list("abcdacd")}
    trips = once.demonstrations(rows, segment=("u", "v"))
    with pytest.raises(ValueError, match="start: expected weights of a finite likelihood"):
        inference.fit_reward(once, trips, ["gain"], start=[1e5])


def test_cycles_that_no_trip_can_drive_do_not_matter():
    """A gaining cycle that leads to the origin, and one that leads away from the way."""
    streets = with_gains("abaodxdy", "baodxyye", [3.0, 3.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0])
    way = [streets.segment(*pair) for pair in ("od", "dx")]
    score = TripLikelihoods(streets, streets.features(["gain"]), trips_of(streets, [way]))
    weights = torch.ones(1, dtype=torch.float64)
    torch.testing.assert_close(score(weights).values, torch.zeros(1, dtype=torch.float64))
    assert float(score.start()) == 0.0  # there is no cycle on the way


def test_a_cycle_through_the_only_goal_is_none():
    streets = with_gains("oab", "aba", [1.0, 1.0, 1.0])
    trips = trips_of(streets, [[streets.segment("o", "a"), streets.segment("a", "b")]])
    score = TripLikelihoods(streets, streets.features(["gain"]), trips)
    given = torch.ones(1, dtype=torch.float64)
    assert torch.equal(score.start(given), given)
