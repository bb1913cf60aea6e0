"""The figure of a sweep draws the numbers of its summaries, each in its place."""

import math

import numpy as np
import pytest
from scipy import stats

from cai.experiments.sweep_result import SweepCell, SweepResult

METHODS = ("posterior", "fit")


def result(axes, seeds=3, methods=METHODS, column=None):
    """Made-up numbers, so that each cell has another."""
    points = [{}]
    for name, values in axes.items():
        points = [{**point, name: value} for point in points for value in values]
    cells, k = [], 0
    for point in points:
        for method in methods:
            for seed in range(seeds):
                k += 1
                x = math.sqrt(k) + 0.1 * seed if column is None else column(point, method, seed)
                row = {"elbo": x, "expected_return": None if x is None else -x}
                cells.append(SweepCell(point, method, seed, row, None, 1.0, "0"))
    return SweepResult(axes, methods, tuple(range(seeds)), tuple(cells))


def lines(panel):
    return {line.get_label(): line for line in panel.get_lines() if line.get_label()[0] != "_"}


def panels(figure, rows=2):
    found = [x for x in figure.axes if x.get_subplotspec() is not None]
    return np.array(found).reshape(rows, -1)


def bounds(panel):
    """Ends of the bands, by line: (lowest, highest) of each filled area."""
    return [c.get_paths()[0].get_extents() for c in panel.collections if len(c.get_paths()[0]) > 4]


def test_one_axis():
    found = result({"temperature": (1.0, 0.2, 0.5)})
    figure = found.figure()
    grid = panels(figure)
    assert grid.shape == (2, 1)
    rows = found.summary("elbo")
    for method in METHODS:
        drawn = lines(grid[0, 0])[method].get_xydata()
        expected = sorted((r["temperature"], r["mean"]) for r in rows if r["method"] == method)
        assert drawn.tolist() == pytest.approx(np.array(expected))
    assert grid[1, 0].get_ylabel() == "return (reward units)"
    assert grid[-1, 0].get_xlabel() == "temperature"
    assert grid[0, 0].get_xscale() == "linear"
    assert "3 seeds" in figure.get_supxlabel()


def test_bands_are_intervals_over_seeds():
    found = result(
        {"temperature": (0.2, 0.5)}, column=lambda point, _, seed: point["temperature"] + seed / 10
    )
    half = stats.t.ppf(0.975, 2) * 0.1 / math.sqrt(3)
    assert [row["half_width"] for row in found.summary()] == pytest.approx(4 * [half])
    (panel,) = panels(found.figure(("elbo",)), 1)[0]
    assert len(bounds(panel)) == len(METHODS)
    for band in bounds(panel):
        assert (band.y0, band.y1) == pytest.approx((0.3 - half, 0.6 + half))


def test_one_seed_has_no_band():
    figure = result({"temperature": (0.2, 0.5)}, seeds=1).figure()
    assert all(not bounds(panel) for panel in panels(figure).flat)
    assert "seeds" not in figure.get_supxlabel()


def test_a_second_axis_is_a_panel_each():
    found = result({"temperature": (0.01, 0.1, 1.0), "slip": (0.0, 0.3), "wind": (0, 1)})
    grid = panels(found.figure())
    assert grid.shape == (2, 4)
    titles = [panel.get_title() for panel in grid[0]]
    assert titles == [f"slip = {s}, wind = {w}" for s in (0.0, 0.3) for w in (0, 1)]
    for panel, (s, w) in zip(grid[0], [(s, w) for s in (0.0, 0.3) for w in (0, 1)], strict=True):
        assert panel.get_xscale() == "log"
        part = found.where(slip=s, wind=w).summary("elbo")
        for method in METHODS:
            y = [r["mean"] for r in part if r["method"] == method]
            assert lines(panel)[method].get_ydata().tolist() == pytest.approx(y)


def test_texts_stand_side_by_side_without_lines():
    panel = panels(result({"map": ("4x4", "8x8", None)}).figure())[1, 0]
    assert [x.get_text() for x in panel.get_xticklabels()] == ["4x4", "8x8", "None"]
    assert lines(panel)["fit"].get_linestyle() == "None"


def test_without_a_grid_methods_are_points():
    panel = panels(result({}).figure())[0, 0]
    assert len(lines(panel)["fit"].get_xydata()) == 1


def test_what_is_infinite_or_failed_has_no_mark():
    values = {0.2: -math.inf, 0.5: None, 1.0: -3.0}
    found = result(
        {"temperature": tuple(values)}, column=lambda point, *_: values[point["temperature"]]
    )
    y = lines(panels(found.figure())[0, 0])["fit"].get_ydata()
    assert np.isnan(y).tolist() == [True, True, False]


def test_a_method_of_which_nothing_is_drawn_says_so():
    column = lambda point, method, seed: None if method == "fit" else -1.0  # noqa: E731
    panel = panels(result({"temperature": (0.2, 0.5)}, column=column).figure())[0, 0]
    words = [x.get_text() for x in panel.get_legend().get_texts()]
    assert words == ["posterior", "fit: no number"]


def test_many_methods_differ_in_colour_mark_or_dash():
    methods = tuple(f"m{k}" for k in range(12))
    panel = panels(result({"temperature": (0.2, 0.5)}, methods=methods).figure())[0, 0]
    looks = {(x.get_color(), x.get_marker(), x.get_linestyle()) for x in lines(panel).values()}
    assert len(looks) == len(methods)


def test_too_many_panels_are_refused_with_advice():
    found = result({"a": (1, 2), "slip": tuple(range(7))})
    with pytest.raises(ValueError, match=r"7; draw a part, as result\.where\(slip=0\)"):
        found.figure()
    assert found.where(slip=0).figure()
    with pytest.raises(ValueError, match="column"):
        result({}).figure(("elbow",))
