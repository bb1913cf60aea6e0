"""The page of the explorer: its parts and a model's table in one file, which needs no network."""

from __future__ import annotations

import html
import re
import tempfile
import webbrowser
from dataclasses import dataclass
from pathlib import Path

from cai import one_line
from cai.explorer.table_as_json import text_of
from cai.tables.table import Table

_HERE = Path(__file__).parent
_SCRIPTS = (
    *("solver", "worlds", "drawing", "charts", "pictures", "numbers"),
    *("painting", "address", "dials", "page"),
)
_COMMENT = re.compile(r"\s// [^'\"`]*$")  # behind code
_TEXT = re.compile(r"['\"`/]")  # or a regular expression
_AROUND = re.compile(r"\s*([=!]==|=>|[<>]=|&&|\|\||\?\?|[=,;{}()*<>?:])\s*")
_HEIGHT = 900  # pixels of the frame in a notebook


@dataclass(frozen=True, repr=False)
class Explorer:
    """A page to explore a model in a browser; a notebook shows it as it is.

    Attributes:
        html: the page, complete in itself: no server, no network.
        title: of the page.

    >>> from cai import models, plot
    >>> plot.explore(models.ledge()).save("out/ledge.html")  # doctest: +SKIP
    """

    html: str
    title: str

    def __repr__(self) -> str:
        return one_line.named("Explorer", repr(self.title))

    def _repr_html_(self) -> str:
        """A frame that holds the page, and can reach nothing outside of it."""
        page = self.html.replace("&", "&amp;").replace('"', "&quot;")
        return (
            f'<iframe title="{html.escape(self.title)}" sandbox="allow-scripts" '
            f'style="width:100%;height:{_HEIGHT}px;border:0" srcdoc="{page}"></iframe>'
        )

    def save(self, path: str | Path) -> Path:
        """Writes the page to a file, which is replaced if it exists.

        Args:
            path: of the file; its folder must exist.

        Returns:
            The path.

        Raises:
            OSError: if it cannot be written.
        """
        path = Path(path)
        path.write_text(self.html, encoding="utf-8", newline="\n")
        return path

    def open(self) -> Path:
        """Writes the page to a temporary file, and opens it in the browser of the system.

        Returns:
            The path of that file.
        """
        folder = Path(tempfile.mkdtemp(prefix="explorer-"))
        path = self.save(folder / "explore.html")
        webbrowser.open(path.resolve().as_uri())
        return path


def page_of(table: Table | None, name: str = "model", recipe: str = "") -> Explorer:
    """The explorer of a table, or without one of the built-in maps and the ledge.

    Args:
        table: with a finite horizon, or None.
        name: of the model, for the heading.
        recipe: lines of Python that leave the model in the variable ``model``, for "Copy as
            Python"; without them the page leaves that to its reader.

    Raises:
        ValueError: if the horizon is infinite, or the table is too large for a page.
    """
    title = "Turn the dial" if table is None else f"Turn the dial: {name}"
    parts = {
        "title": html.escape(title),
        "style": _read("page.css"),
        "table": "null" if table is None else text_of(table, name, recipe),
        "scripts": "\n".join(_read(f"{name}.js") for name in _SCRIPTS),
    }
    before, *pieces = _read("page.html").split("{{")
    filled = [parts[name] + rest for name, _, rest in (x.partition("}}") for x in pieces)]
    return Explorer(before + "".join(filled), title)


def _read(name: str) -> str:
    """A part of the page without comments and spaces that a browser does not need.

    That takes a fifth of its size. Only lines of code without a text lose spaces within them, and
    no text in these files goes over several lines.
    """
    lines = (line.strip() for line in (_HERE / name).read_text(encoding="utf-8").splitlines())
    script = name.endswith(".js")
    comments = ("//", "/*", "*") if script else ("/*",)
    kept = [line for line in lines if line and not line.startswith(comments)]
    if script:
        kept = [_COMMENT.sub("", line) for line in kept]
        kept = [line if _TEXT.search(line) else _AROUND.sub(r"\1", line) for line in kept]
    elif name.endswith(".css"):
        return re.sub(r"\s*([{};,])\s*|(?<=:) ", r"\1", " ".join(kept)) + "\n"
    return "".join(f"{line}\n" for line in kept)
