"""The file of a sweep: whole lines, whatever was cut off, and nobody else's file."""

import errno
import json
import os
import random

import pytest

from cai.experiments import result_lines
from cai.experiments.result_lines import FORMAT, ResultLines

HEAD = {"factory": "ledge", "axes": ["slip"]}


def line(k, outcome="done"):
    return {
        "key": f"key {k}",
        "outcome": outcome,
        "point": {"slip": k / 10},
        "method": "é\u2028ü",  # a line separator is no end of a line of JSON
        "seed": k,
        "row": {"elbo": -0.1 * k},
        "error": None,
        "seconds": 0.5,
        "version": "1",
    }


def written(path, n=5):
    with ResultLines(path, HEAD) as lines:
        for k in range(n):
            lines.append(line(k))
        return dict(lines.found)


def found(path):
    with ResultLines(path, HEAD) as lines:
        return lines.found


def test_what_was_written_is_read(tmp_path):
    path = tmp_path / "x.jsonl"
    assert written(path) == found(path) == {f"key {k}": line(k) for k in range(5)}
    assert len(path.read_bytes().splitlines()) == 6


def test_a_line_is_on_the_disk_before_the_next(tmp_path):
    path = tmp_path / "x.jsonl"
    with ResultLines(path, HEAD) as lines:
        for k in range(3):
            lines.append(line(k))
            assert json.loads(path.read_bytes().splitlines()[-1]) == line(k)


def test_the_last_line_of_a_cell_counts(tmp_path):
    path = tmp_path / "x.jsonl"
    with ResultLines(path, HEAD) as lines:
        lines.append(line(1, "failed"))
        lines.append(line(1))
    assert found(path)["key 1"]["outcome"] == "done"


def test_wherever_it_is_cut_off_whole_lines_are_kept_and_more_can_be_added(tmp_path):
    path = tmp_path / "x.jsonl"
    written(path)
    text = path.read_bytes()
    for end in [*range(120), *random.sample(range(len(text)), 100), len(text) - 1]:
        path.write_bytes(text[:end])
        with ResultLines(path, HEAD) as lines:
            whole = max(text[:end].count(b"\n") - 1, 0)
            assert lines.found == {f"key {k}": line(k) for k in range(whole)}
            lines.append(line(9))
        again = path.read_bytes()
        first = text[: text[:end].rfind(b"\n") + 1] or text[: text.index(b"\n") + 1]
        assert again == first + again.splitlines(keepends=True)[-1]
        assert found(path)["key 9"] == line(9)


@pytest.mark.parametrize(
    "content",
    [
        b"x",
        b"a,b\n1,2\n",
        b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
        b"[]\n",
        b"{}\n",
        b'{"format": "cai sweep, 2"}\n',
        b'{"format": "cai train, 1"}\n',
    ],
)
def test_a_foreign_file_is_refused_by_name_and_left_as_it_is(content, tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="the results of a sweep") as caught:
        ResultLines(path, HEAD)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (b"not JSON\n", "line 3"),
        (b'{"key": "1"}\n', "without"),
        (b'{"key": NaN}\n', "line 3"),
        (b"\x00\x00\n", "line 3"),
        (b"\xff\n", "line 3"),
    ],
)
def test_a_damaged_line_is_named(bad, words, tmp_path):
    path = tmp_path / "x.jsonl"
    written(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], bad, *lines[3:]]))
    with pytest.raises(ValueError, match=words):
        ResultLines(path, HEAD)


def test_another_sweep_is_refused(tmp_path):
    path = tmp_path / "x.jsonl"
    written(path)
    with pytest.raises(ValueError, match=r"axes = \['wind'\], got those of another"):
        ResultLines(path, HEAD | {"axes": ["wind"]})
    with ResultLines(path, HEAD) as lines:
        lines.refuse_others({f"key {k}" for k in range(6)})
        with pytest.raises(ValueError, match=r"seed 4, slip = 0\.4, which is not in it"):
            lines.refuse_others({f"key {k}" for k in range(4)})


@pytest.mark.parametrize("outcome", ["failed", "killed"])
def test_a_cell_without_a_result_belongs_to_any_grid(outcome, tmp_path):
    with ResultLines(tmp_path / "x.jsonl", HEAD) as lines:
        lines.append(line(1, outcome))
        lines.refuse_others(set())
        lines.append(line(1))
        with pytest.raises(ValueError, match="which is not in it"):
            lines.refuse_others(set())


@pytest.mark.skipif(not hasattr(result_lines, "fcntl"), reason="locks of Unix")
def test_two_sweeps_do_not_write_one_file(tmp_path):
    path = tmp_path / "x.jsonl"
    with ResultLines(path, HEAD), pytest.raises(ValueError, match="no other sweep is writing"):
        ResultLines(path, HEAD)
    assert found(path) == {}


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_what_does_not_fit_on_the_disk_leaves_nothing_half_written(error, tmp_path, monkeypatch):
    path, write = tmp_path / "x.jsonl", os.write
    written(path)
    before = path.read_bytes()

    def some(file, text):
        if len(text) < 30:
            raise error
        return write(file, text[: len(text) // 2])

    with ResultLines(path, HEAD) as lines:
        monkeypatch.setattr(os, "write", some)
        with pytest.raises(type(error)):
            lines.append(line(7))
        monkeypatch.undo()
        assert "key 7" not in lines.found
    assert path.read_bytes() == before


def test_json_is_strict(tmp_path):
    with ResultLines(tmp_path / "x.jsonl", HEAD) as lines, pytest.raises(ValueError, match="JSON"):
        lines.append(line(1) | {"row": {"elbo": float("inf")}})
    assert found(tmp_path / "x.jsonl") == {}
    assert json.loads((tmp_path / "x.jsonl").read_text("ascii"))["format"] == FORMAT
