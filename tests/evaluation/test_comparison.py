"""The side by side: the identity of the three divergences, and every way to show it."""

import json
import math

import oracles
import pyro.distributions as dist
import pytest
import torch
from examples import continuous
from hypothesis import given
from hypothesis import strategies as st

import cai
from cai import inference, models

makes = st.sampled_from(oracles.KINDS)


@given(make=makes, seed=st.integers(0, 10**6), discount=st.sampled_from([1.0, 0.8]))
def test_the_identity_to_1e9(make, seed, discount):
    """log p(O) - ELBO(q) = KL start + KL actions + KL dynamics, for any policy."""
    problem = make(seed, discount=discount)
    model = problem.model()
    anyone = cai.TabularPolicy(model)
    with torch.no_grad():
        anyone.logits.copy_(torch.randn_like(anyone.logits, dtype=torch.float64) * 2)
    report = cai.compare(
        model,
        {
            "posterior": inference.posterior(model),
            "fixed": inference.soft_values(model),
            "paranoid": inference.soft_values(model, -1.0),
            "anyone": anyone,
        },
    )
    for row in report.values():
        assert min(row.kl_start, row.kl_actions, row.kl_dynamics) >= 0
        assert report.log_evidence - row.elbo == pytest.approx(row.kl, abs=1e-9)
    assert report["posterior"].kl_actions == pytest.approx(0, abs=1e-12)
    fixed = report["fixed"]
    assert fixed.imagined_bound == pytest.approx(fixed.elbo, abs=1e-11)
    assert fixed.imagined_return == pytest.approx(fixed.expected_return, abs=1e-11)
    assert all(row.elbo <= fixed.elbo + 1e-11 for row in report.values())


def test_each_divergence_by_paths():
    """The three parts from sums over paths, with nothing of the library's."""
    problem = oracles.random_problem(8, discount=0.9)
    model = problem.model()
    policy = inference.soft_values(model).policy
    q = policy.log_probs.exp().numpy()
    truth = oracles.posterior(problem)
    start = actions = dynamics = 0.0
    for s, p in enumerate(problem.initial):
        start += p * math.log(p / truth["states"][0][s]) if p > 0 else 0.0
    for path in oracles.paths(problem, policy=q):
        for t, a in enumerate(path.actions):
            s, n = path.states[t], path.states[t + 1]
            here = truth["state_actions"][t][s][a]
            actions += path.probability * math.log(q[t][s][a] / (here / truth["states"][t][s]))
            alive = path.alive_at(t + 1)
            moved = truth["transitions"][t][s][a][n]
            tilted = (moved if alive else dead(problem, truth, t, s, a, n)) / here
            p = problem.P[s][a][n] * (0.9 if alive else 1 - 0.9)
            dynamics += path.probability * math.log(p / tilted)
    row = cai.compare(model, {"fixed": policy})["fixed"]
    assert row.kl_start == pytest.approx(start, abs=1e-10)
    assert row.kl_actions == pytest.approx(actions, abs=1e-10)
    assert row.kl_dynamics == pytest.approx(dynamics, abs=1e-10)


def dead(problem, truth, t, s, a, n):
    """p(s_t, a_t, s_{t+1}, dying there | O) by paths."""
    total = 0.0
    for path in oracles.paths(problem):
        last = path.states[t : t + 2], path.actions[t:]
        if not path.survived and last == ((s, n), (a,)):
            total += path.probability * oracles.exp(path.reward / problem.temperature)
    return total / truth["evidence"]


@pytest.mark.parametrize(
    ("model", "sure"),
    [
        (models.ledge(), True),
        (models.lottery(), True),
        (models.gridworld("cliff"), True),
        (models.gym("FrozenLake-v1", horizon=60, temperature=0.01), True),
    ],
    ids=["ledge", "lottery", "cliff", "FrozenLake"],
)
def test_acting_on_the_posterior_gets_less(model, sure):
    """It imagines more than it gets, and gets less than the best with the true dynamics."""
    report = cai.compare(
        model, {"p": inference.posterior(model), "q": inference.soft_values(model)}
    )
    tilted, fixed = report["p"], report["q"]
    assert tilted.elbo < fixed.elbo - 0.01
    assert tilted.expected_return < fixed.expected_return - 0.01
    assert tilted.imagined_return > tilted.expected_return + 0.1
    assert tilted.optimism_gap == pytest.approx(tilted.imagined_bound - tilted.elbo)
    assert tilted.optimism_gap == pytest.approx(tilted.kl_start + tilted.kl_dynamics, abs=1e-9)
    assert fixed.optimism_gap is None


def test_frozen_lake_in_numbers():
    """The headline: a return of 1 imagined, 0.03 had, and 0.48 to be had."""
    model = models.gym("FrozenLake-v1", horizon=60, temperature=0.01)
    report = cai.compare(
        model, {"p": inference.posterior(model), "q": inference.soft_values(model)}
    )
    assert report["p"].imagined_return == pytest.approx(1, abs=1e-9)
    assert report["p"].expected_return == pytest.approx(0.0312, abs=1e-4)
    assert report["q"].expected_return == pytest.approx(0.4840, abs=1e-4)


@pytest.fixture
def report():
    model = models.ledge()
    return cai.compare(
        model,
        {
            "exact <posterior>": inference.posterior(model),
            "fixed dynamics": inference.soft_values(model),
            "careful": lambda t, s: dist.Categorical(torch.tensor([0.0, 1.0])),
        },
    )


def test_text_is_aligned(report):
    lines = str(report).splitlines()
    assert "imagines" in lines[0]
    assert lines[2].split() == ["(nats)", "(reward)"] * 2 + ["(nats)"] * 7
    rows = lines[4:7]
    assert [row[:15].strip() for row in rows] == ["exact <posterio", "fixed dynamics", "careful"]
    assert rows[0].split()[2:8] == ["-2.145", "-1.437", "-3.963", "-3.787", "1.818", "–"]
    assert rows[1].split()[6:8] == ["–", "0.000"]
    assert rows[2].split()[5] == "–"  # believes in the true dynamics: no gap to speak of
    width = lines[1].index("bound") + len("bound")
    assert all(row[width - 1].isdigit() and row[width] == " " for row in rows)
    assert lines[-1] == "log p(O) = -2.145 nats = ELBO + KL, in every row."


def test_exports_agree(report):
    found = report.to_dict()
    assert found["log_evidence"] == report.log_evidence
    row = found["rows"]["fixed dynamics"]
    assert row["elbo"] == report["fixed dynamics"].elbo
    assert row["optimism_gap"] is None
    assert json.loads(report.to_json()) == found
    assert set(row) >= {"imagined_bound", "imagined_return", "kl_start", "kl_actions", "entropy"}
    markdown = report.to_markdown().splitlines()
    assert len({line.replace(r"\|", "").count("|") for line in markdown}) == 1
    assert r"KL to p(τ\|O): total (nats)" in markdown[0]
    assert "gets: ELBO (nats)" in markdown[0]
    assert "| fixed dynamics | -3.380 |" in markdown[3]


def test_html_is_escaped(report):
    html = report._repr_html_()
    assert "exact &lt;posterior&gt;" in html
    assert "<posterior>" not in html
    assert html.count("<tr>") == 5
    assert "-3.380" in html


def test_infinities_are_said(report):
    """A policy that the posterior excludes has an infinite divergence, not NaN."""
    P = torch.tensor([[[0.5, 0.5]], [[0.0, 1.0]]])
    model = models.tabular(P, [[0.0], [-math.inf]], horizon=2)
    report = cai.compare(model, {"prior": lambda t, s: model.prior(s)})
    row = report["prior"]
    assert row.elbo == -math.inf
    assert row.kl == row.kl_dynamics == math.inf
    found = json.loads(report.to_json())["rows"]["prior"]
    assert (found["elbo"], found["kl"], found["kl_start"]) == ("-inf", "inf", 0.0)
    assert "inf" in str(report)


def test_a_model_that_cannot_be_enumerated_has_standard_errors():
    model = continuous(horizon=3)
    report = cai.compare(model, {"prior": lambda t, s: model.prior(s)})
    row = report["prior"]
    assert report.log_evidence is None
    assert row.kl is None
    assert row.elbo_stderr > 0
    text = str(report)
    assert "±" in text
    assert "start" not in text
    assert json.loads(report.to_json())["log_evidence"] is None


def test_bad_methods_are_refused():
    model = models.ledge()
    with pytest.raises(ValueError, match=r"methods\['x'\]: expected a solution"):
        cai.compare(model, {"x": 3})
    with pytest.raises(ValueError, match="methods: expected at least one"):
        cai.compare(model, {})
    impossible = models.tabular([[[1.0]]], [[-math.inf]], horizon=1)
    with pytest.raises(ValueError, match=r"p\(O\) = 0"):
        cai.compare(impossible, {"x": lambda t, s: impossible.prior(s)})


def test_a_table_serves_as_the_model():
    model = models.ledge()
    table = cai.tabulate(model)
    methods = {"fixed": inference.soft_values(table)}
    assert cai.compare(table, methods).to_dict() == cai.compare(model, methods).to_dict()


def test_a_solution_of_another_problem_is_refused():
    colder = inference.posterior(models.ledge(temperature=0.1))
    with pytest.raises(ValueError, match=r"methods\['cold'\]: .* one of another problem"):
        cai.compare(models.ledge(), {"cold": colder})
    assert cai.compare(models.ledge(), {"cold": colder.policy})["cold"].elbo < 0
    again = inference.posterior(models.ledge())
    assert cai.compare(models.ledge(), {"same": again})["same"].optimism_gap > 0


def test_everything_that_is_simulated_says_so():
    model = continuous(horizon=3)
    report = cai.compare(model, {"prior": lambda t, s: model.prior(s)})
    row = report["prior"]
    assert row.imagined_bound_stderr == row.elbo_stderr > 0
    assert row.imagined_return_stderr == row.expected_return_stderr > 0
    assert row.entropy_stderr > 0
    assert str(report).splitlines()[4].count("±") == 7
    assert report.to_dict()["rows"]["prior"]["entropy_stderr"] == row.entropy_stderr


def test_a_model_is_tabulated_once_and_each_memory_simulated_once():
    """In calls of the user's own dynamics: those of a table, and T for each simulation."""
    calls = []

    def dynamics(s, a):
        calls.append(s.shape)
        return dist.Categorical(logits=-(torch.arange(4) - (s + a).unsqueeze(-1)).abs())

    model = cai.TrajectoryModel(
        initial=dist.Categorical(torch.ones(4)),
        dynamics=dynamics,
        reward=lambda s, a: -0.1 * s,
        action_prior=dist.Categorical(torch.ones(2)),
        horizon=3,
    )
    methods = {name: cai.RecurrentPolicy(model, memory=4) for name in ("one", "two")}
    calls.clear()
    cai.tabulate(model)
    of_a_table, _ = len(calls), calls.clear()
    report = cai.compare(model, {"prior": lambda t, s: model.prior(s, t)} | methods)
    assert len(calls) == of_a_table + len(methods) * model.horizon
    for name in methods:
        evaluation = report[name].evaluation
        assert len(evaluation.trajectories.states) == len(evaluation.log_weights) == 10_000
    assert report["prior"].evaluation.trajectories is None


def test_a_row_keeps_what_its_method_believes():
    model = models.ledge()
    exact, guide = inference.posterior(model), cai.DynamicsGuide(model)
    fitted = inference.fit(model, guide, steps=2, progress=False)
    methods = {"posterior": exact, "guide": guide, "fit": fitted, "policy": exact.policy}
    report = cai.compare(model, methods)
    beliefs = [row.belief for row in report.rows.values()]
    assert beliefs == [exact, guide, fitted.policy, None]
    assert report.table is exact.table
