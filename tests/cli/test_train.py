"""Learners from the command line: trained, killed and resumed, evaluated, drawn and compared."""

import contextlib
import importlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
import types

import pytest

import cai
from cai import __main__ as command
from cai import inference, models, plot

QUICK = ("--steps", 3000, "--quiet")
LAKE = ("FrozenLake-v1", "--horizon", "infinite", "--discount", 0.9, "--temperature", 0.05)

BOXES = """
    import gymnasium
    import numpy as np


    class Endless(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))
        action_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)


    gymnasium.register("Endless-v0", entry_point=Endless, max_episode_steps=10)
    model = None
"""

FRAGILE = """
    import pyro.distributions as dist
    import torch

    import cai

    calls = 0


    def dynamics(s, a):
        global calls
        calls += 1
        if calls > 200:
            raise ArithmeticError("the cable is loose")
        return dist.Normal(s + a, 0.1)


    model = cai.TrajectoryModel(
        initial=dist.Normal(0.0, 1.0),
        dynamics=dynamics,
        reward=lambda s, a: -((a - s) ** 2) / 2,
        action_prior=dist.Normal(0.0, 1.0),
        horizon=2,
    )
"""


def run(*arguments):
    """A command's exit status, output and errors."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = command.main([str(argument) for argument in arguments])
        except SystemExit as left:
            status = left.code
    return status, out.getvalue(), err.getvalue()


def done(*arguments):
    status, out, err = run(*arguments)
    assert status == 0, err
    return out


def refused(*arguments, status=2):
    found, _, err = run(*arguments)
    assert found == status, err
    *_, line = err.strip().split("\n")
    assert line.startswith("cai: error: ")
    return line


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """The folder of a run on the lake."""
    out = tmp_path_factory.mktemp("runs") / "q1"
    done("train", "soft-q", *LAKE, "--steps", 20_000, "--seed", 1, "--out", out, "--quiet")
    return out


def test_a_run_holds_settings_checkpoint_and_history(lake):
    assert sorted(os.listdir(lake)) == ["checkpoint.pt", "history.json", "settings.json"]
    settings = json.loads((lake / "settings.json").read_text())
    assert settings["learner"] == "soft-q"
    assert settings["model"] == "FrozenLake-v1"
    assert settings["horizon"] == "infinite"
    assert (settings["steps"], settings["seed"]) == (20_000, 1)
    history = json.loads((lake / "history.json").read_text())
    assert len({len(column) for column in history.values()}) == 1
    assert history["steps"][-1] >= 20_000
    assert None in history["returns"] or min(history["returns"]) >= 0


def test_the_numbers_are_those_of_the_library(lake):
    model = models.gym("FrozenLake-v1", horizon=None, discount=0.9, temperature=0.05)
    learnt = inference.soft_q(model, steps=20_000, seed=1, progress=False)
    history = json.loads((lake / "history.json").read_text())
    assert history["divergence"] == learnt.history["divergence"].tolist()
    found = json.loads(done("evaluate", lake, "--json"))["runs"][0]
    from_library = cai.evaluate(model, learnt.policy)
    assert found["return"] == from_library.expected_return
    assert found["elbo"] == from_library.elbo
    assert "return 0." in done("evaluate", lake)


def test_killed_and_resumed_is_never_interrupted(tmp_path):
    arguments = ["train", "soft-q", *LAKE, "--steps", 100_000, "--quiet", "--json"]
    arguments = [str(x) for x in arguments]
    path = tmp_path / "killed" / "checkpoint.pt"
    process = subprocess.Popen(
        [sys.executable, "-m", "cai", *arguments, "--out", path.parent],
        env=os.environ | {"OMP_NUM_THREADS": "1"},  # as here: sums may round otherwise on more
    )
    while not path.exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert "100000" not in done("evaluate", path.parent).split(" of ")[0]
    resumed = json.loads(done(*arguments, "--resume", "--out", path.parent))["runs"][0]
    whole = json.loads(done(*arguments, "--out", tmp_path / "whole"))["runs"][0]
    assert {**resumed, "folder": ""} == {**whole, "folder": ""}
    histories = [tmp_path / name / "history.json" for name in ("killed", "whole")]
    assert histories[0].read_text() == histories[1].read_text()


def test_records_go_to_tensorboard_as_well(tmp_path, monkeypatch):
    written = []

    class SummaryWriter:
        def __init__(self, folder):
            self.folder = folder

        def add_scalar(self, name, number, step):
            written.append((self.folder, name, number, step))

        def flush(self):
            pass

    out = tmp_path / "logged"
    arguments = ("train", "soft-q", "ledge", *QUICK, "--out", out, "--tensorboard")
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert refused(*arguments).endswith("--tensorboard: not installed; pip install tensorboard")
    module = types.SimpleNamespace(SummaryWriter=SummaryWriter)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    assert not out.exists()  # what is missing is said before anything is written
    done(*arguments)
    history = json.loads((out / "history.json").read_text())
    for name in ("returns", "divergence", "temperature", "loss"):
        pairs = zip(history[name], history["steps"], strict=True)
        known = [(str(out), name, x, step) for x, step in pairs if x is not None]
        assert [row for row in written if row[1] == name] == known


def test_several_seeds_one_after_the_other(tmp_path):
    out = tmp_path / "seeds"
    arguments = ("train", "soft-q", "ledge", *QUICK, "--seeds", 3, "--seed", 5, "--out", out)
    found = json.loads(done(*arguments, "--json"))
    assert [row["seed"] for row in found["runs"]] == [5, 6, 7]
    returns = [row["return"] for row in found["runs"]]
    assert found["mean"]["return"] == pytest.approx(sum(returns) / 3)
    spread = (max(returns) - min(returns)) / 2
    assert spread < found["half_width_95"]["return"] < 6 * spread
    assert "mean of 3 seeds ± 95% interval: return" in done("evaluate", out, "--episodes", 20)
    done("plot", out, "--quiet")
    assert (out / "learning_curve.png").stat().st_size > 10_000


def test_plot(lake, tmp_path):
    done("plot", lake, "--out", tmp_path / "figures", "--quiet")
    assert os.listdir(tmp_path / "figures") == ["learning_curve.png"]


def test_values_are_drawn_beside_those_of_the_same_problem_where_something_is_learnt(
    tmp_path, monkeypatch
):
    drawn, draw = [], plot.learning_curve

    def watched(runs, exact, visits):
        drawn.append((exact, visits))
        return draw(runs, exact, visits)

    monkeypatch.setattr(plot, "learning_curve", watched)
    for name, more in (("network", "hidden=(8,)"), ("entropy", "regulariser=entropy")):
        out = tmp_path / name
        done("train", "soft-q", *LAKE, "--steps", 2000, "--set", more, "--out", out, "--quiet")
        done("plot", out, "--quiet")
    (exact, visits), of_another_problem = drawn
    holes_and_goal = [5, 7, 11, 12, 15]
    assert (visits[holes_and_goal] == 0).all()
    assert (exact[visits > 0] > 0).all()
    assert of_another_problem == (None, None)


@pytest.mark.parametrize("learner", ["policy-gradient", "path-consistency", "sac", "actor-critic"])
def test_continuous_actions_and_environments(learner, tmp_path):
    small = ("--set", "num_envs=4", "--set", "hidden=(8,)")
    small += ("--set", "warm_up=100" if learner in ("sac", "actor-critic") else "length=8")
    for name in ("pendulum", "Pendulum-v1"):
        out = tmp_path / name
        done("train", learner, name, "--steps", 200, *small, "--quiet", "--out", out)
        found = json.loads(done("evaluate", out, "--episodes", 4, "--json"))["runs"][0]
        assert found["return"] < 0 < found["return_stderr"]
        done("plot", out, "--quiet")


def test_a_sampler_has_a_return_and_no_elbo(tmp_path):
    small = ("--set", "hidden=(8,)", "--set", "warm_up=100", "--set", "updates=1")
    done("train", "stein-soft-q", "pendulum", "--steps", 200, *small, "--quiet", "--out", tmp_path)
    shown = done("evaluate", tmp_path, "--episodes", 4)
    assert re.search(r"return -\d+.* ± .*, ELBO unknown", shown)
    row = json.loads(done("evaluate", tmp_path, "--episodes", 4, "--json"))["runs"][0]
    assert row["return"] < 0
    assert row["elbo"] is None


def test_a_learner_beside_the_exact_rows(tmp_path):
    report = json.loads(
        done(
            *("compare", "frozen_lake", "--learner", "soft-q", "--transitions", 2000),
            *("--horizon", 5, "--steps", 5, "--json", "--quiet", "--out", tmp_path),
        )
    )
    assert list(report["rows"])[-2:] == ["SVI", "soft-q"]
    assert report["rows"]["soft-q"]["kl"] > 0


def test_the_help_lists_learners_and_their_actions():
    shown = done("--help")
    assert "soft-q" in shown
    assert "actions: finitely many or continuous" in shown
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "cai", "--help"], check=True, capture_output=True)
    assert time.perf_counter() - began < 3  # nothing heavy is imported: .1 s on an idle machine


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("soft-q", "pendulum"), "soft-q takes finitely many actions, got continuous ones; take"),
        (
            ("soft-q", "Pendulum-v1"),
            "got continuous ones; take sac or stein-soft-q or actor-critic or policy-gradient",
        ),
        (("soft-q", "FrozenLake-v7"), "FrozenLake-v7"),
        (("soft-q", "ledge", "--set", "rules=hard"), "--set: soft-q has no rules; it has batch"),
        (("soft-q", "ledge", "--set", "rule=softer"), 'rule: expected "soft"'),
        (("soft-q", "ledge", "--option", "wind=1"), "--option: ledge has no wind"),
        (("soft-q", "ledge", "--horizon", "endless"), "expected a whole number"),
        (("soft-qq", "ledge"), "invalid choice: 'soft-qq'"),
    ],
)
def test_wrong_arguments(arguments, words, tmp_path):
    found = run("train", *arguments, *QUICK, "--out", tmp_path / "run")
    assert found[0] in (1, 2)
    assert words in found[2]
    assert "Traceback" not in found[2]
    left = tmp_path / "run"
    assert not left.exists() or "checkpoint.pt" not in os.listdir(left)


def test_folders_that_are_no_run(lake, tmp_path):
    for name in ("evaluate", "plot"):
        assert "expected the folder of a run of cai train" in refused(name, tmp_path)
        assert "cannot be read" in refused(name, tmp_path / "nowhere")
    for text in ("", "{", "[]", '{"format": "other"}'):
        (tmp_path / "settings.json").write_text(text)
        assert "expected the folder of a run" in refused("evaluate", tmp_path)
    (tmp_path / "settings.json").write_text((lake / "settings.json").read_text())
    assert "nothing was learnt yet" in refused("evaluate", tmp_path)
    whole = (lake / "checkpoint.pt").read_bytes()
    (tmp_path / "checkpoint.pt").write_bytes(whole[:1000])
    assert "expected a file that soft_q wrote" in refused("evaluate", tmp_path, status=1)


def test_a_run_is_resumed_with_its_own_settings_alone(lake):
    same = ("train", "soft-q", *LAKE, "--steps", 20_000, "--seed", 1, "--out", lake, "--quiet")
    before = (lake / "history.json").read_text()
    assert "holds a run; add --resume" in refused(*same)
    for other in (("--steps", 10), ("--seed", 2), ("--discount", 0.5), ("--set", "rule=hard")):
        assert "--resume: expected" in refused(*same, *other, "--resume")
    done(*same, "--resume")
    assert (lake / "history.json").read_text() == before
    nowhere = lake.parent / "nowhere"
    assert "of a run" in refused(*same[:-3], "--out", nowhere, "--resume")
    assert not nowhere.exists()


def test_an_unbounded_box_is_said(tmp_path, monkeypatch):
    (tmp_path / "boxes.py").write_text(textwrap.dedent(BOXES))
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("boxes")
    found = refused("train", "policy-gradient", "Endless-v0", *QUICK, "--out", tmp_path / "run")
    assert "action_prior: expected a bounded box of actions" in found


def test_a_model_that_raises_loses_no_run(tmp_path):
    file, out = tmp_path / "fragile.py", tmp_path / "run"
    file.write_text(textwrap.dedent(FRAGILE))
    arguments = ("train", "policy-gradient", f"{file}:model", "--steps", 6000, "--quiet")
    arguments += ("--set", "num_envs=4", "--set", "length=8", "--out", out)
    found = refused(*arguments, status=1)
    assert f"{out}: stopped after" in found
    assert "of 6000 transitions: the cable is loose; once mended, the same command" in found
    assert sorted(os.listdir(out)) == ["checkpoint.pt", "history.json", "settings.json"]
    file.write_text(textwrap.dedent(FRAGILE).replace("calls > 200", "calls > 10**9"))
    done(*arguments, "--resume")
    assert json.loads((out / "history.json").read_text())["steps"][-1] >= 5900
