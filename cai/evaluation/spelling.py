"""Numbers and tables as text, and symbols spelt in ASCII where an encoding lacks them: τ as tau.

Tables are set by hand, since no library prints groups of columns and their units as text, as
Markdown and as HTML alike.
"""

from __future__ import annotations

import html
import json
import math
import textwrap
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from cai import one_line

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


def counted(n: float, thing: str) -> str:
    """A number of things: "1 step", "2 steps"."""
    return f"{n:.0f} {thing}{'' if n == 1 else 's'}"


def data_size(demonstrations: float, actions: float, on_roads: bool = False) -> str:
    """How many demonstrations there are, and how many actions they have; or trips and turns."""
    one, each = ("trip", "turn") if on_roads else ("demonstration", "action")
    return f"{counted(demonstrations, one)}, {counted(actions, each)}"


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


def without_infinities(x: Any) -> Any:
    """The same with infinities as texts, since JSON has none."""
    if isinstance(x, dict):
        return {key: without_infinities(value) for key, value in x.items()}
    return str(x) if isinstance(x, float) and not math.isfinite(x) else x


def grouped(
    head: Sequence[Sequence[str]],
    body: Sequence[Sequence[str]],
    spans: Sequence[tuple[str, int]],
    encoding: str,
) -> list[str]:
    """Lines of a table whose columns stand in groups, the numbers aligned to the right.

    Args:
        head: lines of titles, with an empty one for the names.
        body: lines of a name and its cells.
        spans: each group, and the number of its columns; the column of names has none.
        encoding: that of the output.
    """
    lines = [[spell(cell, encoding) for cell in line] for line in (*head, *body)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    groups, i = " " * widths[0], 1
    for name, n in ((spell(name, encoding), n) for name, n in spans):
        least = len(name) if n == 1 else len(name) + 2
        widths[i + n - 1] += max(0, least - sum(widths[i : i + n]) - 2 * (n - 1))
        width = sum(widths[i : i + n]) + 2 * (n - 1)
        groups += "  " + (f" {name} ".center(width, "·") if n > 1 else name.rjust(width))
        i += n
    found = [groups]
    for line in lines:
        cells = [line[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        found.append("  ".join(cells).rstrip())
    found.insert(1 + len(head), "-" * (sum(widths) + 2 * (len(widths) - 1)))
    return found


def grouped_html(
    titles: Sequence[tuple[str, str]],
    body: Sequence[Sequence[str]],
    spans: Sequence[tuple[str, int]],
    notes: Sequence[str],
) -> str:
    """The same as HTML, escaped, with notes below.

    Args:
        titles: (title, unit) of each column but that of the names.
        body: lines of a name and its cells.
        spans: each group, and the number of its columns.
        notes: lines.
    """
    cell = "<{0} style='text-align:{1}'>{2}</{0}>".format
    groups = "".join(
        f"<th colspan='{n}' style='text-align:center'>{html.escape(group)}</th>"
        for group, n in spans
    )
    head = "".join(
        cell("th", "right", f"{html.escape(title)}<br><small>{html.escape(unit)}</small>")
        for title, unit in titles
    )
    lines = "".join(
        "<tr>"
        + cell("th", "left", html.escape(name))
        + "".join(cell("td", "right", html.escape(value)) for value in values)
        + "</tr>"
        for name, *values in body
    )
    return (
        f"<table><thead><tr><th></th>{groups}</tr><tr><th></th>{head}</tr></thead>"
        f"<tbody>{lines}</tbody></table><small>{'<br>'.join(map(html.escape, notes))}</small>"
    )


def wrapped(notes: Sequence[str], width: int | None) -> list[str]:
    """Notes in lines of a width; as they are if that is None."""
    if width is None:
        return list(notes)
    return [line for x in notes for line in textwrap.wrap(x, width, break_long_words=False)]


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Lines of cells in columns of one width, a rule below the first line."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
        for line in lines
    ]
    text.insert(1, "-" * (sum(widths) + 2 * (len(widths) - 1)))
    return text


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """Lines of cells as a table in Markdown, the first line its heading."""
    heading, *rows = lines
    rule = ["---", *["---:"] * (len(heading) - 1)]
    cells = [[cell.replace("|", r"\|") for cell in line] for line in (heading, rule, *rows)]
    return "".join("| " + " | ".join(line) + " |\n" for line in cells)


def html_table(title: str, lines: Sequence[Sequence[str]], notes: Sequence[str]) -> str:
    """Lines of cells as a table in HTML, the first line its heading, with notes below."""
    heading, *rows = lines
    head = "".join(f"<th>{html.escape(x)}</th>" for x in heading)
    cell = "<td style='text-align:right'>{}</td>".format
    body = "".join("<tr>" + "".join(cell(html.escape(x)) for x in line) + "</tr>" for line in rows)
    below = "<br>".join(html.escape(note) for note in notes)
    return (
        f"<table><caption>{html.escape(title)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table><small>{below}</small>"
    )


class PrintedTable(ABC):
    """A result that prints as a table with a title and notes.

    Attributes:
        headings: of the columns; the first is that of the names of rows.
    """

    headings: ClassVar[tuple[str, ...]]

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """The result as plain values."""

    @abstractmethod
    def _title(self) -> str:
        """The line above the table."""

    def _heading(self) -> tuple[str, ...]:
        """The headings; where they depend on the result, these are overridden."""
        return self.headings

    @abstractmethod
    def _cells(self) -> list[list[str]]:
        """The rows."""

    @abstractmethod
    def _notes(self) -> list[str]:
        """The lines below the table."""

    def to_json(self) -> str:
        """to_dict as JSON; numbers that there are not are null."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False)

    def to_markdown(self) -> str:
        """The table in Markdown."""
        return markdown([self._heading(), *self._cells()])

    def to_text(self, encoding: str = "utf-8") -> str:
        """The table in columns of one width, with what there is to say about it.

        Args:
            encoding: that of the output; symbols that it lacks are spelt.
        """
        lines = [self._title(), *aligned([self._heading(), *self._cells()]), *self._notes()]
        return spell("\n".join(lines), encoding)

    def __str__(self) -> str:
        return self.to_text()

    def __repr__(self) -> str:
        return one_line.named(type(self).__name__, self._title())

    def _repr_pretty_(self, printer: Any, _: bool) -> None:
        """The table for IPython."""
        printer.text(str(self))

    def _repr_html_(self) -> str:
        """The table for a notebook."""
        return html_table(self._title(), [self._heading(), *self._cells()], self._notes())
