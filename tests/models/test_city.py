"""Generated towns: connected, of the size asked for, with a river that only bridges cross."""

import networkx as nx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cai import models


@given(st.integers(4, 12), st.integers(2, 12), st.integers(1, 4), st.integers(0, 10**6))
def test_every_crossing_reaches_every_other(rows, columns, every, seed):
    town = models.city(rows, columns, arterial_every=every, one_way=0.8, missing=0.5, seed=seed)
    assert nx.is_strongly_connected(nx.DiGraph(town.segments.tolist()))
    assert len(town.dead_ends) == 0
    assert town.segment_features["bridge"].sum() <= 2 * min(3, columns)


def test_only_bridges_cross_the_river():
    for bridges in (1, 2, 4):
        town = models.city(12, 12, bridges=bridges, seed=3)
        assert town.segment_features["bridge"].sum() == 2 * bridges  # on arterials, both ways
        banks = nx.Graph(town.without(town.segment_features["bridge"] > 0).segments.tolist())
        assert nx.number_connected_components(banks) == 2
    assert models.city(bridges=None).segment_features["bridge"].sum() == 0


def test_arterials_go_both_ways_and_are_faster():
    town = models.city(20, 20, one_way=1.0, missing=0.0, seed=2)
    speed = town.segment_features["length"] / town.segment_features["minutes"] * 0.06  # km/h
    fast = town.segment_features["arterial"] > 0
    assert speed[fast].sub(50).abs().max() < 1e-9
    assert speed[~fast].sub(30).abs().max() < 1e-9
    back = set(map(tuple, town.segments.tolist()))
    both = torch.tensor([(v, u) in back for u, v in town.segments.tolist()])
    assert both[fast].all()
    assert not both[~fast].any()


def test_sizes_and_seeds():
    sizes = [len(models.city(n, n).segments) for n in (5, 58)]
    assert 50 <= sizes[0] < 100
    assert 10_000 <= sizes[1] < 12_000
    one, same, other = (models.city(8, 8, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.points, same.points)
    assert one.segment_names == same.segment_names
    assert one.segment_names != other.segment_names
    shares = [len(models.city(20, 20, bridges=None, missing=m).segments) for m in (0.0, 0.3)]
    assert shares[1] < 0.9 * shares[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": 3},
        {"columns": 1},
        {"arterial_every": 0},
        {"one_way": 2},
        {"missing": "x"},
        {"bridges": 0},
        {"seed": 0.5},
    ],
)
def test_what_is_out_of_range_is_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        models.city(**changes)
