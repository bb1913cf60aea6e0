"""The figure of the dial, read back from matplotlib."""

import itertools
import math

import numpy as np
import pytest

from cai import inference, models, plot
from cai.drawing.palette import REFERENCE


def lines(axes):
    return {line.get_label(): line for line in axes.get_lines()}


def drawn(curve):
    figure = plot.optimism_curve(curve)
    figure.canvas.draw()
    return figure, *figure.axes


def test_curves_labels_and_units():
    curve = inference.optimism_curve(models.ledge())
    figure, left, right = drawn(curve)
    scaled = np.linspace(-1, 1, 41)
    for axes, label, column in (
        (left, "bound", curve.bound),
        (left, "ELBO of the policy", curve.elbo),
        (right, "imagined", curve.imagined_return),
        (right, "real", curve.expected_return),
    ):
        line = lines(axes)[label]
        np.testing.assert_allclose(line.get_xdata(), scaled, atol=1e-12)
        np.testing.assert_allclose(line.get_ydata(), column)
    assert left.get_xlabel() == right.get_xlabel() == "optimism η, on the scale η/(1 + |η|)"
    assert left.get_ylabel() == "bound, ELBO (nats)"
    assert right.get_ylabel() == "return of the policy (reward units)"
    ticks = [tick.get_text() for tick in left.get_xticklabels()]
    assert ticks == ["−∞", "−3", "−1", "0", "1", "3", "∞"]
    np.testing.assert_allclose(left.get_xticks(), [-1, -0.75, -0.5, 0, 0.5, 0.75, 1])
    caption = " ".join(figure.get_supxlabel().split())
    assert "KL of the dynamics" in caption
    assert "the policy switches" in caption


def test_tangents_touch_the_bound_in_its_slope():
    """Against differences of a fine curve, on the scale of the figure, ends included."""
    model = models.ledge()
    curve = inference.optimism_curve(model)
    tangents = [line for line in drawn(curve)[1].get_lines() if line.get_color() == REFERENCE]
    assert len(tangents) >= 8
    for line in tangents:
        x, y = line.get_data()
        middle = min(curve.optimism.tolist(), key=lambda eta: abs(scaled(eta) - np.mean(x)))
        at = scaled(middle)
        ends = [max(-1.0, at - 1e-5), min(1.0, at + 1e-5)]
        bounds = [inference.soft_values(model, unscaled(u)).bound for u in ends]
        slope = (bounds[1] - bounds[0]) / (ends[1] - ends[0])
        assert (y[1] - y[0]) / (x[1] - x[0]) == pytest.approx(slope, rel=1e-3, abs=1e-6)
        assert y[0] <= inference.soft_values(model, middle).bound <= y[1]


def scaled(eta):
    return math.copysign(1, eta) if math.isinf(eta) else eta / (1 + abs(eta))


def unscaled(u):
    return math.copysign(math.inf, u) if abs(u) == 1 else u / (1 - abs(u))


def test_changes_of_mind_are_dashed_and_named():
    curve = inference.optimism_curve(models.ledge())
    figure, left, right = drawn(curve)
    at = scaled(curve.changes[0].optimism)
    for axes in (left, right):
        (dashed,) = (line for line in axes.get_lines() if line.get_linestyle() == "--")
        np.testing.assert_allclose(dashed.get_xdata(), [at, at])
        (number,) = axes.texts
        assert (number.get_text(), number.get_position()[0]) == ("1", at)
    words = " ".join(figure.get_supxlabel().split())
    assert "1: path → short cut at η = 0.241 (start, step 0)." in words


def test_close_changes_share_their_numbers_and_name_cells_of_the_map():
    """On the bridge the policy of the start switches twice near -1.4, and twice more."""
    rewards = {"goal_reward": 10.0, "pit_reward": -20.0}
    model = models.gridworld("bridge", horizon=24, temperature=0.5, slip=0.1, **rewards)
    etas = [k / 4 for k in range(-8, 5)]
    curve = inference.optimism_curve(model, etas, steps=(0,))
    assert len(curve.changes) == 4
    figure, left, _ = drawn(curve)
    assert left.texts[0].get_text() == "1, 2"
    numbers = [number for text in left.texts for number in text.get_text().split(", ")]
    assert numbers == [str(k + 1) for k in range(min(7, len(curve.changes)))]
    for one, other in itertools.combinations(left.texts, 2):
        assert not one.get_window_extent().overlaps(other.get_window_extent())
    words = " ".join(figure.get_supxlabel().split())
    assert "(S, step 0)" in words
    assert "state 0" not in words


def test_without_changes_and_on_part_of_the_dial():
    curve = inference.optimism_curve(models.ledge(), [0.3, 0.5, 1.0, 2.0])
    figure, left, right = drawn(curve)
    assert "switches" not in figure.get_supxlabel()
    assert not right.texts
    assert [tick.get_text() for tick in left.get_xticklabels()] == ["1"]
    low, high = left.get_xlim()
    assert low == pytest.approx(0.3 / 1.3, abs=0.02)
    assert high == pytest.approx(2 / 3, abs=0.02)


def test_infinite_bounds_are_left_out():
    P = [[[0.5, 0.5]], [[0.0, 1.0]]]
    model = models.tabular(P, [[0.0], [0.0]], horizon=1, final_reward=[0.0, -math.inf])
    _, left, _ = drawn(inference.optimism_curve(model, [-math.inf, -1.0, 0.0, 1.0, math.inf]))
    bound = lines(left)["bound"].get_ydata()
    assert np.isnan(bound).tolist() == [True, True, True, False, False]
    for line in left.get_lines():
        assert line.get_linestyle() == "--" or not np.isinf(line.get_ydata()).any()


def test_one_optimism_is_a_curve():
    curve = inference.optimism_curve(models.ledge(), [1.0])
    _, left, _ = drawn(curve)
    assert lines(left)["bound"].get_ydata().tolist() == [curve.bound.item()]
