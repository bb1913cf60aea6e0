"""Models of other packages and modules: MODULE:NAME, and the entry points ``cai.models``."""

import json
import sys
import textwrap

import pytest
from command_line import run

from cai import models
from cai.cli.verbs import model_names

MODULE = """
    import dataclasses

    from cai import models

    harbour = models.ledge(horizon=3)


    def river(width=3, temperature=0.5):
        '''A river to be crossed.

        And more words.'''
        return models.ledge(gives_way=width / 10, temperature=temperature)


    def dry():
        return 3


    def breaks():
        return 1 / 0


    number = 3
"""
ENTRIES = """
    [cai.models]
    harbour = published_harbour:harbour
    river = published_harbour:river
    sunk = published_wreck:model
    lost = published_nowhere:model
    gone = published_harbour:gone
    number = published_harbour:number
    ledge = published_harbour:harbour
"""


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A distribution that is found on sys.path, as an installed one is."""
    (tmp_path / "published_harbour.py").write_text(textwrap.dedent(MODULE), encoding="utf-8")
    (tmp_path / "published_wreck.py").write_text("x = 1\nraise SystemExit(3)\n", encoding="utf-8")
    info = tmp_path / "harbour-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: harbour\nVersion: 1.0\n", "utf-8")
    (info / "entry_points.txt").write_text(textwrap.dedent(ENTRIES), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("published_harbour", "published_wreck"):
        sys.modules.pop(name, None)


def info(capsys, *arguments):
    status, out, err = run(capsys, "info", *arguments, "-j")
    assert status == 0, err
    return json.loads(out)


def test_they_are_listed_and_one_that_fails_is_named_with_its_error(packages, capsys):
    status, out, _ = run(capsys, "models")
    assert status == 0
    whole = out.replace("\n" + " " * 19, " ").splitlines()  # what does not fit goes on below
    lines = {line.split()[0]: line for line in whole if line.strip()}
    assert "A river to be crossed." in lines["river"]
    assert "published_harbour" in lines["harbour"]
    assert "SystemExit: 3" in lines["sunk"]
    assert "published_wreck.py, line 2" in lines["sunk"]
    assert "No module named 'published_nowhere'" in lines["lost"]
    assert "there is no 'gone'" in lines["gone"]
    assert "got int" in lines["number"]
    for name in ("gridworld", "FrozenLake-v1", "pendulum"):
        assert name in lines


def test_they_are_models_like_others(packages, capsys):
    assert info(capsys, "harbour")["horizon"] == 3
    assert info(capsys, "river", "-O", "width=4", "-T", "7")["horizon"] == 7
    assert info(capsys, "river", "-a", "2")["temperature"] == 2
    assert info(capsys, "ledge")["horizon"] == models.ledge().horizon  # a built-in one comes first


@pytest.mark.parametrize("name", ["sunk", "lost", "gone", "number"])
def test_one_that_fails_is_a_mistake_in_one_line(name, packages, capsys):
    status, _, err = run(capsys, "info", name)
    assert (status, len(err.splitlines())) == (2, 1)
    assert name in err


def test_a_misspelt_one_is_guessed(packages, capsys):
    status, _, err = run(capsys, "info", "harbor")
    assert status == 2
    assert "did you mean harbour?" in err


def test_a_name_in_a_module(packages, capsys):
    assert info(capsys, "published_harbour:harbour")["horizon"] == 3
    assert info(capsys, "published_harbour:river", "-O", "width=4")["states"] == 5
    for name, words in {
        "published_harbour:habour": "did you mean harbour?",
        "published_harbour:number": "got int",
        "published_harbour:dry": "to return a cai.TrajectoryModel, got int",
        "published_nowhere:x": "No module named",
        "published_wreck:x": "published_wreck.py, line 2",
    }.items():
        status, _, err = run(capsys, "info", name)
        assert (status, len(err.splitlines())) == (2, 1)
        assert words in err
    status, _, err = run(capsys, "info", "published_harbour:breaks")
    assert (status, len(err.splitlines())) == (1, 1)
    assert "published_harbour.py, line" in err
    assert "ZeroDivisionError" in err
    status, _, err = run(capsys, "info", "published_harbour:river", "-O", "widht=4")
    assert "did you mean width?" in err
    status, _, err = run(capsys, "info", "published_harbour:harbour", "-O", "width=4")
    assert status == 2
    assert "is a finished model, which has no arguments; take published_harbour:river" in err


def test_a_module_in_the_folder_is_found(tmp_path, monkeypatch, capsys):
    text = "from cai import models\nmodel = models.ledge(horizon=6)\n"
    (tmp_path / "module_of_this_folder.py").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert info(capsys, "module_of_this_folder:model")["horizon"] == 6
    assert sys.path == before
    sys.modules.pop("module_of_this_folder")


def test_what_is_a_name_in_a_module():
    assert model_names.in_a_module("package.module:name") == ("package.module", "name")
    for other in ("FrozenLake-v1", "ale:Pong-v5", "ledge", "a b:c", "c:\\x", "1a:b"):
        assert model_names.in_a_module(other) is None
