"""The command ``sweep``: its grids, its files, and how it goes on."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from command_line import run

import cai
from cai import inference, models
from cai.cli.verbs import sweep_command
from cai.cli.verbs.swept import METHODS


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("temperature=0.1,0.5,1", (0.1, 0.5, 1)),
        ("slip=0:0.3:0.1", (0.0, 0.1, 0.2, 0.3)),
        ("slip=0.3:0:-0.1", (0.3, 0.2, 0.1, 0.0)),
        ("slip=0.1:0.7:0.2", (0.1, 0.3, 0.5, 0.7)),
        ("slip=1e-3:3e-3:1e-3", (0.001, 0.002, 0.003)),
        ("slip=0.1:0.1:0.1", (0.1,)),
        ("horizon=10:30:10", (10, 20, 30)),
        ("horizon=10:11:0.5", (10.0, 10.5, 11.0)),
        ("map_name=4x4,8x8", ("4x4", "8x8")),
        ("map_name=a:b:c", ("a:b:c",)),
        ("is_slippery=True,False,None", (True, False, None)),
        ("c=-inf,-1", (float("-inf"), -1)),
    ],
)
def test_an_axis(text, values):
    """Decimals are what one would write: 0.1 + 0.2 is 0.3."""
    name, found = sweep_command.axis(text)
    assert name == text.partition("=")[0]
    assert [repr(x) for x in found] == [repr(x) for x in values]


@pytest.mark.parametrize(
    "text",
    [
        *("", "slip", "slip=", "=1", "a b=1"),
        *("slip=0:0.25:0.1", "slip=0:1:0", "slip=0:1:-0.1", "slip=1:1:0"),
        *("slip=0:1:1e-9", "slip=0:inf:1", "slip=nan:1:1"),
        *("slip=0:1", "slip=1,,2", "slip=0:1e999999:1e-999999"),
    ],
)
def test_what_is_no_axis(text, capsys):
    with pytest.raises(argparse.ArgumentTypeError, match="expected"):
        sweep_command.axis(text)
    status, _, err = run(capsys, "sweep", "gridworld", "--grid", text)
    assert status == 2
    assert "Traceback" not in err


def test_the_methods_that_are_named_are_those_that_there_are():
    """They are named twice, as the help must not load the library."""
    assert sweep_command._METHODS == METHODS


def test_numbers_are_those_of_the_library(tmp_path, capsys):
    arguments = ["--grid", "gives_way=0.1:0.5:0.2", "--grid", "temperature=0.5,1", "--seeds", "2"]
    arguments += ["--methods", "posterior,soft_values,hard,prior,fit", "-n", "20"]
    status, out, err = run(capsys, "sweep", "ledge", *arguments, "-o", tmp_path, "-j", "-q")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert len(found["cells"]) == 3 * 2 * 5 * 2
    for cell in found["cells"]:
        model = models.ledge(**cell["point"])
        policy = cai.TabularPolicy(model)
        method = {
            "posterior": lambda m=model: inference.posterior(m),
            "soft_values": lambda m=model: inference.soft_values(m),
            "hard": lambda m=model: inference.soft_values(m, rule="hard"),
            "prior": lambda m=model: lambda t, s: m.prior(s, t),
            "fit": lambda m=model, p=policy: inference.fit(m, p, steps=20, progress=False),
        }[cell["method"]]()
        row = cai.compare(model, {"it": method}).rows["it"]
        assert cell["row"]["elbo"] == pytest.approx(row.elbo, abs=1e-9)
    assert sorted(x.name for x in tmp_path.iterdir()) == [
        "results.csv",
        "results.jsonl",
        "sweep.png",
    ]
    header = (tmp_path / "results.csv").read_text("utf-8").splitlines()[0]
    assert header.startswith("gives_way,temperature,method,seed,log_evidence,")


def test_the_table_fits_80_characters(tmp_path, capsys):
    arguments = ["sweep", "gridworld", "--grid", "slip=0,0.1", "--grid", "wind=0,0.1"]
    arguments += ["--grid", "temperature=0.5,1", "--grid", "horizon=5:15:10", "-o", tmp_path]
    arguments += ["--methods", "posterior,soft_values"]
    status, out, err = run(capsys, *arguments)
    assert status == 0
    assert max(map(len, out.splitlines())) <= 80
    assert "no sweep.png" in err  # of three more axes
    assert "results.csv" in err
    wide = run(capsys, *arguments, "--wide")[1]
    assert max(map(len, wide.splitlines())) > 80


def test_the_same_command_goes_on(tmp_path, capsys, monkeypatch):
    arguments = ["sweep", "ledge", "--grid", "temperature=0.5,1", "--methods", "posterior"]
    assert run(capsys, *arguments, "-o", tmp_path)[0] == 0
    before = (tmp_path / "results.jsonl").read_bytes()
    status, _, err = run(capsys, *arguments, "-o", tmp_path)
    assert status == 0
    assert "goes on after 2 of 2 cells" in err
    assert (tmp_path / "results.jsonl").read_bytes() == before
    for other in (["-T", "3"], ["--grid", "gives_way=0.1"], ["-O", "gives_way=0.1"]):
        status, _, err = run(capsys, *arguments, *other, "-o", tmp_path)
        assert (status, len(err.splitlines())) == (2, 1)
        assert "another" in err


def test_options_in_another_order_are_the_same_sweep(tmp_path, capsys):
    words = ["sweep", "gridworld", "--methods", "posterior", "-o", tmp_path, "-q", "-T", "5"]
    options = ["-O", "wind=0.1"], ["-O", "slip=0.1"]
    assert run(capsys, *words, *options[0], *options[1])[0] == 0
    assert run(capsys, *words, *options[1], *options[0])[0] == 0


def test_what_fails_is_recorded_and_the_exit_status_says_so(tmp_path, capsys):
    arguments = ["sweep", "gridworld", "--grid", "slip=2,0.1", "--methods", "posterior"]
    status, out, err = run(capsys, *arguments, "-o", tmp_path)
    assert status == 1
    assert "1 cell of 2 failed" in out
    assert err.splitlines()[-1] == "cai: error: 1 of 2 cells failed; --retry does them again"
    assert (out + err).count("slip: expected a probability") == 1
    assert out.splitlines()[-1].startswith("slip: ")  # not the class of the error
    assert "slip: expected a probability" in (tmp_path / "results.csv").read_text("utf-8")
    assert run(capsys, *arguments, "-o", tmp_path, "--retry", "-q")[0] == 1
    assert len((tmp_path / "results.jsonl").read_text("utf-8").splitlines()) == 1 + 2 + 1


def test_who_reads_json_is_told_of_the_first_error_beside_it(tmp_path, capsys):
    words = ["sweep", "gridworld", "--grid", "slip=2,0.1", "--methods", "posterior", "-j", "-q"]
    status, out, err = run(capsys, *words, "-o", tmp_path)
    assert status == 1
    assert json.loads(out)["cells"][0]["error"].startswith("slip: expected a probability")
    assert "1 of 2 cells failed, the first with slip: expected a probability" in err


def test_a_value_that_failed_can_be_left_out(tmp_path, capsys):
    words = ["sweep", "gridworld", "--methods", "posterior", "-o", tmp_path, "-q", "--grid"]
    assert run(capsys, *words, "slip=2,0.1")[0] == 1
    assert run(capsys, *words, "slip=0.2,0.1")[0] == 0
    status, _, err = run(capsys, *words, "slip=0.2")
    assert status == 2
    assert "slip = 0.1, which is not in it; a sweep goes on with" in err
    assert "SweepResult" not in err  # which there is in Python alone
    assert "for others choose another folder" in err


OWN = """\
from cai import models


def make(wind=0.0, slip=0.0):
    if wind > 5:
        raise ZeroDivisionError("too windy")
    return models.gridworld(wind=wind, slip=slip)


def reward(s, wind):
    return s * wind


def looks_up(wind):
    return {0: models.ledge(), 1: models.ledge()}[wind]


def tank(noise=0.1):
    return models.pendulum(horizon=3)


def either(kind):
    return models.ledge() if kind == "b" else models.pendulum(horizon=3)


model = models.ledge()
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_model.py").write_text(OWN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)


MAKERS = "take own_model.py:make or own_model.py:looks_up, a function that makes one"
TAKES_NONE = "--grid: own_model.py is a finished model, which has no arguments; "


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["own_model.py", "--grid", "wind=0,0.1"], TAKES_NONE + MAKERS),
        (["own_model.py", "--grid", "a=0"], TAKES_NONE + "write a function of a that makes one"),
        (["own_model.py", "-O", "a=0"], "--option: "),
        (["own_model.py:make", "--grid", "wnd=0"], "--grid: own_model.py:make has no wnd; did"),
        (["gridworld", "--grid", "slipp=0:0.3:0.1"], "--grid: gridworld has no slipp; did"),
        (["gridworld", "--grid", "slip=0", "-O", "wnd=1"], "--option: gridworld has no wnd; did"),
        (["gridworld", "--grid", "slipp=0", "-O", "wind=0"], "--grid: gridworld has no slipp; did"),
        (["gridworld", "--grid", "slipp=0", "-O", "wnd=0"], "--grid and --option: gridworld has"),
    ],
)
def test_a_mistake_in_the_grid_is_told_of_the_grid(arguments, words, tmp_path, capsys):
    status, _, err = run(capsys, "sweep", *arguments, "--methods", "prior", "-o", "out")
    assert (status, len(err.splitlines())) == (2, 1)
    assert words in err
    assert str(tmp_path) not in err
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("own")
def test_errors_of_cells_have_the_line_of_the_users_file(tmp_path, capsys):
    for k, (model, grid) in enumerate([("make", "wind=0,9"), ("looks_up", "wind=0,9")]):
        words = ["sweep", f"own_model.py:{model}", "--grid", grid, "--methods", "prior", "-q"]
        status, out, _ = run(capsys, *words, "-o", f"out{k}")
        assert status == 1
        line = "(own_model.py, line 6)" if k == 0 else "(own_model.py, line 15)"
        assert out.splitlines()[-1].endswith(line)
        assert str(tmp_path) not in (tmp_path / f"out{k}" / "results.csv").read_text("utf-8")


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("methods", "words"),
    [
        ("posterior", "--methods: posterior cannot take own_model.py:tank, whose states or act"),
        ("prior,hard", "--methods: hard cannot take own_model.py:tank, whose states or actions"),
        ("soft-q,sac", "--methods: soft-q cannot take own_model.py:tank, whose actions are cont"),
    ],
)
def test_a_method_that_takes_no_model_of_the_grid_is_refused(methods, words, tmp_path, capsys):
    arguments = ["own_model.py:tank", "--grid", "noise=0.1,0.2", "--methods", methods]
    status, _, err = run(capsys, "sweep", *arguments, "-o", "out")
    assert (status, len(err.splitlines())) == (2, 1)
    assert words in err
    assert "; take fit, prior, sac" in err or "; take prior, sac" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("own")
def test_a_method_that_takes_some_model_of_the_grid_is_done(capsys):
    words = ["sweep", "own_model.py:either", "--grid", "kind=a,b,c", "--methods", "posterior"]
    status, out, _ = run(capsys, *words, "-o", "out", "-q", "-j")
    assert status == 1
    assert [cell["error"] is None for cell in json.loads(out)["cells"]] == [False, True, False]


def test_methods_of_an_infinite_horizon(tmp_path, capsys):
    words = ["sweep", "ledge", "-T", "infinite", "--grid", "discount=0.9", "-o", tmp_path / "out"]
    status, _, err = run(capsys, *words, "--methods", "posterior,hard")
    assert status == 2
    assert "posterior cannot take ledge, whose horizon is infinite; take soft_values, hard" in err
    assert run(capsys, *words, "--methods", "soft_values,hard", "-q")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gridwrld"], "did you mean gridworld?"),
        (["gridworld", "--grid", "slp=0,1"], "did you mean slip?"),
        (["gridworld", "--grid", "slip=0", "--grid", "slip=1"], "given twice"),
        (["gridworld", "--grid", "slip=0,0.1", "-O", "slip=0"], "given twice"),
        (["gridworld", "--grid", "temperature=1,2", "-a", "1"], "given twice"),
        (["gridworld", "--grid", "temperature=1,1.0"], "values that differ"),
        (["gridworld", "--methods", "postrior"], "did you mean posterior?"),
        (["gridworld", "--methods", "a,a"], "names that differ"),
        (["gridworld", "--seeds", "0"], "at least 1"),
        (["gridworld", "--jobs", "2", "--engine", "hamsters"], "engine"),
        (["gridworld", "--job", "x"], "expected"),
    ],
)
def test_mistakes(arguments, words, tmp_path, capsys):
    status, _, err = run(capsys, "sweep", *arguments, "-o", tmp_path / "out")
    assert status == 2
    assert words in err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_model_from_a_file_and_from_a_module_in_two_processes(tmp_path, capsys, monkeypatch):
    pytest.importorskip("joblib")
    monkeypatch.chdir(tmp_path)
    assert run(capsys, "new", "corridor_model.py")[0] == 0
    grid = ["--grid", "wind=0,0.4", "--methods", "posterior,soft-q", "--transitions", "200"]
    texts = []
    for name in ("corridor_model.py:make", "corridor_model:make"):
        status, out, err = run(capsys, "sweep", name, *grid, "-o", "out" + name[-8], "-q", "-j")
        assert status == 0, err
        texts.append([cell["row"] for cell in json.loads(out)["cells"]])
    assert texts[0] == texts[1]
    arguments = ["sweep", "corridor_model.py:make", *grid, "--jobs", "2", "-o", "two", "-q", "-j"]
    # From a process of its own: what joblib starts would outlive the test.
    done = subprocess.run(
        [sys.executable, "-m", "cai", *arguments], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [cell["row"] for cell in json.loads(done.stdout)["cells"]] == texts[0]


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
def test_ctrl_c_says_how_to_go_on(tmp_path):
    arguments = ["sweep", "gridworld", "--grid", "temperature=0.1:20:0.1", "-o", str(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-m", "cai", *arguments, "--methods", "posterior", "--seeds", "20"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    path, until = tmp_path / "results.jsonl", time.monotonic() + 120
    while time.monotonic() < until and not (path.exists() and path.stat().st_size > 5000):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    n = path.read_bytes().count(b"\n") - 1
    assert path.read_bytes().endswith(b"\n")
    assert f"cai: error: interrupted after {n} of 4000 cells" in err
    assert "goes on from there" in err


def test_without_methods_those_that_take_the_model_are_compared(tmp_path, capsys):
    words = ["sweep", "-T", "infinite", "--grid", "discount=0.9", "-o", tmp_path / "a", "-j", "-q"]
    status, out, _ = run(capsys, *words, "ledge")
    assert (status, json.loads(out)["methods"]) == (0, ["soft_values"])
    status, _, err = run(capsys, "sweep", "CartPole-v1", "-o", tmp_path / "b")
    assert status == 2
    assert "--methods: none of posterior, soft_values and fit takes CartPole-v1; name learn" in err
