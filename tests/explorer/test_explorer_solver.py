"""The solver of the page against the library: every number, made by both in this test."""

import math
import random

import pytest
import torch

import cai
from cai import inference, models
from cai.explorer.table_as_json import table_as_json
from cai.tables.table import Table

TOLERANCE = 1e-9  # of a number, relative to its size above one
ETAS = (-2.0, -0.5, -1e-3, -1e-7, 0.0, 1e-6, 0.05, 0.37, 1.0, 2.0)
ALPHAS = (0.02, 0.1, 0.5, 1.0, 5.0)

# All that explore() finds; infinities as texts, since JSON has none.
SOLVE = """
const number = x => Number.isFinite(x) ? x : String(x);
const plain = x => typeof x === "number" ? number(x) : Array.from(x, number);
return arguments[0].map(({table, rows, options, setting}) => {
  const world = rows ? gridworld(rows, options) : fromTable(table), found = explore(world, setting);
  const {it, exact, fixed, imagined, real, gap, kl} = found;
  const numbers = {
    bound: it.bound, log_evidence: exact.bound, best: fixed.bound, values: it.v, Q: it.q,
    policy: it.pi, start: it.start, imagined: imagined.states, real: real.states,
    imagined_return: imagined.income, expected_return: real.income, elbo: real.elbo, gap,
    kl_start: kl.start, kl_actions: kl.actions, kl_dynamics: kl.dynamics,
  };
  return Object.fromEntries(Object.entries(numbers).map(([k, x]) => [k, plain(x)]));
});
"""


def expected(table, eta):
    """The same numbers by the library; None if p(O) = 0."""
    try:
        exact, it = inference.posterior(table), inference.soft_values(table, eta)
    except ValueError as error:
        if "p(O) = 0" not in str(error):
            raise
        return None
    row = cai.compare(table, {"it": it})["it"]
    return {
        "bound": it.bound,
        "log_evidence": exact.log_evidence,
        "best": inference.soft_values(table).bound,
        "values": it.log_values,
        "Q": it.Q / table.temperature,
        "policy": it.policy.log_probs.exp(),
        "start": it.initial,
        "imagined": it.states,
        "real": row.evaluation.states,
        "imagined_return": it.imagined_return,
        "expected_return": row.expected_return,
        "elbo": row.elbo,
        "kl_start": row.kl_start,
        "kl_actions": row.kl_actions,
        "kl_dynamics": row.kl_dynamics,
    }


def error(found, wanted):
    """The largest error relative to max(1, |wanted|); infinities must be the same."""
    numbers = [float(x) for x in (found if isinstance(found, list) else [found])]
    found = torch.tensor(numbers, dtype=torch.float64)
    wanted = torch.as_tensor(wanted, dtype=torch.float64).flatten()
    same = found == wanted
    off = (found - wanted).abs() / wanted.abs().clamp(min=1)
    return torch.where(same, 0.0, off).nan_to_num(nan=math.inf, posinf=math.inf).max().item()


def check(browser, problems):
    """Every number of each problem; returns in how many p(O) is positive."""
    count = 0
    asked = [{k: x for k, x in problem.items() if k != "model"} for problem in problems]
    for problem, found in zip(problems, browser.execute_script(SOLVE, asked), strict=True):
        setting = problem["setting"]
        table = cai.tabulate(problem["model"])
        wanted = expected(table, setting["eta"])
        if wanted is None:
            assert found["log_evidence"] == "-Infinity", setting
            continue
        count += 1
        for name, number in wanted.items():
            assert error(found[name], number) <= TOLERANCE, (name, setting)
        if math.isfinite(wanted["bound"]):
            assert error(found["gap"], wanted["bound"] - wanted["elbo"]) <= TOLERANCE
    return count


def setting_of(model, eta):
    return {
        "T": model.horizon,
        "alpha": model.temperature,
        "gamma": model.discount,
        "eta": eta,
    }


def random_table(draw, timed=False):
    """Sparse or dense dynamics, forbidden actions, rewards of -inf, on arrival and at the end."""
    S, A, T = draw.randint(1, 6), draw.randint(1, 4), draw.randint(1, 7)
    generator = torch.Generator().manual_seed(draw.randrange(2**31))
    steps = (T,) if timed else ()

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def dead(x, share):
        return torch.where(torch.rand(x.shape, generator=generator) < share, -torch.inf, x)

    def normalised(log_p, share):
        log_p = dead(log_p, share)
        nothing = (log_p == -torch.inf).all(-1, keepdim=True)
        return torch.where(nothing, 0.0, log_p).log_softmax(-1)

    scale, forbidden = draw.choice([0.3, 3.0, 30.0]), draw.choice([0.0, 0.0, 0.15])
    rewards = draw.choice([(), ("reward",), ("reward", "arrival")]) if timed else ()
    arrival = scale * normal(*(steps if "arrival" in rewards else ()), S, A, S)
    reward = scale * normal(*(steps if "reward" in rewards else ()), S, A)
    prior = normal(*(steps if timed and draw.random() < 0.5 else ()), S, A)
    return Table(
        log_initial=normalised(normal(S), 0.4),
        log_prior=normalised(prior, 0.25),
        log_dynamics=normalised(2 * normal(*steps, S, A, S), draw.choice([0.0, 0.5])),
        successors=None,
        reward=dead(reward, forbidden),
        arrival_reward=None if draw.random() < 0.3 else dead(arrival, forbidden),
        final_reward=draw.choice([0.0, scale]) * normal(S),
        horizon=T,
        temperature=draw.choice(ALPHAS),
        discount=draw.choice([1.0, 1.0, 0.95, 0.5]),
    )


@pytest.fixture(scope="module")
def page(browser, saved):
    browser.get(saved())
    return browser


def test_random_tables(page):
    draw = random.Random(1)
    problems = []
    for n in range(180):
        table = random_table(draw, timed=n % 3 == 0)
        setting = setting_of(table, draw.choice(ETAS))
        problems.append({"model": table, "table": table_as_json(table), "setting": setting})
    assert check(page, problems) >= 120


def random_map(draw):
    rows, columns = draw.randint(1, 4), draw.randint(2, 6)
    letters = draw.choices(".#GPS", [6, 1, 0.7, 0.7, 0.3], k=rows * columns)
    letters[draw.randrange(len(letters))] = "S"
    return ["".join(letters[i * columns : (i + 1) * columns]) for i in range(rows)]


def test_random_maps(page):
    """Made by the page itself from the letters, as models.gridworld makes them."""
    draw = random.Random(2)
    problems = []
    for _ in range(150):
        rows = random_map(draw)
        options = {
            "slip": draw.choice([0, 0.1, 0.3, 1]),
            "wind": draw.choice([0, 0.2, 1]),
            "windDirection": draw.choice(["up", "right", "down", "left"]),
            "step": draw.choice([-1, -0.1, 0, 0.5]),
            "goal": draw.choice([0, 1, 10]),
            "pit": draw.choice([-100, -5]),
        }
        model = models.gridworld(
            rows,
            horizon=draw.randint(1, 12),
            temperature=draw.choice(ALPHAS),
            discount=draw.choice([1.0, 1.0, 0.95]),
            slip=options["slip"],
            wind=options["wind"],
            wind_direction=options["windDirection"],
            step_reward=options["step"],
            goal_reward=options["goal"],
            pit_reward=options["pit"],
        )
        setting = setting_of(model, draw.choice(ETAS))
        problems.append({"model": model, "rows": rows, "options": options, "setting": setting})
    assert check(page, problems) == 150


MODELS = {
    "ledge": models.ledge,
    "lottery": models.lottery,
    "cliff": lambda: models.gridworld("cliff"),
    "bridge": lambda: models.gridworld("bridge", wind=0.2, discount=0.97, temperature=0.1),
    "rooms": lambda: models.gridworld("rooms", goal_reward=5.0),
    "tabular": lambda: models.tabular(
        [[[0.9, 0.1], [0.2, 0.8]], [[0.0, 1.0], [0.5, 0.5]]],
        [[0.0, -1.0], [1.0, -math.inf]],
        horizon=6,
        action_prior=[[0.5, 0.5], [0.9, 0.1]],
        final_reward=[0.0, 2.0],
    ),
    "linearly_solvable": lambda: models.linearly_solvable(
        [[0.5, 0.5], [0.0, 1.0]], [1.0, 0.0], horizon=3, exit_cost=2.0, final_cost=1.0
    ),
    "road_network": lambda: models.road_network([0, 0, 1], [1, 2, 2], -1.0, goals=2, horizon=3),
    **{name: lambda name=name: models.gym(name, horizon=8) for name in models.published()},
}


@pytest.mark.parametrize("name", MODELS)
def test_every_model_that_tabulates(page, name):
    table = cai.tabulate(MODELS[name]())
    text = table_as_json(table)
    etas = (-1.0, 0.0, 0.3, 1.0) if table.num_outcomes < 2000 else (0.3,)
    problems = [{"model": table, "table": text, "setting": setting_of(table, eta)} for eta in etas]
    assert check(page, problems) == len(etas)


def test_no_model_is_left_out():
    """What remains has continuous states, or is no model of a finite horizon by itself."""
    others = {"cartpole", "double_integrator", "linear_gaussian", "multigoal", "pendulum"}
    others |= {"city", "streets", "streets_from_columns", "streets_from_tntp"}  # need a goal
    others |= {"environment", "as_environment", "published", "register", "gridworld", "gym"}
    named = {name for name in models.__all__ if name == name.lower()}
    assert named - others <= set(MODELS)


def test_the_curve_is_that_of_the_library(page):
    etas = [-2.0, -0.5, 0.0, 1.0, 4.0]
    table = cai.tabulate(models.gridworld("bridge"))
    curve = inference.optimism_curve(table, etas)
    problems = [{"table": table_as_json(table), "setting": setting_of(table, x)} for x in etas]
    found = page.execute_script(SOLVE, problems)
    for name, column in (
        ("bound", curve.bound),
        ("elbo", curve.elbo),
        ("expected_return", curve.expected_return),
        ("imagined_return", curve.imagined_return),
    ):
        assert error([x[name] for x in found], column) <= TOLERANCE


def test_a_wrong_number_is_noticed():
    assert error([1.0, "-Infinity"], torch.tensor([1.0, -math.inf])) == 0
    assert error([1.0], 1 + 1e-8) > TOLERANCE
    assert error(["-Infinity"], 3.0) == math.inf
    assert error(["NaN"], 3.0) == math.inf
