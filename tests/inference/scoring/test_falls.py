"""Errors not to be trusted: falls of known functions, and a cycle that costs too little."""

import math

import pytest
import torch
from towns import trips_of

from cai import inference, models
from cai.demonstrations.scored_demonstrations import ScoredDemonstrations
from cai.inference.scoring.falls import irregular_falls, spelt_falls
from cai.inference.scoring.fisher_scoring import maximise

NAMES = ("x", "y")


def quadratic(H):
    return lambda w: -0.5 * torch.einsum("ni,ij,nj->n", w, H, w)


def test_a_quadratic_function_loses_half_a_nat_in_any_units():
    H = torch.tensor([[4.0, 300.0], [300.0, 40000.0]]).double()
    at, spread = torch.zeros(2).double(), torch.linalg.inv(H)
    assert irregular_falls(quadratic(H), None, at, spread, NAMES) == {}
    shown = irregular_falls(quadratic(5 * H), None, at, spread, NAMES)  # the errors are too large
    assert [shown[name] for name in NAMES] == [pytest.approx((2.5, 2.5))] * 2
    prior = torch.distributions.MultivariateNormal(at, precision_matrix=4 * H)
    assert irregular_falls(quadratic(H), prior, at, spread, NAMES).keys() == {"x", "y"}


def test_a_border_is_seen_on_its_side_and_what_is_not_determined_is_left_out():
    def totals(w):
        return (2e-3 * (-w[:, 0]).log() + w[:, 0]).nan_to_num(-math.inf)

    at = torch.tensor([-2e-3, 0.0]).double()  # the maximum; its information is 1/(2e-3)
    spread = torch.diag(torch.tensor([2e-3, math.nan]).double())
    found = irregular_falls(totals, None, at, spread, NAMES)
    assert found.keys() == {"x"}
    step = math.sqrt(2e-3)
    below = 2e-3 * math.log(1 / (1 + step / 2e-3)) + step
    assert found["x"] == (pytest.approx(below), math.inf)
    assert "there are no values above" in spelt_falls("x", *found["x"])


@pytest.mark.parametrize(("start", "refused"), [(-5.0, True), (-0.9, False)])
def test_a_search_counts_the_weights_without_values(start, refused):
    """log(-x) + x, whose maximum is at -1: from -5, where it bends little, a step leads past 0."""

    def score(x):
        if x >= 0:
            raise ValueError("no values")
        return ScoredDemonstrations((-x).log() + x, (1 / x + 1).unsqueeze(0), 1 / x.outer(x))

    units = torch.ones(1).double()
    found = maximise(score, torch.tensor([start]).double(), units, None, 100)
    assert found.converged
    assert float(found.weights) == pytest.approx(-1.0, abs=1e-4)
    assert (found.refused > 0) == refused


BORDER = -5 * math.log(2)


def with_a_loop_far_away():
    """To b by one of two roads, half a minute apart, and home; a loop is 20 minutes away.

    One may choose between two ways around it at .2 minute each, so that there are values for
    weights w with 2 exp(.2 w) < 1. Until that border the loop is too far away to matter.
    """
    roads = {
        "o s": 1.0, "s a": 1.0, "s A": 1.5, "a b": 1.0, "A b": 1.0, "b home": 1.0,
        "b far": 20.0, "far x": 0.1, "x far": 0.1, "far y": 0.1, "y far": 0.1, "far b": 0.1,
    }  # fmt: skip
    tail, head = zip(*(name.split() for name in roads), strict=True)
    columns = {"tail": list(tail), "head": list(head), "minutes": list(roads.values())}
    return models.streets_from_columns(columns)


def driven(streets, drivers):
    """Trips by how often each driver took the short road and the long one."""
    rows = {" ".join(map(str, name[:2])): i for i, name in enumerate(streets.segment_names)}
    short, long = ([rows[x] for x in f"o s,s {x},{x} b,b home".split(",")] for x in "aA")
    paths, who = [], []
    for driver, (shorter, longer) in drivers.items():
        paths += [short] * shorter + [long] * longer
        who += [driver] * (shorter + longer)
    return trips_of(streets, paths, groups=who)


def test_a_fit_at_the_border_of_what_has_values_says_so():
    streets = with_a_loop_far_away()
    fitted = inference.fit_reward(streets, driven(streets, {"Ann": (5, 5)}), ["minutes"])
    assert fitted.weights["minutes"] == pytest.approx(BORDER, abs=1e-3)
    below, above = fitted.falls["minutes"]
    assert (below < 0.1, above) == (True, math.inf)
    assert "Do not trust the error of minutes" in str(fitted)
    assert fitted.to_dict()["falls"] == {"minutes": [below, None]}


def test_a_fit_inside_is_trusted():
    streets = with_a_loop_far_away()
    fitted = inference.fit_reward(streets, driven(streets, {"Ann": (380, 20)}), ["minutes"])
    assert fitted.weights["minutes"] == pytest.approx(-2 * math.log(19), abs=1e-6)
    assert fitted.falls == {}
    assert "trust" not in str(fitted)


def test_drivers_at_the_border_are_named():
    streets = with_a_loop_far_away()
    inside = {"Ann": (380, 20), "Bob": (370, 30), "Cy": (385, 15)}
    found = inference.reward_posterior(
        streets, driven(streets, inside), ["minutes"], groups=True, progress=False
    )
    assert found.falls == {}
    pressed = inside | {"Dee": (20, 20), "Eve": (8, 8)}
    found = inference.reward_posterior(
        streets, driven(streets, pressed), ["minutes"], groups=True, progress=False
    )
    assert {"Dee", "Eve"} <= found.falls.keys()
    for table in (found, found.by_group):
        assert "Do not trust minutes of" in str(table)
        assert "Dee" in str(table).splitlines()[-1]
