"""What every public class says of itself: one line, no numbers of arrays, no addresses."""

import inspect
import re

import pyro.distributions as dist
import pytest
import test_pickling
import torch

import cai
from cai import inference, models, one_line

OTHERS = {
    "EmpiricalStates": lambda: cai.EmpiricalStates(torch.zeros(300, 2)),
    "FlatPrior": lambda: cai.FlatPrior(2),
    "CategoricalHead": cai.CategoricalHead,
    "GaussianHead": lambda: cai.GaussianHead("full"),
    "MixtureHead": lambda: cai.MixtureHead(3),
    "FlowHead": lambda: cai.FlowHead(dist.transforms.conditional_spline(2, 4), context=4),
    "NoiseHead": lambda: cai.NoiseHead(4, (8,)),
    "DynamicsGuide": lambda: cai.DynamicsGuide(models.ledge(), 0.5),
    "Environment": lambda: models.environment("Pendulum-v1"),
    "ModelEnv": lambda: models.ModelEnv(models.ledge),
    "ModelVectorEnv": lambda: models.as_environment(models.ledge(), num_envs=3),
    "Fit": lambda: inference.fit(
        models.ledge(), cai.TabularPolicy(models.ledge()), steps=300, progress=False
    ),
    "Trajectories": lambda: inference.posterior(models.ledge()).sample(500, 0),
}
MADE = {
    **{f"a model: {name}": make for name, make in test_pickling.MODELS.items()},
    **{f"a policy: {k}": lambda m=m: m()[1] for k, m in test_pickling.POLICIES.items()},
    **test_pickling.RESULTS,
    **{f"another: {name}": make for name, make in OTHERS.items()},
}


@pytest.mark.parametrize("name", MADE)
def test_one_line_says_what_it_is(name):
    made = MADE[name]()
    text = repr(made)
    assert len(text.splitlines()) == 1
    assert len(text) <= 200
    assert not re.search(r"0x[0-9a-f]|tensor\(|array\(|Parameter containing", text)
    own = not isinstance(made, models.Environment)  # which shows the call that makes it
    assert text.startswith(type(made).__name__) or not own
    assert not text.endswith("()") or not own or name == "another: CategoricalHead"  # has no fields


def test_no_public_class_is_left_out():
    pages = (cai, inference, models)
    public = {n for page in pages for n in page.__all__ if inspect.isclass(getattr(page, n))}
    shown = {name.rpartition(": ")[2] for name in MADE} | {"TrajectoryModel", "LinearGaussian"}
    assert public <= shown


def test_what_one_wants_to_know_comes_first():
    model = models.ledge()
    fitted = inference.fit(model, cai.TabularPolicy(model), steps=3, progress=False)
    start = f"Fit(elbo={fitted.elbo:.6g}, estimator='exact', converged=False, policy=TabularPolicy"
    assert repr(fitted) == f"{start}, losses=3 numbers)"
    assert repr(fitted.policy) == "TabularPolicy(40 parameters, 4×5×2 numbers)"
    assert repr(inference.posterior(model).policy) == "TabularPolicy(no parameters, 4×5×2 numbers)"
    assert "num_states=5, num_actions=2" in repr(cai.tabulate(model))
    paths = inference.posterior(model).sample(7, seed=0)
    mean = paths.returns.mean().item()
    assert repr(paths) == f"Trajectories(7 of 4 steps, mean return={mean:.6g})"
    found = cai.evaluate(model, fitted.policy)
    assert repr(found).startswith(f"Evaluation(elbo={found.elbo:.6g}, expected_return=")


def test_a_line_that_would_be_too_long_ends_in_dots():
    line = one_line.named("Thing", *(f"field{k}={k}" for k in range(50)))
    assert line.startswith("Thing(field0=0, field1=1, ")
    assert line.endswith(", …)")
    assert len(line) <= one_line.LONGEST


TABLES = ["Comparison", "PriceLadder", "RewardFit", "MaxMargin", "TrainedReward", "OptimismCurve"]


@pytest.mark.parametrize("name", TABLES)
def test_printing_a_table_shows_all_of_it_and_ipython_does_too(name):
    class Printer:
        text = None

    found, shown = test_pickling.RESULTS[name](), []
    printer = Printer()
    printer.text = shown.append
    found._repr_pretty_(printer, False)
    assert shown == [str(found)]
    assert len(str(found).splitlines()) > 1


MAZE = ("S<G", "..#")


def maze(**changes):
    layout = cai.Layout(
        map=MAZE,
        cells=((0, 0), (0, 1), (0, 2), (1, 0), (1, 1)),
        actions=("<b>", "right"),
        moves=((5, 5), (0, 1)),
    )
    to = torch.tensor([[3, 1], [4, 2], [2, 2], [3, 4], [4, 4]])
    arguments = {
        "initial": dist.Categorical(torch.tensor([1.0, 0, 0, 0, 0])),
        "dynamics": lambda s, a: dist.Delta(to[s, a]),
        "reward": lambda s, a: -(s != 2).double(),
        "action_prior": dist.Categorical(torch.ones(2)),
        "horizon": 4,
        "temperature": 0.2,
        "layout": layout,
    }
    return cai.TrajectoryModel(**arguments | changes)


def cells(html):
    """The texts of the cells of the last table, by row."""
    table = html.rpartition("<table>")[2]
    rows = re.findall(r"<tr>(.*?)</tr>", table)
    return [
        [re.sub(r"<[^>]+>", " ", x).split() for x in re.findall("<td.*?</td>", r)] for r in rows
    ]


def test_a_solution_is_shown_on_its_map():
    solution = inference.soft_values(maze())
    html = solution._repr_html_()
    assert "bound (nats)" in html
    assert f"{solution.bound:.6g}" in html
    grid = cells(html)
    values = solution.first_values
    assert grid[0][0] == ["S", "→", f"{values[0]:.3g}"]
    assert grid[0][1] == ["&lt;", "→", f"{values[1]:.3g}"]
    assert grid[1][2] == []  # a wall
    assert "&lt;b&gt;" in html  # the other action's name, where it is better or equal
    assert "<b>" not in html
    shades = [float(x) for x in re.findall(r"rgba\(47,102,144,([\d.]+)\)", html)]
    assert max(shades) == shades[2] == 0.75  # the goal, whose value is highest


def test_an_evaluation_shows_shares_of_time_on_the_map():
    model = maze()
    found = cai.evaluate(model, lambda t, s: dist.Categorical(torch.tensor([0.0, 1.0])))
    html = found._repr_html_()
    assert [row[-1:] for row in cells(html)[0]] == [["20"], ["20"], ["60"]]
    assert "ELBO (nats)" in html
    continuous = models.multigoal(horizon=2)
    html = cai.evaluate(continuous, lambda t, s: continuous.prior(s))._repr_html_()
    assert "±" in html
    assert "share of time" not in html


def test_a_fit_shows_its_losses_and_what_it_does():
    model = maze()
    fitted = inference.fit(model, cai.TabularPolicy(model), steps=300, progress=False)
    html = fitted._repr_html_()
    assert f"{fitted.elbo:.6g}" in html
    assert html.count("<svg") == 1
    evaluation = cai.evaluate(model, fitted.policy)
    torch.testing.assert_close(fitted.visits, evaluation.state_actions.sum(0))
    share = 100 * fitted.visits[0].sum() / fitted.visits.sum()
    assert cells(html)[0][0] == ["S", "→", f"{share:.3g}"]
    assert cells(html)[1][0][-1] == "0"  # where it hardly ever is
    ledge = inference.fit(
        models.ledge(), cai.TabularPolicy(models.ledge()), steps=30, progress=False
    )
    assert "most frequent" not in ledge._repr_html_()
    points = re.search(r"points='([^']*)'", ledge._repr_html_())[1].split()
    heights = [float(point.split(",")[1]) for point in points]
    assert len(points) == 30
    assert heights[0] < heights[-1]  # losses fall, and y counts downwards


def test_a_price_ladder_is_a_table():
    ladder = inference.price_ladder(models.ledge())
    html = ladder._repr_html_()
    for rung, nats in ladder.nats.items():
        assert f">{rung}<" in html
        assert f"{nats:.3f}" in html
