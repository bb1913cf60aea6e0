"""Numbers and tables as text; symbols that an encoding lacks spelt in ASCII: τ as tau."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

_SPELT = {
    "–": "-",  # an en dash
    "—": "-",
    "−": "-",  # a minus sign
    "…": "...",
    "·": ".",
    "±": "+/-",
    "×": "x",
    "∞": "inf",
    "≤": "<=",
    "≥": ">=",
    "≠": "!=",
    "≈": "~",
    "∝": "~",
    "→": "->",
    "←": "<-",
    "‖": "||",
    "√": "sqrt",
    "∂": "d",
    "∫": "int",
    "∈": "in",
    "½": "1/2",
    "°": "deg",
    "‘": "'",
    "’": "'",
    "“": '"',
    "”": '"',
}


def spell(text: str, encoding: str) -> str:
    """The same text, in which each character that an encoding lacks is spelt in ASCII.

    Args:
        text: any text.
        encoding: a codec of Python's, such as "cp1252".
    """
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return "".join(c if _has(encoding, c) else _spelling(c) for c in text)
    return text


def spell_what_is_lacking(error: UnicodeError) -> tuple[str, int]:
    """Spells in ASCII what could not be encoded: an error handler for ``codecs``."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(map(_spelling, lacking)), error.end


def _has(encoding: str, character: str) -> bool:
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _spelling(character: str) -> str:
    """ASCII for a character: the name of a Greek letter, others without accents, or a code."""
    if character in _SPELT:
        return _SPELT[character]
    words = unicodedata.name(character, "").split()
    if words[:1] == ["GREEK"] and "LETTER" in words:
        letter = words[words.index("LETTER") + 1]
        return letter.capitalize() if "CAPITAL" in words else letter.lower()
    letters = unicodedata.normalize("NFKD", character)
    plain = "".join(c for c in letters if c.isascii())
    if plain or all(map(unicodedata.combining, letters)):
        return plain
    return character.encode("ascii", "backslashreplace").decode("ascii")


def number(x: float | None, stderr: float | None = None) -> str:
    """A number with three digits behind the point, or four in all, and its standard error."""
    if x is None:
        return "–"
    text = f"{x:.4g}" if abs(x) >= 1e5 or 0 < abs(x) < 1e-3 else f"{x:.3f}"
    text = "0.000" if abs(x) < 1e-9 else text
    return text if stderr is None else f"{text} ± {stderr:.2g}"


def in_markdown(lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, its first line the heading, numbers to the right."""
    rule = ["---", *["---:"] * (len(lines[0]) - 1)]
    cells = [[cell.replace("|", r"\|") for cell in line] for line in (lines[0], rule, *lines[1:])]
    return "".join("| " + " | ".join(line) + " |\n" for line in cells)


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table in columns of one width, with a rule below the heading."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
        for line in lines
    ]
    text.insert(1, "-" * (sum(widths) + 2 * (len(widths) - 1)))
    return text
