"""Road networks in the format of the Transportation Networks for Research (TNTP)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cai import checks
from cai.models.roads.streets_from_columns import streets_from_columns
from cai.roads.network import Streets


def streets_from_tntp(
    net: Any,
    nodes: Any = None,
    features: Mapping[str, Any] | None = None,
    *,
    degrees: bool | None = None,
    limits: tuple[float, float] = (40.0, 150.0),
) -> Streets:
    """A road network from the files of the TNTP format, with the columns that its header names.

    The first two columns are the nodes that a link joins. The names of the others are made of the
    file's header: lower case, without units in brackets, with underscores for blanks, such as
    "free_flow_time". Units are the file's own, and differ between files. Nodes below <FIRST THRU
    NODE> are zones: trips begin and end there, and no turn leads through them. Parallel links get
    the keys 0, 1, … in the order of the file. Angles and limits are those of
    :func:`cai.models.streets`.

    Args:
        net: the path of the network's file, or an open file.
        nodes: the same for the file of nodes: number, x and y. Without it nothing is known of
            angles.
        features: as of :func:`cai.models.streets_from_columns`; every column if not given.
        degrees: whether coordinates are longitude and latitude in degrees.
        limits: degrees from which on a turn is left or right, and beyond which it is a U-turn.

    Returns:
        The network, a :class:`cai.Streets`. A connector with a time of zero, there and back, is a
        cycle that costs nothing: give such segments a cost of their own, a constant perhaps.

    Raises:
        ValueError: if a file is empty, has no header that fits its rows, a line has more or fewer
            entries, or there are more or fewer links than it says; and as of
            :func:`cai.models.streets_from_columns`.

    >>> import io
    >>> from cai import models
    >>> text = ["<FIRST THRU NODE> 1", "~ from to time (min) ;", "1 2 0.5 ;", "2 3 1.5 ;"]
    >>> net = io.StringIO(chr(10).join(text))
    >>> models.streets_from_tntp(net).feature("time").tolist()
    [1.5]
    """
    lines = _lines("net", net)
    metadata = {
        name.strip().upper(): value.strip()
        for _, line in lines
        for name, value in re.findall(r"^\s*<([^>]*)>([^~]*)", line)
    }
    rows = _rows("net", [each for each in lines if not re.match(r"\s*[<~]", each[1])])
    if not rows:
        checks.refuse("net", "lines of links", "none", "is it the file of the network?")
    names = _header(lines, rows[0][0], len(rows[0][1]))
    stated = metadata.get("NUMBER OF LINKS", "")
    if stated.isdigit() and int(stated) != len(rows):
        advice = "is the file complete?"
        checks.refuse("net", f"{stated} links, as it says", f"{len(rows)}", advice)
    columns: dict[str, Any] = dict(
        zip(names, map(list, zip(*(row for _, row in rows), strict=True)), strict=True)
    )
    for end in names[:2]:
        named = zip(rows, columns[end], strict=True)
        columns[end] = [_node(text, line) for (line, _), text in named]
    count: Counter[tuple[int, int]] = Counter()
    columns["key"] = []
    for pair in zip(*(columns[end] for end in names[:2]), strict=True):
        columns["key"].append(count[pair])
        count[pair] += 1
    first = metadata.get("FIRST THRU NODE", "")
    through = int(first) if first.isdigit() else 0
    joined = sorted({node for end in names[:2] for node in columns[end]})
    return streets_from_columns(
        columns,
        features,
        tail=names[0],
        head=names[1],
        key="key",
        nodes=None if nodes is None else _places(nodes),
        zones=[node for node in joined if node < through],
        degrees=degrees,
        limits=limits,
    )


def _lines(name: str, file: Any) -> list[tuple[int, str]]:
    """The lines of a file that are not blank, with their numbers."""
    try:
        text = file.read() if hasattr(file, "read") else Path(file).read_text(encoding="utf-8")
    except (OSError, TypeError, UnicodeError) as error:
        checks.refuse(name, "the path of a text file", f"{error}", "or an open file")
    return [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip(" \t;")]


def _rows(name: str, lines: list[tuple[int, str]]) -> list[tuple[int, list[str]]]:
    """(number of the line, its entries); raises ValueError if their count differs."""
    rows = [(n, line.partition(";")[0].split()) for n, line in lines]
    for n, row in rows:
        if len(row) != len(rows[0][1]):
            expected = f"{len(rows[0][1])} entries, as in line {rows[0][0]}"
            checks.refuse(f"{name}, line {n}", expected, f"{len(row)}", "one for each column")
    return rows


def _header(lines: list[tuple[int, str]], row: int, columns: int) -> list[str]:
    """The names of the columns, from the last comment or original header with as many of them.

    They are separated by tabs; by blanks in the comment right before the rows alone.
    """
    pattern = r"\s*(?:<ORIGINAL HEADER>)?\s*~([^;]*)"
    found = [match[1] for n, line in lines if n < row and (match := re.match(pattern, line))]
    texts = [re.sub(r"\([^)]*\)", "", text).strip().lower() for text in reversed(found)]
    splits = [re.split(r"\s*\t\s*", text) for text in texts] + [text.split() for text in texts[:1]]
    for entries in splits:
        names = [re.sub(r"\W+", "_", entry) for entry in entries]
        if len(names) == columns == len(set(names)):
            return names
    expected = f"a comment that names its {columns} columns"
    checks.refuse("net", expected, "none", "~ init_node term_node length free_flow_time ;")


def _node(text: str, line: int) -> int:
    if not text.isdigit():
        advice = "the first two columns are the nodes that a link joins"
        checks.refuse(f"net, line {line}", "the number of a node", repr(text), advice)
    return int(text)


def _places(file: Any) -> dict[str, list[str]]:
    """The columns node, x and y of a file of nodes."""
    lines = [each for each in _lines("nodes", file) if not re.match(r"\s*[<~]", each[1])]
    if lines and not re.match(r"\s*\d", lines[0][1]):
        lines = lines[1:]  # its header
    rows = _rows("nodes", lines)
    if not rows or len(rows[0][1]) < 3:
        checks.refuse("nodes", "lines of a node, x and y", "none", "is it the file of the nodes?")
    return {name: [row[k] for _, row in rows] for k, name in enumerate(("node", "x", "y"))}
