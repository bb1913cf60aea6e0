"""A road network: names, turns, features, and what is left without some of it."""

import dataclasses

import numpy as np
import pytest
import torch

import cai
from cai import models

# a ⇄ b, two streets from b to c, one from c to a
COLUMNS = {
    "tail": ["a", "b", "b", "b", "c"],
    "head": ["b", "a", "c", "c", "a"],
    "key": [0, 0, 0, "bus", 0],
    "minutes": [1.0, 2.0, 3.0, 4.0, 5.0],
}
NODES = {"node": ["a", "b", "c"], "x": [0.0, 100.0, 100.0], "y": [0.0, 0.0, 100.0]}


def network():
    return models.streets_from_columns(COLUMNS, key="key", nodes=NODES)


def test_turns_features_and_offsets():
    streets = network()
    expected = [[0, 1], [0, 2], [0, 3], [1, 0], [2, 4], [3, 4], [4, 0]]
    assert streets.turns.tolist() == expected
    assert streets.offsets.tolist() == [0, 3, 4, 5, 6, 7]
    assert streets.feature("minutes").tolist() == [2, 3, 4, 1, 5, 5, 1]
    assert streets.feature("left").tolist() == [0, 1, 1, 0, 1, 1, 1]
    assert streets.feature("u_turn").tolist() == [1, 0, 0, 1, 0, 0, 0]
    both = streets.features(["left", "minutes"])
    assert both.shape == (7, 2)
    assert torch.equal(both[:, 1], streets.feature("minutes"))
    assert streets.layout.states[3] == "b → c (bus)"
    assert repr(streets) == (
        "Streets(5 segments, 7 turns, 3 nodes; of segments: minutes; "
        "of turns: angle, left, right, u_turn)"
    )


def test_names_are_found_as_texts_and_parallel_ones_ask_for_the_key():
    streets = network()
    assert [streets.segment(*name) for name in streets.segment_names] == [0, 1, 2, 3, 4]
    assert streets.segment("b", "a") == 1
    found = streets.locate(np.array(["b", "a"]), ["c", "b"], ["bus", "0"])
    assert found.tolist() == [3, 0]
    with pytest.raises(ValueError, match=r"row 1: .*\(b, c\).*one of 0, bus"):
        streets.locate(["a", "b"], ["b", "c"])
    with pytest.raises(ValueError, match=r"row 0: .*\(c, b\)"):
        streets.segment("c", "b")
    with pytest.raises(ValueError, match="columns of one length"):
        streets.locate(["a"], ["b", "c"])


def test_turns_are_found_and_segments_that_do_not_join_are_named():
    streets = network()
    before, after = streets.turns.T
    assert streets.locate_turns(before, after).tolist() == list(range(7))
    with pytest.raises(ValueError, match=r"row 1: .*\('b', 'a', 0\) and \('b', 'c', 0\)"):
        streets.locate_turns(torch.tensor([0, 1]), torch.tensor([1, 2]))
    for pair in ([0, 9], [-1, 5], [4, 5]):
        with pytest.raises(ValueError, match="row 0"):
            streets.locate_turns(pair[:1], pair[1:])
    alone = models.streets_from_columns({"tail": "a", "head": "b"})
    with pytest.raises(ValueError, match="row 0"):
        alone.locate_turns([0], [0])


def test_destinations_by_node_are_the_segments_that_lead_to_it():
    streets = network()
    assert streets.destination("c").tolist() == [2, 3]
    assert streets.origin("c").tolist() == [4]
    alone = models.streets_from_columns({"tail": [1], "head": [2]})
    assert alone.destination("2").tolist() == [0]
    for node in (1, 7, None):
        with pytest.raises(ValueError, match="a node that segments lead to"):
            alone.destination(node)


def test_without_segments_and_turns():
    streets = network()
    fewer = streets.without(segments=torch.tensor([False, False, True, False, False]))
    rows = [0, 1, 3, 4]
    kept = {name: [COLUMNS[name][k] for k in rows] for name in COLUMNS}
    built = models.streets_from_columns(kept, key="key", nodes=NODES)
    assert fewer.segment_names == built.segment_names
    for name in ("segments", "turns", "points", "bounds"):
        assert torch.equal(getattr(fewer, name), getattr(built, name))
    for name in ("minutes", "angle", "left", "u_turn"):
        assert torch.equal(fewer.feature(name), built.feature(name))
    ahead = streets.without(turns=streets.feature("u_turn") > 0)
    assert ahead.turns.tolist() == [[0, 2], [0, 3], [2, 4], [3, 4], [4, 0]]
    assert ahead.dead_ends.tolist() == [1]
    assert "; dead ends: 1)" in repr(ahead)
    assert ahead.feature("minutes").tolist() == [3, 4, 5, 5, 1]
    for mask in ([1, 0, 0, 0, 0], torch.zeros(4, dtype=torch.bool)):
        with pytest.raises(ValueError, match="5 flags"):
            streets.without(segments=mask)
    with pytest.raises(ValueError, match="at least one"):
        streets.without(segments=torch.ones(5, dtype=torch.bool))


def test_features_of_ones_own_and_names_that_are_not_there():
    streets = network()
    lights = {"lights": torch.arange(7.0)}
    more = dataclasses.replace(streets, turn_features=streets.turn_features | lights)
    assert more.feature("lights").tolist() == [0, 1, 2, 3, 4, 5, 6]
    for name, message in {"lights": "there are minutes, angle", None: "NoneType"}.items():
        with pytest.raises(ValueError, match=message):
            streets.feature(name)
    for names in ("minutes", [], 3):
        with pytest.raises(ValueError, match="features"):
            streets.features(names)
    with pytest.raises(ValueError, match="coordinates, geometries or angles"):
        models.streets_from_columns({"tail": "a", "head": "b"}).feature("left")


def test_seconds_beside_what_is_a_million_times_smaller_are_told():
    streets = network()
    small = {"years": streets.segment_features["minutes"] / 525_600 / 4}
    both = dataclasses.replace(streets, segment_features=streets.segment_features | small)
    with pytest.warns(UserWarning, match="minutes is typically 3 and years.*millionfold"):
        both.features(["minutes", "left", "years"])
    both.features(["left", "years"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"turns": [[0, 4]]}, r"turn 0: .*join.*\('a', 'b', 0\) and \('c', 'a', 0\)"),
        ({"turns": [[0, 2], [0, 1]]}, "turn 1: .*ascending"),
        ({"turns": [[0, 5]]}, "turns: .*0 … 4"),
        ({"turns": [0, 1]}, r"turns: .*shape \[2\]"),
        ({"segments": [[0, 3]] * 5}, "segments: .*0 … 2"),
        ({"segments": [[0, 1]]}, "key. of each segment"),
        ({"segment_names": tuple("vwxyz")}, "tuples of three"),
        ({"segment_features": {"x": [1.0]}}, "x: expected 5 finite numbers"),
        ({"segment_features": {"x": [1.0, 2, 3, 4, float("nan")]}}, "not all finite"),
        ({"segment_features": {"left": [0.0] * 5}}, "left twice"),
        ({"segment_features": 3}, "mapping"),
        ({"node_names": ("a", "b", "a")}, "node_names: .*a twice"),
        ({"segment_names": (("a", "b", 0),) * 5}, "segment_names: .*twice"),
        ({"segment_names": ()}, "at least one"),
        ({"degrees": "no"}, "degrees"),
        ({"coordinates": torch.zeros(2, 2)}, "coordinates"),
        ({"points": None}, "points: expected"),
        ({"bounds": torch.arange(6)}, "points, bounds: .*two points"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(network(), **changes)
    assert isinstance(network(), cai.Streets)
