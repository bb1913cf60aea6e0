"""The commands info, solve, dial, plan, fit and new: what they print, write and refuse."""

import csv
import json
import math
import re
import runpy
import subprocess
import sys

import pyro.distributions as dist
import pytest
import torch
from command_line import run

import cai
from cai import inference, models
from cai.cli import options
from cai.cli.verbs import facts

LEDGE = models.ledge()


def out_of(capsys, *arguments):
    """What a command that succeeds prints."""
    status, out, err = run(capsys, *arguments)
    assert status == 0, err
    return out


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def assert_fits(text):
    assert max(map(len, text.splitlines())) <= 80


# info


def test_info_of_a_table(capsys):
    table = cai.tabulate(models.gridworld())
    found = json.loads(out_of(capsys, "info", "gridworld", "--json"))
    assert found["states"] == table.num_states
    assert found["actions"] == table.num_actions
    assert found["successors"] == table.log_dynamics.shape[-1]
    assert found["horizon"] == table.horizon
    assert found["map"] == list(table.layout.map)
    held = ("log_initial", "log_prior", "log_dynamics", "successors", "reward", "final_reward")
    arrays = [getattr(table, name) for name in (*held, "arrival_reward")]
    assert found["table_bytes"] == sum(x.nbytes for x in arrays if x is not None)
    text = out_of(capsys, "info", "gridworld")
    assert_fits(text)
    for words in ("S = 48", "A = 4", "T = 30", "K = 3", "posterior (cai solve", "contract"):
        assert words in text


def test_info_takes_changes(capsys):
    text = out_of(capsys, "info", "ledge", "-T", "infinite", "-g", "0.9", "-a", "0.25")
    for words in ("infinite", "gamma = 0.9", "alpha = 0.25"):
        assert words in text


def test_info_of_a_continuous_model(capsys):
    found = json.loads(out_of(capsys, "info", "pendulum", "-j"))
    assert (found["states"], found["state_shape"], found["actions"]) == (None, [2], None)
    assert found["table_bytes"] is None
    assert "finitely many" in found["no_table"]
    assert_fits(out_of(capsys, "info", "pendulum"))


def test_info_of_an_environment(capsys):
    pytest.importorskip("gymnasium")
    found = json.loads(out_of(capsys, "info", "CartPole-v1", "-j", "-q"))
    assert found["methods"] == []
    assert "soft-q" in found["learners"]


def ways(model):
    """Each method that ``info`` may name, as it is called."""
    finite = facts.has_table(model)
    make = cai.TabularPolicy if finite else cai.NeuralPolicy
    return {
        "posterior": inference.posterior,
        "soft_values": inference.soft_values,
        "optimism_curve": lambda m: inference.optimism_curve(m, [0.0]),
        "map_trajectory": inference.map_trajectory,
        "fit": lambda m: inference.fit(m, make(m), steps=2, samples=2, progress=False),
        "smc": lambda m: inference.smc(m, 20),
        "evidence_bracket": lambda m: inference.evidence_bracket(m, lambda t, s: m.prior(s, t)),
    }


TAKEN = {
    "ledge": LEDGE,
    "ledge without end": models.ledge(horizon=None, discount=0.9),
    "pendulum": models.pendulum(horizon=3),
    "a line": models.linear_gaussian(
        [[1.0]],
        [[1.0]],
        horizon=3,
        noise=[[0.1]],
        Q=[[1.0]],
        R=[[1.0]],
        action_prior=dist.MultivariateNormal(torch.zeros(1), torch.eye(1)),
    ),
    "lottery": models.lottery(horizon=3),
}


@pytest.mark.parametrize("name", TAKEN)
def test_the_methods_that_info_names_take_the_model_and_exact_ones_it_leaves_out_do_not(name):
    model = TAKEN[name]
    table = cai.tabulate(model) if facts.has_table(model) else None
    named = facts.methods(model, table)
    assert named
    for method, call in ways(model).items():
        if method in named:
            call(model)
        elif method in ("posterior", "soft_values", "optimism_curve", "map_trajectory", "smc"):
            with pytest.raises(ValueError, match=r"\w"):
                call(model)


# solve


@pytest.mark.parametrize("optimism", ["0", "1", "-0.5", "inf"])
def test_solve(optimism, tmp_path, capsys):
    arguments = ["solve", "ledge", f"--optimism={optimism}", "-o", tmp_path]
    found = json.loads(out_of(capsys, *arguments, "--json"))
    solution = inference.soft_values(LEDGE, float(optimism))
    (row,) = found["rows"].values()
    report = cai.compare(LEDGE, {"it": solution}).rows["it"]
    assert row["elbo"] == report.elbo
    assert row["imagined_bound"] == report.imagined_bound
    (start,) = found["start"]
    assert start["V"] == solution.V[0, 0].item()
    assert start["action_probability"] == solution.policy.log_probs[0, 0].exp().max().item()
    assert files(tmp_path) == ["occupancy.png", "policies.png", "solution.json"]
    assert json.loads((tmp_path / "solution.json").read_text("utf-8")) == found
    text = out_of(capsys, *arguments)
    assert_fits(text)
    assert "Start in state" in text


def test_solve_without_an_end(tmp_path, capsys):
    arguments = ["solve", "ledge", "-T", "infinite", "-g", "0.9", "-o", tmp_path, "-j"]
    found = json.loads(out_of(capsys, *arguments))
    solution = inference.soft_values(models.ledge(horizon=None, discount=0.9))
    assert found["start"][0]["V"] == solution.V[0].item()


def test_a_continuous_model_is_not_solved(tmp_path, capsys):
    status, _, err = run(capsys, "solve", "pendulum", "-o", tmp_path / "out")
    assert status == 2
    assert len(err.splitlines()) == 1
    assert "finitely many states" in err
    assert not (tmp_path / "out").exists()


# dial


def test_dial(tmp_path, capsys):
    arguments = ["dial", "ledge", "--optimism=-1,0,1,inf", "-o", tmp_path]
    found = json.loads(out_of(capsys, *arguments, "--json"))
    curve = inference.optimism_curve(LEDGE, [-1, 0, 1, math.inf])
    assert found["optimism"] == [-1, 0, 1, "inf"]
    assert found["bound"] == curve.bound.tolist()
    assert found["elbo"] == curve.elbo.tolist()
    assert [x["optimism"] for x in found["switches"]] == [x.optimism for x in curve.changes]
    assert files(tmp_path) == ["dial.json", "optimism_curve.png"]
    text = out_of(capsys, *arguments)
    assert_fits(text)
    assert len([line for line in text.splitlines() if "changes from" in line]) == 1


def test_dial_shows_some_of_many_and_keeps_all(tmp_path, capsys):
    text = out_of(capsys, "dial", "ledge", "-o", tmp_path)
    shown = [line.split()[0] for line in text.splitlines() if line[:1] in "-i0123456789"]
    assert [x for x in shown if x in ("-inf", "0", "1", "inf")] == ["-inf", "0", "1", "inf"]
    assert len(json.loads((tmp_path / "dial.json").read_text("utf-8"))["optimism"]) == 41


# plan


def test_plan(tmp_path, capsys):
    model = models.gridworld(slip=0.1)
    arguments = ["plan", "gridworld", "-O", "slip=0.1", "-o", tmp_path]
    found = json.loads(out_of(capsys, *arguments, "-j"))
    best = inference.map_trajectory(model)
    assert found["log_probability"] == best.log_probability
    assert [x["state"] for x in found["steps"]] == best.states[:-1].tolist()
    assert [x["action"] for x in found["steps"]] == best.actions.tolist()
    prior = sum(
        model.prior(s, t).log_prob(a).item()
        for t, (s, a) in enumerate(zip(best.states[:-1], best.actions, strict=True))
    )
    start = model.initial.log_prob(best.states[0]).item()
    parts = start + prior + found["log_probability_of_dynamics"]
    parts += found["return"] / float(model.temperature)
    assert parts == pytest.approx(best.log_probability, abs=1e-6)
    assert files(tmp_path) == ["plan.csv", "plan.json"]
    seen = cai.Demonstrations.from_csv(tmp_path / "plan.csv")
    assert len(seen) == 1
    text = out_of(capsys, *arguments)
    assert_fits(text)
    assert "…" in text  # what repeats itself at the goal is said once


def test_plan_of_a_dense_table_with_a_discount(tmp_path, capsys):
    """It may end early, and the last state is then not known."""
    found = json.loads(out_of(capsys, "plan", "ledge", "-g", "0.5", "-o", tmp_path, "-j"))
    best = inference.map_trajectory(models.ledge(discount=0.5))
    states = [x["state"] for x in found["steps"]]
    assert states == [s for s in best.states.tolist() if s >= 0][: len(states)]
    rows = list(csv.DictReader((tmp_path / "plan.csv").read_text("utf-8").splitlines()))
    assert [int(row["state"]) for row in rows][: len(states)] == states


def test_plan_from_a_state(tmp_path, capsys):
    found = json.loads(out_of(capsys, "plan", "ledge", "--start", "1", "-o", tmp_path, "-j"))
    assert found["steps"][0]["state"] == 1
    status, _, err = run(capsys, "plan", "ledge", "--start", "9", "-o", tmp_path, "-q")
    assert (status, len(err.splitlines())) == (2, 1)


# fit


def test_fit_goes_on_from_its_checkpoint(tmp_path, capsys, monkeypatch):
    file = tmp_path / "run.pt"
    arguments = ["fit", "ledge", "-n", "40", "-s", "3", "--checkpoint", file, "-o", tmp_path, "-q"]
    first = json.loads(out_of(capsys, *arguments, "-j"))
    expected = inference.fit(LEDGE, cai.TabularPolicy(LEDGE), steps=40, seed=3, progress=False)
    assert first["elbo"] == pytest.approx(expected.elbo, abs=1e-9)
    assert first["steps"] == 40
    assert file.exists()
    assert {"fit.json", "training.png", "comparison.png"} <= set(files(tmp_path))
    steps = []
    step = torch.optim.Adam.step
    monkeypatch.setattr(torch.optim.Adam, "step", lambda *x, **y: steps.append(1) or step(*x, **y))
    again = json.loads(out_of(capsys, *arguments, "-j"))
    assert (again["elbo"], steps) == (first["elbo"], [])
    status, _, err = run(capsys, *arguments, "--estimator", "score")
    assert (status, len(err.splitlines())) == (2, 1)
    assert "estimator" in err
    text = out_of(capsys, *arguments)
    assert_fits(text)
    assert "prior" in text


def test_fit_of_a_continuous_model_trains_a_network(tmp_path, capsys):
    arguments = ["fit", "pendulum", "-T", "3", "-n", "2", "-o", tmp_path, "-q", "-j"]
    assert json.loads(out_of(capsys, *arguments))["rows"].keys() == {"SVI", "prior"}
    status, _, err = run(capsys, *arguments, "--policy", "table")
    assert (status, len(err.splitlines())) == (2, 1)


def test_a_checkpoint_without_a_folder_is_known_before_the_work(tmp_path, capsys):
    file = tmp_path / "no" / "run.pt"
    status, _, err = run(capsys, "fit", "ledge", "--checkpoint", file, "-o", tmp_path / "out")
    assert status == 2
    assert str(file) in err
    assert not (tmp_path / "out").exists()


# --save


@pytest.mark.parametrize("command", ["solve", "fit"])
def test_what_is_saved_is_loaded(command, tmp_path, capsys):
    file = tmp_path / "it.pt"
    out_of(capsys, command, "ledge", "--save", file, "-o", tmp_path, "-q")
    found, ledge = cai.load(file), models.ledge()
    if command == "solve":
        assert torch.equal(found.V, inference.soft_values(ledge).V)
    else:
        assert isinstance(found, cai.TabularPolicy)
        best = inference.soft_values(ledge).elbo
        assert cai.evaluate(ledge, found).elbo == pytest.approx(best, abs=1e-3)
    for bad in (tmp_path, tmp_path / "no" / "it.pt"):
        status, _, err = run(capsys, command, "ledge", "--save", bad, "-o", tmp_path / "out")
        assert (status, len(err.splitlines())) == (2, 1)


# new


def test_new_writes_a_model_that_runs_at_once(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = out_of(capsys, "new", "mine.py")
    assert said == "cai compare mine.py:model\n"
    report = json.loads(out_of(capsys, "compare", "mine.py:model", "-j", "-q", "-n", "20"))
    gap = report["rows"]["exact posterior"]["optimism_gap"]
    assert gap > 0.1  # the wind is what there is to be optimistic about
    calm = ["compare", "mine.py:make", "-O", "wind=0.0", "-j", "-q", "-n", "20"]
    gap = json.loads(out_of(capsys, *calm))["rows"]["exact posterior"]["optimism_gap"]
    assert gap == pytest.approx(0, abs=1e-9)
    text = (tmp_path / "mine.py").read_text("utf-8")
    for line in [x.strip() for x in text.splitlines() if x.startswith("    cai ")]:
        assert run(capsys, *line.split()[1:], *([] if "info" in line else ["-q"]))[0] == 0
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F", "mine.py"],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_new_writes_a_continuous_model_that_runs_at_once(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = out_of(capsys, "new", "--continuous", "mine.py")
    assert said == "cai fit mine.py:model --estimator pathwise\n"
    found = json.loads(out_of(capsys, "info", "mine.py", "--json"))
    assert (found["state_shape"], found["action_shape"]) == ([2], [1])
    assert found["table_bytes"] is None
    assert "fit" in found["methods"]
    assert found["contract"].startswith("kept")
    model = runpy.run_path("mine.py")["make"](noise=0.05)
    policy = cai.NeuralPolicy(model, hidden=(8,))
    fitted = inference.fit(model, policy, estimator="pathwise", steps=3, progress=False)
    assert (fitted.estimator, len(fitted.losses)) == ("pathwise", 3)
    assert model.simulate(fitted.policy, samples=2).actions.abs().max() <= 3.0  # the box
    text = (tmp_path / "mine.py").read_text("utf-8")
    lines = [x.split() for x in text.splitlines() if x.startswith("    cai ")]
    assert [options.parser().parse_args(x[1:]).command for x in lines] == ["info", "fit", "sweep"]
    assert said.split()[:2] == lines[1][:2]


def test_new_leaves_what_exists_alone(tmp_path, capsys):
    file = tmp_path / "mine.py"
    file.write_text("x = 1\n", encoding="utf-8")
    for bad in (file, tmp_path / "mine.txt", tmp_path / "no" / "mine.py"):
        status, _, err = run(capsys, "new", bad)
        assert (status, len(err.splitlines())) == (2, 1)
        assert str(bad) in err
    assert file.read_text("utf-8") == "x = 1\n"
    assert files(tmp_path) == ["mine.py"]


@pytest.mark.parametrize("name", ['a"b.py', "a\\b.py", "nowhere/mine.py"])
def test_new_refuses_what_would_not_run(name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capsys, "new", name)
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert files(tmp_path) == []


def test_new_says_a_line_that_can_be_pasted(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert out_of(capsys, "new", "a b.py") == "cai compare 'a b.py:model'\n"


# What has no answer


@pytest.mark.parametrize("command", ["solve", "dial", "plan"])
@pytest.mark.parametrize("model", ["hopeless.py:model", "pendulum"])
def test_a_model_without_an_answer_is_a_mistake_everywhere(
    model, command, tmp_path, capsys, monkeypatch
):
    """One whose optimality is impossible, and one without a table."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hopeless.py").write_text(
        "from cai import models\n"
        "model = models.tabular([1.0], [[[1.0]]], [[-float('inf')]], horizon=1)\n"
    )
    status, _, err = run(capsys, command, model, "-o", tmp_path / "out")
    assert (status, len(err.splitlines())) == (2, 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["CartPole-v1"], "none: only samples can be had; see the learners"),
        (["pendulum", "-T", "infinite"], "none of a continuous model without an end"),
    ],
)
def test_info_says_why_no_method_takes_a_model(arguments, words, capsys):
    assert words in " ".join(out_of(capsys, "info", *arguments).split())


# Wrong arguments and wrong files

FAULTY = """
import torch, pyro.distributions as dist
import cai

def made(reward):
    return cai.TrajectoryModel(
        initial=dist.Categorical(torch.ones(2)),
        action_prior=lambda s: dist.Categorical(torch.ones(2)),
        dynamics=lambda s, a: dist.Categorical(torch.ones(2)),
        reward=reward,
        horizon=3,
    )

def faulty(error):
    def reward(s, a):
        raise error("my own words")
    return reward

def value():
    return made(faulty(ValueError))

def key():
    return made(faulty(KeyError))

def own():
    raise ValueError("my own words")

def attribute():
    return cai.Model()
"""


@pytest.mark.parametrize(
    ("name", "line", "words"),
    [
        ("value", 16, "reward: called with tensors of shape .* it raised ValueError: my own words"),
        ("key", 16, "reward: called with tensors of shape .* it raised KeyError: 'my own words'"),
        ("own", 26, "ValueError: my own words$"),
        ("attribute", 29, "AttributeError: No cai attribute Model$"),
    ],
)
def test_an_error_names_the_line_where_it_began(name, line, words, tmp_path, capsys):
    file = tmp_path / "faulty.py"
    file.write_text(FAULTY, encoding="utf-8")
    status, _, err = run(capsys, "info", f"{file}:{name}")
    assert status != 0
    assert re.match(rf"cai: error: {re.escape(str(file))}, line {line}: {words}", err.strip()), err


def test_what_a_function_needs_is_asked_for(tmp_path, capsys):
    file = tmp_path / "sized.py"
    file.write_text(
        "from cai import models\n\n"
        "def made(k, *more, wide=1, **rest):\n    return models.ledge(horizon=k)\n"
    )
    status, _, err = run(capsys, "info", f"{file}:made")
    assert (status, len(err.splitlines())) == (2, 1)
    assert "expected a value of k, got none; pass --option k=VALUE" in err
    assert "T = 3" in out_of(capsys, "info", f"{file}:made", "--option", "k=3")


def test_negative_numbers_follow_their_option(tmp_path, capsys):
    curve = json.loads(
        out_of(capsys, "dial", "ledge", "--optimism", "-inf,-.5,0", "--json", "-o", tmp_path)
    )
    same = out_of(capsys, "dial", "ledge", "--optimism=-inf,-.5,0", "--json", "-o", tmp_path)
    assert curve == json.loads(same)
    found = out_of(capsys, "solve", "ledge", "--optimism", "-1", "--json", "-o", tmp_path)
    assert json.loads(found)["optimism"] == -1
    status, _, err = run(capsys, "solve", "ledge", "--optimism", "-o", tmp_path)
    assert (status, "expected one argument" in err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["solve", "pendulum"], "numbered 0 … n-1 by a Categorical, .* use `cai fit`, which"),
        (["fit", "pendulum", "--policy", "table"], "--policy: .* take --policy network"),
        (["irl", "gridworld", "missing.csv"], "missing.csv: .* got no file missing.csv"),
        (["info", "missing.py:model"], "missing.py: there is no such file; look at its name"),
        (["solve", "ledge", "--save", "no/x.pt"], "--save: no/x.pt: .* make it first"),
        (["fit", "ledge", "--checkpoint", "no/x.pt"], "--checkpoint: no/x.pt: .* make it first"),
        (["plan", "ledge", "--start", "hom"], "--start: .* got 'hom'; did you mean home"),
        (["plan", "gridworld", "--start", "S"], "--start: .* got 'S'; there are 0 … 47"),
        (["plan", "ledge", "--start", "99"], "got 99; without one the best is taken"),
        (["compare", "ledge", "-T", "infinite"], "finite number of steps; cai solve takes"),
        (["solve", "ledge", "-a", "inf"], "temperature: .* got inf; for instance 0.1"),
    ],
)
def test_a_mistake_is_told_with_what_to_try(arguments, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert re.search(words, err.strip().splitlines()[-1])


def test_a_plan_from_a_state_by_its_name(tmp_path, capsys):
    k = LEDGE.layout.states.index("last bend")
    said = [
        out_of(capsys, "plan", "ledge", "--start", start, "--json", "-o", tmp_path)
        for start in ("last bend", str(k))
    ]
    assert said[0] == said[1]
    assert json.loads(said[0])["steps"][0]["state"] == k
