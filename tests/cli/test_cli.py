"""The command line, called in the process: what it prints, what it writes, and how it fails."""

import contextlib
import functools
import importlib.metadata
import io
import json
import os
import re
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import matplotlib.figure
import matplotlib.image
import pytest
import torch

import cai
from cai import __main__ as command
from cai import inference, models, plot

COLUMNS = [
    "imagined_bound",
    "imagined_return",
    "elbo",
    "expected_return",
    "optimism_gap",
    "restriction",
    "entropy",
    "kl_start",
    "kl_actions",
    "kl_dynamics",
    "kl",
]
FIGURES = ["comparison.png", "occupancy.png", "optimism.png", "policies.png", "training.png"]
FILES = sorted(["comparison.json", "comparison.md", *FIGURES])
SAMPLED = ["comparison.json", "comparison.md", "comparison.png"]

FERRY = """
    import pyro
    import pyro.distributions as dist
    import torch
    from current import DRIFT  # a neighbour of this file

    import cai


    def dynamics(s, a):
        calm = pyro.sample("calm", dist.Bernoulli(0.75))
        gust = pyro.sample("gust", dist.Categorical(torch.tensor([0.5, 0.3, 0.2])))
        drift = torch.where(calm.bool(), 0, gust + DRIFT)
        return dist.Delta((s - a + drift).clamp(0, 4))


    ferry = cai.TrajectoryModel(
        initial=dist.Categorical(torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0])),
        dynamics=dynamics,
        reward=lambda s, a: -(s - 1.0).abs() - 0.5 * a,
        action_prior=dist.Categorical(torch.ones(3)),
        horizon=3,
        temperature=0.5,
    )
    model = 3
"""

# ELBO of the prior: -E[(a-s)²]/2 = -1. Best: E_s[log ∫ N(a; 0, 1) exp(-(a-s)²/2) da], which is
# E_s[-log(2)/2 - s²/4] = -log(2)/2 - 1/4.
CHASE = """
    import pyro.distributions as dist

    import cai

    model = cai.TrajectoryModel(
        initial=dist.Normal(0.0, 1.0),
        dynamics=lambda s, a: dist.Normal(s + a, 0.1),
        reward=lambda s, a: -((a - s) ** 2) / 2,
        action_prior=dist.Normal(0.0, 1.0),
        horizon=1,
    )
"""

# Five states in a ring; the last line says how the rest of the model differs.
RING = """
    import pyro.distributions as dist
    import torch

    import cai


    def ring(**changes):
        arguments = {
            "initial": dist.Categorical(torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0])),
            "dynamics": lambda s, a: dist.Delta((s + a) % 5),
            "reward": -1.0,
            "action_prior": dist.Categorical(torch.ones(2)),
            "horizon": 2,
        }
        return cai.TrajectoryModel(**arguments | changes)


"""


CONTINUOUS = ("pendulum", "cartpole", "multigoal", "double_integrator")
BUILT_IN = ("ledge", "lottery", "gridworld", *CONTINUOUS)


@dataclass
class Run:
    status: int
    out: str
    err: str


class _Terminal(io.StringIO):
    def isatty(self):
        return True


def run(*arguments, err=None):
    """A command's exit status and what it printed; argparse leaves by SystemExit."""
    out, err = io.StringIO(), err or io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = command.main([str(argument) for argument in arguments])
        except SystemExit as left:
            status = left.code
    return Run(status, out.getvalue(), err.getvalue())


def write(folder, name, text, ending=""):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(textwrap.dedent(text).lstrip() + ending, encoding="utf-8")
    return path


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def expected_rows(model):
    """The two exact rows, from the library's own functions."""
    methods = {
        "exact posterior": inference.posterior(model),
        "fixed dynamics": inference.soft_values(model),
    }
    return cai.compare(model, methods).to_dict()


def ferry_by_hand(horizon=3, temperature=0.5, discount=1.0):
    """The ferry without its latents, each drift with the probability that they give it."""
    P = torch.zeros(5, 3, 5, dtype=torch.float64)
    for s in range(5):
        for a in range(3):
            for drift, p in ((0, 0.75), (1, 0.125), (2, 0.075), (3, 0.05)):
                P[s, a, min(max(s - a + drift, 0), 4)] += p
    return models.tabular(
        P,
        [[-abs(s - 1) - 0.5 * a for a in range(3)] for s in range(5)],
        initial=[0.0, 0.0, 1.0, 0.0, 0.0],
        horizon=horizon,
        temperature=temperature,
        discount=discount,
    )


def assert_same_rows(found, expected, tolerance=1e-12):
    assert found["log_evidence"] == pytest.approx(expected["log_evidence"], abs=tolerance)
    for name, row in expected["rows"].items():
        assert found["rows"][name] == pytest.approx(row, abs=tolerance)


def assert_trained(found, slack):
    """SVI comes close to the best that keeps the true dynamics, and never above it."""
    best, elbo = found["rows"]["fixed dynamics"]["elbo"], found["rows"]["SVI"]["elbo"]
    assert best - slack < elbo <= best + 1e-9


def assert_picture(path):
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    pixels = matplotlib.image.imread(path)
    assert min(pixels.shape[:2]) > 100
    assert pixels[..., :3].std() > 0.01  # not blank


def assert_cells(cells, row):
    """The cells of a printed row, against its numbers."""
    assert len(cells) == len(COLUMNS)
    for cell, column in zip(cells, COLUMNS, strict=True):
        if row[column] is None:
            assert cell == "–"
        else:
            assert float(cell) == pytest.approx(row[column], abs=5.1e-4)


@pytest.fixture(scope="module")
def ledge_run(tmp_path_factory):
    """``cai compare ledge``, and the folder that it wrote."""
    out = tmp_path_factory.mktemp("ledge") / "a" / "b"
    return run("compare", "ledge", "--wide", "--out", out), out


@pytest.fixture(scope="module")
def chase_run(tmp_path_factory):
    """``cai compare`` on a continuous model in a file, the folder it wrote, and the file."""
    folder = tmp_path_factory.mktemp("chase")
    path = write(folder, "chase.py", CHASE)
    return run("compare", f"{path}:model", "--wide", "--out", folder / "out"), folder / "out", path


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture(autouse=True)
def _forget_neighbours(monkeypatch):
    """What a user's file imports from beside it is another module in the next test."""
    monkeypatch.delitem(sys.modules, "current", raising=False)


# What a comparison prints and writes


def test_the_numbers_are_those_of_the_library(ledge_run):
    result, out = ledge_run
    assert result.status == 0
    found = json.loads((out / "comparison.json").read_text(encoding="utf-8"))
    assert list(found["rows"]) == ["exact posterior", "fixed dynamics", "SVI"]
    assert_same_rows(found, expected_rows(models.ledge()))
    assert_trained(found, 1e-4)


def test_the_table_shows_the_numbers_of_the_json(ledge_run):
    result, out = ledge_run
    found = json.loads((out / "comparison.json").read_text(encoding="utf-8"))
    lines = result.out.splitlines()
    assert "imagines" in lines[0]
    assert "KL to p(τ|O)" in lines[0]
    titles = ["bound", "return", "ELBO", "return", "optimism", "restriction", "entropy"]
    assert lines[1].split() == [*titles, "start", "actions", "dynamics", "total"]
    units = ["(nats)", "(reward)", "(nats)", "(reward)"] + ["(nats)"] * 7
    assert lines[2].split() == units
    for line, (name, row) in zip(lines[4:], found["rows"].items(), strict=False):
        assert line.startswith(name)
        assert_cells(line.removeprefix(name).split(), row)
    assert lines[-1].startswith(f"log p(O) = {found['log_evidence']:.3f} nats")
    assert len(lines) == 4 + len(found["rows"]) + 1


def test_the_markdown_shows_the_numbers_of_the_json(ledge_run):
    _, out = ledge_run
    found = json.loads((out / "comparison.json").read_text(encoding="utf-8"))
    lines = (out / "comparison.md").read_text(encoding="utf-8").splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    # The title of a column may hold a bar, p(τ|O), so that only the body is taken apart.
    assert [name for name, *_ in table] == list(found["rows"])
    for name, *cells in table:
        assert_cells(cells, found["rows"][name])
    assert lines[0].startswith("| method | imagines: bound (nats) | imagines: return (reward) |")
    assert lines[1] == "| --- |" + " ---: |" * len(COLUMNS)


def test_exactly_the_promised_files_are_written(ledge_run):
    result, out = ledge_run
    assert listing(out) == FILES
    assert listing(out.parent) == ["b"]
    said = [line for line in result.err.splitlines() if not line.startswith("fit: ")]
    assert said == [f"wrote {out / name}" for name in FILES]
    for name in FIGURES:
        assert_picture(out / name)


def test_the_training_is_held_against_the_best_with_fixed_dynamics(out, monkeypatch):
    """The line in the figure of the training is the bound of ``soft_values``."""
    drawn = []

    def losses(fitted, bound=None):
        drawn.append(bound)
        return matplotlib.figure.Figure()

    monkeypatch.setattr(plot, "losses", losses)
    assert run("compare", "lottery", "--horizon", 1, "--out", out).status == 0
    assert drawn == pytest.approx([inference.soft_values(models.lottery(horizon=1)).elbo])


def test_seed_and_steps_are_those_of_the_training(out, monkeypatch):
    given, fit = [], inference.fit

    def keep(*arguments, **options):
        given.append((options["seed"], options["steps"]))
        return fit(*arguments, **options)

    monkeypatch.setattr(inference, "fit", keep)
    how = ("--horizon", 1, "--seed", 5, "--steps", 7, "--out", out)
    assert run("compare", "lottery", *how).status == 0
    assert given == [(5, 7)]


@pytest.mark.parametrize("name", CONTINUOUS)
def test_a_continuous_model_is_sampled(name, out, monkeypatch):
    """What the prior gets is what the library estimates, and there is nothing exact beside it."""
    fit = inference.fit
    monkeypatch.setattr(inference, "fit", functools.partial(fit, samples=4))
    result = run("compare", name, "--horizon", 2, "--steps", 3, "--json", "--out", out)
    assert result.status == 0
    assert "no exact posterior: initial: enumeration needs finitely many" in result.err
    rows = json.loads(result.out)["rows"]
    assert set(rows) == {"prior", "SVI"}
    model = getattr(models, name)(horizon=2)
    expected = cai.evaluate(model, lambda t, s: model.prior(s, t))
    assert rows["prior"]["elbo"] == pytest.approx(expected.elbo)
    assert listing(out) == [*SAMPLED, "training.png", "trajectories.png"]
    assert_picture(out / "trajectories.png")


def test_horizon_temperature_and_json(out):
    result = run(
        *("compare", "FrozenLake-v1", "--horizon", 8, "--temperature", 0.05),
        *("--json", "--quiet", "--out", out),
    )
    assert result.status == 0
    assert result.err == ""
    found = json.loads(result.out)  # nothing else is printed
    assert result.out == (out / "comparison.json").read_text(encoding="utf-8")
    lake = models.gym("FrozenLake-v1", horizon=8, temperature=0.05)
    assert_same_rows(found, expected_rows(lake))
    assert found["rows"]["exact posterior"]["optimism_gap"] > 5
    assert_trained(found, 1e-3)
    assert listing(out) == FILES


def test_options_go_to_the_environment(out):
    """On the large map without ice the goal is 14 steps away, and nothing is left to luck."""
    result = run(
        *("compare", "FrozenLake-v1", "--horizon", 14, "--temperature", 0.05),
        *("--option", "map_name=8x8", "--option", "is_slippery=False", "--json", "--out", out),
    )
    found = json.loads(result.out)
    lake = models.gym(
        "FrozenLake-v1", map_name="8x8", is_slippery=False, horizon=14, temperature=0.05
    )
    assert_same_rows(found, expected_rows(lake))
    exact = found["rows"]["exact posterior"]
    assert exact["imagined_return"] == pytest.approx(1, abs=0.01)
    assert exact["optimism_gap"] == pytest.approx(0, abs=1e-9)


def test_discount_and_options_go_to_a_built_in_model(out):
    result = run(
        *("compare", "ledge", "--discount", 0.9, "--option", "gives_way=0.1"),
        *("--option", "fall_reward=-3.5", "--horizon", 2, "--json", "--out", out),
    )
    model = models.ledge(horizon=2, discount=0.9, gives_way=0.1, fall_reward=-3.5)
    assert_same_rows(json.loads(result.out), expected_rows(model))


def test_a_second_run_replaces_the_files_and_leaves_others_alone(out):
    write(out, "comparison.json", "old")
    write(out, "mine.txt", "keep")
    assert run("compare", "lottery", "--horizon", 1, "--out", out).status == 0
    assert listing(out) == sorted([*FILES, "mine.txt"])
    assert "log_evidence" in json.loads((out / "comparison.json").read_text(encoding="utf-8"))
    assert (out / "mine.txt").read_text(encoding="utf-8") == "keep"


# Models from a file


def test_a_file_with_latent_sites(tmp_path, out):
    """The latents are summed out, as a table of the same dynamics written by hand says."""
    write(tmp_path, "current.py", "DRIFT = 1\n")
    path = write(tmp_path, "my_dynamics.py", FERRY)
    before = list(sys.path)
    result = run("compare", f"{path}:ferry", "--json", "--out", out)
    assert sys.path == before
    found = json.loads(result.out)
    assert_same_rows(found, expected_rows(ferry_by_hand()), 1e-6)  # the file has float32 tensors
    assert_trained(found, 1e-4)
    assert listing(out) == FILES


def test_a_file_is_varied_by_the_command_line(tmp_path, out):
    write(tmp_path, "current.py", "DRIFT = 1\n")
    path = write(tmp_path, "my_dynamics.py", FERRY)
    options = ("--horizon", 2, "--temperature", 2, "--discount", 0.5)
    result = run("compare", f"{path}:ferry", *options, "--json", "--out", out)
    by_hand = ferry_by_hand(horizon=2, temperature=2.0, discount=0.5)
    assert_same_rows(json.loads(result.out), expected_rows(by_hand), 1e-6)


def test_a_file_may_have_the_name_of_a_module(tmp_path, out):
    path = write(tmp_path, "json.py", CHASE)
    assert run("draw", f"{path}:model", "--out", out).status == 0
    assert sys.modules["json"] is json


def test_a_file_is_taken_by_the_name_model_if_none_is_given(tmp_path, out):
    path = write(tmp_path, "chase.py", CHASE)
    assert run("draw", path, "--out", out).status == 0
    assert listing(out) == ["graphical_model.png"]


def test_a_file_may_declare_dataclasses(tmp_path, out):
    """With postponed annotations, ``dataclasses`` looks the module up in ``sys.modules``."""
    declaration = "from __future__ import annotations\nfrom dataclasses import dataclass\n"
    use = "\n\n@dataclass\nclass Setting:\n    noise: float = 0.1\n"
    path = tmp_path / "chase.py"
    path.write_text(declaration + textwrap.dedent(CHASE) + use, encoding="utf-8")
    result = run("draw", f"{path}:model", "--out", out, "--quiet")
    assert (result.status, result.err) == (0, "")


def test_a_folder_may_have_py_in_its_name(tmp_path, out):
    path = write(tmp_path / "with.python" / "in.py", "chase.py", CHASE)
    result = run("draw", f"{path}:model", "--out", out, "--quiet")
    assert (result.status, result.err) == (0, "")


def test_a_continuous_model(chase_run):
    """Nothing is exact: the prior and SVI, with standard errors, against the integrals."""
    result, out, _ = chase_run
    assert result.status == 0
    assert listing(out) == [*SAMPLED, "training.png"]  # no plane to draw trajectories in
    found = json.loads((out / "comparison.json").read_text(encoding="utf-8"))
    assert found["log_evidence"] is None
    assert list(found["rows"]) == ["prior", "SVI"]
    prior, fitted = found["rows"]["prior"], found["rows"]["SVI"]
    for row in (prior, fitted):
        assert all(row[c] is None for c in COLUMNS if c.startswith(("kl", "optimism")))
        assert row["imagined_bound"] == row["elbo"]
        assert 0 < row["elbo_stderr"] < 0.05
    assert prior["elbo"] == pytest.approx(-1.0, abs=5 * prior["elbo_stderr"])
    best = -0.5 * torch.tensor(2.0).log().item() - 0.25
    assert fitted["elbo"] == pytest.approx(best, abs=0.02 + 5 * fitted["elbo_stderr"])
    assert found["bracket"]["lower"] - prior["elbo"] == pytest.approx(prior["kl_lower"])
    title, units = result.out.splitlines()[1:3]
    words = ["bound", "return", "ELBO", "return", "entropy", "at", "least", "estimate"]
    assert title.split() == words
    assert units.split() == ["(nats)", "(reward)", "(nats)", "(reward)", *["(nats)"] * 3]
    (line,) = [line for line in result.out.splitlines() if line.startswith("prior ")]
    assert line.count("±") == 7  # what is simulated never passes for exact
    elbo, stderr = line.split()[7], line.split()[9]
    assert float(elbo) == pytest.approx(prior["elbo"], abs=5.1e-4)
    assert float(stderr) == pytest.approx(prior["elbo_stderr"], rel=0.06)


def test_the_seed_makes_the_training_reproducible(chase_run, out):
    """The default is seed 0, whatever was drawn before; another seed trains another policy."""
    first, path = (chase_run[1] / "comparison.json").read_text(encoding="utf-8"), chase_run[2]
    torch.manual_seed(12345)
    texts = [
        run("compare", f"{path}:model", "--seed", seed, "--json", "--out", out).out
        for seed in (0, 1)
    ]
    elbos = [json.loads(text)["rows"]["SVI"]["elbo"] for text in (first, *texts)]
    assert elbos[0] == elbos[1] != elbos[2]
    assert texts[0] == first


# Progress and silence


def test_quiet_leaves_the_terminal_alone(out):
    loud = run("compare", "lottery", "--horizon", 1, "--out", out, err=_Terminal())
    assert "fit" in loud.err
    assert f"wrote {out / 'training.png'}" in loud.err
    quiet = run("compare", "lottery", "--horizon", 1, "--out", out, "--quiet", err=_Terminal())
    assert quiet.err == ""
    assert quiet.out == loud.out
    drawn = run("draw", "lottery", "--out", out, "--quiet", err=_Terminal())
    assert (drawn.status, drawn.out, drawn.err) == (0, "", "")


def test_out_is_the_default_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("draw", "ledge")
    assert (result.status, result.out) == (0, "")
    assert result.err == f"wrote {Path('out') / 'graphical_model.png'}\n"
    assert_picture(tmp_path / "out" / "graphical_model.png")


# draw and models


def test_draw(out, monkeypatch):
    """The graph of the model that was named, as many steps of it as were asked for."""
    drawn, graphical_model = [], plot.graphical_model

    def keep(model, steps=None):
        drawn.append(graphical_model(model, steps))
        return drawn[-1]

    monkeypatch.setattr(plot, "graphical_model", keep)
    result = run("draw", "gridworld", "--option", "wind=0.2", "--steps", 2, "--out", out)
    assert result.status == 0
    assert listing(out) == ["graphical_model.png"]
    assert_picture(out / "graphical_model.png")
    (figure,) = drawn
    labels = {text.get_text() for text in figure.axes[0].texts}
    states = {"$s_{0}$", "$s_{1}$", "$s_{2}$"}
    actions = {"$a_{0}$", "$a_{1}$", "$o_{0}$", "$o_{1}$"}
    assert labels == states | actions | {"slip$_{0}$", "slip$_{1}$", "gust$_{0}$", "gust$_{1}$"}


def test_models(capsys):
    assert command.main(["models"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    head, _, tail = captured.out.partition("Gymnasium environments with a published table:\n")
    names = [line.split()[0] for line in head.splitlines() if not line.startswith(" ")]
    assert names == [*BUILT_IN, "FILE.py:NAME", "MODULE:NAME"]
    unwrapped = " ".join(head.split())
    for name in BUILT_IN:
        assert f"{name} {getattr(models, name).__doc__.splitlines()[0]}" in unwrapped
    assert [line.strip() for line in tail.splitlines()] == models.published()
    assert {"FrozenLake-v1", "CliffWalking-v1", "Taxi-v4"} <= set(models.published())


def test_models_are_listed_in_columns(capsys):
    command.main(["models"])
    shown = capsys.readouterr().out
    head = shown.partition("Gymnasium environments")[0]
    starts = {re.match(r"\S*\s+", line).end() for line in head.splitlines()}
    assert len(starts) == 1
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("name", [*BUILT_IN, *models.published()])
def test_every_listed_model_can_be_named(name, out):
    assert run("draw", name, "--horizon", 2, "--steps", 1, "--out", out).status == 0


# Arguments that are wrong: exit status 2


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["compare", "Nowhere-v1"], ["Nowhere-v1", "FrozenLake-v1"]),
        (["compare", "ledge", "--nonsense", "1"], ["--nonsense"]),
        (["compare", "ledge", "--option", "depth=3"], ["depth", "gives_way"]),
        (["compare", "FrozenLake-v1", "--option", "depth=3"], ["FrozenLake-v1", "depth"]),
        (["compare", "ledge", "--option", "gives_way={[]: 1}"], ["gives_way", "{[]: 1}"]),
        (["compare", "ledge", "--option", "gives_way"], ["KEY=VALUE", "gives_way"]),
        (["compare", "ledge", "--option", "2x=3"], ["KEY=VALUE", "2x=3"]),
        (["compare", "ledge", "--horizon", "0"], ["--horizon", "at least 1", "0"]),
        (["compare", "ledge", "--horizon", "-3"], ["--horizon", "at least 1", "-3"]),
        (["compare", "ledge", "--temperature", "-1"], ["temperature", "above 0", "-1"]),
        (["compare", "ledge", "--temperature", "nan"], ["temperature", "nan"]),
        (["compare", "ledge", "--temperature", "warm"], ["--temperature", "warm"]),
        (["compare", "ledge", "--discount", "0"], ["discount", "(0, 1]"]),
        (["compare", "ledge", "--discount", "1.5"], ["discount", "1.5"]),
        (["compare", "ledge", "--option", "horizon=None"], ["--horizon", "infinite"]),
        (["compare", "ledge", "--option", "horizon=2", "--horizon", "3"], ["horizon", "twice"]),
        (["compare", "ledge", "--horizon", ""], ["--horizon", "''"]),
        (["compare", "gridworld", "--option", "map=[1, 2]"], ["map", "[1, 2]"]),
        (["compare", "gridworld", "--option", "map=SX"], ["map", "X"]),
        (["compare", "gridworld", "--option", "slip=2"], ["slip", "[0, 1]", "2"]),
        (["compare", "Blackjack-v1"], ["Blackjack-v1", "table", "FrozenLake-v1"]),
        (["compare", "CartPole-v1"], ["CartPole-v1", "table"]),
        (["compare", "CliffWalking-v1"], ["CliffWalking-v1", "horizon"]),
        (["compare", "Taxi-v4", "--option", "fickle_passenger=True"], ["fickle_passenger"]),
        (["draw", "ledge", "--steps", "0"], ["--steps", "at least 1", "0"]),
        (["draw", "ledge", "--steps", "99"], ["steps", "99"]),
        (["compare", "ledge", "--horizon", "1" + 26 * "0"], ["--horizon", "at most 1000000000"]),
        (["compare", "ledge", "--seed", str(2**70)], ["--seed", "2^63 - 1"]),
        (["compare", "ledge", "--seed", "-1"], ["--seed", "-1"]),
        (["compare", "ledge", "--option", "fall_reward=deep"], ["fall_reward", "deep"]),
        (["compare", "gridworld", "--option", "pit_reward=inf"], ["pit_reward", "inf"]),
        (["compare", "gridworld", "--option", "map=5"], ["map", "5"]),
        (["compare", "FrozenLake-v1", "--option", "reward_schedule=[1]"], ["reward_schedule"]),
        (["compare", "mine.py:"], ["FILE.py:NAME"]),
        (["compare", "mine.py:a.b"], ["FILE.py:NAME"]),
        (["draw", "Nowhere-v1"], ["Nowhere-v1"]),
        (["compare"], ["model"]),
        (["ponder", "ledge"], ["ponder", "compare"]),
        ([], ["compare", "draw", "models"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_in_the_arguments(arguments, fragments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_mistake(run(*arguments), *fragments)
    assert listing(tmp_path) == []


def assert_mistake(result, *fragments):
    """Status 2, a message that says what it is about, and neither output nor traceback."""
    assert result.status == 2
    assert result.out == ""
    assert "Traceback" not in result.err
    message = result.err.partition("error: ")[2]
    for fragment in fragments:
        assert fragment in message


@pytest.mark.parametrize(
    ("option", "fragment"),
    [
        ("--horizon=many", "whole number"),
        ("--option=slip=steep", "slip"),
        ("--option=wind=2", "wind"),
    ],
)
def test_a_message_names_what_is_wrong_in_plain_words(option, fragment, out):
    result = run("compare", "gridworld", option, "--out", out)
    assert_mistake(result, fragment)
    assert "_count" not in result.err
    assert "not supported between" not in result.err


def test_a_probability_of_the_ledge_is_checked_by_its_name(out):
    result = run("compare", "ledge", "--option", "gives_way=2", "--out", out)
    assert_mistake(result, "gives_way", "2")


def test_a_reward_of_minus_infinity_can_be_named(out):
    arguments = ("--option", "pit_reward=-inf", "--option", "slip=0.0", "--horizon", 13)
    assert run("draw", "gridworld", *arguments, "--steps", 1, "--out", out).status == 0


@pytest.mark.parametrize("text", ["import sys\n\nsys.exit(0)\n", "raise SystemExit(3)\n"])
def test_a_file_that_ends_the_program_is_a_mistake(text, tmp_path, out):
    file = tmp_path / "leaves.py"
    file.write_text(text, encoding="utf-8")
    assert_mistake(run("compare", f"{file}:model", "--out", out), "SystemExit", "must not end")


LATE = """
def mistaken(s):
    if (s == 7).any():
        raise {error}
    return s


def prior(s):
    return dist.Categorical(torch.ones((*mistaken(s).shape, 2)))


def dynamics(s, a):
    return dist.Delta(mistaken(s))


twenty = dist.Categorical(torch.ones(20))
still = lambda s, a: dist.Delta(s)
ways = {{
    "prior": lambda: ring(initial=twenty, action_prior=prior, dynamics=still),
    "dynamics": lambda: ring(initial=twenty, dynamics=dynamics),
    "reward": lambda: ring(initial=twenty, dynamics=still, reward=lambda s, a: -1.0 * mistaken(s)),
}}
model = ways[{way!r}]()
"""


@pytest.mark.parametrize("way", ["prior", "dynamics", "reward"])
@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("SystemExit(0)", ["SystemExit: 0", "must not end the program"]),
        ("GeneratorExit", ["GeneratorExit"]),
        ("RuntimeError('out of luck')", ["RuntimeError: out of luck"]),
        ("ZeroDivisionError", ["ZeroDivisionError"]),
        ("BrokenPipeError('theirs')", ["BrokenPipeError: theirs"]),
    ],
)
def test_an_error_of_a_file_in_the_middle_of_a_run(way, error, words, tmp_path, out):
    """One line, with the line of the file; before the run where the model tries all states."""
    path = write(tmp_path, "late.py", RING, LATE.format(error=error, way=way))
    line = path.read_text(encoding="utf-8").splitlines().index(f"        raise {error}") + 1
    result = run("compare", f"{path}:model", "--out", out)
    assert result.status in (1, 2)
    assert len(result.err.splitlines()) == 1
    assert f"late.py, line {line}:" in result.err
    for word in words:
        assert word in result.err
    assert not out.exists()


def test_a_fault_of_the_library_keeps_its_traceback(out, monkeypatch):
    def mistaken(*_):
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("cai.cli.commands.tabulate", mistaken)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        run("compare", "ledge", "--out", out)
    assert not out.exists()


def test_a_message_of_several_lines_becomes_one(tmp_path, out):
    path = write(tmp_path, "lines.py", "raise ValueError('one\\n  two')\n")
    result = run("compare", path, "--out", out)
    assert_mistake(result, "lines.py, line 1: ValueError: one two")
    assert len(result.err.splitlines()) == 1


def test_a_misspelt_name_of_a_model_is_guessed(out):
    assert_mistake(run("compare", "leadge", "--out", out), "leadge", "did you mean ledge?")


def test_what_gymnasium_warns_of_is_a_line(out):
    loud = run("draw", "FrozenLake", "--out", out)
    assert loud.status == 0
    assert loud.err.startswith("WARN: Using the latest versioned environment `FrozenLake-v1`")
    assert run("draw", "FrozenLake", "--out", out, "--quiet").err == ""
    assert len(run("draw", "FrozenLake-v0", "--out", out / "new").err.splitlines()) == 1


def test_a_folder_in_the_way_is_seen_before_the_training(out, monkeypatch):
    monkeypatch.setattr(inference, "fit", lambda *_, **__: pytest.fail("the training began"))
    (out / "training.png").mkdir(parents=True)
    result = run("compare", "ledge", "--out", out)
    assert result.status == 1
    assert "training.png" in result.err


def test_the_version_is_that_of_the_installed_metadata():
    result = run("--version")
    assert (result.status, result.out) == (0, f"cai {cai.__version__}\n")
    assert cai.__version__ == importlib.metadata.version("control-as-inference")


def test_a_start_that_cannot_be_counted_says_how_to_write_it(tmp_path, out):
    file = tmp_path / "starts.py"
    file.write_text(
        "import cai, torch\nimport pyro.distributions as dist\n"
        "model = cai.TrajectoryModel(initial=dist.Delta(torch.tensor(0)),"
        " dynamics=lambda s, a: dist.Delta(s), reward=0.0,"
        " action_prior=dist.Categorical(torch.ones(2)), horizon=2)\n",
        encoding="utf-8",
    )
    result = run("compare", file, "--out", out)
    assert result.status == 1
    assert "one-hot Categorical" in result.err
    assert "Traceback" not in result.err
    assert not out.exists()


def test_a_folder_below_a_file_is_seen_before_the_work(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    result = run("compare", "ledge", "--out", tmp_path / "file" / "x" / "y")
    assert_mistake(result, "--out", "is a file")


def test_a_model_too_large_for_the_machine(out, monkeypatch):
    def allocate(*_):
        raise RuntimeError("can't allocate memory: you tried to allocate 10^13 bytes")

    monkeypatch.setattr("cai.cli.commands.tabulate", allocate)
    result = run("compare", "ledge", "--out", out)
    assert (result.status, result.out) == (1, "")
    assert "too large for this machine" in result.err


def test_a_missing_file(tmp_path, out):
    missing = tmp_path / "missing.py"
    assert_mistake(run("compare", f"{missing}:model", "--out", out), str(missing), "no such file")
    assert not out.exists()


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("import cai\n\n\nraise RuntimeError('out of luck')\n", 4, "RuntimeError: out of luck"),
        ("import cai\n\nmodel = cai.nothing\n", 3, "AttributeError"),
        ("import cai\n\n\ndef f():\n    return 1 / 0\n\n\nmodel = f()\n", 5, "ZeroDivisionError"),
        ("import cai\n\nmodel = (\n", 3, "SyntaxError"),
        ("import cai\n\nimport no_such_module_at_all\n", 3, "no_such_module_at_all"),
        ("import cai\n\nmodel = cai.TrajectoryModel(horizon=3)\n", 3, "TypeError"),
    ],
    ids=["raise", "attribute", "function", "syntax", "import", "arguments"],
)
def test_a_file_that_raises(text, line, message, relative, tmp_path, out, monkeypatch):
    """The message has the file and the innermost line of it."""
    path = write(tmp_path, "mistaken.py", text)
    monkeypatch.chdir(tmp_path)
    result = run("compare", f"{path.name if relative else path}:model", "--out", out)
    assert_mistake(result, "mistaken.py", message)
    assert f"line {line}" in result.err
    assert not out.exists()


def test_a_file_whose_model_is_refused(tmp_path, out):
    """What the checks of a model say arrives, with the line where it was built."""
    path = write(tmp_path, "refused.py", RING, "model = ring(temperature=-2.0)\n")
    result = run("compare", f"{path}:model", "--out", out)
    assert_mistake(result, "refused.py, line", "temperature", "-2")


def test_an_object_that_is_no_model(tmp_path, out):
    write(tmp_path, "current.py", "DRIFT = 1\n")
    path = write(tmp_path, "my_dynamics.py", FERRY)
    result = run("compare", f"{path}:model", "--out", out)
    assert_mistake(result, "my_dynamics.py", "'model'", "int", "cai.TrajectoryModel")


def test_a_file_without_that_name(tmp_path, out):
    path = write(tmp_path, "chase.py", CHASE)
    result = run("compare", f"{path}:modle", "--out", out)
    assert_mistake(result, "chase.py", "'modle'", "did you mean model?")
    result = run("compare", f"{path}:ferry", "--out", out)
    assert_mistake(result, "chase.py", "'ferry'", "it has model")
    empty = write(tmp_path, "empty.py", "import cai\n")
    result = run("compare", f"{empty}:model", "--out", out)
    assert_mistake(result, "empty.py", "'model'", "no cai.TrajectoryModel")


def test_a_model_from_a_file_has_no_options(tmp_path, out):
    path = write(tmp_path, "chase.py", CHASE)
    result = run("compare", f"{path}:model", "--option", "noise=2", "--out", out)
    assert_mistake(result, "--option", "file")


def test_an_infinite_horizon_in_a_file(tmp_path, out):
    path = write(tmp_path, "endless.py", RING, "model = ring(horizon=None)\n")
    assert_mistake(run("compare", f"{path}:model", "--out", out), "--horizon", "infinite")
    assert run("compare", f"{path}:model", "--horizon", 1, "--out", out).status == 0


# Runs that fail: exit status 1, and nothing is written


def test_evidence_zero(tmp_path, out):
    path = write(tmp_path, "hopeless.py", RING, "model = ring(reward=-torch.inf)\n")
    result = run("compare", f"{path}:model", "--out", out)
    assert (result.status, result.out) == (1, "")
    assert result.err.startswith("cai: error: evidence: p(O) = 0")
    assert "Traceback" not in result.err
    assert not out.exists()


def test_dynamics_that_raise_in_a_state_that_was_not_tried(tmp_path, out):
    """A few states are tried when a model is built; an error in another one comes later."""
    ending = """
def dynamics(s, a):
    if (s == 7).any():
        raise KeyError("seven")
    return dist.Delta(s)


model = ring(initial=dist.Categorical(torch.ones(20)), dynamics=dynamics)
"""
    path = write(tmp_path, "late.py", RING, ending)
    result = run("compare", f"{path}:model", "--out", out)
    assert (result.status, result.out) == (1, "")
    assert "seven" in result.err
    assert "Traceback" not in result.err
    assert not out.exists()


@pytest.mark.parametrize("figure", ["comparison", "policies", "losses"])
def test_an_interrupt_before_the_files(figure, out, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(plot, figure, interrupted)
    result = run("compare", "lottery", "--horizon", 1, "--out", out)
    assert (result.status, result.out) == (130, "")
    assert result.err.splitlines()[-1] == "cai: error: interrupted; nothing was written"
    assert not out.exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("no space left on device")])
def test_a_failure_between_the_files(error, out, monkeypatch):
    """All files or none: the third figure fails, and the folder is as it was before."""
    write(out, "comparison.json", "old")
    saved, savefig = [], matplotlib.figure.Figure.savefig

    def fails(figure, path, **options):
        if len(saved) == 2:
            raise error
        saved.append(path)
        savefig(figure, path, **options)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", fails)
    result = run("compare", "lottery", "--horizon", 1, "--out", out)
    assert len(saved) == 2
    assert (result.status, result.out) == (130 if isinstance(error, KeyboardInterrupt) else 1, "")
    assert result.err.splitlines()[-1].startswith("cai: error: ")
    assert str(error) in result.err
    assert listing(out) == ["comparison.json"]
    assert (out / "comparison.json").read_text(encoding="utf-8") == "old"


def test_a_folder_in_the_way_of_a_file(out):
    (out / "policies.png").mkdir(parents=True)
    result = run("compare", "lottery", "--horizon", 1, "--out", out)
    assert result.status != 0
    assert "policies.png" in result.err
    assert listing(out) == ["policies.png"]


def test_a_file_in_the_way_of_the_folder(out):
    out.write_text("mine", encoding="utf-8")
    result = run("draw", "ledge", "--out", out)
    assert result.status in (1, 2)
    assert str(out) in result.err
    assert out.read_text(encoding="utf-8") == "mine"


# As a program of its own


def start(program, *arguments, cwd):
    return subprocess.run(
        [*program, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def test_python_m_cai(tmp_path):
    done = start([sys.executable, "-m", "cai"], "compare", "ledge", "--horizon", 0, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--horizon" in done.stderr
    assert "Traceback" not in done.stderr
    assert listing(tmp_path) == []


def test_the_console_script(tmp_path):
    done = start([Path(sys.executable).parent / "cai"], "draw", "ledge", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"wrote {Path('out') / 'graphical_model.png'}\n"
    assert_picture(tmp_path / "out" / "graphical_model.png")
