"""Tables of trips on a road network, and what is wrong with them, by row."""

import numpy as np
import pytest

from cai import models

COLUMNS = {
    "tail": ["a", "b", "b", "b", "c"],
    "head": ["b", "a", "c", "c", "a"],
    "key": [0, 0, 0, "bus", 0],
}
TRIPS = {
    "trip": [7, 7, 7, 4, 4],
    "u": ["a", "b", "c", "b", "a"],
    "v": ["b", "c", "a", "a", "b"],
    "key": [0, "bus", 0, 0, 0],
    "driver": ["x", "x", "x", "y", "y"],
}


def network():
    return models.streets_from_columns(COLUMNS, {}, key="key")


def test_states_are_segments_and_actions_turns():
    seen = network().demonstrations(TRIPS, group="driver")
    assert seen.states.tolist() == [[0, 3, 4], [1, 0, 0]]
    assert network().turns[seen.actions[seen.taken]].tolist() == [[0, 3], [3, 4], [1, 0]]
    assert seen.lengths.tolist() == [2, 1]
    assert seen.goals.tolist() == [4, 0]
    assert seen.groups == ("x", "y")
    assert seen.ends == ("absorbed", "absorbed")


@pytest.mark.parametrize("place", [0, 1, 17, 498, 499])
def test_the_first_pair_that_does_not_join_is_named_wherever_it_is(place):
    """On a round from a over b and c, from which one row is missing."""
    ends = np.array(["a", "b", "c"])[np.arange(502) % 3].tolist()
    round_ = {"trip": [1] * 501, "u": ends[:-1], "v": ends[1:], "key": [0] * 501}
    kept = [row for row in range(501) if row not in (place, place + 60)]
    gaps = {name: [column[row] for row in kept] for name, column in round_.items()}
    whole = network().demonstrations(round_)
    assert whole.lengths.tolist() == [500]
    if place == 0:  # which begins one row later
        place = 59
    with pytest.raises(ValueError, match=rf"trip 1, row {place}: .*turn joins"):
        network().demonstrations(gaps)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"u": ["a", "b", "c", "z", "a"]}, r"row 3: .*\(z, a, 0\)"),
        ({"trip": [7, 7, 7, 4, 5]}, "two segments in a trip, got one in trip 4, row 3"),
        ({"trip": [7, 4, 4, 7, 7]}, "row 3: expected rows of a trajectory that follow each other"),
        ({"key": [0, 0]}, "columns of one length"),
    ],
)
def test_what_is_wrong_is_said_with_its_row(arguments, message):
    with pytest.raises(ValueError, match=message):
        network().demonstrations(TRIPS | arguments)


def test_parallel_segments_and_columns_that_are_not_there():
    with pytest.raises(ValueError, match=r"row 1: .*\(b, c\).*one of 0, bus"):
        network().demonstrations(TRIPS, segment=("u", "v"))
    with pytest.raises(ValueError, match="column 'id': "):
        network().demonstrations(TRIPS, trip="id")
    with pytest.raises(ValueError, match=r"path: .*nowhere"):
        network().demonstrations("nowhere.csv")
