"""The folder that a command writes into: tried first, written whole, cleared of leftovers."""

import contextlib
import errno
import io
import os
import sys

import pytest

from cai.cli import output


class _Full(io.BytesIO):
    """A file on a disk that takes so much and no more."""

    def write(self, data):
        if len(data) > 2**19:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


unix = pytest.mark.skipif(sys.platform == "win32", reason="folders are locked on Unix only")


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
def test_folders_made_for_nothing_are_removed(error, tmp_path):
    (tmp_path / "mine").mkdir()
    deep = tmp_path / "mine" / "a" / "b"
    with contextlib.suppress(error), output.prepared(deep):
        assert deep.is_dir()
        raise error
    assert listing(tmp_path) == ["mine"]
    assert listing(tmp_path / "mine") == []


def test_a_folder_that_another_run_has_written_into_stays(tmp_path):
    with contextlib.suppress(ValueError), output.prepared(tmp_path / "a" / "b"):
        (tmp_path / "a" / "theirs.txt").write_text("", encoding="utf-8")
        raise ValueError("mine")
    assert listing(tmp_path / "a") == ["theirs.txt"]


def test_what_cannot_be_written_is_known_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("", encoding="utf-8")
    for out in (tmp_path / "file", tmp_path / "file" / "x", tmp_path / ("x" * 300)):
        with pytest.raises(OSError), output.prepared(out):  # noqa: PT011
            pytest.fail("the work began")

    monkeypatch.setattr(output.tempfile, "TemporaryFile", lambda dir: _Full())
    with pytest.raises(OSError, match="No space"), output.prepared(tmp_path / "new"):
        pytest.fail("the work began")
    assert listing(tmp_path) == ["file"]


@unix
def test_what_a_killed_run_left_is_removed_and_what_a_living_one_needs_is_not(tmp_path):
    for name in (".unfinished-1", ".unfinished-2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "comparison.json").write_text("half", encoding="utf-8")
    (tmp_path / "mine.txt").write_text("", encoding="utf-8")
    with output.unfinished(tmp_path) as living:
        assert listing(tmp_path) == [living.name, "mine.txt"]
        (living / "file").write_text("", encoding="utf-8")
        with output.unfinished(tmp_path) as other:
            assert listing(living) == ["file"]
            assert listing(tmp_path) == sorted([living.name, other.name, "mine.txt"])
    assert listing(tmp_path) == ["mine.txt"]


def test_a_folder_that_another_run_took_away_is_made_again(tmp_path):
    """It had made it, and has failed in the meantime."""
    out = tmp_path / "a" / "out"
    with output.prepared(out):
        out.rmdir()
        out.parent.rmdir()
        with output.unfinished(out) as folder:
            (folder / "file").write_text("", encoding="utf-8")
            os.replace(folder / "file", out / "file")
    assert listing(out) == ["file"]


@unix
def test_without_locks_nothing_is_removed(tmp_path, monkeypatch):
    """On a file system that has none, nobody knows who is alive."""

    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(output.fcntl, "flock", refuse)
    (tmp_path / ".unfinished-1").mkdir()
    with output.unfinished(tmp_path) as living:
        assert listing(tmp_path) == sorted([".unfinished-1", living.name])
    assert listing(tmp_path) == [".unfinished-1"]
