"""The map of a road network, read back from matplotlib."""

import itertools
import math

import numpy as np
import pytest
import torch

from cai import inference, models, plot
from cai.drawing.palette import lettering

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


def belief_of(rows, names=None):
    """A belief with an equal prior, after a start and one step for each further row."""
    p = torch.tensor(rows, dtype=torch.float64)
    names = tuple(range(p.shape[1])) if names is None else names
    prior = torch.full((len(names),), 1 / len(names), dtype=torch.float64)
    return inference.Intent(names, prior, p.log().unsqueeze(0), torch.tensor([len(p) - 1]))


def test_beliefs_step_by_step_are_labelled_where_they_end():
    likely_once = [0.1, 0.1, 0.1, 0.1, 0.3, 0.1, 0.1, 0.1]
    rows = [[0.125] * 8, likely_once, [0.02, 0.4, 0.2, 0.1, 0.08, 0.09, 0.01, 0.1]]
    belief = belief_of(rows, tuple("abcdefgh"))
    figure = plot.intent(belief, truth="a", labels={"b": "the bakery"}, step="turns seen")
    figure.canvas.draw()
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.lines}
    assert list(lines) == ["the bakery", "c", "d", "e", "a"]
    assert lines["the bakery"].get_xdata().tolist() == [0, 1, 2]
    assert lines["the bakery"].get_ydata() == pytest.approx([0.125, 0.1, 0.4])
    assert lines["a"].get_linewidth() > lines["c"].get_linewidth()
    labels = {text.get_text(): text for text in axes.texts}
    assert list(labels) == list(lines)
    for name, text in labels.items():
        assert text.get_color() == lettering(lines[name].get_color())
        assert text.xy == pytest.approx((2, lines[name].get_ydata()[-1]))
    heights = [text.get_position()[1] for text in axes.texts]
    assert all(one - other >= 0.05 for one, other in itertools.pairwise(heights))
    assert min(heights) >= 0
    assert max(heights) <= 1.03
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("turns seen", "probability")
    assert "In the end 3 others share 0.2." in figure.get_supxlabel()
    assert "Thick: the truth." in figure.get_supxlabel()
    low = plot.intent(belief_of([[0.5, 0.5], [1.0, 1e-9]]))
    assert "others" not in low.get_supxlabel()
    assert "Thick" not in low.get_supxlabel()


def test_beliefs_that_cannot_be_drawn_are_said():
    belief = belief_of([[0.5, 0.5], [0.9, 0.1]])
    with pytest.raises(ValueError, match="truth: expected the name of a model, got 'x'"):
        plot.intent(belief, truth="x")
    with pytest.raises(ValueError, match=r"belief: expected a result of inference\.intent"):
        plot.intent([0.5, 0.5])
    two = inference.Intent(
        belief.names, belief.prior, belief.log_likelihoods.expand(2, -1, -1), torch.tensor([1, 1])
    )
    with pytest.raises(ValueError, match="belief: expected one of one trajectory, got of 2"):
        plot.intent(two)
