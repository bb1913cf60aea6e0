"""How numbers are written in figures: with the minus sign and the infinity of Matplotlib's axes."""

from __future__ import annotations

import math


def signs(text: str) -> str:
    """A formatted number with a minus sign in place of each hyphen, and ∞ in place of "inf".

    Args:
        text: a number, as Python formats it.
    """
    return text.replace("inf", "∞").replace("-", "−")


def three_digits(x: float) -> str:
    """Three digits, or all before the point; zero has no sign.

    Args:
        x: the number, which may be infinite.
    """
    return signs(f"{x:.0f}" if abs(x) >= 1000 and math.isfinite(x) else f"{x + 0.0:.3g}")
