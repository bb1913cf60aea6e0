"""The explorer from Python and from the command line, and the Python that it gives back."""

import json
import re
import webbrowser

import oracles
import pytest
import torch

import cai
from cai import inference, models, plot
from cai.__main__ import main
from cai.explorer import table_as_json as written

OWN = """
import cai
from cai import models
mine = models.gridworld(["S.G", ".P."], horizon=6, temperature=1.5)


def make(wind=0.0, temperature=1.0):
    return models.gridworld(["S.G", ".P."], horizon=6, temperature=temperature, wind=wind)
"""


def table_of(html):
    """What the page holds of the model."""
    return json.loads(re.search(r'id="table">(.*?)</script>', html, re.DOTALL)[1])


# Python


def test_a_model_its_table_and_a_table_of_a_solution_are_one_page():
    model = models.ledge()
    solution = inference.posterior(model)
    pages = [plot.explore(x) for x in (model, cai.tabulate(model), solution, solution.table)]
    assert len({page.html for page in pages}) == 1
    found = table_of(pages[0].html)
    assert (found["S"], found["A"], found["T"]) == (5, 2, 4)
    assert found["counts"] == [2] + 9 * [1]  # only what can follow
    assert found["next"] == [3, 4, 1, 2, 2, 3, 3, 3, 3, 4, 4]
    assert found["states"] == list(model.layout.states)
    assert table_of(plot.explore().html) is None


def test_it_says_what_it_is():
    page = plot.explore(models.ledge(), name="my ledge")
    assert repr(page) == "Explorer('Turn the dial: my ledge')"
    assert page.title == "Turn the dial: my ledge"


def test_it_is_written_and_opened(tmp_path, monkeypatch):
    page, opened = plot.explore(), []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    assert page.save(tmp_path / "a.html").read_text("utf-8") == page.html
    path = page.open()
    assert opened == [path.as_uri()]
    assert path.read_text("utf-8") == page.html


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: plot.explore(models.ledge(horizon=None)), "horizon: the explorer needs a finite"),
        (lambda: plot.explore(models.pendulum()), "finitely many states"),
        (lambda: plot.explore(3), "model: expected a cai.TrajectoryModel or its table"),
        (lambda: plot.explore(models.ledge(), name=3), "name: expected a text"),
        (lambda: plot.explore(large(400)), r"at most 2 MB as JSON, got 1280000 transitions"),
        (lambda: plot.explore(tiny()), "model: log_initial: expected -inf or above -700, got -800"),
    ],
)
def test_what_cannot_be_explored_is_said(make, word):
    with pytest.raises(ValueError, match=word) as caught:
        make()
    assert len(str(caught.value)) < 1000


def large(S):
    P = torch.rand(S, 8, S, dtype=torch.float64)
    return models.tabular(P / P.sum(-1, keepdim=True), torch.zeros(S, 8), horizon=2)


def tiny():
    table = cai.tabulate(models.ledge())
    return cai.Table(
        **{k: x for k, x in table._fields().items() if k not in _DERIVED}
        | {"log_initial": torch.tensor([0.0, -800.0, *[-torch.inf] * 3]).double()}
    )


_DERIVED = {"num_states", "num_actions", "num_outcomes", "by_step"}


def test_more_than_two_megabytes_are_refused():
    with pytest.raises(ValueError, match=r"got 2\.\d MB \(120 states, 8 actions\)"):
        written.text_of(cai.tabulate(large(120)), "large", "")
    assert len(written.text_of(cai.tabulate(large(80)), "fits", "")) < written.LARGEST


def test_sizes():
    """Of the tables that are mentioned: half a kilobyte to 140."""
    for name, low, high in (("ledge", 300, 700), ("Taxi-v4", 30_000, 140_000)):
        model = models.ledge() if name == "ledge" else models.gym(name, horizon=20)
        assert low < len(written.text_of(cai.tabulate(model), name, "")) < high


# Copy as Python


def run_copied(page, **known):
    """The lines as the page has them, executed; they give the numbers of the page."""
    page.run("document.getElementById('python').open = true")
    page["copy"].click()
    page.drawn()
    code = page.run("return document.getElementById('code').value")
    exec(code, known)
    row = known["report"]["from the page"]
    found = page.numbers
    for name, number in {
        "elbo-imagined": row.imagined_bound,
        "elbo-real": row.elbo,
        "return-imagined": row.imagined_return,
        "return-real": row.expected_return,
        "dynamics": row.kl_dynamics,
    }.items():
        assert found[name] == pytest.approx(number, rel=1e-9, abs=1e-9), name
    return known


@pytest.mark.parametrize(
    "place",
    [
        "map=bridge&eta=0.37&alpha=1.3&T=8&slip=0.2&wind=0.3&windDirection=left&gamma=0.9&goal=2",
        "map=S.%23/..G/PP.&eta=-1.5&T=9&step=-0.3&pit=-7.5",
        "map=ledge&eta=2&T=3&alpha=0.4&gives=0.1&fall=-2&gamma=0.8",
    ],
)
def test_the_lines_give_the_numbers(page, place, capsys):
    page.open(place)
    made = run_copied(page)["model"]
    assert made.temperature == page.state["alpha"]
    assert "from the page" in capsys.readouterr().out


def test_the_lines_for_a_table(page):
    model = models.gridworld("rooms", horizon=12, temperature=0.7)
    page.open("eta=0.4&T=9&alpha=1.1&gamma=0.9", table=cai.tabulate(model))
    run_copied(page, model=model)
    assert "# model: the one that this page was made of" in page["code"].get_attribute("value")


def test_the_lines_for_a_table_whose_steps_differ(page):
    table = cai.tabulate(oracles.random_steps(0).model())
    page.open("eta=0.4&T=2&alpha=1.1", table=table)
    made = run_copied(page, model=table)["model"]
    assert made.horizon == 2
    assert page["T"].get_attribute("max") == str(table.horizon)


# The command line


def explored(arguments, tmp_path, capsys, status=0):
    """The page that a command has written, and what it said."""
    out = tmp_path / "new" / "page.html"
    assert main(["explore", *arguments, "--out", str(out)]) == status
    return (out.read_text("utf-8") if out.exists() else None), capsys.readouterr()


def test_without_a_model_there_are_maps(tmp_path, capsys):
    html, said = explored([], tmp_path, capsys)
    assert html == plot.explore().html
    assert said.out == ""
    assert said.err.endswith("page.html\n")


@pytest.mark.parametrize(
    ("arguments", "recipe"),
    [
        (["ledge", "-a", "0.5", "-O", "gives_way=0.25"], "models.ledge(gives_way=0.25)"),
        (
            ["frozen_lake", "-T", "20", "-a", "0.1", "-O", "is_slippery=False"],
            "models.gym('FrozenLake-v1', is_slippery=False, horizon=20)",
        ),
        (["OWN:mine", "-g", "0.9"], "runpy.run_path('OWN')['mine']"),
        (
            ["OWN:make", "-a", "2", "-O", "wind=0.1"],
            "runpy.run_path('OWN')['make'](temperature=2.0, wind=0.1)",
        ),
    ],
)
def test_a_model_by_its_name(page, tmp_path, capsys, arguments, recipe):
    """And the lines of its page make the same model again."""
    own = tmp_path / "own.py"
    own.write_text(OWN)
    arguments = [x.replace("OWN", str(own)) for x in arguments]
    html, _ = explored(arguments, tmp_path, capsys)
    assert table_of(html)["recipe"].endswith(f"model = {recipe.replace('OWN', str(own))}")
    assert table_of(html)["name"] == arguments[0]
    page.browser.get((tmp_path / "new" / "page.html").as_uri())
    page.drawn()
    made = run_copied(page)["model"]
    assert made.temperature == table_of(html)["alpha"]


def test_what_is_there_is_replaced_and_said(tmp_path, capsys):
    explored([], tmp_path, capsys)
    html, said = explored(["ledge"], tmp_path, capsys)
    assert table_of(html)["S"] == 5
    assert "replaces: page.html" in said.err
    _, said = explored(["ledge", "--quiet"], tmp_path, capsys)
    assert said.err == ""


def test_open(tmp_path, capsys, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) or True)
    explored(["--open"], tmp_path, capsys)
    assert opened == [(tmp_path / "new" / "page.html").resolve().as_uri()]
    monkeypatch.setattr(webbrowser, "open", lambda address: False)
    _, said = explored(["--open"], tmp_path, capsys)
    assert "no browser could be started; open" in said.err


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["pendulum"], "finitely many states"),
        (["ledge", "-O", "horizon=None"], "the explorer needs a finite number of steps"),
        (["-T", "3"], "--horizon: expected a model as well"),
        (["-O", "wind=1"], "--option: expected a model as well"),
        (["lege"], "did you mean ledge?"),
        (["ledge", "-T", "100000000"], "at most 20000000 steps of transitions in all"),
    ],
)
def test_mistakes_write_nothing(tmp_path, capsys, arguments, word):
    html, said = explored(arguments, tmp_path, capsys, status=2)
    assert html is None
    assert not (tmp_path / "new").exists()
    assert word in said.err
    assert len(said.err.splitlines()) == 1


def test_a_folder_is_not_a_file(tmp_path, capsys):
    assert main(["explore", "--out", str(tmp_path)]) == 2
    assert "expected a file, got the folder" in capsys.readouterr().err
