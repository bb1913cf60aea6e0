"""The map of a road network, read back from matplotlib."""

import math

import numpy as np
import pytest

from cai import models, plot

COLUMNS = {"tail": ["a", "b", "b"], "head": ["b", "a", "c"], "geometry": [None, None, None]}
COLUMNS["geometry"][2] = "LINESTRING (24.91 60, 24.92 60.01, 24.93 60)"
NODES = {"node": ["a", "b", "c"], "x": [24.9, 24.91, 24.93], "y": [60.0, 60.0, 60.0]}


def network(**changes):
    options = {"geometry": "geometry", "nodes": NODES, "degrees": True} | changes
    return models.streets_from_columns(COLUMNS, {}, **options)


def test_width_and_colour_are_the_numbers_and_the_largest_lies_on_top():
    streets = network()
    figure = plot.streets(streets, [0.2, 0.8, 0.4], label="share of trips")
    figure.canvas.draw()
    axes, bar = figure.axes
    grey, drawn = axes.collections
    assert drawn.get_array().tolist() == [0.2, 0.4, 0.8]
    assert drawn.get_linewidths() == pytest.approx([5 * 0.25, 5 * 0.5, 5])
    assert drawn.get_clim() == (0, 0.8)
    for e, path in zip([0, 2, 1], drawn.get_paths(), strict=True):
        np.testing.assert_allclose(path.vertices, streets.lines[e])
    assert len(grey.get_paths()) == 3
    assert bar.get_ylabel() == "share of trips"
    assert axes.get_aspect() == pytest.approx(1 / math.cos(math.radians(60.005)))
    assert axes.get_xlabel() == "longitude (°)"
    assert axes.get_xlim()[0] <= 24.9 <= 24.93 <= axes.get_xlim()[1]
    assert "share of trips" in figure.get_supxlabel()


def test_metres_are_as_long_both_ways_and_zeros_have_no_width():
    town = models.city(5, 5)
    figure = plot.streets(town, town.segment_features["bridge"] * 0)
    axes = figure.axes[0]
    assert axes.get_aspect() == 1
    assert axes.get_xlabel() == "x"
    assert axes.collections[1].get_linewidths() == [0] * len(town.segments)
    figure.canvas.draw()


@pytest.mark.parametrize(
    ("streets", "values", "message"),
    [
        (network(), [1.0, 2.0], "values: expected 3 finite"),
        (network(), [1.0, 2.0, math.nan], "not finite"),
        (network(), "abc", "values"),
        (3, [1.0], "a cai.Streets"),
        (models.streets_from_columns({"tail": "a", "head": "b"}), [1.0], "without coordinates"),
    ],
)
def test_what_cannot_be_drawn_is_said(streets, values, message):
    with pytest.raises(ValueError, match=message):
        plot.streets(streets, values)


def test_where_a_trip_is_going_line_by_line():
    belief = np.full((3, 9), 0.05)
    belief[:, 8] = [0.1, 0.2, 0.3]
    belief[:, 2] = [0.1, 0.06, 0.02]
    belief[:, 5] = 0.5
    names = [f"place {j}" for j in range(9)]
    figure = plot.destinations([1, 4, 6], belief, names, ended=2)
    figure.canvas.draw()
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.lines}
    assert list(lines)[:2] == ["place 5", "place 8"]
    assert len(lines) == 5
    assert lines["place 8"].get_xdata().tolist() == [1, 4, 6]
    assert lines["place 8"].get_ydata() == pytest.approx([0.1, 0.2, 0.3])
    ended = lines["place 2, where it ended"]
    assert ended.get_linewidth() > lines["place 8"].get_linewidth()
    assert len({line.get_linestyle() for line in axes.lines}) > 3
    assert axes.get_ylabel() == "probability of the destination"
    assert "In the end 4 others share 0.2." in figure.get_supxlabel()
    alone = plot.destinations([1], [[0.25, 0.75]], ["a", "b"])
    assert [line.get_label() for line in alone.axes[0].lines] == ["b", "a"]
    assert "ended" not in alone.get_supxlabel()
    assert "others" not in alone.get_supxlabel()


@pytest.mark.parametrize(
    ("turns", "belief", "ended", "message"),
    [
        ([1, 2], [[0.5, 0.5]], None, r"probabilities: expected shape \[2, 2\]"),
        ([1], [[1.0]], None, r"probabilities: expected shape \[1, 2\]"),
        ([], np.zeros((0, 2)), None, "probabilities: expected some turns and destinations"),
        ([1], [[0.5, np.nan]], None, r"probabilities: expected numbers in \[0, 1\]"),
        ([1], [[0.5, 1.5]], None, r"probabilities: expected numbers in \[0, 1\]"),
        ([1], [[0.5, 0.5]], 2, r"ended: expected one of 0 … 1, got 2"),
    ],
)
def test_beliefs_that_do_not_fit_are_said(turns, belief, ended, message):
    with pytest.raises(ValueError, match=message):
        plot.destinations(turns, belief, ["a", "b"], ended=ended)
