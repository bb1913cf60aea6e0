"""The file of a sweep: a line of JSON that says whose it is, then one for each cell as it ends.

A line is written whole, by one process, and is on the disk before the next one begins. What a kill
has left unfinished is a last line without an end, which is dropped when the file is opened again.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

from cai import checks
from cai.experiments.cells import DONE

if sys.platform != "win32":
    import fcntl

FORMAT = "cai sweep, 1"
_LONGEST = 200  # characters of a description
_FIELDS = {"key", "outcome", "point", "method", "seed", "row", "error", "seconds", "version"}


class ResultLines:
    """The lines of a sweep, which are kept in a file, or in memory alone.

    Args:
        path: the file, which is made if there is none; None for memory alone.
        head: what tells the sweep from others, in plain values.

    Attributes:
        found: key -> the last line of a cell.

    Raises:
        ValueError: if the file is another sweep's or no results file, or is being written.
    """

    def __init__(self, path: Path | None, head: dict[str, Any]) -> None:
        self.found: dict[str, dict[str, Any]] = {}
        self._path, self._file = path, None
        if path is None:
            return
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            self._lock(self._file)
            self._read(self._file, {"format": FORMAT, **head})
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> ResultLines:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file, and lets others write it."""
        if self._file is not None:
            os.close(self._file)
        self._file = None

    def append(self, line: dict[str, Any]) -> None:
        """Adds the line of a cell; it is on the disk when this returns."""
        text = _encoded(line)
        if self._file is not None:
            _write(self._file, text)
        self.found[line["key"]] = json.loads(text)

    def _lock(self, file: int) -> None:
        if sys.platform == "win32":
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            advice = "wait for it to end, or choose another folder"
            self._refuse("a file that no other sweep is writing", "one that is in use", advice)
        except OSError:  # a file system without locks
            pass

    def _read(self, file: int, head: dict[str, Any]) -> None:
        whole, torn = _split(file)
        first = _encoded(head)
        if not whole:
            if not first.startswith(torn):
                self._no_results("a first line that is none of a sweep")
            os.ftruncate(file, 0)
            _write(file, first)
            return
        self._compare(self._parsed(whole[0], 1), head)
        for number, text in enumerate(whole[1:], 2):
            line = self._parsed(text, number)
            if not line.keys() >= _FIELDS:
                self._no_results(f"a line without {min(_FIELDS - line.keys())}, line {number}")
            self.found[line["key"]] = line
        if torn:
            os.ftruncate(file, sum(map(len, whole)))

    def _parsed(self, text: bytes, number: int) -> dict[str, Any]:
        try:
            line = json.loads(text, parse_constant=_no_constant)
        except ValueError:
            line = None
        if not isinstance(line, dict):
            self._no_results(f"a line that is no JSON of a sweep, line {number}")
        return line

    def _compare(self, found: dict[str, Any], head: dict[str, Any]) -> None:
        if found.get("format") != FORMAT:
            came = repr(found.get("format", "another file"))
            self._no_results(f"{came}, which is not {FORMAT!r}")
        for name, value in json.loads(_encoded(head)).items():
            if found.get(name) != value:
                expected = f"results of this sweep, {name} = {_brief(value)}"
                advice = "choose another folder, or go on with the same sweep"
                self._refuse(
                    expected, f"those of another, {name} = {_brief(found.get(name))}", advice
                )

    def refuse_others(self, keys: set[str]) -> None:
        """Raises ValueError if there is a result of a cell with none of these keys.

        A cell that failed, or whose process was killed, has no result that could be lost.
        """
        for line in self.found.values():
            if line["outcome"] == DONE and line["key"] not in keys:
                came = ", ".join(f"{k} = {v!r}" for k, v in line["point"].items())
                came = f"a line of {line['method']}, seed {line['seed']}{came and f', {came}'}"
                advice = (
                    "a sweep goes on with the same methods, values and seeds, or with more of "
                    "them; for fewer values sweep all of them and take a part of the result; for "
                    "others choose another folder"
                )
                self._refuse("results of this sweep", f"{came}, which is not in it", advice)

    def _no_results(self, came: str) -> NoReturn:
        self._refuse("the results of a sweep", came, "choose another folder")

    def _refuse(self, expected: str, came: str, advice: str) -> NoReturn:
        checks.refuse(f"out: {self._path}", expected, came, advice)


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"


def _split(file: int) -> tuple[list[bytes], bytes]:
    """The whole lines of a file, each with its end, and what comes after them."""
    parts = []
    os.lseek(file, 0, os.SEEK_SET)
    while part := os.read(file, 2**20):
        parts.append(part)
    *lines, torn = b"".join(parts).split(b"\n")
    return [line + b"\n" for line in lines], torn


def _encoded(line: dict[str, Any]) -> bytes:
    """A line in ASCII, so that no other character can end it."""
    return json.dumps(line, allow_nan=False).encode("ascii") + b"\n"


def _write(file: int, text: bytes) -> None:
    """Adds a line to the disk, or nothing: where there is no room, what was begun is taken back."""
    before = os.fstat(file).st_size
    try:
        written = 0
        while written < len(text):
            written += os.write(file, text[written:])
        os.fsync(file)
    except BaseException:
        os.ftruncate(file, before)
        raise


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
