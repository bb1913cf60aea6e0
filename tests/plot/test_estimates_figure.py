"""Weights and their intervals, and a profile, read back from matplotlib."""

import math
from types import SimpleNamespace

import pytest
import torch

from cai import plot


def fit(weights, half):
    """A fit whose intervals have a half width; None for a weight without one."""
    ends = {
        name: (math.nan, math.nan) if half is None else (x - half, x + half)
        for name, x in weights.items()
    }
    return SimpleNamespace(weights=weights, intervals=lambda level: ends)


def test_points_bars_and_truth_are_where_they_should_be():
    fits = {
        "actions": fit({"step": -1.0, "goal": 2.0}, 0.25),
        "paths": fit({"step": -0.5, "pit": 1.0}, None),
    }
    figure = plot.estimates(fits, truth={"goal": 1.75})
    figure.canvas.draw()
    (axes,) = figure.axes
    assert [x.get_text() for x in axes.get_yticklabels()] == ["step", "goal", "pit"]
    assert [x.get_text() for x in axes.get_legend().get_texts()] == list(fits)
    bars = [x for x in axes.lines if x.get_linewidth() == 2]
    assert [tuple(x.get_xdata()) for x in bars] == [(-1.25, -0.75), (1.75, 2.25)]
    points = [x for x in axes.lines if x.get_marker() in ("o", "s")]
    assert [float(x.get_xdata()[0]) for x in points] == [-1.0, 2.0, -0.5, 1.0]
    assert [x.get_markerfacecolor() == "white" for x in points] == [False, False, True, True]
    dashed = [x for x in axes.lines if x.get_linestyle() == "--"]
    assert [float(x.get_xdata()[0]) for x in dashed] == [1.75]
    assert "Hollow" in figure.get_supxlabel()
    assert len(plot.estimates(fits["actions"]).axes) == 1


def test_weights_without_errors_are_points_alone():
    """As of a margin, beside a fit with intervals."""
    fits = {"margin": SimpleNamespace(weights={"step": -2.0}), "actions": fit({"step": -1.0}, 0.5)}
    figure = plot.estimates(fits)
    (axes,) = figure.axes
    bars = [x for x in axes.lines if x.get_linewidth() == 2]
    assert [tuple(x.get_xdata()) for x in bars] == [(-1.5, -0.5)]
    points = [x for x in axes.lines if x.get_marker() in ("o", "s")]
    assert [x.get_markerfacecolor() == "white" for x in points] == [False, False]
    assert "gives no errors" in figure.get_supxlabel()
    with pytest.raises(ValueError, match=r"fits\[''\]: expected a reward with weights"):
        plot.estimates(SimpleNamespace(weights=None))


def test_a_profile_and_its_interval():
    found = SimpleNamespace(
        optimism=0.5,
        interval=(0.1, math.inf),
        level=0.9,
        optimisms=torch.tensor([-1.0, 0.5, 2.0]),
        log_likelihoods=torch.tensor([-103.0, -100.0, -101.0]),
    )
    figure = plot.optimism_profile(found)
    figure.canvas.draw()
    (axes,) = figure.axes
    line = axes.lines[0]
    assert line.get_ydata().tolist() == [-3.0, 0.0, -1.0]
    (shaded,) = axes.patches
    assert shaded.get_x() == pytest.approx(0.1)
    assert shaded.get_x() + shaded.get_width() == pytest.approx(2.0)
    assert "90%" in figure.get_supxlabel()


def test_what_cannot_be_drawn_is_said():
    with pytest.raises(ValueError, match="fits: expected at least one fitted reward"):
        plot.estimates({})
    with pytest.raises(ValueError, match=r"fits\['a'\]: expected a result of inference.fit_reward"):
        plot.estimates({"a": 3})
    with pytest.raises(ValueError, match=r"found: expected a result of inference\.fit_optimism"):
        plot.optimism_profile(3)


def test_each_demonstrator_has_a_row_and_the_population_a_band():
    people = {"a": fit({"step": -1.0, "goal": 2.0}, 0.25), "b": fit({"step": -2.0, "goal": 1.0}, 1)}
    people["a"].demonstrations, people["b"].demonstrations = 3, 0

    class Found:
        labels, group_weights = ("a", "b"), None
        weights, spreads = {"step": -1.5, "goal": 1.5}, {"step": 0.5, "goal": 0.1}

        def __getitem__(self, label):
            return people[label]

    figure = plot.by_group(Found())
    figure.canvas.draw()
    step, goal = figure.axes
    assert [x.get_text() for x in step.get_yticklabels()] == ["b", "a"]  # by the first weight
    bars = [tuple(x.get_xdata()) for x in goal.lines if x.get_linewidth() == 2]
    assert bars == [(0.0, 2.0), (1.75, 2.25)]
    points = [x for x in step.lines if x.get_marker() == "o"]
    assert [float(x.get_xdata()[0]) for x in points] == [-2.0, -1.0]
    assert [x.get_markerfacecolor() == "white" for x in points] == [True, False]
    (band,) = step.patches
    assert band.get_x() == pytest.approx(-1.5 - 1.96 * 0.5, abs=1e-3)
    with pytest.raises(ValueError, match=r"found: expected a result of inference.reward_posterior"):
        plot.by_group(3)
