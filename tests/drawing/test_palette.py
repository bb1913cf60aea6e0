"""The colours of all figures, as readers with and without colour blindness tell them apart."""

import itertools

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.colors import to_rgb

from cai.drawing import palette
from cai.drawing.palette import contrast, ink, lettering

APART = 20  # CIELAB ΔE; about 2.3 is just noticeable side by side

# Machado, Oliveira and Fernandes (2009), Table 1, severity 1, on linear RGB.
SIGHT = {
    "normal": np.eye(3),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
}
XYZ = np.array(  # of linear sRGB (IEC 61966-2-1)
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
TOGETHER = {
    "comparison": ("IMAGINED", "REAL", "START", "ACTIONS", "DYNAMICS"),
    "price ladder": ("DYNAMICS", "SIGHT", "OPEN_LOOP", "INDEPENDENT"),
    "curves": ("IMAGINED", "REAL", "REFERENCE", "NEUTRAL"),
    "arrows": ("REFERENCE", "UNSEEN"),
}


def lab(colour, sight="normal"):
    """CIELAB of a colour as somebody sees it, with the white of D65."""
    channels = np.array(to_rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    xyz = XYZ @ np.clip(SIGHT[sight] @ linear, 0, 1) / XYZ.sum(1)
    x, y, z = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def apart(one, other, sight):
    return float(np.linalg.norm(lab(one, sight) - lab(other, sight)))


def test_the_simulation_has_known_colours():
    """CIELAB of red by its definition; red and green of equal lightness look alike to deutans."""
    np.testing.assert_allclose(lab("#ff0000"), (53.24, 80.09, 67.20), atol=0.02)
    np.testing.assert_allclose(lab("#ffffff"), (100, 0, 0), atol=0.01)
    assert apart("tab:red", "tab:green", "normal") > 70
    assert apart("#c9ada7", "#81b29a", "normal") > 25
    assert apart("#c9ada7", "#81b29a", "deuteranopia") < 8
    np.testing.assert_allclose(SIGHT["deuteranopia"].sum(1), 1, atol=1e-5)  # white stays white


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("names", TOGETHER.values(), ids=TOGETHER)
def test_colours_of_one_figure_differ(names, sight):
    for one, other in itertools.combinations(names, 2):
        difference = apart(getattr(palette, one), getattr(palette, other), sight)
        assert difference >= APART, (one, other)


@pytest.mark.parametrize("sight", SIGHT)
def test_series_differ_from_each_other(sight):
    for one, other in itertools.combinations(palette.SERIES, 2):
        assert apart(one, other, sight) >= APART, (one, other)


def test_a_series_is_not_taken_for_imagined_or_real():
    for colour in palette.SERIES:
        for meaning in (palette.IMAGINED, palette.REAL):
            assert apart(colour, meaning, "normal") >= APART
        assert contrast(colour, "white") >= 3  # of lines (WCAG 2.1, 1.4.11)


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("number", [2, 3, 4, 6])
def test_actions_that_lie_on_each_other_differ(number, sight):
    colours = colormaps[palette.LEVELS](np.linspace(0.05, 0.95, number))[:, :3]
    for one, other in itertools.pairwise(colours):
        assert apart(one, other, sight) >= 12  # with hatches beside
    assert len(set(palette.HATCHES)) >= number


@pytest.mark.parametrize("name", [palette.SHARES, palette.LUCK, palette.LEVELS])
def test_maps_of_colours_are_read_in_grey(name):
    """Lightness changes in one direction only."""
    lightness = [lab(colormaps[name](x)[:3])[0] for x in np.linspace(0, 1, 33)]
    steps = np.diff(lightness)
    assert (steps > 0).all() or (steps < 0).all()


def test_contrast_by_the_definition():
    assert contrast("black", "white") == pytest.approx(21)
    assert (
        contrast("#777777", "white")
        == contrast("white", "#777777")
        == pytest.approx(4.48, abs=0.01)
    )
    assert contrast("red", "red") == 1


def test_ink_is_legible_on_every_colour():
    rng = np.random.default_rng(0)
    for colour in rng.random((500, 3)):
        assert contrast(ink(colour), colour) >= 4.5
    assert ink("#ffffcc") == "black"
    assert ink("#67000d") == "white"


def test_words_on_white_are_legible_in_every_colour():
    """As dark as need be, of the same hue, and no darker."""
    for colour in (palette.IMAGINED, palette.REAL, *palette.SERIES):
        found = lettering(colour)
        assert contrast(found, "white") >= 4.5
        if contrast(colour, "white") >= 4.5:
            assert found == colour
        else:
            assert contrast(found, "white") < 4.8
            shares = np.array(to_rgb(found)) / max(to_rgb(found))
            np.testing.assert_allclose(
                shares, np.array(to_rgb(colour)) / max(to_rgb(colour)), atol=0.02
            )
