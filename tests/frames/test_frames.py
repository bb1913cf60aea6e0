"""Frames, data sets and data trees hold the numbers of results, with names and units."""

import json
import sys

import numpy as np
import pyro.distributions as dist
import pytest
import torch

import cai
from cai import inference, models

LEDGE = models.ledge()
PENDULUM = models.pendulum(horizon=2)


def exact_report():
    methods = {"posterior": inference.posterior(LEDGE), "best": inference.soft_values(LEDGE)}
    return cai.compare(LEDGE, methods)


def simulated_report():
    return cai.compare(PENDULUM, {"network": cai.NeuralPolicy(PENDULUM)})


TITLES = {
    ("imagines", "bound"): "imagined_bound",
    ("imagines", "return"): "imagined_return",
    ("gets", "ELBO"): "elbo",
    ("gets", "return"): "expected_return",
    ("gap", "optimism"): "optimism_gap",
    ("gap", "restriction"): "restriction",
    ("policy", "entropy"): "entropy",
    ("KL to p(τ|O)", "start"): "kl_start",
    ("KL to p(τ|O)", "actions"): "kl_actions",
    ("KL to p(τ|O)", "dynamics"): "kl_dynamics",
    ("KL to p(τ|O)", "total"): "kl",
    ("KL to p(τ|O)", "at least"): "kl_lower",
    ("KL to p(τ|O)", "estimate"): "kl_upper",
}


@pytest.mark.parametrize("make", [exact_report, simulated_report])
def test_a_comparison_as_a_frame_has_every_number_with_its_error_and_unit(make):
    pytest.importorskip("pandas")
    report = make()
    frame, numbers = report.to_dataframe(), report.to_dict()["rows"]
    assert list(frame.index) == list(report)
    seen = set()
    for column in frame.columns:
        group, title = column
        stderr = title.endswith(" stderr")
        field = TITLES[group, title.removesuffix(" stderr")] + ("_stderr" if stderr else "")
        seen.add(field)
        unit = frame.attrs["units"][group][title]
        assert unit == ("reward" if "return" in field else "nats")
        for name in report:
            number = numbers[name][field]
            found = frame.loc[name, column]
            assert np.isnan(found) if number is None else found == number
    known = {k for row in numbers.values() for k, x in row.items() if x is not None}
    assert seen == known
    json.dumps(frame.attrs)  # as Parquet keeps it


def test_trajectories_as_a_frame_add_up_to_their_returns():
    pytest.importorskip("pandas")
    paths = inference.posterior(LEDGE).sample(7, seed=0)
    frame = paths.to_dataframe()
    assert list(frame.columns) == ["trajectory", "step", "state", "action", "reward", "alive"]
    assert frame.attrs == {"units": {"reward": "reward"}}
    assert len(frame) == 7 * 5
    sums = frame.groupby("trajectory")["reward"].sum()
    assert np.allclose(sums, paths.returns, rtol=1e-12)
    for k in (0, 6):
        one = frame[frame.trajectory == k]
        assert one.step.tolist() == [0, 1, 2, 3, 4]
        assert one.state.tolist() == paths.states[k].tolist()
        assert one.action.iloc[:-1].tolist() == paths.actions[k].tolist()
        assert one.alive.tolist() == paths.alive[k].tolist()
        assert one.action.isna().tolist() == [False] * 4 + [True]


def test_vectors_have_a_column_for_each_number():
    pytest.importorskip("pandas")
    paths = PENDULUM.simulate(cai.NeuralPolicy(PENDULUM), 3, seed=0)
    frame = paths.to_dataframe()
    assert frame["state 1"].tolist() == paths.states[..., 1].flatten().tolist()
    actions = frame["action 0"].to_numpy().reshape(3, 3)
    assert np.array_equal(actions[:, :2], paths.actions[..., 0].numpy())
    assert np.isnan(actions[:, 2]).all()


def test_a_price_ladder_as_a_frame_adds_up():
    pytest.importorskip("pandas")
    ladder = inference.price_ladder(models.gridworld("bridge", horizon=6), lambda s: s // 2)
    frame = ladder.to_dataframe()
    assert frame["nats"].to_dict() == ladder.nats
    assert dict(zip(frame["for"][:-1], frame["price"][:-1], strict=True)) == ladder.prices
    assert np.isnan(frame["price"].iloc[-1])
    total = frame["nats"].iloc[-1] - frame["nats"].iloc[0]
    assert frame["price"].sum() == pytest.approx(total, rel=1e-12)


def test_a_curve_as_a_frame_has_the_columns_of_the_curve():
    pytest.importorskip("pandas")
    curve = inference.optimism_curve(LEDGE, [-1.0, 0.0, 1.0])
    frame = curve.to_dataframe()
    for name in frame.columns:
        assert frame[name].tolist() == getattr(curve, name).tolist()
    assert set(frame.attrs["units"]) == set(frame.columns) - {"optimism"}
    assert frame.attrs["units"]["expected_return"] == "reward"


def refuses_half(model):
    if model.temperature == 0.5:
        raise ValueError("a half")
    return inference.posterior(model)


def test_a_sweep_as_a_frame_has_a_row_for_each_cell():
    pandas = pytest.importorskip("pandas")
    grid, methods = {"temperature": [0.5, 1.0]}, {"a": refuses_half, "b": inference.soft_values}
    swept = cai.sweep(models.ledge, grid, methods, seeds=2, progress=False)
    frame = swept.to_dataframe()
    header = swept.to_csv().splitlines()[0].split(",")
    assert list(frame.columns) == header
    for (_, row), cell in zip(frame.iterrows(), swept, strict=True):
        assert (row["temperature"], row["method"]) == (cell.point["temperature"], cell.method)
        assert row["seed"] == cell.seed
        assert pandas.isna(row["error"]) if cell.error is None else row["error"] == cell.error
        for name in header[3:-1]:
            number = cell.row.get(name)
            assert np.isnan(row[name]) if number is None else row[name] == number
    units = frame.attrs["units"]
    assert list(units) == header[3:-1]
    assert all(frame[name].dtype == float for name in units)
    assert units["elbo"] == units["log_evidence"] == "nats"
    assert units["expected_return"] == units["imagined_return"] == "reward"
    json.dumps(frame.attrs)


def test_a_solution_as_a_data_set_is_found_by_names():
    pytest.importorskip("xarray")
    solution = inference.posterior(LEDGE)
    found = solution.to_xarray()
    layout = LEDGE.layout
    assert dict(found.sizes) == {"time": 5, "state": 5, "action": 2}
    for s, state in enumerate(layout.states):
        assert found.V.sel(state=state).values.tolist() == solution.V[:, s].tolist()
        for a, action in enumerate(layout.actions):
            for name, x in (
                ("Q", solution.Q),
                ("policy", solution.policy.log_probs.exp()),
                ("state_actions", solution.state_actions),
            ):
                column = found[name].sel(state=state, action=action).values
                assert column[:-1].tolist() == x[:, s, a].tolist()
                assert np.isnan(column[-1])
    assert np.array_equal(found.states.values, solution.states.numpy())
    units = {name: x.attrs["units"] for name, x in found.items()}
    assert units["V"] == units["Q"] == "reward"
    assert units["states"] == "probability"
    assert found.attrs["bound"] == solution.bound
    assert found.attrs["optimism"] == 1.0


def test_a_map_has_places_and_an_infinite_horizon_no_time():
    pytest.importorskip("xarray")
    model = models.gridworld("bridge", horizon=None, discount=0.9)
    solution = inference.soft_values(model)
    found = solution.to_xarray()
    assert "time" not in found.sizes
    assert np.array_equal(found.Q.values, solution.Q.numpy())
    places = list(zip(found.row.values.tolist(), found.column.values.tolist(), strict=True))
    assert places == [*model.layout.cells]
    assert found.states.attrs["units"] == "expected visits"


def test_states_without_names_are_numbered():
    pytest.importorskip("xarray")
    table = cai.tabulate(LEDGE)
    twice = cai.Layout(states=("a", "a", "b", "c", "d"))
    for layout in (None, twice):
        solution = inference.soft_values(table.holding(layout=layout))
        assert solution.to_xarray().state.values.tolist() == [0, 1, 2, 3, 4]


def test_what_is_done_to_a_frame_leaves_the_result_alone():
    endless = cai.tabulate(models.ledge(horizon=None, discount=0.9))
    solution = inference.soft_values(endless)
    before = solution.Q.clone()
    data = solution.to_xarray()
    data["Q"] -= 100
    assert torch.equal(solution.Q, before)
    found = inference.importance(models.ledge(), cai.TabularPolicy(models.ledge()), samples=50)
    before = found.log_weights.clone()
    found.to_arviz()["sample_stats"]["log_weights"][:] = 9
    assert torch.equal(found.log_weights, before)


def test_plans_are_by_chain_and_draw():
    pytest.importorskip("arviz_base")
    model = models.double_integrator(horizon=2, obstacles=())
    plans = inference.sample_plans(model, samples=5, warmup=4, chains=2, progress=False)
    tree = plans.to_arviz()
    actions = tree["posterior"]["actions"]
    assert actions.dims[:3] == ("chain", "draw", "step")
    assert np.array_equal(actions.values.reshape(plans.plans.shape), plans.plans.numpy())
    assert tree["posterior"]["states"].shape == (2, 5, 3, 4)
    assert np.array_equal(tree["sample_stats"]["lp"].values.ravel(), plans.log_density.numpy())
    assert np.array_equal(tree["sample_stats"]["diverging"].values.ravel(), plans.diverging.numpy())
    assert plans.diverging.sum() == plans.divergences


def test_a_step_that_diverges_is_marked():
    """An infinite wall, of which nothing but the integrator knows."""

    def steep(s, a):
        return -1e8 * (s[..., 0] - 1.0).square() - 1e-3 * a.square().sum(-1)

    model = cai.TrajectoryModel(
        initial=dist.Delta(torch.zeros(1), event_dim=1),
        dynamics=lambda s, a: dist.Delta(s + a**3, event_dim=1),
        reward=steep,
        action_prior=dist.Normal(torch.zeros(1), 1.0).to_event(1),
        horizon=2,
    )
    plans = inference.sample_plans(
        model, samples=10, warmup=2, chains=1, progress=False, step_size=10.0, adapt_step_size=False
    )
    assert plans.divergences > 0
    assert plans.diverging.sum() == plans.divergences


def test_weighted_draws_have_their_weights():
    pytest.importorskip("arviz_base")
    sample = inference.importance(LEDGE, cai.TabularPolicy(LEDGE), 20)
    tree = sample.to_arviz()
    weights = tree["sample_stats"]["weights"].values.ravel()
    returns = tree["posterior"]["returns"].values.ravel()
    assert weights @ returns == pytest.approx(sample.mean(sample.trajectories.returns).item())
    assert tree["posterior"].attrs["log_evidence"] == sample.log_evidence
    found = inference.smc(LEDGE, particles=30)
    tree = found.to_arviz()
    assert np.allclose(tree["sample_stats"]["weights"].values, 1 / 30, rtol=1e-15)
    states = tree["posterior"]["states"].values[0]
    assert np.array_equal(states, found.trajectories.states.numpy())


CALLS = {
    "pandas": lambda: exact_report().to_dataframe(),
    "xarray": lambda: inference.posterior(LEDGE).to_xarray(),
    "arviz_base": lambda: inference.smc(LEDGE, particles=5).to_arviz(),
}


@pytest.mark.parametrize("package", CALLS)
def test_without_the_package_one_line_says_what_to_install(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    extra = "arviz" if package == "arviz_base" else "frames"
    with pytest.raises(ValueError, match=rf"{package} to be installed.*\[{extra}\]") as error:
        CALLS[package]()
    assert "\n" not in str(error.value)
