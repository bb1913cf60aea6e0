"""``cai irl``: what it prints and writes is what the library says of the same demonstrations."""

import csv
import json
import textwrap

import matplotlib.image
import pytest
import torch
from command_line import run

import cai
from cai import inference, models
from cai.cli.learners import METHODS

MAP = ["S..", ".P.", "..G"]
WORLD = ("gridworld", "--option", f"map={MAP}", "--horizon", 6, "--option", "slip=0.2")
WORLD += ("--option", "pit_reward=-2.0")

REWARD = """
    import cai

    paid = cai.LinearReward({"late": lambda s, a: s > 4}, offset=-1.0)
    number = 3
"""


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def world():
    return models.gridworld(MAP, horizon=6, slip=0.2, pit_reward=-2.0)


def recorded(model, path, n=80):
    """Demonstrations of a model's best policy in a file, of five people."""
    policy = inference.soft_values(model).policy
    seen = cai.Demonstrations.from_trajectories(model.simulate(policy, n, seed=1))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["trajectory", "state", "action", "who"])
        for i in range(n):
            length = int(seen.lengths[i])
            for t in range(length + 1):
                action = int(seen.actions[i, t]) if t < length else ""
                writer.writerow([i, int(seen.states[i, t]), action, f"person {i % 5}"])
    return path, seen


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_weights_are_those_of_the_library(tmp_path, out, capsys):
    path, seen = recorded(world(), tmp_path / "demos.csv")
    seen = cai.Demonstrations(
        seen.states, seen.actions, seen.lengths, seen.ends, tuple(i % 5 for i in range(80))
    )
    status, text, notes = run(capsys, "irl", *WORLD, path, "--cluster", "who", "--out", out)
    assert status == 0
    assert listing(out) == ["estimates.png", "fit.json", "fit.md", "reward_map.png"]
    assert notes.splitlines() == [f"wrote {out / name}" for name in listing(out)]
    model = world()
    kinds = [model.layout.map[i][j] for i, j in model.layout.cells]
    pit, goal = (torch.tensor([x == letter for x in kinds]) for letter in "PG")
    reward = cai.LinearReward(
        {"step": lambda s, a: ~(pit | goal)[s]},
        {
            "goal": lambda s, a, n: goal[n] & ~goal[s],
            "pit": lambda s, a, n: pit[n] & ~pit[s],
        },
    )
    expected = inference.fit_reward(model, seen, reward, cluster="group")
    found = json.loads((out / "fit.json").read_text(encoding="utf-8"))
    assert list(found["weights"]) == ["step", "goal", "pit"]
    for name, weight in expected.weights.items():
        each = found["weights"][name]
        assert each["weight"] == pytest.approx(weight, abs=1e-4)
        assert each["std_error"] == pytest.approx(expected.std_errors[name], rel=1e-3)
    assert found["errors"] == "clustered by group"
    lines = text.splitlines()
    assert lines[0].startswith("Reward by likelihood of actions, optimism 0: 80 demonstrations")
    assert [line.split()[0] for line in lines[3:6]] == ["step", "goal", "pit"]
    for name in ("estimates.png", "reward_map.png"):
        assert matplotlib.image.imread(out / name)[..., :3].std() > 0.01


def test_likelihood_optimism_and_prior_are_those_of_the_fit(tmp_path, out, capsys):
    path, seen = recorded(world(), tmp_path / "demos.csv")
    how = ("--likelihood", "paths", "--optimism", 1, "--features", "pit", "--prior", 0.5)
    status, text, _ = run(capsys, "irl", *WORLD, path, *how, "--json", "--quiet", "--out", out)
    assert status == 0
    found = json.loads(text)
    assert (found["likelihood"], found["optimism"]) == ("paths", 1.0)
    pit = torch.tensor([world().layout.map[i][j] == "P" for i, j in world().layout.cells])
    expected = inference.fit_reward(
        world(),
        seen,
        cai.LinearReward({}, {"pit": lambda s, a, n: pit[n] & ~pit[s]}),
        likelihood="paths",
        optimism=1.0,
        prior=torch.distributions.Normal(torch.tensor(0.0).double(), 0.5),
    )
    assert found["weights"]["pit"]["weight"] == pytest.approx(expected.weights["pit"], abs=1e-4)


def test_a_reward_from_a_file(tmp_path, out, capsys):
    path, seen = recorded(world(), tmp_path / "demos.csv")
    file = tmp_path / "paid.py"
    file.write_text(textwrap.dedent(REWARD), encoding="utf-8")
    given = ("--reward", f"{file}:paid", "--json", "--quiet", "--out", out)
    status, text, _ = run(capsys, "irl", *WORLD, path, *given)
    assert status == 0
    reward = cai.LinearReward({"late": lambda s, a: s > 4}, offset=-1.0)
    expected = inference.fit_reward(world(), seen, reward)
    found = json.loads(text)["weights"]["late"]["weight"]
    assert found == pytest.approx(expected.weights["late"], abs=1e-4)


def test_features_of_cells_and_of_named_states(tmp_path, out, capsys):
    path, _ = recorded(world(), tmp_path / "demos.csv")
    given = ("--features", "cells", "--json", "--quiet", "--out", out)
    _, text, _ = run(capsys, "irl", *WORLD, path, *given)
    open_cells = [(i, j) for i in range(3) for j in range(3) if MAP[i][j] in "S."]
    assert list(json.loads(text)["weights"]) == [f"cell {i} {j}" for i, j in open_cells]
    ledge, _ = recorded(models.ledge(), tmp_path / "ledge.csv")
    _, text, _ = run(capsys, "irl", "ledge", ledge, "--json", "--quiet", "--out", out)
    assert list(json.loads(text)["weights"]) == list(models.ledge().layout.states)


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("max_margin", {"slack": 2.0, "examples": "each"}),
        ("feature_matching", {"method": "margin", "tolerance": 0.1}),
        ("sampled", {"samples": 2000, "seed": 3}),
        ("adversarial", {"penalty": 0.05, "rounds": 20}),
    ],
)
def test_other_methods_are_those_of_the_library(method, settings, tmp_path, out, capsys):
    if method == "max_margin":
        pytest.importorskip("clarabel")
    path, seen = recorded(world(), tmp_path / "demos.csv")
    chosen = [x for k, v in settings.items() for x in ("--set", f"{k}={v}")]
    features = ("--features", "pit,goal")
    how = ("--method", method, *chosen, *features, "--quiet", "--out", out)
    status, text, notes = run(capsys, "irl", *WORLD, path, *how)
    assert (status, notes) == (0, "")
    letters = [world().layout.map[i][j] for i, j in world().layout.cells]
    inside = {letter: torch.tensor([x == letter for x in letters]) for letter in "PG"}
    arrival = {
        "pit": lambda s, a, n: inside["P"][n] & ~inside["P"][s],
        "goal": lambda s, a, n: inside["G"][n] & ~inside["G"][s],
    }
    function = getattr(inference, METHODS[method].function)
    expected = function(world(), seen, cai.LinearReward({}, arrival), progress=False, **settings)
    assert text == f"{expected}\n"
    assert listing(out) == ["estimates.png", "fit.json", "fit.md", "reward_map.png"]
    found = json.loads((out / "fit.json").read_text())
    assert found.keys() == expected.to_dict().keys()
    assert found["weights"] == pytest.approx(expected.weights, abs=1e-6)


def test_settings_of_the_likelihood(tmp_path, out, capsys):
    path, seen = recorded(world(), tmp_path / "demos.csv")
    how = ("--features", "pit", "--set", "l1=5.0", "--json", "--quiet", "--out", out)
    status, text, _ = run(capsys, "irl", *WORLD, path, *how)
    assert status == 0
    pit = torch.tensor([world().layout.map[i][j] == "P" for i, j in world().layout.cells])
    reward = cai.LinearReward({}, {"pit": lambda s, a, n: pit[n] & ~pit[s]})
    expected = inference.fit_reward(world(), seen, reward, l1=5.0)
    found = json.loads(text)["weights"]["pit"]["weight"]
    assert found == pytest.approx(expected.weights["pit"], abs=1e-4)


@pytest.mark.parametrize(
    ("model", "more", "fragments"),
    [
        (WORLD, ["--features", "step,lava"], ["no lava", "step, goal, pit, cells"]),
        (WORLD, ["--features", "step,step"], ["names that differ"]),
        (WORLD, ["--features", "step", "--reward", "a.py:b"], ["leave one of the two out"]),
        (WORLD, ["--reward", "nowhere.py:b"], ["no such file"]),
        (WORLD, ["--reward", "paid.py:number"], ["expected 'number' to be a cai.LinearReward"]),
        (WORLD, ["--reward", "paid.py:none"], ["no 'none' in it; it has paid"]),
        (WORLD, ["--reward", "paid"], ["--reward: expected FILE.py:NAME"]),
        (WORLD, ["--prior", "-1"], ["--prior", "above 0"]),
        (WORLD, ["--likelihood", "hopes"], ["--likelihood", "hopes"]),
        (WORLD, ["--method", "hopes"], ["--method", "max_margin"]),
        (WORLD, ["--method", "max_margin", "--optimism", "1"], ["--optimism: max_margin has no"]),
        (WORLD, ["--set", "slack=1"], ["likelihood has no slack; it has goals, l1, method"]),
        (WORLD, ["--set", "slack"], ["expected KEY=VALUE"]),
    ],
)
def test_mistakes(model, more, fragments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path, _ = recorded(world(), tmp_path / "demos.csv", n=5)
    (tmp_path / "paid.py").write_text(textwrap.dedent(REWARD), encoding="utf-8")
    status, text, notes = run(capsys, "irl", *model, path.name, *more)
    assert (status, text) == (2, "")
    for fragment in fragments:
        assert fragment in notes
    assert "out" not in listing(tmp_path)


@pytest.mark.parametrize(
    ("content", "code", "fragment"),
    [
        ("", 2, "demos.csv: expected a heading and rows"),
        ("trajectory,state,move\n0,1,2\n", 2, "demos.csv: column 'action'"),
        ("trajectory,state,action\n0,1,2\n0,99,\n", 1, "demonstration 0, states"),
    ],
)
def test_demonstrations_that_do_not_fit_are_said(content, code, fragment, tmp_path, capsys):
    path = tmp_path / "demos.csv"
    path.write_text(content, encoding="utf-8")
    status, text, notes = run(capsys, "irl", *WORLD, path, "--out", tmp_path / "out")
    assert (status, text) == (code, "")
    assert fragment in notes
    assert listing(tmp_path) == ["demos.csv"]


def test_a_model_without_map_and_names_needs_a_reward(tmp_path, capsys):
    file = tmp_path / "plain.py"
    lines = [
        "from cai import models",
        "model = models.tabular([[[0.5, 0.5]], [[0.5, 0.5]]], [[0.0], [1.0]], horizon=2)",
    ]
    file.write_text("\n".join(lines), encoding="utf-8")
    status, _, notes = run(capsys, "irl", file, tmp_path / "demos.csv", "--out", tmp_path / "out")
    assert status == 2
    assert "no map and no names of states" in notes
    assert "--reward FILE.py:NAME" in notes
