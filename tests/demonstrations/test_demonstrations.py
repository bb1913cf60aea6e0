"""Demonstrations from every source, how they are split, and what is refused."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import cai
from cai import models

COLUMNS = {
    "trip": ["a", "a", "a", "b", "b", "c", "c", "c"],
    "state": [0, 1, 2, 3, 4, 0, 0, 1],
    "action": [1, 1, -1, 0, -1, 0, 1, -1],
    "driver": ["x", "x", "x", "y", "y", "x", "x", "x"],
    "to": [2, 2, 2, 4, 4, 1, 1, 1],
}
PATHS = [[0, 1, 2], [3, 4], [0, 0, 1]], [[1, 1], [0], [0, 1]]


def same(a, b):
    for name in ("states", "actions", "lengths"):
        assert torch.equal(getattr(a, name), getattr(b, name))
    assert a.ends == b.ends


def columns(**changes):
    named = {"trajectory": "trip", "group": "driver", "goal": "to", "ends": "own"}
    return cai.Demonstrations.from_columns(COLUMNS, **(named | changes))


def test_sequences_are_padded_by_their_last_state():
    seen = cai.Demonstrations.from_paths(*PATHS, ends="own")
    assert seen.states.tolist() == [[0, 1, 2], [3, 4, 4], [0, 0, 1]]
    assert seen.actions.tolist() == [[1, 1], [0, 0], [0, 1]]
    assert seen.lengths.tolist() == [2, 1, 2]
    assert seen.taken.tolist() == [[True, True], [True, False], [True, True]]
    assert repr(seen) == "Demonstrations(3 of 5 actions in all: 3 own)"


@pytest.mark.parametrize("missing", [-1, math.nan, None, ""])
def test_columns_and_files_hold_the_same(missing, tmp_path):
    seen = columns()
    same(seen, cai.Demonstrations.from_paths(*PATHS, ends="own"))
    assert seen.groups == ("x", "y", "x")
    assert seen.goals.tolist() == [2, 4, 1]
    other = COLUMNS | {"action": [missing if x == -1 else x for x in COLUMNS["action"]]}
    same(seen, cai.Demonstrations.from_columns(other, trajectory="trip", ends="own"))
    rows = zip(*other.values(), strict=True)
    file = tmp_path / "trips.csv"
    lines = [",".join("" if x is None else str(x) for x in row) for row in rows]
    file.write_text("\n".join([",".join(other), *lines]), encoding="utf-8")
    read = cai.Demonstrations.from_csv(
        file, trajectory="trip", group="driver", goal="to", ends="own"
    )
    same(seen, read)
    assert (read.groups, read.goals.tolist()) == (seen.groups, seen.goals.tolist())


def test_arrays_in_columns():
    arrays = {name: np.array(column) for name, column in COLUMNS.items()}
    found = cai.Demonstrations.from_columns(arrays, trajectory="trip", ends="own")
    same(found, columns(group=None, goal=None))


def test_simulated_trajectories_end_at_the_horizon_or_by_the_discount():
    model = models.ledge(horizon=6)
    seen = cai.Demonstrations.from_trajectories(model.simulate(model.prior, 20, seed=0))
    assert set(seen.ends) == {"horizon"}
    assert (seen.lengths == 6).all()
    model = models.ledge(horizon=6, discount=0.7)
    drawn = model.simulate(model.prior, 200, seed=0)
    seen = cai.Demonstrations.from_trajectories(drawn)
    assert set(seen.ends) == {"horizon", "terminated"}
    assert torch.equal(seen.lengths, drawn.alive[:, :-1].sum(1))
    for length, end in zip(seen.lengths.tolist(), seen.ends, strict=True):
        assert length == 6 or end == "terminated"
    assert torch.equal(seen.ending("horizon"), drawn.alive.all(1))


def test_episodes_terminate_or_are_cut():
    episodes = [
        SimpleNamespace(observations=s, actions=a, terminations=[False] * (len(a) - 1) + [end])
        for (s, a), end in zip(zip(*PATHS, strict=True), (True, False, True), strict=True)
    ]
    seen = cai.Demonstrations.from_episodes(episodes)
    assert seen.ends == ("absorbed", "cut", "absorbed")
    with pytest.raises(ValueError, match=r"episodes\[0\]: expected one with terminations"):
        cai.Demonstrations.from_episodes([SimpleNamespace(observations=[0], actions=[])])


def test_some_of_them():
    seen = columns()
    assert seen[1].states.tolist() == [[3, 4]]
    assert seen[1].groups == ("y",)
    assert len(seen[:2]) == 2
    assert seen[torch.tensor([True, False, True])].goals.tolist() == [2, 1]
    assert seen[[2, 0]].goals.tolist() == [1, 2]
    assert seen.with_ends("cut").ends == ("cut",) * 3
    assert seen.group_index.tolist() == [0, 1, 0]


def test_groups_stay_together():
    n = 60
    seen = cai.Demonstrations.from_paths([[0, 1]] * n, [[1]] * n, groups=[i // 3 for i in range(n)])
    train, test = seen.split(0.75, seed=3, by="group")
    assert len(train) == 45
    assert set(train.groups).isdisjoint(test.groups)
    again, _ = seen.split(0.75, seed=3, by="group")
    assert again.groups == train.groups
    other, _ = seen.split(0.75, seed=4, by="group")
    assert other.groups != train.groups
    first, second = seen.split(0.5, seed=0)
    assert len(first) == len(second) == 30


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: cai.Demonstrations.from_paths([[0, 1]], [[1, 1]]), r"states\[0\]: expected one"),
        (lambda: cai.Demonstrations.from_paths([], []), "actions: expected a sequence for each"),
        (lambda: cai.Demonstrations.from_paths([[0]], [[]]), r"actions\[0\]: expected at least"),
        (lambda: cai.Demonstrations.from_paths([[0, 1.5]], [[1]]), r"states\[0\]: expected integ"),
        (lambda: cai.Demonstrations.from_paths([[0, 1]], [[1]], ends="end"), "ends: expected"),
        (
            lambda: cai.Demonstrations.from_paths([[0, 1]], [[1]], groups=["a", "b"]),
            "groups: expected 1, one for each demonstration, got 2",
        ),
        (lambda: columns(trajectory="trips"), "column 'trips': expected one of the table"),
        (lambda: columns(group="nobody"), "column 'nobody'"),
        (lambda: columns(state="trip"), "column 'trip', row 0: expected an integer, got .*a"),
        (lambda: columns().split(0.01), "fraction: expected at least one in each part"),
        (lambda: columns(group=None).split(0.5, by="group"), "by: expected groups"),
        (lambda: columns()["a"], r"demonstrations\[…\]: expected a number, a slice, or"),
        (lambda: columns()[[]], r"demonstrations\[…\]: expected at least one of them"),
        (lambda: columns().with_ends(3), "ends: expected words, got int"),
        (lambda: columns().split(1.0), "fraction: expected between 0 and 1"),
        (lambda: cai.Demonstrations.from_csv("none.csv"), "path: expected a file of text"),
        (lambda: cai.Demonstrations.from_trajectories(COLUMNS), "trajectories: expected Traj"),
    ],
)
def test_what_does_not_fit_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_rows_that_are_wrong_are_named(tmp_path):
    def read(**changes):
        return cai.Demonstrations.from_columns(COLUMNS | changes, trajectory="trip")

    with pytest.raises(ValueError, match=r"column 'action', row 1: .* got -1 for trajectory a"):
        read(action=[1, -1, -1, 0, -1, 0, 1, -1])
    with pytest.raises(ValueError, match=r"column 'action', row 4: .* got 0 for trajectory b"):
        read(action=[1, 1, -1, 0, 0, 0, 1, -1])
    with pytest.raises(ValueError, match=r"column 'trip', row 7: .* got 'a' once more"):
        read(trip=["a", "a", "a", "b", "b", "c", "c", "a"])
    with pytest.raises(ValueError, match=r"column 'state', row 1: expected an integer ≥ 0"):
        read(state=[0, None, 2, 3, 4, 0, 0, 1])
    with pytest.raises(ValueError, match="columns: expected columns of one length"):
        read(state=[0])
    file = tmp_path / "trips.csv"
    file.write_text("trip,state\n\n1,2,3\n", encoding="utf-8")  # an empty line counts
    with pytest.raises(ValueError, match="as names in its heading, 2, got 3 in line 3"):
        cai.Demonstrations.from_csv(file)
    for text, came in (("", "nothing"), ("trip,state\n", "a heading alone")):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=f"path: expected a heading and rows, got {came}"):
            cai.Demonstrations.from_csv(file)


def test_a_share_of_n_in_l_actions_is_n_of_them():
    """Whatever rounding does to n/L, as with 13/22."""
    wanted = torch.tensor([(n, L) for L in range(1, 60) for n in range(1, L + 1)])
    found = []
    for n, L in wanted.tolist():
        one = cai.Demonstrations.from_paths([[0] * (L + 1)], [[0] * L])
        found.append(int(one.prefix(n / L).lengths))
    assert found == wanted[:, 0].tolist()
    assert cai.Demonstrations.from_paths([[0] * 9], [[0] * 8]).prefix(0.3).lengths.tolist() == [2]
