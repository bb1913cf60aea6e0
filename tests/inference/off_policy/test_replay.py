"""The replay memory holds the latest transitions, and its files hold each row once."""

import os
import re

import pytest
import torch

from cai import inference, models
from cai.inference.off_policy.replay import Replay
from cai.stepping.source import Transition

ENVS = 3


def transition(row):
    """Whose numbers say in which row and copy it was taken."""
    at = 10 * row + torch.arange(ENVS)
    never = torch.zeros(ENVS, dtype=torch.bool)
    return Transition(
        at, at % 7, at % 2, at.double(), torch.stack([at, -at], 1), never, ~never, never
    )


def filled(rows, size=12, length=2):
    memory = Replay(size, ENVS, length)
    for row in range(rows):
        memory.add(transition(row))
    return memory


@pytest.mark.parametrize("rows", [2, 4, 5, 11])
def test_segments_are_consecutive_and_every_one_is_drawn_equally_often(rows):
    """Four rows of three copies fit: pairs of them begin in all but the last row."""
    torch.manual_seed(0)
    first, second = filled(rows).draw(30_000)
    assert torch.equal(second.s, first.s + 10)
    for name, column in first._asdict().items():
        row, copy = first.s // 10, first.s % 10
        expected = torch.stack([getattr(transition(r), name) for r in range(rows)])[row, copy]
        assert torch.equal(column, expected), name
    found, count = first.s.unique(return_counts=True)
    oldest = max(rows - 4, 0)
    starts = [10 * row + copy for row in range(oldest, rows - 1) for copy in range(ENVS)]
    assert found.tolist() == starts
    expected = 30_000 / len(starts)
    assert ((count - expected).abs() < 5 * expected**0.5).all()


def test_there_is_nothing_to_draw_from_before_a_whole_segment():
    assert filled(1).draw(5) is None
    assert filled(1).latest() is None


def test_the_latest_segments_end_with_the_latest_step_of_each_copy():
    memory = filled(7, size=6, length=2)
    assert [x.s.tolist() for x in memory.latest()] == [[50, 51, 52], [60, 61, 62]]


def test_a_memory_that_does_not_fit_is_refused_before_it_is_allocated():
    with pytest.raises(ValueError, match=r"replay: expected .* got 3000000000000 transitions"):
        Replay(3 * 10**12, ENVS, 1).add(transition(0))


def rows_in(folder):
    return sorted(tuple(map(int, re.findall(r"\d+", name)))[:2] for name in os.listdir(folder))


def test_files_hold_each_row_once_and_only_those_that_are_still_there(tmp_path):
    file = tmp_path / "run.pt"
    memory = Replay(12, ENVS, 2, file)
    states = []
    for rows in (3, 5, 6, 9, 10):
        while memory.written < rows:
            memory.add(transition(memory.written))
        states.append(memory.state_dict())
        restored = Replay(12, ENVS, 2, file)
        restored.load_state_dict(states[-1])
        torch.manual_seed(1)
        one = memory.draw(50)
        torch.manual_seed(1)
        assert all(map(torch.equal, one[0], restored.draw(50)[0]))
    assert [state["chunks"] for state in states[:2]] == [[(0, 3)], [(0, 3), (3, 5)]]
    # Of the checkpoint before, which may still be the one on the disk, all is there too.
    assert rows_in(tmp_path / "run.pt.replay") == [(5, 6), (6, 9), (9, 10)]
    assert states[-2]["chunks"] == [(5, 6), (6, 9)]
    assert states[-1]["chunks"] == [(6, 9), (9, 10)]


def test_what_a_killed_run_left_behind_goes_away(tmp_path):
    folder = tmp_path / "run.pt.replay"
    folder.mkdir()
    for name in ("0-9.pt", ".0-9.pt-abc", "notes.txt"):
        (folder / name).write_text("something")
    memory = Replay(12, ENVS, 2, tmp_path / "run.pt")
    memory.add(transition(0))
    memory.state_dict()
    assert sorted(os.listdir(folder)) == ["0-1.pt", "notes.txt"]


def learnt(path, **how):
    arguments = {"steps": 300, "num_envs": 5, "hidden": (4,), "every": 100, "progress": False}
    return inference.soft_q(models.ledge(), checkpoint=path, **(arguments | how))


def test_a_memory_that_is_missing_damaged_or_of_another_run_is_refused(tmp_path):
    learnt(tmp_path / "one.pt")
    learnt(tmp_path / "two.pt", seed=1)
    folder, other = tmp_path / "one.pt.replay", tmp_path / "two.pt.replay"
    name = sorted(os.listdir(folder))[0]
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes((other / name).read_bytes())
    with pytest.raises(ValueError, match=r"expected a run with run = .*, got one with run"):
        learnt(tmp_path / "one.pt")
    (folder / name).write_bytes(whole[:-30])
    with pytest.raises(ValueError, match="a file that soft_q wrote"):
        learnt(tmp_path / "one.pt")
    (folder / name).unlink()
    with pytest.raises(ValueError, match=r"a replay memory in .*, got none; move the file and"):
        learnt(tmp_path / "one.pt")
    (folder / name).write_bytes(whole)
    learnt(tmp_path / "one.pt")
