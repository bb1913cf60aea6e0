"""The colours of all figures, each with one meaning, and the colour of text on them.

Colours that occur in one figure differ by at least 20 in CIELAB, for readers with normal sight and,
as simulated by Machado et al. (2009), for those with deuteranopia or protanopia.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.colors import to_hex, to_rgb

# What a method expects, and what its policy gets in the true dynamics.
IMAGINED, REAL = "#d1603d", "#2f6690"
# Parts of the divergence from the posterior; that of the dynamics, luck, is optimism as well.
START, ACTIONS, DYNAMICS = "#e0dcd3", "#5fa886", "#3b0f70"
# Restrictions of a guide: limited sight, open loop, independent steps.
SIGHT, OPEN_LOOP, INDEPENDENT = "#f2d27a", "#5fb0a5", "#8c5a2b"
# What is exact, best or true; further lines and rims; what is never visited.
REFERENCE, NEUTRAL, UNSEEN = "#222222", "#777777", "#aaaaaa"
# Things of one kind that have no meaning of their own: fits, demonstrators, destinations.
SERIES = ("#009e73", "#9467bd", "#b8860b", "#4d2600", "#882255")

SHARES, LUCK, SIGNED, LEVELS = "Greys", "Purples", "RdBu", "cividis"  # maps of colours
HATCHES = ("", "///", "...", "\\\\\\", "xxx", "---")


def luminance(colour: Any) -> float:
    """The relative luminance of a colour, from 0 for black to 1 for white (WCAG 2.1).

    Args:
        colour: a name, a hexadecimal text, or red, green and blue from 0 to 1.
    """
    channels = np.array(to_rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def contrast(one: Any, other: Any) -> float:
    """The contrast of two colours, from 1 to 21; text needs 4.5 (WCAG 2.1)."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def ink(background: Any) -> str:
    """Black or white, whichever has the larger contrast to what is behind it: 4.58 or more."""
    return max(("black", "white"), key=lambda colour: contrast(colour, background))


def lettering(colour: Any) -> str:
    """A colour for words on white: darkened, if need be, until their contrast is 4.5."""
    red, green, blue = to_rgb(colour)
    while contrast(found := to_hex((red, green, blue)), "white") < 4.5:
        red, green, blue = 0.97 * red, 0.97 * green, 0.97 * blue
    return found
