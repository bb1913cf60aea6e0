"""What the command line says to a newcomer: guesses, budgets, warnings, and the table's width."""

import json
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from command_line import run

import cai
from cai import inference, models
from cai.cli import commands
from cai.inference.fitting import loop

# Names that are misspelt


@pytest.mark.parametrize(
    ("arguments", "guess"),
    [
        (["compre", "ledge"], "compare"),
        (["Models"], "models"),
        (["routes", "predct"], "predict"),
        (["train", "soft-p", "ledge"], "soft-q"),
        (["compare", "ledge", "--horizn", "3"], "--horizon"),
        (["irl", "ledge", "x.csv", "--featres=step"], "--features"),
        (["compare", "leadge"], "ledge"),
        (["draw", "FrozenLak-v1"], "FrozenLake-v1"),
        (["draw", "LEDGE"], "ledge"),
        (["compare", "ledge", "--option", "gives_wy=0.1"], "gives_way"),
    ],
)
def test_the_nearest_name_is_guessed(arguments, guess, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert err.rstrip().endswith(f"; did you mean {guess}?")


def test_what_resembles_nothing_is_not_guessed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    unknown = (
        ["zzz"],
        ["compare", "ledge", "--zzz"],
        ["compare", "Zzz-v1"],
        ["draw", "ledge", "--wide"],
    )
    for arguments in unknown:
        status, _, err = run(capsys, *arguments)
        assert status == 2
        assert "did you mean" not in err


@pytest.mark.parametrize("make", [models.gym, models.environment])
def test_an_option_that_an_environment_lacks(make):
    with pytest.raises(ValueError, match=r"is_slippery, .* got is_slipery") as caught:
        make("FrozenLake-v1", is_slipery=False)
    assert "TypeError" not in str(caught.value)
    assert make("FrozenLake-v1", is_slippery=False, max_episode_steps=7).horizon == 7


# Flags and help


def test_short_flags(tmp_path, capsys):
    short = ["-T", "2", "-a", "0.5", "-g", "0.9", "-O", "gives_way=0.1", "-s", "3", "-n", "5"]
    long = ["--horizon", "2", "--temperature", "0.5", "--discount", "0.9", "--seed", "3"]
    long += ["--option", "gives_way=0.1", "--steps", "5", "--json", "--quiet", "--out", tmp_path]
    first = run(capsys, "compare", "ledge", *short, "-j", "-q", "-o", tmp_path)
    assert first == run(capsys, "compare", "ledge", *long)
    assert first[0] == 0
    assert run(capsys, "-V") == run(capsys, "--version") == (0, f"cai {cai.__version__}\n", "")


def test_help_loads_nothing_heavy():
    """It takes a tenth of a second of processor time."""
    code = (
        "import sys\nfrom cai.__main__ import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'pyro', 'numpy', 'matplotlib', 'gymnasium', 'scipy', 'networkx'}\n"
        "sys.exit(', '.join(heavy & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_command_loads_no_other():
    code = (
        "import sys\nfrom cai.cli import commands\ncommands.chosen('models')\n"
        "heavy = {'cai.cli.train_command', 'cai.cli.irl_command'}\n"
        "heavy |= {'cai.cli.roads.routes_command'}\n"
        "sys.exit(', '.join(heavy & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_help_lists_the_exit_statuses(capsys):
    status, out, _ = run(capsys, "--help")
    assert status == 0
    told = out.partition("exit status:")[2]
    for number, word in {0: "success", 1: "failed", 2: "arguments", 130: "interrupted"}.items():
        assert re.search(rf"\b{number} [a-z ]*{word}", told)
    assert "141" in told


# The table


@pytest.fixture(scope="module")
def lake():
    model = cai.tabulate(models.gym("FrozenLake-v1", horizon=20, temperature=0.05))
    best = inference.soft_values(model)
    return cai.compare(model, {"exact posterior": inference.posterior(model), "fixed": best})


@pytest.mark.parametrize("width", [1, 40, 60, 80, 100, 200])
def test_a_narrow_table_leaves_columns_out_and_names_them(lake, width):
    text = lake.to_text(width=width)
    lines = text.splitlines()
    rule = next(i for i, line in enumerate(lines) if line.startswith("---"))
    titles = lines[1].split()
    everything = str(lake).splitlines()[1].split()
    if width >= 60:
        assert max(map(len, lines)) <= width
    assert {"ELBO", "return"} <= set(titles)  # what it gets is there at any width
    assert len({len(line) for line in lines[:rule] if line.strip()} | {len(lines[rule])}) == 1
    note = " ".join(text.split()).partition("Not shown")[2]
    for title in set(everything) - set(titles):
        assert title in note
    assert (note != "") == (len(titles) < len(everything))


@pytest.mark.parametrize("width", [0, -1, 2.5, "wide"])
def test_a_width_is_a_whole_number(lake, width):
    with pytest.raises(ValueError, match="width: expected a whole number"):
        lake.to_text(width=width)


def test_the_command_fits_80_characters_unless_it_is_asked_for_all(tmp_path, capsys):
    how = ("compare", "lottery", "-T", 1, "-n", 3, "-o", tmp_path)
    _, narrow, said = run(capsys, *how)
    assert max(map(len, narrow.splitlines())) <= 80
    assert "--wide shows all columns" in said
    _, wide, said = run(capsys, *how, "--wide")
    assert max(map(len, wide.splitlines())) > 80
    assert "dynamics" in wide.splitlines()[1]
    assert "--wide" not in said


# Near the prior


def test_a_policy_near_its_prior_is_pointed_out(tmp_path, capsys):
    how = ("compare", "ledge", "-n", 5, "-o", tmp_path)
    hot = run(capsys, *how, "--temperature", 100)[2]
    assert "near the action prior" in hot
    assert "temperature 100; lower --temperature?" in hot
    cold = run(capsys, *how, "--temperature", 0.5)[2]
    assert "action prior" not in cold
    assert run(capsys, *how, "--temperature", 100, "--quiet")[2] == ""


@pytest.mark.parametrize("discount", [1.0, 0.8])
def test_how_near_it_is(discount):
    """The number of the message is Σ_t E_q[KL(q(a|s) ‖ p(a|s))], which the policies give."""
    model = cai.tabulate(models.ledge(temperature=20.0, discount=discount))
    best = inference.soft_values(model)
    report = cai.compare(model, {"fixed dynamics": best, "SVI": best})
    log_q = best.policy.log_probs
    weight = report["SVI"].evaluation.state_actions
    expected = (weight * (log_q - torch.log(torch.tensor(0.5)))).sum().item()
    (line,) = commands._near_prior(report)
    assert f"{expected:.2g} nats" in line


# Training that is sampled


CHASE = """
import pyro.distributions as dist
import torch

import cai

model = cai.TrajectoryModel(
    initial=dist.Normal(torch.zeros(2), 1.0).to_event(1),
    dynamics=lambda s, a: dist.Normal(s + 0.1 * a, 0.1).to_event(1),
    reward=lambda s, a: -s.square().sum(-1),
    action_prior=dist.Normal(torch.zeros(2), 1.0).to_event(1),
    horizon=4,
)
"""


@pytest.mark.parametrize(("horizon", "steps"), [(4, 2000), (200, 250), (70_000, 1)])
def test_the_budget_of_a_sampled_training(horizon, steps, tmp_path, monkeypatch, capsys):
    given = []

    def fit(*_, **options):
        given.append(options["steps"])
        raise KeyboardInterrupt

    monkeypatch.setattr(inference, "fit", fit)
    file = tmp_path / "chase.py"
    file.write_text(CHASE, encoding="utf-8")
    how = ("compare", file, "--out", tmp_path / "out")
    status, _, err = run(capsys, *how, "--horizon", horizon)
    assert status == 130
    assert f"training: at most {steps} steps" in err
    run(capsys, *how, "--horizon", horizon, "--steps", 7)
    run(capsys, "compare", "ledge", "--out", tmp_path / "out")
    assert given == [steps, 7, 1000]


def test_trajectories_are_drawn_of_the_policies_compared(tmp_path, monkeypatch, capsys):
    drawn, trajectories = [], commands.plot.trajectories

    def keep(model, policies, **options):
        drawn.append([*policies])
        return trajectories(model, policies, **options)

    monkeypatch.setattr(commands.plot, "trajectories", keep)
    file = tmp_path / "chase.py"
    file.write_text(CHASE, encoding="utf-8")
    status, *_ = run(capsys, "compare", file, "-n", 2, "-o", tmp_path / "out")
    assert status == 0
    assert drawn == [["prior", "SVI"]]
    assert (tmp_path / "out" / "trajectories.png").stat().st_size > 10_000


class Clock:
    """Half a second a look."""

    now = 0.0

    def monotonic(self):
        self.now += 0.5
        return self.now


def test_progress_in_lines_where_there_is_no_terminal(monkeypatch, capsys):
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=Clock().monotonic))
    model = models.ledge()
    with loop.in_lines():
        inference.fit(model, cai.TabularPolicy(model), steps=60, tolerance=-torch.inf)
    lines = capsys.readouterr().err.splitlines()
    # The clock begins with the first step; lines are due 1, 11 and 21 seconds later.
    assert [line.partition(",")[0] for line in lines] == [
        "fit: 3 of 60",
        "fit: 23 of 60",
        "fit: 43 of 60",
    ]
    assert "at most 29 s left, ELBO" in lines[0]
    with loop.in_lines():  # 8 seconds by that clock
        inference.fit(model, cai.TabularPolicy(model), steps=16)
    assert capsys.readouterr().err == ""
    with loop.in_lines():
        inference.fit(model, cai.TabularPolicy(model), steps=60, progress=False)
    inference.fit(model, cai.TabularPolicy(model), steps=60)
    assert capsys.readouterr().err == ""


def test_the_command_reports_progress_in_lines(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=Clock().monotonic))
    how = ("compare", "lottery", "-T", 1, "-n", 40, "-o", tmp_path)
    assert "fit: 3 of 40, at most" in run(capsys, *how)[2]
    assert "fit: 3" not in run(capsys, *how, "--quiet")[2]
    training = ("train", "soft-q", "ledge", "--steps", 4000, "--out", tmp_path / "run")
    assert re.search(r"soft_q: \d+ of 4000, at most", run(capsys, *training)[2])


# Files of another run


def test_files_that_will_be_replaced_are_named_before_the_work(tmp_path, monkeypatch, capsys):
    how = ("draw", "ledge", "--out", tmp_path)
    assert "earlier run" not in run(capsys, *how)[2]
    err = run(capsys, *how)[2].splitlines()
    assert err[0].startswith(f"{tmp_path} holds files of an earlier run, which this one replaces: ")
    assert "graphical_model.png" in err[0]
    assert "choose another --out" in err[0]
    assert run(capsys, *how, "--quiet")[2] == ""
    (tmp_path / "comparison.json").write_text(json.dumps({}), encoding="utf-8")

    def fit(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(inference, "fit", fit)
    _, _, err = run(capsys, "compare", "ledge", "--out", tmp_path)
    assert "replaces: comparison.json;" in err
    assert (tmp_path / "comparison.json").read_text(encoding="utf-8") == "{}"
